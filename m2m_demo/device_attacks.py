"""Attacks on a device that somebody holds in his hands, and on what others write down about it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Final

from m2m_demo.course import attached, start
from m2m_demo.errors import DemoFailed
from m2m_demo.known_subscription import KnownSubscription
from m2m_demo.life import Life
from m2m_demo.play import Play, Show
from m2m_demo.secret_search import search, search_files
from m2m_demo.stage import M2ME_ID, Stage
from m2m_demo.world import DPF_ID

REFUSED: Final = 2  # exit status of a `dmclient` command


def provisioned(stage: Stage, show: Show, *, arrange: Callable[[], None] = lambda: None) -> None:
    """A device with its MCIM, attached."""
    device = start(stage, show)
    arrange()
    with show.part("provisioning", "Provisioning"):
        stage.bootstrap()
        attached(stage, show, device)


def _device_command(stage: Stage, show: Show, *arguments: str) -> None:
    """A command of `dmclient` that must be refused; its output says by which check."""
    name = "-".join(arguments[:2])
    output = stage.supervisor.command(name, stage.world.command("m2me", *arguments, "--json"), expect=REFUSED)
    told = json.loads(output)
    if not told["check"]:
        raise DemoFailed(f"dmclient {' '.join(arguments)} names no check: {output}")
    show.rest(stage)
    if not any(each.name == told["check"] for each in show.report.refusals()):  # `replay` writes no trail
        show.saw("M2ME", told["check"], passed=False, req=told["requirements"], detail=told["detail"])


def _tamper(stage: Stage, kind: str) -> None:
    stage.supervisor.command(f"tamper-{kind}", stage.world.command("m2me", "tamper", kind, "--json"))


def _replayed_package(stage: Stage, show: Show) -> str:
    stage.extra["m2me"] = {"keep_packages": True}
    stage.set_up()
    provisioned(stage, show)
    with show.part("attack", "The package is given to the TRE once more"):
        _device_command(stage, show, "replay")
    return ""


def _old_store(stage: Stage, show: Show) -> str:
    stage.extra["m2me"] = {"keep_packages": True}
    stage.set_up()
    _tamper(stage, "save-store")
    provisioned(stage, show)
    with show.part("attack", "The TRE's store of before is put back, and the package given again"):
        _tamper(stage, "old-store")
        _device_command(stage, show, "replay")
    return ""


def _unsigned_command(stage: Stage, show: Show) -> str:
    stage.set_up()
    provisioned(stage, show)
    with show.part("attack", "Software of the device has the MCIM deleted"):
        _device_command(stage, show, "mcim", "delete", str(show.report.mcim_id))
    if not stage.device_info()["mcims"]:
        raise DemoFailed("the MCIM is gone")
    return ""


def _device_token(*, kept: bytes | None) -> Callable[[Stage, Show], str]:
    """The TRE demands a token that its owner gave the home operator, who has another one, or none."""

    def perform(stage: Stage, show: Show) -> str:
        own = stage.world.root / "device.token"
        stage.world.root.mkdir(parents=True, exist_ok=True)
        own.write_bytes(secrets.token_hex(8).encode())
        stage.extra["m2me"] = {"tre": {"device_token_file": own}}
        stage.set_up()
        if kept is not None:
            other = stage.world.root / "other.token"
            other.write_bytes(kept)
            command = stage.world.command("sho", "token", "set", "--m2me-id", M2ME_ID, "--file", str(other))
            stage.supervisor.command("token-set", command)
        return _without_mcim(stage, show)

    return perform


def _without_mcim(stage: Stage, show: Show) -> str:
    """Play on to a refusal."""
    device = start(stage, show)
    with show.part("attack", "The attack"):
        stage.bootstrap()
        code, reason = show.until_ended(stage, device)
    if code == 0 or show.report.attached:
        raise DemoFailed("the device attached all the same")
    if stage.device_info()["mcims"]:
        raise DemoFailed("an MCIM was installed all the same")
    return reason


def _revoked(*actors: str) -> Callable[[Stage, Show], str]:
    """The manufacturer revokes the platform certificate; those actors have its list."""

    def perform(stage: Stage, show: Show) -> str:
        stage.set_up()
        world = stage.world
        platform = world.home("m2me") / "certificates" / "platform.crt"
        stage.authority("revoke", str(world.pki), "--certificate", str(platform), "--reason", "keyCompromise")
        stage.authority("crl", str(world.pki))
        lists = [str(path) for path in sorted((world.pki / "crl").glob("*.crl"))]
        for actor in actors:
            stage.extra[actor] = {"crl_files": lists, "crl_required": True}
        stage.write_server_settings()
        return _without_mcim(stage, show)

    return perform


def _eavesdropper(stage: Stage, show: Show) -> str:
    known, capture = KnownSubscription(), stage.world.root / "capture.bin"
    stage.set_up(subscriptions=known.write(stage.world.root / "stock.csv"))
    provisioned(stage, show, arrange=lambda: stage.meddle("sho", "listen", capture=capture))
    with show.part("attack", "Looking for K, OPc and IMSI in what was overheard, in every form"):
        overheard = capture.read_bytes()
        # What is certainly in there is found, so that finding nothing says something.
        if b'"package"' not in overheard or not search(overheard, {"device": M2ME_ID.encode()}):
            raise DemoFailed("nothing was overheard")
        found = search(overheard, known.forms)
    detail = ", ".join(sorted(found)) or f"{len(overheard)} octets, {len(known.forms)} forms"
    show.saw("EAVESDROPPER", "nothing-found", passed=not found, req=("REQ-28", "REQ-30"), detail=detail)
    return ""


def _insider(stage: Stage, show: Show) -> str:
    known = KnownSubscription()
    stage.set_up(subscriptions=known.write(stage.world.root / "stock.csv"))
    provisioned(stage, show)
    with show.part("attack", "Looking for K, OPc and IMSI in all that the DPF wrote, in every form"):
        home, log = stage.world.home("dpf"), stage.world.logs / "dpf.log"
        if not search_files(home, {"server": DPF_ID.encode()}) or not search_files(home, {"device": M2ME_ID.encode()}):
            raise DemoFailed("nothing was looked at")
        found = search_files(home, known.forms) | search(log.read_bytes(), known.forms)
    files = sum(path.is_file() for path in home.rglob("*"))
    detail = ", ".join(sorted(found)) or f"{files} files and a log, {len(known.forms)} forms"
    show.saw("INSIDER", "nothing-found", passed=not found, req=("REQ-28",), detail=detail)
    return ""


def _flooded_bootstraps(stage: Stage, show: Show) -> str:
    allowed = 2
    stage.extra["dpf"] = {"limits": {"bootstraps_per_hour": allowed}}
    stage.set_up()
    with show.part("start", "Starting PVA, SHO, DPF and M2ME"):
        stage.start_servers()
        stage.open_order()
    target = stage.world.root / "bootstrap.bin"
    with show.part("attack", "Somebody has the device bootstrapped again and again"):
        for _ in range(allowed):
            stage.bootstrap(file=target)
        target.unlink()
        one_more = stage.supervisor.begin(
            "bootstrap-flood", stage.world.command("dpf", "bootstrap", M2ME_ID, "--file", str(target))
        )
        stage.supervisor.finish(one_more, expect=1)
    if target.exists():
        raise DemoFailed("another bootstrap was made all the same")
    said = one_more.log.read_text(encoding="utf-8", errors="replace")
    if f"{allowed} times within the last hour" not in said:
        raise DemoFailed(f"it was refused for another reason: {said}")
    detail = f"not more than {allowed} an hour"
    show.saw("DPF", "bootstraps-per-hour", passed=False, req=("REQ-08",), detail=detail)
    return ""


def _code_in_a_package(stage: Stage, show: Show) -> str:
    """Somebody has the signing key of the home operator: his package is right in everything but what it brings."""
    life = Life(stage, show)
    life.begin(arrange=lambda: stage.meddle("sho", "bring-code", signer=stage.world.pki / "sho"))
    stock = life.write_keys("second.csv")
    stage.supervisor.command(
        "update", stage.world.command("sho", "subscription", "update", life.mcim, "--file", str(stock))
    )
    with show.part("attack", "An update brings code of an algorithm for the MCIM"):
        life.command("update", until="REFUSED")
    life.rest()
    show.say("The MCIM is as it was:")
    if life.mcims() != {life.mcim: "activated"}:
        raise DemoFailed("the MCIM is not as it was")
    life.attach()
    return ""


DEVICE_ATTACKS: Final[tuple[Play, ...]] = (
    Play(
        name="replayed-package",
        title="The package of a device that has its MCIM is given to the TRE once more.",
        perform=_replayed_package,
        threat="T3",
        refused_by="M2ME registration-nonce",
    ),
    Play(
        name="old-store",
        title="The TRE's sealed store of before is put back, to install the package a second time.",
        perform=_old_store,
        threat="T3",
        refused_by="M2ME tre-state",
    ),
    Play(
        name="unsigned-delete",
        title="A device taken over by somebody has the TRE delete the MCIM, without its home operator.",
        perform=_unsigned_command,
        threat="T9",
        refused_by="M2ME signed-command",
    ),
    Play(
        name="wrong-token",
        title="The package brings another token than that of the device's owner.",
        perform=_device_token(kept=b"of another device"),
        threat="T11",
        refused_by="M2ME device-token",
    ),
    Play(
        name="no-token",
        title="The device demands a token, and the package has none.",
        perform=_device_token(kept=None),
        threat="T11",
        refused_by="M2ME device-token",
    ),
    Play(
        name="code-in-a-package",
        title="A package signed with the home operator's key brings code of an algorithm to run in the TRE.",
        perform=_code_in_a_package,
        threat="T15",
        refused_by="M2ME algorithm",
    ),
    Play(
        name="revoked-platform",
        title="The manufacturer has revoked the certificate of the platform.",
        perform=_revoked("dpf", "sho", "pva"),
        threat="T17",
        refused_by="DPF platform-certificate",
    ),
    Play(
        name="revoked-meanwhile",
        title="DPF and PVA do not know that the platform is revoked; the home operator does when it hands over.",
        perform=_revoked("sho"),
        threat="T17",
        refused_by="SHO platform-certificate",
    ),
    Play(
        name="eavesdropper",
        title="Somebody hears, inside TLS, what the home operator sends to the DPF.",
        perform=_eavesdropper,
        threat="T1",
        proved_by="EAVESDROPPER nothing-found",
    ),
    Play(
        name="insider-reads-database",
        title="An insider at the DPF reads everything that it wrote.",
        perform=_insider,
        threat="T8",
        proved_by="INSIDER nothing-found",
    ),
    Play(
        name="flooded-bootstraps",
        title="Somebody has a device bootstrapped again and again.",
        perform=_flooded_bootstraps,
        threat="T12",
        refused_by="DPF bootstraps-per-hour",
    ),
)
