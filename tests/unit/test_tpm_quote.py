"""A TPM's quote and evidence made of it, read without a TPM. The quotes here are put together by hand."""

from __future__ import annotations

import contextlib
import hashlib
import struct
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from mcim import tlv
from mcim.errors import StatementInvalid
from mcim.evidence import QUOTED_PREFIX, Evidence, Quote, quote_evidence, sign_evidence, verify_evidence
from mcim.statements import MAX_STATEMENT, raw_signature
from mcim.tpm_quote import GENERATED, MAX_QUOTE, TpmQuote, parse_quote, verify_quote
from mcim.vocabulary import ValidationMode

KEY = ec.generate_private_key(ec.SECP256R1())
STRANGER = ec.generate_private_key(ec.SECP256R1())
NAME = b"\x00\x0b" + b"N" * 32
DATA = b"Q" * 32
DIGEST = b"D" * 32
EVIDENCE = Evidence(
    mode=ValidationMode.REMOTE,
    m2me_id="urn:imei:004999010640000",
    tre_id="urn:m2m:tre:0001",
    tre_type="tpm",
    tre_version="1.0",
    tre_state="ok",
    platform_key_id=b"k" * 16,
    challenge=b"c" * 32,
    nonce=b"n" * 32,
    req_id=UUID(int=1),
    counter=3,
    capabilities=b"C" * 32,
    log_digest=b"L" * 32,
)


def attest(
    *,
    magic: bytes = GENERATED,
    kind: int = 0x8018,
    name: bytes = NAME,
    data: bytes = DATA,
    safe: int = 1,
    banks: int = 1,
    bank: int = 0x000B,
    selection: bytes = b"\x00\x08\x00",
    digest: bytes = DIGEST,
    more: bytes = b"",
) -> bytes:
    """TPMS_ATTEST, right in everything but what is given."""
    return b"".join(
        (
            magic,
            struct.pack(">H", kind),
            struct.pack(">H", len(name)) + name,
            struct.pack(">H", len(data)) + data,
            struct.pack(">QIIB", 5000, 7, 2, safe),
            struct.pack(">Q", 0x2020_0101),
            struct.pack(">IHB", banks, bank, len(selection)) + selection,
            struct.pack(">H", len(digest)) + digest,
            more,
        )
    )


def quote_of(**changes: Any) -> Quote:
    """A TPM that quotes register 11."""

    def quote(data: bytes) -> tuple[bytes, bytes]:
        octets = attest(**{"data": data, **changes})
        return octets, raw_signature(KEY, octets)

    return quote


def test_a_quote_is_read_field_by_field() -> None:
    """REQ-18: everything a verifier may need."""
    assert parse_quote(attest()) == TpmQuote(
        registers=(11,),
        pcr_digest=DIGEST,
        qualifying_data=DATA,
        qualified_signer=NAME,
        clock=5000,
        reset_count=7,
        restart_count=2,
        clock_safe=True,
        firmware_version=0x2020_0101,
    )
    assert parse_quote(attest(selection=b"\x01\x08\x80", safe=0)).registers == (0, 11, 23)


BROKEN: dict[str, bytes] = {
    "nothing": b"",
    "another magic": attest(magic=b"\xffTCH"),
    "a certification": attest(kind=0x8017),
    "a name too long": attest(name=bytes(67)),
    "data too long": attest(data=bytes(65)),
    "safe is neither yes nor no": attest(safe=2),
    "no bank": attest(banks=0),
    "two banks": attest(banks=2),
    "SHA-1 bank": attest(bank=0x0004),
    "no register": attest(selection=b"\x00\x00\x00"),
    "no selection": attest(selection=b""),
    "register 24": attest(selection=b"\x00\x00\x00\x01"),
    "short digest": attest(digest=bytes(20)),
    "long digest": attest(digest=bytes(48)),
    "octets behind": attest(more=b"\0"),
    "truncated": attest()[:-1],
    "too long": attest(more=bytes(MAX_QUOTE)),
}


@pytest.mark.parametrize("octets", BROKEN.values(), ids=BROKEN)
def test_anything_else_is_refused(octets: bytes) -> None:
    """REQ-18: also when it is rightly signed."""
    with pytest.raises(StatementInvalid):
        verify_quote(octets, raw_signature(KEY, octets), KEY.public_key(), qualifying_data=DATA)


