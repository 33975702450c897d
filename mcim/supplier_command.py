"""What the equipment supplier (M2MES) may still tell a TRE it made: a statement signed below the manufacturer's root.

    "M2M-SUPC/1\\0" | length of the fields(4) | fields | r | s (64) | certificates

Fields are TLVs, the signature (ECDSA P-256 with SHA-256) is over all before it, and certificates are length(2) | DER
each, the signer's first; what follows it are hints for the path. No secret is ever in a command.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from mcim import tlv
from mcim.certificates import UNREADABLE, Reason, Role, TrustAnchors, ValidatedCertificate, load_der, validate
from mcim.errors import CertificateRefused, InvalidArgument, PackageRefused, StatementInvalid
from mcim.statements import MAX_NUMBER, SIGNATURE_LENGTH, Sign, number, verify_raw
from mcim.vocabulary import ResultCode

PREFIX: Final = b"M2M-SUPC/1\0"
MAX_COMMAND: Final = 64 * 1024  # octets
MAX_CHAIN: Final = 4  # certificates
MAX_ROOTS: Final = 16
MAX_COUNTER: Final = MAX_NUMBER

_TRE_ID: Final = 0x8001
_COUNTER: Final = 0x8002
_NOT_BEFORE: Final = 0x8003
_NOT_AFTER: Final = 0x8004
_SHO_ROOT: Final = 0x8010  # DER, once for each: these and no others from now on
_RESET_TOKEN_COUNTER: Final = 0x8011  # empty
_REPEATABLE: Final = frozenset({_SHO_ROOT})
_KNOWN: Final = frozenset({_TRE_ID, _COUNTER, _NOT_BEFORE, _NOT_AFTER, _SHO_ROOT, _RESET_TOKEN_COUNTER})


@dataclass(frozen=True, slots=True, kw_only=True)
class SupplierCommand:
    """One command, of one action or two; times are UTC, whole seconds.

    Raises:
        InvalidArgument: it asks for nothing, or a value is out of its range.
    """

    tre_id: str
    counter: int  # strictly rising in the TRE: none is taken twice
    not_before: datetime
    not_after: datetime
    sho_roots: tuple[bytes, ...] = field(default=(), repr=False)  # DER; empty: the roots stay as they are (REQ-44)
    reset_token_counter: bool = False  # tries with the device token begin again (REQ-61)

    def __post_init__(self) -> None:
        if not self.sho_roots and not self.reset_token_counter:
            raise InvalidArgument("a command that asks for nothing")
        if len(self.sho_roots) > MAX_ROOTS or len(set(self.sho_roots)) != len(self.sho_roots):
            raise InvalidArgument(f"more than {MAX_ROOTS} roots, or one twice")
        if not 0 < self.counter <= MAX_COUNTER:
            raise InvalidArgument("the counter is out of its range")
        if not self.not_before < self.not_after:
            raise InvalidArgument("the end of the validity is not after its beginning")
        if not (1 <= len(self.tre_id) <= 255 and self.tre_id.isascii() and self.tre_id.isprintable()):
            raise InvalidArgument("the TRE id is not printable ASCII of at most 255 characters")
        for root in self.sho_roots:
            _require_root(root)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedCommand:
    """A command for this TRE, and by whom."""

    command: SupplierCommand
    signer: ValidatedCertificate


def issue_supplier_command(command: SupplierCommand, signer: Sign, chain: Sequence[x509.Certificate]) -> bytes:
    """Encode and sign.

    Args:
        command: what the TRE shall do.
        signer: signs with the supplier's key (`Role.SUPPLIER`): r and s, 64 octets.
        chain: its certificate first, then what leads to the manufacturer's root.

    Raises:
        InvalidArgument: no certificate, too many, or more octets than a TRE takes.
    """
    if not 1 <= len(chain) <= MAX_CHAIN:
        raise InvalidArgument("no certificate, or too many")
    fields = _fields(command)
    body = PREFIX + len(fields).to_bytes(4, "big") + fields
    certificates = [certificate.public_bytes(Encoding.DER) for certificate in chain]
    if len(body) + SIGNATURE_LENGTH + sum(2 + len(each) for each in certificates) > MAX_COMMAND:
        raise InvalidArgument(f"more than {MAX_COMMAND} octets")
    return body + signer(body) + b"".join(len(each).to_bytes(2, "big") + each for each in certificates)


def verify_supplier_command(
    octets: bytes,
    *,
    anchors: TrustAnchors,
    now: datetime,
    tre_id: str,
    last_counter: int,
    crls: Sequence[x509.CertificateRevocationList] = (),
) -> VerifiedCommand:
    """Judge a command: 1 size and frame, 2 signer, 3 signature, 4 fields, 5 TRE, 6 counter, 7 validity.

    Args:
        octets: as received.
        anchors: the manufacturer's roots, from manufacture.
        now: UTC.
        tre_id: of the TRE that asks.
        last_counter: of the last command it obeyed, 0 before the first.
        crls: revocation lists, for whoever has some.

    Raises:
        PackageRefused: MALFORMED, SIGNER_NOT_ACCEPTABLE, CERTIFICATE_REVOKED, SIGNATURE_INVALID, CONTENT_INVALID,
            WRONG_RECIPIENT, REPLAY or OUTSIDE_VALIDITY, in this order.
    """
    # 1
    body, signature, chain = _frame(octets)
    # 2
    signer = _signer(chain, anchors, now, crls)
    # 3
    _verify_signature(signer, body, signature)
    # 4
    command = _command(body[len(PREFIX) + 4 :])
    # 5
    if command.tre_id != tre_id:
        raise PackageRefused(ResultCode.WRONG_RECIPIENT, "for another TRE")
    # 6
    if command.counter <= last_counter:
        raise PackageRefused(ResultCode.REPLAY, f"counter {command.counter} is not above {last_counter}")
    # 7
    if not command.not_before <= now < command.not_after:
        raise PackageRefused(ResultCode.OUTSIDE_VALIDITY, "the command is not valid now")
    return VerifiedCommand(command=command, signer=signer)


def _fields(command: SupplierCommand) -> bytes:
    fields = [
        (_TRE_ID, command.tre_id.encode()),
        (_COUNTER, command.counter.to_bytes(8, "big")),
        (_NOT_BEFORE, int(command.not_before.timestamp()).to_bytes(8, "big")),
        (_NOT_AFTER, int(command.not_after.timestamp()).to_bytes(8, "big")),
        *((_SHO_ROOT, root) for root in command.sho_roots),
    ]
    if command.reset_token_counter:
        fields.append((_RESET_TOKEN_COUNTER, b""))
    return tlv.encode(fields, repeatable=_REPEATABLE)


def _frame(octets: bytes) -> tuple[bytes, bytes, list[bytes]]:
    start = len(PREFIX) + 4
    if not octets.startswith(PREFIX) or not start <= len(octets) <= MAX_COMMAND:
        raise PackageRefused(ResultCode.MALFORMED, "not a supplier's command")
    end = start + int.from_bytes(octets[len(PREFIX) : start], "big")
    rest = octets[end + SIGNATURE_LENGTH :]
    chain: list[bytes] = []
    while rest and len(chain) <= MAX_CHAIN:
        length = int.from_bytes(rest[:2], "big")
        if len(rest) < 2 + length:
            raise PackageRefused(ResultCode.MALFORMED, "a certificate runs over the end")
        chain.append(rest[2 : 2 + length])
        rest = rest[2 + length :]
    if not 1 <= len(chain) <= MAX_CHAIN:
        raise PackageRefused(ResultCode.MALFORMED, "no certificate, or too many")
    return octets[:end], octets[end : end + SIGNATURE_LENGTH], chain


def _signer(
    chain: Sequence[bytes], anchors: TrustAnchors, now: datetime, crls: Sequence[x509.CertificateRevocationList]
) -> ValidatedCertificate:
    try:
        leaf, *others = (load_der(each) for each in chain)
        return validate(leaf, others, anchors, Role.SUPPLIER, now, crls=crls)
    except CertificateRefused as exc:
        revoked = exc.reason == Reason.REVOKED
        code = ResultCode.CERTIFICATE_REVOKED if revoked else ResultCode.SIGNER_NOT_ACCEPTABLE
        raise PackageRefused(code, str(exc)) from exc


def _verify_signature(signer: ValidatedCertificate, body: bytes, signature: bytes) -> None:
    public_key = signer.public_key
    if not isinstance(public_key, ec.EllipticCurvePublicKey):
        raise PackageRefused(ResultCode.SIGNER_NOT_ACCEPTABLE, "keys of suppliers are EC")
    try:
        verify_raw(public_key, signature, body)
    except StatementInvalid as exc:
        raise PackageRefused(ResultCode.SIGNATURE_INVALID, "the signature is wrong") from exc


def _command(octets: bytes) -> SupplierCommand:
    """Fields that a supplier signed: what is wrong with them now is its own fault, and nothing of it is obeyed."""
    try:
        fields = tlv.decode(octets, repeatable=_REPEATABLE)
        if any(kind & tlv.CRITICAL and kind not in _KNOWN for kind, _ in fields):
            raise PackageRefused(ResultCode.CONTENT_INVALID, "an action that this TRE does not know")
        single = {kind: value for kind, value in fields if kind not in _REPEATABLE}
        return SupplierCommand(
            tre_id=single[_TRE_ID].decode("ascii"),
            counter=number(single[_COUNTER]),
            not_before=datetime.fromtimestamp(number(single[_NOT_BEFORE]), UTC),
            not_after=datetime.fromtimestamp(number(single[_NOT_AFTER]), UTC),
            sho_roots=tuple(value for kind, value in fields if kind == _SHO_ROOT),
            reset_token_counter=_flag(single),
        )
    except (KeyError, ValueError, OverflowError, OSError, InvalidArgument, StatementInvalid) as exc:
        raise PackageRefused(ResultCode.CONTENT_INVALID, "a field is missing, broken or out of its range") from exc


def _flag(fields: dict[int, bytes]) -> bool:
    if fields.get(_RESET_TOKEN_COUNTER):
        raise ValueError("a flag has no value")
    return _RESET_TOKEN_COUNTER in fields


def _require_root(der: bytes) -> None:
    """A root for SHO signatures: a CA certificate, or no TRE would ever find a path to it."""
    try:
        certificate = load_der(der)
        is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (CertificateRefused, *UNREADABLE) as exc:
        raise InvalidArgument("a root that is no certificate") from exc
    if not is_ca:
        raise InvalidArgument("a root that is no CA")
