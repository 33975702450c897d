"""Commands of the equipment supplier to a TRE: by its role alone, for one TRE, once, for a while."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from mcim import tlv
from mcim.certificates import Role, TrustAnchors
from mcim.errors import InvalidArgument, PackageRefused
from mcim.supplier_command import (
    MAX_COMMAND,
    MAX_COUNTER,
    MAX_ROOTS,
    PREFIX,
    SupplierCommand,
    VerifiedCommand,
    issue_supplier_command,
    verify_supplier_command,
)
from mcim.vocabulary import ResultCode
from tests.support_pki import NOW, TRE_ID, Signer, pki

PKI = pki()
SUPPLIER_ID = "urn:m2m:supplier:1"
SUPPLIER = PKI.signer(PKI.manufacturer, Role.SUPPLIER, SUPPLIER_ID)
ROOTS = tuple(
    root.certificate.public_bytes(Encoding.DER) for root in (PKI.operator_root, PKI.pva_root, PKI.manufacturer_root)
)
COMMAND = SupplierCommand(
    tre_id=TRE_ID,
    counter=7,
    not_before=NOW,
    not_after=NOW + timedelta(days=1),
    sho_roots=ROOTS[:2],
    reset_token_counter=True,
)


def issue(command: SupplierCommand = COMMAND, signer: Signer = SUPPLIER) -> bytes:
    return issue_supplier_command(command, signer.sign, signer.chain)


def verify(octets: bytes, **kwargs: Any) -> VerifiedCommand:
    given = {"anchors": PKI.manufacturer_anchors, "now": NOW, "tre_id": TRE_ID, "last_counter": 6}
    return verify_supplier_command(octets, **(given | kwargs))


def refusal(octets: bytes, **kwargs: Any) -> ResultCode:
    with pytest.raises(PackageRefused) as caught:
        verify(octets, **kwargs)
    return caught.value.code


@pytest.mark.parametrize(
    "command",
    [
        COMMAND,
        replace(COMMAND, reset_token_counter=False),
        replace(COMMAND, sho_roots=()),
        replace(COMMAND, sho_roots=tuple(reversed(ROOTS))),
        replace(COMMAND, counter=MAX_COUNTER),
    ],
    ids=["both", "roots", "token-counter", "order-of-roots", "highest-counter"],
)
def test_round_trip(command: SupplierCommand) -> None:
    """REQ-44 REQ-61: what the supplier signed comes back, and who it was."""
    verified = verify(issue(command))
    assert verified.command == command
    assert (verified.signer.role, verified.signer.subject_id) == (Role.SUPPLIER, SUPPLIER_ID)


def _by(role: Role, authority: Any = PKI.manufacturer) -> bytes:
    return issue(signer=PKI.signer(authority, role, "supplier.example"))


def _platform() -> bytes:
    return issue(signer=Signer(PKI.attest_key, (PKI.attest, *PKI.tre_chain)))


def _fields(*fields: tuple[int, bytes], drop: int | None = None) -> bytes:
    """A command of other fields, signed by the supplier."""
    octets = issue(replace(COMMAND, sho_roots=()))
    start = len(PREFIX) + 4
    end = start + int.from_bytes(octets[len(PREFIX) : start], "big")
    values = dict(tlv.decode(octets[start:end])) | dict(fields)
    values.pop(drop or 0, None)
    return _signed(tlv.encode(values.items()), octets[end + 64 :])


def _signed(fields: bytes, chain: bytes | None = None) -> bytes:
    body = PREFIX + len(fields).to_bytes(4, "big") + fields
    if chain is None:
        chain = b"".join(
            len(der).to_bytes(2, "big") + der for der in (each.public_bytes(Encoding.DER) for each in SUPPLIER.chain)
        )
    return body + SUPPLIER.sign(body) + chain


SIGNER, CONTENT = ResultCode.SIGNER_NOT_ACCEPTABLE, ResultCode.CONTENT_INVALID
LEAF = PKI.platform.public_bytes(Encoding.DER)
MALFORMED = ResultCode.MALFORMED

REFUSED: dict[str, tuple[Callable[[], bytes], dict[str, Any], ResultCode]] = {
    "another TRE": (issue, {"tre_id": "urn:m2m:tre:0002"}, ResultCode.WRONG_RECIPIENT),
    "once more": (issue, {"last_counter": 7}, ResultCode.REPLAY),
    "older": (issue, {"last_counter": 8}, ResultCode.REPLAY),
    "too early": (issue, {"now": NOW - timedelta(seconds=1)}, ResultCode.OUTSIDE_VALIDITY),
    "too late": (issue, {"now": NOW + timedelta(days=1)}, ResultCode.OUTSIDE_VALIDITY),
    "by a home operator": (lambda: issue(signer=PKI.sho), {}, SIGNER),
    "home operator below the manufacturer": (lambda: _by(Role.SHO), {}, SIGNER),
    "PVA below the manufacturer": (lambda: _by(Role.PVA), {}, SIGNER),
    "by a device of the same maker": (_platform, {}, SIGNER),
    "supplier below an operator": (lambda: _by(Role.SUPPLIER, PKI.operator), {}, SIGNER),
    "operator roots as anchors": (issue, {"anchors": PKI.sho_anchors}, SIGNER),
    "no anchors": (issue, {"anchors": TrustAnchors((), "manufacturer")}, SIGNER),
    "intermediate missing": (lambda: issue(signer=Signer(SUPPLIER.key, SUPPLIER.chain[:1])), {}, SIGNER),
    "expired signer": (issue, {"now": NOW + timedelta(days=800)}, SIGNER),
    "revoked signer": (
        issue,
        {"crls": (PKI.manufacturer.make_crl([SUPPLIER.chain[0].serial_number], NOW),)},
        ResultCode.CERTIFICATE_REVOKED,
    ),
    "chain of another key": (
        lambda: issue(signer=Signer(PKI.other_sho.key, SUPPLIER.chain)), {}, ResultCode.SIGNATURE_INVALID
    ),
    "changed": (lambda: issue().replace(TRE_ID.encode(), b"urn:m2m:tre:0002"), {}, ResultCode.SIGNATURE_INVALID),
    "no TRE": (lambda: _fields(drop=0x8001), {}, CONTENT),
    "no counter": (lambda: _fields(drop=0x8002), {}, CONTENT),
    "no beginning": (lambda: _fields(drop=0x8003), {}, CONTENT),
    "no end": (lambda: _fields(drop=0x8004), {}, CONTENT),
    "no action": (lambda: _fields(drop=0x8011), {}, CONTENT),
    "unknown action": (lambda: _fields((0x8012, b"")), {}, CONTENT),
    "counter of zero": (lambda: _fields((0x8002, bytes(8))), {"last_counter": -1}, CONTENT),
    "counter beyond 63 bits": (lambda: _fields((0x8002, b"\xff" * 8)), {}, CONTENT),
    "counter of 9 octets": (lambda: _fields((0x8002, bytes(8) + b"\7")), {}, CONTENT),
    "end of time": (lambda: _fields((0x8004, b"\xff" * 8)), {}, CONTENT),
    "end before the beginning": (lambda: _fields((0x8004, bytes(8))), {}, CONTENT),
    "flag with a value": (lambda: _fields((0x8011, b"\1")), {}, CONTENT),
    "root that is none": (lambda: _fields((0x8010, b"root")), {}, CONTENT),
    "root that is no CA": (lambda: _fields((0x8010, LEAF)), {}, CONTENT),
    "name beyond ascii": (lambda: _fields((0x8001, b"\xe9")), {}, CONTENT),
    "root twice": (
        lambda: _signed(tlv.encode([*_REST, (0x8010, ROOTS[0]), (0x8010, ROOTS[0])], repeatable=frozenset({0x8010}))),
        {},
        CONTENT,
    ),
    "fields out of order": (lambda: _signed(tlv.encode(_REST)[::-1]), {}, CONTENT),
    "no fields": (lambda: _signed(b""), {}, CONTENT),
    "another statement": (lambda: b"M2M-RCPT/1\0" + issue()[len(PREFIX) :], {}, MALFORMED),
    "nothing": (lambda: b"", {}, MALFORMED),
    "prefix alone": (lambda: PREFIX, {}, MALFORMED),
    "no certificates": (lambda: _signed(b"", b""), {}, MALFORMED),
    "length beyond the end": (lambda: PREFIX + b"\xff" * 4 + issue()[15:], {}, MALFORMED),
    "truncated": (lambda: issue()[:-1], {}, MALFORMED),
    "trailing octet": (lambda: issue() + b"\0", {}, MALFORMED),
    "certificates without end": (lambda: _signed(b"", bytes(2) * 5), {}, MALFORMED),
    "certificates that are none": (lambda: _signed(b"", bytes(2)), {}, SIGNER),
    "oversize": (lambda: issue() + bytes(MAX_COMMAND), {}, MALFORMED),
}  # fmt: skip
_REST = [(0x8001, TRE_ID.encode()), (0x8002, (7).to_bytes(8, "big")), (0x8003, bytes(8)), (0x8004, b"\0\0\0\1" * 2)]


@pytest.mark.parametrize(("octets", "kwargs", "code"), REFUSED.values(), ids=REFUSED)
def test_refused(octets: Callable[[], bytes], kwargs: dict[str, Any], code: ResultCode) -> None:
    """REQ-44 REQ-61 T5: roots change, and tries begin again, by the supplier's word alone, and once for each word."""
    assert refusal(octets(), **kwargs) is code


