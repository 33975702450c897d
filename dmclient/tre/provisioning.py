"""Judging a received package or command, steps 1 to 14 of the order of checks (docs/scheme.md, "The package").

Pure on the TRE's state: nothing is stored here, so a refusal cannot leave a half state behind (REQ-56). What a good
one does to the state is in `installation` and `life_cycle`.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from dmclient.tre.action import CheckList
from dmclient.tre.algorithms import require_algorithm
from dmclient.tre.base import Hints
from dmclient.tre.keys import KeyStoreGone
from dmclient.tre.state import TreState
from mcim.certificates import TrustAnchors
from mcim.content import BoundContent, Content, parse_content
from mcim.data import decode_data
from mcim.errors import PackageRefused
from mcim.mcim_object import open_mcim
from mcim.package import VerifiedPackage, open_package, verify_package
from mcim.package_header import PackageHeader, peek_header
from mcim.platform_key import PlatformKey
from mcim.vocabulary import Container, Operation, RegistrationState, ResultCode

MCIM_SPACE: Final = 1024  # octets of the store that one MCIM takes, certificates and all counted apart
MAX_CRYPTO_FAILURES: Final = 10  # per nonce; whoever guesses at ciphertexts needs a new registration then

CONSUMING: Final = frozenset(
    {
        ResultCode.CONTENT_INVALID,
        ResultCode.SIGNER_NOT_ACCEPTABLE,
        ResultCode.WRONG_RECIPIENT,
        ResultCode.OUTSIDE_VALIDITY,
        ResultCode.ALGORITHM_UNSUPPORTED,
        ResultCode.TOKEN_WRONG,
        ResultCode.TOKEN_LOCKED,
        ResultCode.REVISION_TOO_LOW,
        ResultCode.WRONG_STATE,
    }
)
"""Codes that end the registration when they come from step 14 or later, where only the SHO itself can have failed."""

PACKAGES: Final = frozenset(each for each in Operation if each.carries_object)


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What steps 1 to 14 found good."""

    header: PackageHeader
    content: Content
    revision: int


def examine(
    package: bytes,
    hints: Hints,
    *,
    state: TreState,
    key: PlatformKey,
    now: datetime,
    random: Callable[[int], bytes],
    checks: CheckList,
    on_header: Callable[[PackageHeader], None],
) -> Examined:
    """Judge a package that brings or changes an MCIM.

    1 size; 2 parsing and structure; 3 suite; 4 signer's certificate; 5 signature; 6 recipient; 7 nonce, sequence,
    validity, hints of the container; 8 state of the TRE and space; 9 to 13 opening; 14 content and identities.
    Whatever fails before step 6 could come from any stranger, so nothing of it may cost the device its nonce.

    Args:
        hints: clear leaves of the container.
        state: of the TRE, as it is now.
        key: the private half of PK_D.
        random: octets of the OS generator.
        checks: gets a record of every check made.
        on_header: gets the header once its signature is verified, for the receipt of whatever comes of it.

    Raises:
        PackageRefused: with the code of the first check that failed.
    """
    # 1 to 7
    verified = _admit(package, hints, PACKAGES, state=state, key=key, now=now, checks=checks, on_header=on_header)
    header = verified.header
    # 8
    with checks.check("tre-space", "REQ-56"):
        room = len(state.mcims) < state.max_mcim or state.mcim(header.mcim_id) is not None
        _require(room, ResultCode.TRE_FULL, "no room for another MCIM")
    # 9 to 13
    with checks.check("decryption-and-integrity", "REQ-29", "REQ-40", "REQ-41", "REQ-60"):
        octets = _open(verified, key, random)
    checks.sender_at_fault = True
    # 13: the sender's own frame behind a right MAC, so it may be named
    with checks.check("data-frame", "REQ-33", "REQ-34", "REQ-35"):
        data = decode_data(octets)
    # 14
    with checks.check("content-rules", "REQ-30", "REQ-34"):
        content = parse_content(data.tag, data.payload)
    with checks.check("algorithm", "REQ-30", "REQ-47"):
        require_algorithm(content, state)
    with checks.check("inner-identities", "REQ-57"):
        _check_identities(header, content)
    with checks.check("mcim-validity", "REQ-54"):
        in_force = content.not_before <= now < content.not_after
        _require(in_force, ResultCode.OUTSIDE_VALIDITY, "the MCIM is not valid now")
    return Examined(header=header, content=content, revision=data.revision)


