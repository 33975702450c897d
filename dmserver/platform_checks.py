"""What the DPF checks in a device's M2MMobj before anybody else is asked (REQ-12 to REQ-15, REQ-20, REQ-43, REQ-45).

Every check is recorded with its outcome, the failed ones with the reason; the first failure decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from dmserver.audit import Entry, check
from dmserver.snapshot import Snapshot
from mcim.certificates import Role, TrustAnchors, ValidatedCertificate, load_der, validate
from mcim.errors import CertificateRefused
from mcim.vocabulary import RegistrationState
from mo_definitions import Ddf, NodeFacts, check_tree

STEP = "9"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What the device must agree with."""

    device_id: str  # as authenticated in this session
    sho_id: str  # of the order
    former_requests: frozenset[str]  # request ids of this order that are closed
    manufacturers: TrustAnchors
    crls: tuple[x509.CertificateRevocationList, ...]
    ddf: Ddf  # of M2MMobj
    crl_required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Outcome of all checks; `refusal` is empty when the platform is acceptable so far."""

    entries: tuple[Entry, ...]
    refusal: str = ""
    platform: ValidatedCertificate | None = None
    attest: ValidatedCertificate | None = None


def check_platform(snapshot: Snapshot, expected: Expectation, now: datetime) -> Verdict:
    """Hold a snapshot against what is expected of it."""
    entries = [*_object_checks(snapshot, expected), *_registration_checks(snapshot, expected, now)]
    platform_entry, platform = _certificate(snapshot, snapshot.platform_cert, Role.PLATFORM, expected, now)
    attest_entry, attest = _certificate(snapshot, snapshot.attest_cert, Role.ATTEST, expected, now)
    entries += [platform_entry, attest_entry]
    if platform is not None and attest is not None:
        entries += _certificates_together(snapshot, platform, attest)
    refusal = next((entry for entry in entries if not entry.passed), None)
    if refusal is None:
        return Verdict(entries=tuple(entries), platform=platform, attest=attest)
    reason = refusal.text + (f" ({refusal.detail})" if refusal.detail else "")
    return Verdict(entries=tuple(entries), refusal=reason)


def _object_checks(snapshot: Snapshot, expected: Expectation) -> Iterator[Entry]:
    deviations = check_tree(
        expected.ddf,
        {path: facts or _described(expected.ddf, path) for path, facts in snapshot.nodes.items()},
    )
    yield check(
        "m2mmobj-conforms-to-ddf",
        not deviations,
        req=("REQ-06", "REQ-12"),
        step=STEP,
        detail="; ".join(str(deviation) for deviation in deviations[:5]),
    )
    yield check(
        "m2me-id-is-authenticated-identity",
        snapshot.m2me_id == expected.device_id,
        req=("REQ-13", "REQ-14"),
        step=STEP,
    )
    yield check(
        "tre-state-ok",
        snapshot.tre_state == "ok",
        req=("REQ-12",),
        step=STEP,
        detail="" if snapshot.tre_state == "ok" else snapshot.tre_state[:32],
    )


def _described(ddf: Ddf, path: tuple[str, ...]) -> NodeFacts:
    """A node that was listed and not read counts as what it is described as."""
    node = ddf.node_for(path)
    if node is None:
        return NodeFacts(format="")
    return NodeFacts(format=node.format, type=node.object_type, is_interior=node.is_interior)


def _registration_checks(snapshot: Snapshot, expected: Expectation, now: datetime) -> Iterator[Entry]:
    state = snapshot.registration_state
    yield check(
        "registration-open",
        state == RegistrationState.REQUESTED,
        req=("REQ-13",),
        step=STEP,
        detail="" if state == RegistrationState.REQUESTED else f"state {state}",
    )
    yield check(
        "request-not-closed-earlier",
        snapshot.req_id not in expected.former_requests,
        req=("REQ-15",),
        step=STEP,
    )
    yield check(
        "registration-nonce-in-time",
        snapshot.nonce_expiry is None or now < snapshot.nonce_expiry,
        req=("REQ-13", "REQ-25"),
        step=STEP,
    )
    yield check(
        "selected-sho-is-that-of-the-order",
        snapshot.sho_id in (None, expected.sho_id),
        req=("REQ-13", "REQ-50"),
        step=STEP,
    )


def _certificate(
    snapshot: Snapshot, der: bytes, role: Role, expected: Expectation, now: datetime
) -> tuple[Entry, ValidatedCertificate | None]:
    name = f"{role.name.lower()}-certificate"
    req = ("REQ-20", "REQ-43", "REQ-46")
    try:
        validated = validate(
            load_der(der),
            tuple(load_der(certificate) for certificate in snapshot.cert_chain),
            expected.manufacturers,
            role,
            now,
            identity=snapshot.tre_id,
            crls=expected.crls,
            require_crl=expected.crl_required,
        )
    except CertificateRefused as exc:
        return check(name, False, req=req, step=STEP, detail=exc.reason), None
    return check(name, True, req=req, step=STEP, detail=f"key {validated.key_id.hex()}"), validated


def _certificates_together(
    snapshot: Snapshot, platform: ValidatedCertificate, attest: ValidatedCertificate
) -> Iterator[Entry]:
    yield check(
        "certificates-name-this-m2me",
        platform.m2me_id == attest.m2me_id == snapshot.m2me_id,
        req=("REQ-14",),
        step=STEP,
    )
    yield check("keys-differ", platform.key_id != attest.key_id, req=("REQ-45",), step=STEP)
