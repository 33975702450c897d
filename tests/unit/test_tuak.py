"""TUAK and its permutation against published sets, other implementations and any octets."""

from __future__ import annotations

import hashlib
import json
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcim.aka import Accepted, MacFailure, SyncFailure, UsimState, generate_vector, next_sqn, resynchronise
from mcim.errors import InvalidArgument
from mcim.keccak import STATE, permute
from mcim.milenage import gsm_cipher_key, gsm_response
from mcim.network_keys import NetworkKeys
from mcim.tuak import Tuak, TuakParameters, topc_from_top
from mcim.vocabulary import AlgorithmId

SETS = json.loads((Path(__file__).parents[1] / "vectors/tuak/sets.json").read_text())


def _sponge(message: bytes, rate: int, suffix: int, length: int) -> bytes:
    """FIPS 202 §4 around `permute`."""
    padded = bytearray(message + bytes((suffix,)))
    padded += bytes(-len(padded) % rate)
    padded[-1] |= 0x80
    state = bytes(STATE)
    for at in range(0, len(padded), rate):
        block = bytes(padded[at : at + rate]).ljust(STATE, b"\0")
        state = permute(bytes(a ^ b for a, b in zip(state, block, strict=True)))
    return state[:length]


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=400))
def test_permutation_agrees_with_sha3_and_shake(message: bytes) -> None:
    """REQ-69: the permutation inside the hash functions of the standard library is this one."""
    assert _sponge(message, 136, 0x06, 32) == hashlib.sha3_256(message).digest()
    assert _sponge(message, 72, 0x06, 64) == hashlib.sha3_512(message).digest()
    assert _sponge(message, 168, 0x1F, 100) == hashlib.shake_128(message).digest(100)


@pytest.mark.parametrize("row", SETS, ids=[row["set"] for row in SETS])
def test_tuak_sets(row: dict[str, str]) -> None:
    """REQ-69: TS 35.233, every function of every set, all lengths and iterations that are in it."""
    value = {name: bytes.fromhex(row[name]) for name in row if name not in ("set", "iterations")}
    parameters = TuakParameters(
        iterations=int(row["iterations"]),
        mac_length=len(value["f1"]),
        res_length=len(value["f2"]),
        ck_length=len(value["f3"]),
        ik_length=len(value["f4"]),
    )
    k, rand, sqn, amf = (value[name] for name in ("k", "rand", "sqn", "amf"))
    assert topc_from_top(k, value["top"], parameters.iterations) == value["topc"]
    keys = NetworkKeys(
        algorithm=AlgorithmId.TUAK, k=k, opc=value["topc"], constants=TuakParameters.parse(parameters.encode()).encode()
    )
    assert keys.label == f"tuak{8 * len(k)}"
    functions = keys.functions()
    assert functions.mac_length == len(value["f1"])
    results = {
        "f1": functions.f1(rand, sqn, amf),
        "f1s": functions.f1_star(rand, sqn, amf),
        "f2": functions.f2(rand),
        "f3": functions.f3(rand),
        "f4": functions.f4(rand),
        "f5": functions.f5(rand),
        "f5s": functions.f5_star(rand),
    }
    assert results == {name: value[name] for name in results}
    other = bytes(16)
    assert functions.f5(other) != value["f5"]  # what is kept of one RAND is not given out for another
    assert functions.f5(rand) == value["f5"]


K, TOPC, RAND = bytes(range(32)), bytes(range(100, 132)), bytes(range(16))
LENGTHS = list(product((8, 16, 32), (16, 32)))


@pytest.mark.parametrize(("mac", "key"), LENGTHS, ids=str)
def test_agreement_with_every_length(mac: int, key: int) -> None:
    """REQ-69: AUTN and AUTS are as long as the MAC makes them; fresh, replayed and resynchronised."""
    functions = Tuak(K[:key], TOPC, TuakParameters(mac_length=mac))
    vector = generate_vector(functions, rand=RAND, sqn=0x2020)
    assert len(vector.autn) == 8 + mac
    state, answer = UsimState.initial(0).verify(functions, rand=RAND, autn=vector.autn)
    assert isinstance(answer, Accepted)
    assert (answer.res, answer.ck, answer.ik) == (vector.xres, vector.ck, vector.ik)
    same, replayed = state.verify(functions, rand=RAND, autn=vector.autn)
    assert (same, type(replayed)) == (state, SyncFailure)
    assert isinstance(replayed, SyncFailure)
    assert len(replayed.auts) == 6 + mac
    sqn_ms = resynchronise(functions, rand=RAND, auts=replayed.auts)
    assert sqn_ms == 0x2020
    fresh = generate_vector(functions, rand=bytes(16), sqn=next_sqn(sqn_ms))
    assert isinstance(state.verify(functions, rand=bytes(16), autn=fresh.autn)[1], Accepted)
    assert state.verify(functions, rand=RAND, autn=vector.autn[:-1]) == (state, MacFailure())
    assert resynchronise(functions, rand=RAND, auts=replayed.auts[:-1]) is None
    assert resynchronise(functions, rand=b"", auts=replayed.auts) is None


