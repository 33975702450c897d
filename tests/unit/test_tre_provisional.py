"""The PCID in the TRE: kept sealed, authenticates, survives, is destroyed; and the supplier's file it comes from."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmclient.tre.base import TreError
from dmclient.tre.provisional import PcidFileError, Provisional, read_pcid
from dmclient.tre.software import SoftwareKeyStore
from dmclient.tre.state import TreState
from dmclient.tre.store import STORE_NAME, SealedStore, StorageFailed
from mcim.aka import Accepted, MacFailure, SyncFailure, UsimState, generate_vector
from mcim.network_keys import NetworkKeys
from mcim.vocabulary import AlgorithmId, ResultCode
from ro.identities import ProvisionalIdentity, supplier_document
from tests.support_tre import OPC, SEAL_KEY, K, World

EXPIRY = datetime(2027, 1, 1, tzinfo=UTC)
KEYS = NetworkKeys(algorithm=AlgorithmId.MILENAGE, k=K, opc=OPC)
PCID = "001019999999977"
PROVISIONAL = Provisional(imsi=PCID, keys=KEYS, usim=UsimState.initial(0), expiry=EXPIRY)
FILE = supplier_document([(ProvisionalIdentity(imsi=PCID, keys=KEYS), EXPIRY)])


@pytest.fixture
def world(tmp_path):
    return World(tmp_path, key_type="ec", provisional=PROVISIONAL)


def vector(sqn):
    return generate_vector(KEYS.functions(), rand=os.urandom(16), sqn=sqn)


def test_a_tre_authenticates_with_its_pcid_and_remembers_the_sequence_number(world):
    """REQ-69, TR 33.812 §5.1.3.7.1 step 5: also over a power cycle; a replayed vector is out of step."""
    tre = world.tre
    assert tre.attach_identity(None) == PCID
    first = vector(1 << 5)
    response = tre.authenticate(None, first.rand, first.autn)
    assert isinstance(response, Accepted)
    assert response.res == first.xres
    tre = world.reopen()
    assert isinstance(tre.authenticate(None, first.rand, first.autn), SyncFailure)
    assert isinstance(tre.authenticate(None, first.rand, bytes(16)), MacFailure)
    assert tre.provisional_expiry() == EXPIRY


def test_a_dropped_pcid_is_gone_for_good(world):
    """REQ-72: neither identity nor key are in the TRE's memory any more."""
    world.tre.drop_provisional()
    world.tre.drop_provisional()  # nothing happens
    tre = world.reopen()
    assert tre.provisional_expiry() is None
    challenge = vector(1 << 5)
    for use in (lambda: tre.attach_identity(None), lambda: tre.authenticate(None, challenge.rand, challenge.autn)):
        with pytest.raises(TreError) as refused:
            use()
        assert refused.value.code is ResultCode.WRONG_STATE
    assert PCID.encode() not in SealedStore(world.directory, SEAL_KEY).read()


def test_no_res_before_the_sequence_number_is_stored(world, monkeypatch):
    """REQ-56: a vector would be good twice after a power cut."""

    def full(self, plaintext):
        raise StorageFailed(broken=False)

    monkeypatch.setattr(SealedStore, "write", full)
    challenge = vector(1 << 5)
    with pytest.raises(TreError):
        world.tre.authenticate(None, challenge.rand, challenge.autn)


def test_nothing_secret_is_shown_and_nothing_is_in_clear(world):
    """REQ-42: repr and disk."""
    assert PCID not in repr(PROVISIONAL)
    assert K.hex() not in repr(PROVISIONAL)
    stored = (world.directory / STORE_NAME).read_bytes()
    assert PCID.encode() not in stored
    assert K not in stored


def test_a_state_without_pcid_is_still_read(world):
    """Stores of versions before have no such member."""
    entry = json.loads(SealedStore(world.directory, SEAL_KEY).read())
    state = TreState.load(json.dumps(entry).encode())
    assert state.provisional == PROVISIONAL
    del entry["provisional"]
    assert TreState.load(json.dumps(entry).encode()) == replace(state, provisional=None)


def test_the_file_of_the_registration_operator_is_what_manufacture_reads():
    """REQ-72: CCIF to supplier to TRE."""
    assert read_pcid(FILE + b"\n", 0) == PROVISIONAL


def spoiled(**members):
    document = json.loads(FILE)
    document["identities"][0] |= members
    return json.dumps(document).encode()


BROKEN = {
    "not JSON": (b"{", 0),
    "another format": (b'{"format": "x", "identities": []}', 0),
    "no object": (b"[]", 0),
    "no such number": (FILE, 1),
    "negative": (FILE, -1),
    "letters": (spoiled(pcid="00101x"), 0),
    "short key": (spoiled(k="AAAA"), 0),
    "key of another kind": (spoiled(k=7), 0),
    "not Base64": (spoiled(opc="*"), 0),
    "unknown algorithm": (spoiled(algorithm="comp128"), 0),
    "no time": (spoiled(notAfter="soon"), 0),
    "deep": (b"[" * 100_000, 0),
}


@pytest.mark.parametrize(("octets", "number"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_none(octets, number):
    with pytest.raises(PcidFileError) as refused:
        read_pcid(octets, number)
    assert PCID not in str(refused.value)


@given(st.binary(max_size=200), st.integers(-2, 2))
def test_any_bytes_give_an_identity_or_the_typed_error(octets, number):
    with contextlib.suppress(PcidFileError):
        read_pcid(octets, number)


def test_keys_of_one_store_need_the_same_key_store(world):
    """The PCID changes nothing on how a TRE opens."""
    assert SoftwareKeyStore(world.directory).name == "software"
    assert world.reopen().attach_identity(None) == PCID