def examine_command(
    command: bytes,
    hints: Hints,
    operation: Operation,
    *,
    state: TreState,
    key: PlatformKey,
    now: datetime,
    checks: CheckList,
    on_header: Callable[[PackageHeader], None],
) -> PackageHeader:
    """Judge a signed command: steps 1 to 7, as for a package; there is nothing to open (REQ-70).

    Args:
        operation: what the Exec asked for; a command for something else is not for this moment.

    Raises:
        PackageRefused: with the code of the first check that failed.
    """
    wanted = frozenset({operation})
    verified = _admit(command, hints, wanted, state=state, key=key, now=now, checks=checks, on_header=on_header)
    checks.sender_at_fault = True
    return verified.header


def _admit(
    package: bytes,
    hints: Hints,
    operations: frozenset[Operation],
    *,
    state: TreState,
    key: PlatformKey,
    now: datetime,
    checks: CheckList,
    on_header: Callable[[PackageHeader], None],
) -> VerifiedPackage:
    # 0
    with checks.check("tre-state", "REQ-53"):
        _require(state.condition == "ok", ResultCode.TRE_STATE_NOT_OK, f"TRE is {state.condition}")
    # 1
    with checks.check("package-size", "REQ-31"):
        _require(len(package) <= state.max_package, ResultCode.MALFORMED, f"more than {state.max_package} octets")
    # 2
    with checks.check("package-structure", "REQ-59"):
        header = peek_header(package)
    # 3
    with checks.check("suite-minimum", "REQ-39"):
        _require(header.suite in state.suites, ResultCode.UNSUPPORTED_SUITE, f"suite {header.suite} is not accepted")
    # 4, 5
    verified = _verify(package, header, state, now, checks)
    header = verified.header  # from here on only what was signed counts
    on_header(header)
    # 6
    with checks.check("recipient", "REQ-58", "REQ-64"):
        mine = (header.tre_id, header.m2me_id) == (state.tre_id, state.m2me_id)
        mine = mine and header.platform_key_id == key.key_id
        _require(mine, ResultCode.WRONG_RECIPIENT, "addressed to another TRE, M2ME or platform key")
    with checks.check("operation", "REQ-34", "REQ-70"):
        fits = header.operation in operations
        _require(fits, ResultCode.CONTENT_INVALID, f"{header.operation.label} is not what is asked for here")
    # 7
    _check_freshness(header, state, now, checks)
    with checks.check("container-hints", "REQ-57"):
        _check_hints(header, hints, verified.container, state.registration.req_id)
    return verified


def expected_sho(header: PackageHeader, state: TreState) -> str | None:
    """Who has to have signed a package or command with this header, by what this TRE knows (REQ-50, REQ-70).

    A new MCIM comes from the home operator selected in this registration. What changes an MCIM comes from its own
    home operator, whoever is selected; it may also be deleted by the one it was released to.
    """
    if header.operation in (Operation.INSTALL, Operation.REPLACE):
        return state.registration.sho_id
    known = state.mcim(header.mcim_id) or state.tombstone(header.mcim_id)
    if known is None:
        return state.registration.sho_id
    released = header.operation is Operation.DELETE and header.sho_id == known.released_to
    return header.sho_id if released else known.sho_id


_VERIFICATION: Final[dict[ResultCode, tuple[str, tuple[str, ...]]]] = {
    ResultCode.SIGNER_NOT_ACCEPTABLE: ("signer-certificate", ("REQ-44", "REQ-46", "REQ-50")),
    ResultCode.CERTIFICATE_REVOKED: ("signer-certificate", ("REQ-44", "REQ-46", "REQ-50")),
    ResultCode.SIGNATURE_INVALID: ("package-signature", ("REQ-50", "REQ-51", "REQ-59")),
    ResultCode.UNSUPPORTED_SUITE: ("package-algorithms", ("REQ-39",)),
}


