"""The MCIM object and `data`: known answers, every refusal, no oracle."""

from __future__ import annotations

import json
import os
import random
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from mcim import tlv
from mcim.content import McimContent, parse_content
from mcim.data import decode_data, encode_data
from mcim.errors import InvalidArgument, PackageRefused
from mcim.mcim_object import SessionKeys, fresh_keys, open_bare, open_mcim, seal_bare, seal_mcim
from mcim.platform_key import SoftwarePlatformKey
from mcim.vocabulary import Operation, ResultCode, Suite, Tag

KATS = json.loads((Path(__file__).parents[1] / "vectors/mcim/kats.json").read_text())
CASES = {case["suite"]: case for case in KATS["cases"]}
DATA = bytes.fromhex(KATS["data"])


def _load(name: str) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(KATS[name].encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    return key


RSA_KEY, EC_KEY, EPHEMERAL = _load("rsa_private_pem"), _load("ec_private_pem"), _load("ec_ephemeral_private")


def private_key(suite: int) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    return EC_KEY if suite >= 4 else RSA_KEY


def opened(octets: bytes, suite: int, accepted: frozenset[Suite] = frozenset(Suite)) -> bytes:
    return open_mcim(octets, SoftwarePlatformKey(private_key(suite)), accepted=accepted, random=os.urandom)


def kat_keys(suite: int) -> SessionKeys:
    case = CASES[suite]
    return SessionKeys(pik=bytes.fromhex(case["PIK"]), pck=bytes.fromhex(case["PCK"]), iv=bytes.fromhex(case["iv"]))


def refusal(octets: bytes, suite: int, **kwargs: frozenset[Suite]) -> ResultCode:
    with pytest.raises(PackageRefused) as caught:
        opened(octets, suite, **kwargs)
    return caught.value.code


def test_data_frame_known_answer() -> None:
    """REQ-33, REQ-35: the frame, field by field, bit for bit."""
    assert encode_data(Tag.MCIM, bytes.fromhex(KATS["payload"]), 1, bucket=KATS["bucket"]) == DATA
    assert decode_data(DATA).payload.hex() == KATS["payload"]


@pytest.mark.parametrize("suite", CASES)
def test_object_known_answer(suite: int) -> None:
    """REQ-38, REQ-40, REQ-41: given objects open; what is deterministic is reproduced bit for bit."""
    case = CASES[suite]
    assert opened(bytes.fromhex(case["object"]), suite) == DATA
    made = seal_mcim(
        DATA,
        suite=Suite(suite),
        recipient=private_key(suite).public_key(),
        keys=kat_keys(suite),
        ephemeral=EPHEMERAL if isinstance(EPHEMERAL, ec.EllipticCurvePrivateKey) else None,
    )
    assert made[:24].hex() == case["header"]
    assert len(made) == case["total"]
    assert made.hex().endswith(case["Protected_data"])
    assert suite < 4 or made.hex() == case["object"]  # OAEP is randomised, the EC wrap is not
    assert opened(made, suite) == DATA


def test_bare_form_is_the_seeds_own() -> None:
    """REQ-41: without our header it is exactly PK_D(PIK|PCK) | Protected_data of S3-090792."""
    case = CASES[1]
    key = SoftwarePlatformKey(RSA_KEY)
    octets = bytes.fromhex(case["EK"] + case["Protected_data"])
    assert open_bare(octets, key, random=os.urandom) == DATA
    assert isinstance(RSA_KEY, rsa.RSAPrivateKey)
    made = seal_bare(DATA, recipient=RSA_KEY.public_key(), keys=kat_keys(1))
    assert made.hex().endswith(case["Protected_data"])
    assert open_bare(made, key, random=os.urandom) == DATA
    with pytest.raises(PackageRefused) as caught:
        open_bare(octets[:-1], key, random=os.urandom)
    assert caught.value.code is ResultCode.CRYPTO_FAILURE


@pytest.mark.parametrize("suite", CASES)
def test_no_bit_can_be_flipped(suite: int) -> None:
    """REQ-29, REQ-40, REQ-60: wherever the flip falls behind the header, the one answer is 1414."""
    octets = bytes.fromhex(CASES[suite]["object"])
    generator = random.Random(suite)
    for _ in range(60):
        position = generator.randrange(24, len(octets))
        changed = bytearray(octets)
        changed[position] ^= 1 << generator.randrange(8)
        assert refusal(bytes(changed), suite) is ResultCode.CRYPTO_FAILURE


HEADER_FAULTS = {
    "empty": (lambda o: b"", ResultCode.MALFORMED),
    "magic": (lambda o: b"XXXX" + o[4:], ResultCode.MALFORMED),
    "flags": (lambda o: o[:5] + b"\x01" + o[6:], ResultCode.MALFORMED),
    "unknown suite": (lambda o: o[:4] + b"\x63" + o[5:], ResultCode.UNSUPPORTED_SUITE),
    "another key": (lambda o: o[:6] + bytes(16) + o[22:], ResultCode.WRONG_RECIPIENT),
    "wrapped length": (lambda o: o[:22] + b"\xff\xff" + o[24:], ResultCode.CRYPTO_FAILURE),
    "cut": (lambda o: o[:60], ResultCode.CRYPTO_FAILURE),
}


@pytest.mark.parametrize(("change", "code"), HEADER_FAULTS.values(), ids=HEADER_FAULTS)
def test_header_faults(change: object, code: ResultCode) -> None:
    """REQ-29: 1413 by the clear key id; REQ-39: a suite that is not accepted is refused."""
    assert callable(change)
    assert refusal(change(bytes.fromhex(CASES[3]["object"])), 3) is code


def test_suite_below_the_minimum_is_refused() -> None:
    """REQ-39 (T16): the legacy suite opens only where it is accepted."""
    octets = bytes.fromhex(CASES[1]["object"])
    assert refusal(octets, 1, accepted=frozenset({Suite.RSA_GCM_256})) is ResultCode.UNSUPPORTED_SUITE


def test_parts_of_two_objects_do_not_combine() -> None:
    """REQ-41: the wrapped keys of one object with the data of another fail at the MAC."""
    first = bytes.fromhex(CASES[3]["object"])
    second = seal_mcim(
        DATA, suite=Suite.RSA_GCM_256, recipient=RSA_KEY.public_key(), keys=fresh_keys(Suite.RSA_GCM_256, os.urandom)
    )
    assert refusal(first[: 24 + 256] + second[24 + 256 :], 3) is ResultCode.CRYPTO_FAILURE


def test_fresh_keys_are_fresh_and_distinct() -> None:
    """REQ-37."""
    one, two = (fresh_keys(Suite.RSA_GCM_256, os.urandom) for _ in range(2))
    assert len({one.pik, one.pck, two.pik, two.pck}) == 4
    assert one.pik.hex() not in repr(one)


def test_suite_and_key_must_fit() -> None:
    with pytest.raises(InvalidArgument):
        seal_mcim(
            DATA, suite=Suite.EC_GCM_256, recipient=RSA_KEY.public_key(), keys=fresh_keys(Suite.EC_GCM_256, os.urandom)
        )


FRAME_FAULTS = {
    "short": DATA[:8],
    "not whole blocks": DATA[:-1],
    "length over the end": DATA[:1] + b"\x00\x01\x00\x00" + DATA[5:],
    "length too large": DATA[:1] + b"\xff\xff\xff\xff" + DATA[5:],
    "filling": DATA[:-1] + b"\x01",
    "no filling mark": DATA.replace(b"\x80" + bytes(49), b"\x00" + bytes(49)),
    "format": DATA.replace(b"\x01\x00\x00\x01\x80", b"\x02\x00\x00\x01\x80"),
    "revision": DATA.replace(b"\x01\x00\x00\x01\x80", b"\x01\x00\x00\x00\x80"),
}


@pytest.mark.parametrize("octets", FRAME_FAULTS.values(), ids=FRAME_FAULTS)
def test_frame_faults_are_malformed(octets: bytes) -> None:
    """REQ-33, REQ-35: after a right MAC a broken frame is 1410."""
    assert octets != DATA
    with pytest.raises(PackageRefused) as caught:
        decode_data(octets)
    assert caught.value.code is ResultCode.MALFORMED


def test_reserved_tag() -> None:
    """REQ-34."""
    with pytest.raises(PackageRefused) as caught:
        decode_data(b"\x7f" + DATA[1:])
    assert caught.value.code is ResultCode.CONTENT_INVALID


@given(st.binary(max_size=2000), st.integers(1, 0xFFFF), st.sampled_from([16, 64, 256]))
def test_data_round_trip(payload: bytes, revision: int, bucket: int) -> None:
    octets = encode_data(Tag.MCIM, payload, revision, bucket=bucket)
    assert len(octets) % bucket == 0
    decoded = decode_data(octets)
    assert (decoded.payload, decoded.revision) == (payload, revision)


@given(st.binary(max_size=400))
def test_any_octets_give_data_or_a_refusal(octets: bytes) -> None:
    try:
        decode_data(octets)
    except PackageRefused:
        return


@given(st.binary(max_size=200))
def test_any_octets_give_tlvs_or_a_tlv_error(octets: bytes) -> None:
    try:
        fields = tlv.decode(octets)
    except tlv.TlvError:
        return
    assert tlv.encode(fields) == octets  # canonical: one encoding for each list


CONTENT = McimContent(
    mcim_id=UUID(int=1),
    sho_id="sho1.example",
    tre_id="urn:m2m:tre:1",
    registration_nonce=bytes(range(32)),
    sequence=1,
    not_before=datetime(2026, 1, 1, tzinfo=UTC),
    not_after=datetime(2027, 1, 1, tzinfo=UTC),
    transaction_id=UUID(int=2),
    imsi="001010123456789",
    k=bytes(range(16)),
    opc=bytes(range(16, 32)),
    sqn_init=0x20,
    initial_state=40,
)


def test_content_round_trip_and_silence() -> None:
    """REQ-30; secrets and IMSI are in no repr."""
    assert parse_content(Tag.MCIM, CONTENT.to_payload()) == CONTENT
    for secret in (CONTENT.imsi, repr(CONTENT.k), repr(CONTENT.opc)):
        assert secret not in repr(CONTENT)


def test_known_answer_payload_parses() -> None:
    content = parse_content(Tag.MCIM, bytes.fromhex(KATS["payload"]))
    assert (content.imsi, content.operation, content.auth_token) == (
        "001010123456789",
        Operation.INSTALL,
        b"token-0001",
    )


def _payload(**changes: bytes | None) -> bytes:
    fields = dict(tlv.decode(CONTENT.to_payload()))
    for name, value in changes.items():
        kind = int(name.removeprefix("t"), 16)
        if value is None:
            fields.pop(kind)
        else:
            fields[kind] = value
    return tlv.encode(fields.items())


CONTENT_FAULTS = {
    "no OPc for MILENAGE": _payload(t8023=None),
    "no IMSI": _payload(t8020=None),
    "IMSI with a letter": _payload(t8020=b"00101A"),
    "MCC 000": _payload(t8020=b"000011234567"),
    "short K": _payload(t8021=bytes(15)),
    "K of zeroes": _payload(t8021=bytes(16)),
    "OPc equals K": _payload(t8023=CONTENT.k),
    "ends before it begins": _payload(t8007=bytes(8)),
    "no time": _payload(t8007=b"\xff" * 8),
    "operation of another tag": _payload(t8009=b"\x05"),
    "unknown operation": _payload(t8009=b"\x2a"),
    "unknown critical TLV": _payload(tfff0=b""),
    "pre-wrapped": _payload(t800a=b"\x01"),
    "initial state": _payload(t0050=b"\x19"),
    "truncated": CONTENT.to_payload()[:-1],
}


@pytest.mark.parametrize("payload", CONTENT_FAULTS.values(), ids=CONTENT_FAULTS)
def test_content_faults(payload: bytes) -> None:
    """REQ-30, REQ-34: content rules give 1416."""
    with pytest.raises(PackageRefused) as caught:
        parse_content(Tag.MCIM, payload)
    assert caught.value.code is ResultCode.CONTENT_INVALID


def test_unknown_uncritical_tlv_is_skipped_and_other_algorithms_are_refused() -> None:
    assert parse_content(Tag.MCIM, _payload(t0038=b"x")) == CONTENT
    with pytest.raises(PackageRefused) as caught:
        parse_content(Tag.MCIM, _payload(t8022=b"\x03"))
    assert caught.value.code is ResultCode.ALGORITHM_UNSUPPORTED
    with pytest.raises(PackageRefused):
        parse_content(Tag.UPDATE, CONTENT.to_payload())