def test_signature_and_qualifying_data_count() -> None:
    """REQ-18: another key, another structure or another challenge."""
    octets = attest()
    signature = raw_signature(KEY, octets)
    assert verify_quote(octets, signature, KEY.public_key(), qualifying_data=DATA) == parse_quote(octets)
    for changed, signed, key, data in (
        (attest(digest=bytes(32)), signature, KEY, DATA),
        (octets, signature[:-1], KEY, DATA),
        (octets, bytes(64), KEY, DATA),
        (octets, signature, STRANGER, DATA),
        (octets, signature, KEY, b"R" * 32),
        (octets, signature, KEY, DATA[:-1]),
    ):
        with pytest.raises(StatementInvalid):
            verify_quote(changed, signed, key.public_key(), qualifying_data=data)


def test_both_forms_of_evidence_come_back() -> None:
    """REQ-18: with a quote or without; only the quoted form has registers."""
    quoted = verify_evidence(quote_evidence(EVIDENCE, quote_of()), KEY.public_key())
    assert quoted.quote is not None
    assert (quoted.quote.registers, quoted.quote.pcr_digest) == ((11,), DIGEST)
    assert replace(quoted, quote=None) == EVIDENCE
    signed = sign_evidence(EVIDENCE, lambda octets: raw_signature(KEY, octets))
    assert verify_evidence(signed, KEY.public_key()) == EVIDENCE


def spoiled() -> dict[str, bytes]:
    good = quote_evidence(EVIDENCE, quote_of())
    parts = dict(tlv.decode(good[len(QUOTED_PREFIX) :]))
    other = dict(tlv.decode(quote_evidence(replace(EVIDENCE, counter=4), quote_of())[len(QUOTED_PREFIX) :]))

    def made(**changes: bytes | None) -> bytes:
        kinds = {"claims": 1, "attest": 2, "signature": 3, "more": 4}
        changed = {**parts, **{kinds[name]: value for name, value in changes.items()}}
        return QUOTED_PREFIX + tlv.encode([(kind, value) for kind, value in changed.items() if value is not None])

    return {
        "claims of other evidence": made(claims=other[1]),
        "quote of other evidence": made(attest=other[2], signature=other[3]),
        "signature of other evidence": made(signature=other[3]),
        "no claims": made(claims=None),
        "no quote": made(attest=None),
        "no signature": made(signature=None),
        "something beside": made(more=b"x"),
        "trailing": good + b"\0",
        "oversize": good + bytes(MAX_STATEMENT),
        "made for the bare claims": quote_evidence(EVIDENCE, lambda _: quote_of()(DATA)),
        "prefix of the signed form": b"M2M-EVID/1\0" + good[len(QUOTED_PREFIX) :],
        "a missing claim": _quoted(tlv.encode([(1, b"remote")])),
    }


def _quoted(claims: bytes) -> bytes:
    octets, signature = quote_of()(hashlib.sha256(QUOTED_PREFIX + claims).digest())
    return QUOTED_PREFIX + tlv.encode([(1, claims), (2, octets), (3, signature)])


@pytest.mark.parametrize("name", spoiled())
def test_spoiled_evidence(name: str) -> None:
    """REQ-18: claims and quote belong together, and there is nothing beside them."""
    with pytest.raises(StatementInvalid):
        verify_evidence(spoiled()[name], KEY.public_key())


def test_evidence_of_another_tpm() -> None:
    """REQ-45: only the attestation key expected."""
    with pytest.raises(StatementInvalid):
        verify_evidence(quote_evidence(EVIDENCE, quote_of()), STRANGER.public_key())


@given(st.binary(max_size=300), st.booleans())
def test_any_octets_give_a_quote_or_a_typed_error(octets: bytes, start: bool) -> None:
    """REQ-18: nothing else comes out of the parser."""
    try:
        quote = parse_quote(attest()[:6] + octets if start else octets)
    except StatementInvalid:
        return
    assert len(quote.pcr_digest) == 32


@given(st.integers(0, len(attest()) - 1), st.integers(0, 255))
def test_any_changed_octet_gives_a_quote_or_a_typed_error(position: int, value: int) -> None:
    """REQ-18: the same, close to a good one."""
    octets = bytearray(attest())
    octets[position] = value
    with contextlib.suppress(StatementInvalid):
        assert parse_quote(bytes(octets)).registers


@given(st.binary(max_size=300))
def test_any_octets_give_evidence_or_a_typed_error(octets: bytes) -> None:
    """REQ-18: behind the prefix, too."""
    with pytest.raises(StatementInvalid):
        verify_evidence(QUOTED_PREFIX + octets, KEY.public_key())