def _verify(
    package: bytes, peeked: PackageHeader, state: TreState, now: datetime, checks: CheckList
) -> VerifiedPackage:
    selected = expected_sho(peeked, state)
    with checks.check("selected-sho", "REQ-50"):
        _require(state.registration.state is not RegistrationState.IDLE, ResultCode.NO_REGISTRATION, "none was opened")
    try:
        if selected is None:
            raise PackageRefused(ResultCode.SIGNER_NOT_ACCEPTABLE, "no home operator is selected")
        anchors = TrustAnchors(tuple(x509.load_der_x509_certificate(each) for each in state.sho_anchors), "sho")
        try:
            accepted = frozenset(state.containers)
            verified = verify_package(package, anchors=anchors, now=now, expected_sho_id=selected, containers=accepted)
            # Whose signature it had to be was decided by the header that was peeked at.
            _require(verified.header == peeked, ResultCode.SIGNATURE_INVALID, "another header was signed")
        except UnsupportedAlgorithm as exc:  # a chain with a key of a type or curve the library does not know
            raise PackageRefused(ResultCode.SIGNER_NOT_ACCEPTABLE, "a key of an unknown type") from exc
    except PackageRefused as refusal:
        name, req = _VERIFICATION.get(refusal.code, ("package-structure", ("REQ-59",)))
        checks.failed(name, *req, refusal=refusal)
        raise
    checks.passed(*_flat(ResultCode.SIGNER_NOT_ACCEPTABLE))
    checks.passed(*_flat(ResultCode.SIGNATURE_INVALID))
    return verified


def _flat(code: ResultCode) -> tuple[str, ...]:
    name, req = _VERIFICATION[code]
    return (name, *req)


def _check_freshness(header: PackageHeader, state: TreState, now: datetime, checks: CheckList) -> None:
    record = state.registration
    with checks.check("registration-nonce", "REQ-52"):
        fresh = hmac.compare_digest(header.registration_nonce, record.nonce)
        _require(fresh and record.is_open, ResultCode.REPLAY, "not the open nonce")
    with checks.check("sequence-number", "REQ-53"):
        lowest = state.next_sequence(header.sho_id)
        _require(header.sequence >= lowest, ResultCode.REPLAY, f"sequence {header.sequence} is below {lowest}")
    with checks.check("package-validity", "REQ-54"):
        in_force = header.not_before <= now < header.not_after
        _require(in_force, ResultCode.OUTSIDE_VALIDITY, "outside the validity window of the package")


def _check_hints(header: PackageHeader, hints: Hints, container: Container, req_id: str) -> None:
    _require(hints.req_id in (None, req_id), ResultCode.NO_REGISTRATION, "the container names another request")
    agree = (
        (hints.mcim_id is None or hints.mcim_id.lower() == str(header.mcim_id))
        and hints.sho_id in (None, header.sho_id)
        and hints.nonce in (None, header.registration_nonce)
        and hints.content_type in (None, container.media_type)
    )
    _require(agree, ResultCode.MALFORMED, "clear leaves, signed header and form disagree")


def _open(verified: VerifiedPackage, key: PlatformKey, random: Callable[[int], bytes]) -> bytes:
    """9 outer decryption, 10 inner header and key unwrap, 11 MAC, 12 decryption: one code for every cause.

    A key store that is gone says nothing of the package, which may come again.
    """
    try:
        octets = open_package(verified, key)
        return open_mcim(octets, key, accepted=frozenset({verified.header.suite}), random=random)
    except KeyStoreGone:
        raise
    except Exception:  # whatever a library says here would be an oracle, were it to leave the TRE
        raise PackageRefused(ResultCode.CRYPTO_FAILURE, "the package does not open") from None


def _check_identities(header: PackageHeader, content: BoundContent) -> None:
    """A SHO that signs a captured object of another one again is caught here (REQ-57)."""
    _require(content.sho_id == header.sho_id, ResultCode.SIGNER_NOT_ACCEPTABLE, "made by another SHO")
    _require(content.tre_id == header.tre_id, ResultCode.WRONG_RECIPIENT, "made for another TRE")
    same = (
        content.mcim_id == header.mcim_id
        and content.sequence == header.sequence
        and content.operation is header.operation
        and content.transaction_id in (None, header.transaction_id)
        # None: an object prepared before there was a nonce; that of the header, which is signed, has been checked.
        and hmac.compare_digest(content.registration_nonce or header.registration_nonce, header.registration_nonce)
        and (header.auth_mode == "token") is (content.auth_token is not None)
    )
    _require(same, ResultCode.CONTENT_INVALID, "identities inside and outside differ")


def _require(condition: bool, code: ResultCode, reason: str) -> None:
    if not condition:
        raise PackageRefused(code, reason)