PARAMETER_FAULTS = {
    "no iteration": bytes((0, 8, 8, 16, 16)),
    "MAC of 4": bytes((1, 4, 8, 16, 16)),
    "RES of 5": bytes((1, 8, 5, 16, 16)),
    "CK of 24": bytes((1, 8, 8, 24, 16)),
    "IK of 0": bytes((1, 8, 8, 16, 0)),
    "too short": bytes((1, 8, 8, 16)),
    "too long": bytes((1, 8, 8, 16, 16, 1)),
}


@pytest.mark.parametrize("octets", PARAMETER_FAULTS.values(), ids=PARAMETER_FAULTS)
def test_parameters_out_of_range(octets: bytes) -> None:
    with pytest.raises(InvalidArgument):
        TuakParameters.parse(octets)


@given(st.binary(max_size=6))
def test_any_octets_give_parameters_or_a_typed_error(octets: bytes) -> None:
    try:
        parameters = TuakParameters.parse(octets)
    except InvalidArgument:
        return
    assert parameters.encode() == octets


MISUSE = {
    "state of another size": lambda: permute(bytes(199)),
    "K of 24 octets": lambda: Tuak(bytes(24), TOPC),
    "TOPc of 16 octets": lambda: Tuak(K, TOPC[:16]),
    "RAND of 15 octets": lambda: Tuak(K, TOPC).f2(bytes(15)),
    "SQN of 5 octets": lambda: Tuak(K, TOPC).f1(RAND, bytes(5), bytes(2)),
    "AMF of 3 octets": lambda: Tuak(K, TOPC).f1_star(RAND, bytes(6), bytes(3)),
    "TOP of 31 octets": lambda: topc_from_top(K, bytes(31)),
    "no iteration": lambda: topc_from_top(K, TOPC, 0),
    "no code for XOR": lambda: NetworkKeys(algorithm=AlgorithmId.XOR_TEST, k=K[:16], opc=K[16:]).functions(),
    "no code for code": lambda: NetworkKeys(algorithm=AlgorithmId.CODE, k=K[:16], opc=K[16:]).functions(),
    "parameters of 4 octets": lambda: NetworkKeys(
        algorithm=AlgorithmId.TUAK, k=K, opc=TOPC, constants=bytes(4)
    ).functions(),
    "c2 of a long RES": lambda: gsm_response(bytes(32)),
    "c2 of no RES": lambda: gsm_response(b""),
    "c3 of long keys": lambda: gsm_cipher_key(bytes(32), bytes(32)),
}


@pytest.mark.parametrize("call", MISUSE.values(), ids=MISUSE)
def test_misuse(call: object) -> None:
    assert callable(call)
    with pytest.raises(InvalidArgument):
        call()


def test_defaults_and_silence() -> None:
    """REQ-30: without TUAK_PARAM, lengths are those of MILENAGE; no secret is in a repr."""
    functions = NetworkKeys(algorithm=AlgorithmId.TUAK, k=K, opc=TOPC).functions()
    assert (functions.mac_length, len(functions.f2(RAND)), len(functions.f3(RAND))) == (8, 8, 16)
    assert len(generate_vector(functions, rand=RAND, sqn=1).autn) == 16
    assert repr(functions) == "Tuak(…)"
    labels = {each: NetworkKeys(algorithm=each, k=K[:16], opc=b"").label for each in AlgorithmId}
    assert labels == {
        AlgorithmId.MILENAGE: "milenage",
        AlgorithmId.TUAK: "tuak128",
        AlgorithmId.XOR_TEST: "xor-test",
        AlgorithmId.CODE: "code",
    }


ANY = {
    "milenage": NetworkKeys(algorithm=AlgorithmId.MILENAGE, k=K[:16], opc=K[16:]).functions(),
    "tuak": Tuak(K, TOPC, TuakParameters(mac_length=16)),
}


@pytest.mark.parametrize("functions", ANY.values(), ids=ANY)
@settings(max_examples=60, deadline=None)
@given(rand=st.binary(max_size=20) | st.just(RAND), octets=st.binary(max_size=40))
def test_any_octets_of_a_network_give_a_typed_answer(functions: Tuak, rand: bytes, octets: bytes) -> None:
    """REQ-69: AUTN and AUTS come from outside."""
    state = UsimState.initial(0)
    assert state.verify(functions, rand=rand, autn=octets) == (state, MacFailure())
    assert resynchronise(functions, rand=rand, auts=octets) is None
