"""MILENAGE and AKA against the published sets, and resynchronisation in both directions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mcim import milenage
from mcim.aka import (
    MAX_JUMP,
    Accepted,
    MacFailure,
    SyncFailure,
    UsimState,
    generate_vector,
    next_sqn,
    resynchronise,
    sqn_after_resynchronisation,
)
from mcim.errors import InvalidArgument
from mcim.milenage import Milenage, opc_from_op

SETS = json.loads((Path(__file__).parents[1] / "vectors/milenage/sets.json").read_text())


def octets(row: dict[str, str], *names: str) -> list[bytes]:
    return [bytes.fromhex(row[name]) for name in names]


@pytest.mark.parametrize("row", SETS, ids=[row["set"] for row in SETS])
def test_milenage_sets(row: dict[str, str]) -> None:
    """REQ-69: TS 35.207 and TS 35.208, every function of every set."""
    k, rand, sqn, amf, op, opc = octets(row, "k", "rand", "sqn", "amf", "op", "opc")
    assert opc_from_op(k, op) == opc
    functions = Milenage(k, opc)
    results = {
        "f1": functions.f1(rand, sqn, amf),
        "f1s": functions.f1_star(rand, sqn, amf),
        "f2": functions.f2(rand),
        "f3": functions.f3(rand),
        "f4": functions.f4(rand),
        "f5": functions.f5(rand),
        "f5s": functions.f5_star(rand),
        "sres": milenage.gsm_response(functions.f2(rand)),
        "kc": milenage.gsm_cipher_key(functions.f3(rand), functions.f4(rand)),
    }
    assert {name: value.hex() for name, value in results.items()} == {name: row[name] for name in results}
    vector = generate_vector(functions, rand=rand, sqn=int.from_bytes(sqn, "big"), amf=amf)
    assert vector.autn.hex() == row["autn"]
    assert resynchronise(functions, rand=rand, auts=bytes.fromhex(row["auts_for_sqn"])) == int.from_bytes(sqn, "big")


K, OPC, RAND = octets(SETS[0], "k", "opc", "rand")
FUNCTIONS = Milenage(K, OPC)


def test_worked_case_of_a_public_suite() -> None:
    """K = OPc = 00…0f, RAND 0, AMF 0, SQN 34; AUTS of a device at 31 (figures of libosmocore's own test)."""
    functions = Milenage(bytes(range(16)), bytes(range(16)))
    vector = generate_vector(functions, rand=bytes(16), sqn=34, amf=bytes(2))
    assert vector.autn.hex() == "ec9320c2c2120000c8b7de2a3449f1bd"
    assert vector.xres.hex() == "e9fc88ccc8a35381"
    assert resynchronise(functions, rand=bytes(16), auts=bytes.fromhex("8711a0ec9e1637df17f80b384ee4")) == 31


def test_accepts_fresh_and_refuses_replay() -> None:
    """REQ-69: a replayed AUTN is a synchronisation failure, and its AUTS leads the network ahead."""
    state = UsimState.initial(0)
    vector = generate_vector(FUNCTIONS, rand=RAND, sqn=0x21)
    state, answer = state.verify(FUNCTIONS, rand=RAND, autn=vector.autn)
    assert isinstance(answer, Accepted)
    assert answer.res == vector.xres
    again, replayed = state.verify(FUNCTIONS, rand=RAND, autn=vector.autn)
    assert isinstance(replayed, SyncFailure)
    assert again == state
    assert resynchronise(FUNCTIONS, rand=RAND, auts=replayed.auts) == 0x21


def test_resynchronises_when_the_auc_is_behind() -> None:
    """REQ-69: the device is ahead; one AUTS and the next vector is accepted."""
    state = UsimState.initial(64 << 5)
    _, failure = state.verify(FUNCTIONS, rand=RAND, autn=generate_vector(FUNCTIONS, rand=RAND, sqn=0x20).autn)
    assert isinstance(failure, SyncFailure)
    sqn_ms = resynchronise(FUNCTIONS, rand=RAND, auts=failure.auts)
    assert sqn_ms is not None
    fresh = generate_vector(FUNCTIONS, rand=bytes(16), sqn=next_sqn(sqn_ms))
    _, answer = state.verify(FUNCTIONS, rand=bytes(16), autn=fresh.autn)
    assert isinstance(answer, Accepted)


def test_a_jump_too_far_is_a_synchronisation_failure() -> None:
    """REQ-69: the network ahead of the device by more than the limit of TS 33.102 annex C.2.1."""
    far = generate_vector(FUNCTIONS, rand=RAND, sqn=(1 << 40))
    _, answer = UsimState.initial(0).verify(FUNCTIONS, rand=RAND, autn=far.autn)
    assert isinstance(answer, SyncFailure)


@pytest.mark.parametrize("autn", [bytes(16), b"", bytes(15)])
def test_wrong_mac_says_nothing(autn: bytes) -> None:
    state = UsimState.initial(0)
    assert state.verify(FUNCTIONS, rand=RAND, autn=autn) == (state, MacFailure())


def test_wrong_key_is_a_mac_failure() -> None:
    """REQ-69: wrong K or OPc shows as a MAC failure."""
    vector = generate_vector(Milenage(bytes(16), OPC), rand=RAND, sqn=0x20)
    assert isinstance(UsimState.initial(0).verify(FUNCTIONS, rand=RAND, autn=vector.autn)[1], MacFailure)
    assert resynchronise(FUNCTIONS, rand=RAND, auts=bytes(14)) is None
    assert resynchronise(FUNCTIONS, rand=RAND, auts=b"") is None


@pytest.mark.parametrize(
    "call",
    [
        lambda: generate_vector(FUNCTIONS, rand=b"", sqn=1),
        lambda: next_sqn((1 << 48) - 1),
        lambda: UsimState(seq=(0,)),
        lambda: Milenage(b"", OPC),
        lambda: FUNCTIONS.f2(b""),
        lambda: FUNCTIONS.f5_star(bytes(17)),
        lambda: FUNCTIONS.f1(bytes(15), bytes(6), bytes(2)),
        lambda: FUNCTIONS.f1(RAND, bytes(5), bytes(2)),
        lambda: FUNCTIONS.f1_star(RAND, bytes(6), bytes(1)),
    ],
)
def test_misuse(call: object) -> None:
    assert callable(call)
    with pytest.raises(InvalidArgument):
        call()


def test_secrets_are_in_no_repr() -> None:
    vector = generate_vector(FUNCTIONS, rand=RAND, sqn=0x20)
    assert repr(FUNCTIONS) == "Milenage(…)"
    assert repr(vector.xres) not in repr(vector)


RESYNCHRONISED = {
    "SQN_HE is behind": (1 << 5, 9 << 5, next_sqn(9 << 5)),
    "the same": (9 << 5 | 3, 9 << 5 | 3, next_sqn(9 << 5 | 3)),
    "SQN_HE is ahead, other vectors are under way": (12 << 5, 9 << 5, next_sqn(12 << 5)),
    "as far ahead as a USIM accepts": ((8 + MAX_JUMP) << 5, 9 << 5, next_sqn((8 + MAX_JUMP) << 5)),
    "further ahead": ((9 + MAX_JUMP) << 5, 9 << 5, next_sqn(9 << 5)),
}


@pytest.mark.parametrize(("sqn_he", "sqn_ms", "following"), RESYNCHRONISED.values(), ids=RESYNCHRONISED)
def test_sqn_after_a_resynchronisation(sqn_he: int, sqn_ms: int, following: int) -> None:
    """REQ-69, TS 33.102 §6.3.5: SQN_HE goes back only when the USIM would not take what follows it."""
    assert sqn_after_resynchronisation(sqn_he, sqn_ms) == following
