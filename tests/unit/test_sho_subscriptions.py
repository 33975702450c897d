"""Subscriptions of the SHO: what is taken in, how it is sealed, what lists show."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actor_runtime.errors import UnsealError
from actor_runtime.sealing import SealingKey
from mcim.milenage import MilenageConstants, opc_from_op
from mcim.network_keys import NetworkKeys
from mcim.tuak import topc_from_top
from mcim.vocabulary import AlgorithmId
from sho.subscription_csv import Line, read_csv
from sho.subscriptions import Credential, SealedCredential, SubscriptionError, Vault, generate, mask_imsi

K, OPC = bytes(range(16)), bytes(range(16, 32))
IMSI = "001010123456789"
VAULT = Vault(SealingKey(bytes(32)))


def test_masks():
    assert mask_imsi(IMSI) == "00101********89"
    assert Credential(imsi=IMSI, k=K, opc=OPC).imsi_mask == "00101********89"


def test_nothing_secret_in_the_repr():
    """REQ-28, REQ-71."""
    shown = repr(Credential(imsi=IMSI, k=K, opc=OPC)) + repr(Credential(imsi=IMSI, k=K, opc=OPC).functions())
    assert IMSI not in shown
    assert repr(K) not in shown
    assert K.hex() not in shown


BAD = {
    "letters": {"imsi": "00101abc"},
    "too short": {"imsi": "00101"},
    "too long": {"imsi": "0010112345678901"},
    "no such country": {"imsi": "100101234567890"},
    "K short": {"k": bytes(15)},
    "K of zeroes": {"k": bytes(16)},
    "K of ones": {"k": b"\xff" * 16},
    "OPc of zeroes": {"opc": bytes(16)},
    "K is OPc": {"opc": K},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD)
def test_bad_credentials_are_refused_without_being_repeated(changes):
    """REQ-30."""
    with pytest.raises(SubscriptionError) as caught:
        Credential(**{"imsi": IMSI, "k": K, "opc": OPC} | changes)
    assert not any(str(value) in str(caught.value) for value in changes.values())


def test_sealed_values_open_in_their_place_only():
    """Design rule: secrets at rest are sealed, and cannot be swapped between rows or columns."""
    first = VAULT.seal(Credential(imsi=IMSI, k=K, opc=OPC))
    second = VAULT.seal(Credential(imsi="001010123456780", k=OPC, opc=K))
    assert VAULT.open(first) == Credential(imsi=IMSI, k=K, opc=OPC)
    for mixed in (
        SealedCredential(imsi_index=first.imsi_index, imsi_sealed=first.imsi_sealed, k_sealed=second.k_sealed,
                         opc_sealed=first.opc_sealed),
        SealedCredential(imsi_index=first.imsi_index, imsi_sealed=first.imsi_sealed, k_sealed=first.opc_sealed,
                         opc_sealed=first.k_sealed),
    ):  # fmt: skip
        with pytest.raises(UnsealError):
            VAULT.open(mixed)
    with pytest.raises(UnsealError):
        Vault(SealingKey(b"x" * 32)).open(first)


def test_the_index_is_keyed():
    assert VAULT.index(IMSI) == VAULT.index(IMSI)
    assert VAULT.index(IMSI) != Vault(SealingKey(b"x" * 32)).index(IMSI)


def test_generated_subscriptions_are_distinct_and_in_the_network():
    found = list(generate(50, "001010"))
    assert len({credential.imsi for credential in found}) == 50
    assert all(credential.imsi.startswith("001010") and len(credential.imsi) == 15 for credential in found)
    assert len({credential.k for credential in found}) == 50
    for plmn in ("0010", "0010101", "abcde"):
        with pytest.raises(SubscriptionError):
            list(generate(1, plmn))


def test_csv_with_opc_or_op():
    op = bytes(range(32, 48))
    lines = ["IMSI, k ,opc,op,amf", f"{IMSI},{K.hex()},{OPC.hex()},,", f"001010123456780,{K.hex()},,{op.hex()},0000"]
    first, second = read_csv(lines)
    assert first == Line(credential=Credential(imsi=IMSI, k=K, opc=OPC), amf=b"\x80\x00")
    derived = Credential(imsi="001010123456780", k=K, opc=opc_from_op(K, op))
    assert second == Line(credential=derived, amf=b"\x00\x00")


def test_csv_with_tuak_and_constants():
    """REQ-30: TOPc or TOP, TUAK parameters, MILENAGE constants; OP and TOP are stored nowhere."""
    top, k256, constants = bytes(range(64, 96)), bytes(range(32)), MilenageConstants(rotations=(64, 0, 32, 64, 95))
    lines = [
        "imsi,k,algorithm,opc,topc,top,constants,tuak",
        f"001010000000001,{K.hex()},tuak128,,{top.hex()},,,",
        f"001010000000002,{k256.hex()},TUAK256,,,{top.hex()},,0210101010",
        f"001010000000003,{K.hex()},milenage,{OPC.hex()},,,{constants.encode().hex()},",
        f"001010000000004,{K.hex()},,{OPC.hex()},,,,",
    ]
    first, second, third, fourth = (line.credential for line in read_csv(lines))
    assert first.keys == NetworkKeys(algorithm=AlgorithmId.TUAK, k=K, opc=top)
    parameters = bytes((2, 16, 16, 16, 16))
    derived = topc_from_top(k256, top, 2)
    assert second.keys == NetworkKeys(algorithm=AlgorithmId.TUAK, k=k256, opc=derived, constants=parameters)
    assert (second.keys.label, second.functions().mac_length) == ("tuak256", 16)
    assert third.constants == constants.encode()
    assert fourth == Credential(imsi="001010000000004", k=K, opc=OPC)
    for credential in (first, second, third, fourth):
        sealed = VAULT.seal(credential)
        assert VAULT.open(sealed) == credential
        assert sealed.algorithm == credential.keys.label


def test_sealed_constants_belong_to_their_algorithm():
    """REQ-30: the algorithm of a row cannot be exchanged under its constants."""
    sealed = VAULT.seal(Credential(imsi=IMSI, k=K, opc=OPC, constants=MilenageConstants().encode()))
    with pytest.raises(UnsealError):
        VAULT.open(replace(sealed, algorithm="tuak128"))


def test_generated_keys_fit_their_algorithm():
    """REQ-30."""
    for algorithm in ("milenage", "tuak128", "tuak256"):
        (credential,) = generate(1, "00101", algorithm)
        assert credential.keys.label == algorithm
        assert credential.functions()
    with pytest.raises(SubscriptionError):
        list(generate(1, "00101", "xor"))


def test_a_token_opens_under_its_own_reference_only():
    """REQ-62."""
    sealed = VAULT.seal_token(b"token", "ref-1")
    assert VAULT.open_token(sealed, "ref-1") == b"token"
    with pytest.raises(UnsealError):
        VAULT.open_token(sealed, "ref-2")


BAD_CSV = {
    "no such algorithm": ["imsi,k,opc,algorithm", f"{IMSI},{K.hex()},{OPC.hex()},xor"],
    "TUAK with OPc": ["imsi,k,opc,algorithm", f"{IMSI},{K.hex()},{OPC.hex()},tuak128"],
    "MILENAGE with TOPc": ["imsi,k,topc", f"{IMSI},{K.hex()},{(OPC * 2).hex()}"],
    "K of the other TUAK": ["imsi,k,topc,algorithm", f"{IMSI},{K.hex()},{(OPC * 2).hex()},tuak256"],
    "TOP short": ["imsi,k,top,algorithm", f"{IMSI},{K.hex()},00,tuak128"],
    "TUAK parameters out of range": ["imsi,k,topc,algorithm,tuak", f"{IMSI},{K.hex()},{(OPC * 2).hex()},tuak128,00"],
    "constants short": ["imsi,k,opc,constants", f"{IMSI},{K.hex()},{OPC.hex()},00"],
    "no header": [f"{IMSI},{K.hex()},{OPC.hex()}"],
    "empty": [],
    "not hexadecimal": ["imsi,k,opc", f"{IMSI},{'g' * 32},{OPC.hex()}"],
    "column missing": ["imsi,k,opc", IMSI],
    "neither opc nor op": ["imsi,k,opc,op", f"{IMSI},{K.hex()},,"],
    "OP short": ["imsi,k,op", f"{IMSI},{K.hex()},00"],
    "AMF long": ["imsi,k,opc,amf", f"{IMSI},{K.hex()},{OPC.hex()},000000"],
}


@pytest.mark.parametrize("lines", BAD_CSV.values(), ids=BAD_CSV)
def test_bad_csv_is_refused_without_repeating_secrets(lines):
    with pytest.raises(SubscriptionError) as caught:
        read_csv(lines)
    assert K.hex() not in str(caught.value)
    assert IMSI not in str(caught.value)


@given(st.lists(st.text(alphabet="0123456789abcdef,;\"' imsikop", max_size=80), max_size=4))
def test_any_lines_are_subscriptions_or_a_typed_error(rows):
    with contextlib.suppress(SubscriptionError):
        read_csv(["imsi,k,opc", *rows])
