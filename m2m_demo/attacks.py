"""The attacks: each tries one thing that must not work, and names the check that refuses it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from m2m_ca.directory import CaDirectory
from m2m_demo.course import start
from m2m_demo.device_attacks import DEVICE_ATTACKS
from m2m_demo.errors import DemoFailed
from m2m_demo.identity_attacks import IDENTITY_ATTACKS
from m2m_demo.play import Play, Show
from m2m_demo.stage import M2ME_ID, SECRET_FILE, Stage
from mcim.certificates import Role

REFUSED: Final = 2  # exit status of `dmclient run`


def refused(stage: Stage, show: Show, *, arrange: Callable[[], None] = lambda: None, installed: bool = False) -> str:
    """Play on to the end of the device's run, which must be a refusal with nothing provisioned.

    Args:
        arrange: called when everything runs and the device waits for its bootstrap.
        installed: the attack is on what comes after the installation.

    Raises:
        DemoFailed: the device attached, or has an MCIM.
    """
    device = start(stage, show)
    arrange()
    with show.part("attack", "The attack"):
        stage.bootstrap()
        code, reason = show.until_ended(stage, device)
    if code == 0 or show.report.attached:
        raise DemoFailed("the device attached all the same")
    if stage.device_info()["mcims"] and not installed:
        raise DemoFailed("an MCIM was installed all the same")
    return reason


def _untrusted_platform(stage: Stage, show: Show) -> str:
    stage.set_up(trusted_version="0.9")
    return refused(stage, show)


def _forged_bootstrap(stage: Stage, show: Show) -> str:
    stage.set_up()
    (stage.world.home("m2me") / SECRET_FILE).write_text("0" * 32 + "\n")
    with show.part("start", "Starting PVA, SHO, DPF and M2ME"):
        stage.start_servers()
        stage.open_order()
        stage.bootstrap(file=stage.world.root / "bootstrap.bin")
        device = stage.start_device("--bootstrap-file", str(stage.world.root / "bootstrap.bin"))
    code, reason = show.until_ended(stage, device)
    if code != REFUSED:
        raise DemoFailed(f"the device ended with status {code}: {reason}")
    return reason


def _another_operator(stage: Stage, show: Show) -> str:
    stage.chosen_sho = "other.m2m.example"
    stage.set_up()
    return refused(stage, show)


def _lying_dpf(partner: str, rule: str, *, installed: bool = False) -> Callable[[Stage, Show], str]:
    """An insider at the DPF alters what goes between it and a partner (see `m2m_demo.meddler`)."""

    def perform(stage: Stage, show: Show) -> str:
        stage.set_up()
        return refused(stage, show, arrange=lambda: stage.meddle(partner, rule), installed=installed)

    return perform


def _swapped_platform_key(stage: Stage, show: Show) -> str:
    """The insider has a genuine TRE of his own and wants the MCIM for it."""
    stage.set_up()
    now = datetime.now(UTC).replace(microsecond=0)
    authority = CaDirectory(stage.world.pki).authority("manufacturer")
    key = ec.generate_private_key(ec.SECP256R1())
    own = authority.issue_platform(
        Role.PLATFORM, key.public_key(), tre_id="urn:m2m:tre:insider", m2me_id=M2ME_ID, now=now
    )
    loot = stage.world.root / "loot.json"
    loot.write_text(
        json.dumps(
            {
                "treId": "urn:m2m:tre:insider",
                "platformCert": base64.b64encode(own.public_bytes(Encoding.DER)).decode(),
                "suites": ["MCIM-EC-GCM-256"],
            }
        )
    )
    return refused(stage, show, arrange=lambda: stage.meddle("sho", "swap-platform-key", loot=loot))


ATTACKS: Final[tuple[Play, ...]] = (
    Play(
        name="forged-bootstrap",
        title="Somebody who does not know the supplier's secret bootstraps the device.",
        perform=_forged_bootstrap,
        threat="T5",
        refused_by="M2ME bootstrap-mac",
    ),
    Play(
        name="untrusted-platform",
        title="A TRE whose version is not among the reference values asks for a subscription.",
        perform=_untrusted_platform,
        threat="T6",
        refused_by="PVA reference-value",
    ),
    Play(
        name="another-operator",
        title="A home operator that the subscriber did not choose has an order for the device.",
        perform=_another_operator,
        threat="T14",
        refused_by="DPF selected-sho-is-that-of-the-order",
    ),
    Play(
        name="swapped-platform-key",
        title="An insider at the DPF has the MCIM made for a TRE of his own.",
        perform=_swapped_platform_key,
        threat="T4",
        refused_by="SHO pva-ticket-binding",
    ),
    Play(
        name="altered-package",
        title="An insider at the DPF alters the package on its way.",
        perform=_lying_dpf("sho", "alter-package"),
        threat="T2",
        refused_by="M2ME package-signature",
    ),
    Play(
        name="altered-evidence",
        title="An insider at the DPF alters the evidence on its way to the PVA.",
        perform=_lying_dpf("pva", "flip-evidence"),
        threat="T6",
        refused_by="PVA evidence-signature",
    ),
    Play(
        name="forged-receipt",
        title="An insider at the DPF reports a success with a receipt that no TRE has signed.",
        perform=_lying_dpf("sho", "forge-receipt", installed=True),
        threat="T10",
        refused_by="SHO receipt-signature",
    ),
    Play(
        name="success-without-receipt",
        title="An insider at the DPF reports a success without any receipt.",
        perform=_lying_dpf("sho", "claim-success", installed=True),
        threat="T10",
        refused_by="SHO success-has-a-receipt",
    ),
    Play(
        name="weakened-offer",
        title="An insider at the DPF puts the weakest suite of the device first.",
        perform=_lying_dpf("sho", "offer-the-weakest-first"),
        threat="T16",
        refused_by="SHO offer-attested",
    ),
    *DEVICE_ATTACKS,
    *IDENTITY_ATTACKS,
)