def test_unknown_field_that_is_not_critical() -> None:
    """REQ-44: what a later version adds without need is skipped."""
    assert verify(_fields((0x0012, b"note"))).command.reset_token_counter


def _chain_of(count: int) -> bytes:
    return issue(signer=Signer(SUPPLIER.key, SUPPLIER.chain * count))


def _large_root(number: int) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Root {number}")])
    padding = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.3"), bytes(30_000))
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW + timedelta(days=1))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.add_extension(padding, critical=False).sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


ROOT_DERS = tuple(bytes((number,)) for number in range(MAX_ROOTS + 1))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: replace(COMMAND, sho_roots=(), reset_token_counter=False), id="nothing"),
        pytest.param(lambda: replace(COMMAND, sho_roots=ROOT_DERS), id="too-many-roots"),
        pytest.param(lambda: replace(COMMAND, sho_roots=ROOTS[:1] * 2), id="root-twice"),
        pytest.param(lambda: replace(COMMAND, sho_roots=(b"root",)), id="no-certificate"),
        pytest.param(lambda: replace(COMMAND, sho_roots=(LEAF,)), id="no-ca"),
        pytest.param(lambda: replace(COMMAND, counter=0), id="counter"),
        pytest.param(lambda: replace(COMMAND, not_after=NOW), id="validity"),
        pytest.param(lambda: replace(COMMAND, tre_id=""), id="nobody"),
        pytest.param(lambda: replace(COMMAND, tre_id="é"), id="name"),
        pytest.param(lambda: issue(signer=Signer(SUPPLIER.key, ())), id="no-signer"),
        pytest.param(lambda: _chain_of(3), id="long-chain"),
        pytest.param(lambda: issue(replace(COMMAND, sho_roots=tuple(map(_large_root, range(3))))), id="too-large"),
    ],
)
def test_builder_refuses_what_no_tre_would_obey(make: Callable[[], object]) -> None:
    """REQ-44: the mistake shows at the supplier, not in the field."""
    with pytest.raises(InvalidArgument):
        make()


