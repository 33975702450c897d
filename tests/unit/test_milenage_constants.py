"""MILENAGE with an operator's own constants, against TS 35.206 §4.1 written down a second time, bit by bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from mcim.errors import InvalidArgument
from mcim.milenage import DEFAULT, Milenage, MilenageConstants
from mcim.network_keys import NetworkKeys
from mcim.vocabulary import AlgorithmId

K, OPC, RAND = bytes(range(16)), bytes(range(16, 32)), bytes(range(32, 48))
SQN, AMF = bytes.fromhex("ff9bb4d0b607"), bytes.fromhex("b9b9")


def _bits(octets: bytes) -> list[int]:
    return [octet >> (7 - place) & 1 for octet in octets for place in range(8)]


def _octets(bits: list[int]) -> bytes:
    return bytes(int("".join(map(str, bits[at : at + 8])), 2) for at in range(0, len(bits), 8))


def _xor(*values: bytes) -> bytes:
    return _octets([sum(column) % 2 for column in zip(*map(_bits, values), strict=True)])


def _aes(block: bytes) -> bytes:
    return Cipher(algorithms.AES(K), modes.ECB()).encryptor().update(block)


def _reference(constants: MilenageConstants) -> dict[str, bytes]:
    """TS 35.206 §4.1, OUT1 to OUT5; `rot` moves bit i to bit i - r."""

    def rot(block: bytes, by: int) -> bytes:
        bits = _bits(block)
        return _octets([bits[(place + by) % 128] for place in range(128)])

    r, c = constants.rotations, constants.masks
    temp = _aes(_xor(RAND, OPC))
    out1 = _xor(_aes(_xor(temp, rot(_xor((SQN + AMF) * 2, OPC), r[0]), c[0])), OPC)
    out = [_xor(_aes(_xor(rot(_xor(temp, OPC), r[i]), c[i])), OPC) for i in range(1, 5)]
    return {
        "f1": out1[:8], "f1s": out1[8:], "f2": out[0][8:], "f3": out[1], "f4": out[2], "f5": out[0][:6],
        "f5s": out[3][:6],
    }  # fmt: skip


CONSTANTS = st.builds(
    MilenageConstants,
    st.tuples(*[st.integers(0, 127)] * 5),
    st.lists(st.binary(min_size=16, max_size=16), min_size=5, max_size=5, unique=True).map(tuple),
)


@settings(max_examples=40, deadline=None)
@given(CONSTANTS)
def test_own_constants(constants: MilenageConstants) -> None:
    """REQ-30, REQ-69: any rotation from 0 to 127 bits, any constants, out of the TLV that carries them."""
    keys = NetworkKeys(algorithm=AlgorithmId.MILENAGE, k=K, opc=OPC, constants=constants.encode())
    functions = keys.functions()
    results = {
        "f1": functions.f1(RAND, SQN, AMF),
        "f1s": functions.f1_star(RAND, SQN, AMF),
        "f2": functions.f2(RAND),
        "f3": functions.f3(RAND),
        "f4": functions.f4(RAND),
        "f5": functions.f5(RAND),
        "f5s": functions.f5_star(RAND),
    }
    assert results == _reference(constants)
    assert MilenageConstants.parse(constants.encode()) == constants
    assert keys.label == "milenage"


def test_defaults_sent_are_the_defaults() -> None:
    keys = NetworkKeys(algorithm=AlgorithmId.MILENAGE, k=K, opc=OPC, constants=DEFAULT.encode())
    assert keys.functions().f3(RAND) == Milenage(K, OPC).f3(RAND)
    assert len(DEFAULT.encode()) == 85


FAULTS = {
    "rotation of 128": lambda: replace(DEFAULT, rotations=(128, 0, 32, 64, 96)),
    "negative rotation": lambda: replace(DEFAULT, rotations=(-1, 0, 32, 64, 96)),
    "four rotations": lambda: replace(DEFAULT, rotations=(0, 1, 2, 3)),
    "four constants": lambda: replace(DEFAULT, masks=DEFAULT.masks[:4]),
    "short constant": lambda: replace(DEFAULT, masks=(*DEFAULT.masks[:4], bytes(15))),
    "a pair twice": lambda: MilenageConstants((0, 0, 1, 2, 3), (bytes(16),) * 5),
    "all zeroes": lambda: MilenageConstants.parse(bytes(85)),
    "84 octets": lambda: MilenageConstants.parse(DEFAULT.encode()[:-1]),
    "86 octets": lambda: MilenageConstants.parse(DEFAULT.encode() + b"\0"),
    "in the keys": lambda: NetworkKeys(
        algorithm=AlgorithmId.MILENAGE, k=K, opc=OPC, constants=bytes(85)
    ).functions(),
}  # fmt: skip


@pytest.mark.parametrize("call", FAULTS.values(), ids=FAULTS)
def test_constants_that_may_not_be_used(call: object) -> None:
    """REQ-30: TS 35.206 §4.1 wants rotations in range and no pair of rotation and constant twice."""
    assert callable(call)
    with pytest.raises(InvalidArgument):
        call()


def test_equal_rotations_are_fine_with_other_constants() -> None:
    assert MilenageConstants((5,) * 5, DEFAULT.masks).rotations == (5,) * 5


@given(st.binary(max_size=90) | st.binary(min_size=85, max_size=85))
def test_any_octets_give_constants_or_a_typed_error(octets: bytes) -> None:
    try:
        constants = MilenageConstants.parse(octets)
    except InvalidArgument:
        return
    assert constants.encode() == octets