def test_every_octet_flipped() -> None:
    """T2 REQ-44: a bit of every octet before the certificates, of which the signer's key is all that counts."""
    original = issue(replace(COMMAND, sho_roots=()))
    end = len(PREFIX) + 4 + int.from_bytes(original[len(PREFIX) : len(PREFIX) + 4], "big") + 64
    for position in range(end):
        octets = bytearray(original)
        octets[position] ^= 1 << position % 8
        with pytest.raises(PackageRefused):
            verify(bytes(octets))


odd_certificates = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")


@odd_certificates
@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda octets: PREFIX + octets))
def test_any_octets(octets: bytes) -> None:
    """REQ-44: arbitrary octets end in a refusal and nothing else."""
    with pytest.raises(PackageRefused):
        verify(octets)


@odd_certificates
@given(position=st.integers(0, 3000), length=st.integers(0, 40), inserted=st.binary(max_size=12))
def test_any_octets_replaced(position: int, length: int, inserted: bytes) -> None:
    """T2 REQ-44: refused, or the same command."""
    original = issue()
    position %= len(original)
    try:
        verified = verify(original[:position] + inserted + original[position + length :])
    except PackageRefused:
        return
    assert verified.command == COMMAND


@given(st.binary(max_size=120))
def test_any_fields_signed_by_the_supplier(fields: bytes) -> None:
    """REQ-44: nor can the supplier itself make a TRE fall over."""
    assert refusal(_signed(fields)) is CONTENT


def test_role_has_a_usage_of_its_own() -> None:
    """REQ-46: a certificate for a supplier's commands is good for nothing else."""
    assert Role.SUPPLIER.eku.dotted_string == "1.3.6.1.4.1.99999.1.6"
