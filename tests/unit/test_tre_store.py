"""The sealed file, the state in it, and the token: what survives, what is refused, what stays silent."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actor_runtime.errors import UnsealError
from actor_runtime.sealing import SealingKey
from dmclient.tre.keys import KeyBlobs
from dmclient.tre.state import (
    MAX_TOMBSTONES,
    LastAction,
    Origin,
    RegistrationRecord,
    StoredMcim,
    TreState,
    mask_imsi,
)
from dmclient.tre.store import STORE_NAME, SealedStore, StorageFailed
from dmclient.tre.token import TRIES, TokenVerifier
from mcim.aka import UsimState
from mcim.network_keys import NetworkKeys
from mcim.vocabulary import (
    AlgorithmId,
    ContainerState,
    McimPolicy,
    Operation,
    RegistrationState,
    ResultCode,
    Suite,
)

KEY = SealingKey(bytes(range(32)))
SECRETS = {name: bytes([number]) * 16 for number, name in enumerate(("k", "opc", "platform", "attest", "nonce"), 0xA1)}
MCIM = StoredMcim(
    mcim_id=UUID(int=1),
    sho_id="sho1.example",
    state=ContainerState.ACTIVATED,
    revision=2,
    sequence=7,
    not_after=datetime(2027, 1, 1, tzinfo=UTC),
    imsi="001010123456789",
    keys=NetworkKeys(algorithm=AlgorithmId.MILENAGE, k=SECRETS["k"], opc=SECRETS["opc"]),
    usim=UsimState.initial(0x40),
    origin=Origin(operation=Operation.UPDATE, sequence=6, nonce=SECRETS["nonce"], package_hash=b"h" * 32),
    policy=McimPolicy.TWO_PHASE_UPDATE,
)
OLD = replace(MCIM, mcim_id=UUID(int=3), state=ContainerState.SUSPENDED, released_to="sho2.example")
GONE = replace(MCIM, mcim_id=UUID(int=4))
STATE = TreState(
    m2me_id="urn:imei:1",
    tre_id="urn:m2m:tre:1",
    tre_type="software",
    version="1.0",
    vendor="x",
    suites=(Suite.RSA_GCM_256,),
    max_mcim=4,
    platform_key=SECRETS["platform"],
    attest_key=SECRETS["attest"],
    platform_cert=b"p",
    cert_chain=(b"c1", b"c2"),
    sho_anchors=(b"a",),
    registration=RegistrationRecord(
        req_id=str(UUID(int=9)), nonce=SECRETS["nonce"], state=RegistrationState.REQUESTED, sho_id="sho1.example"
    ),
    token=TokenVerifier(salt=b"s" * 16, digest=b"d" * 32, tries_left=3),
    counter_limit=33,
    last_receipt=b"receipt",
    last_action=LastAction(digest=b"d" * 32, code=ResultCode.SUCCESS, mcim_id=MCIM.mcim_id),
    supplier_anchors=(b"s",),
    supplier_counter=4,
    generation=9,
    next_keys=KeyBlobs(platform=SECRETS["platform"], attest=SECRETS["attest"]),
)
STATE = STATE.with_mcim(OLD).with_mcim(GONE).without_mcim(GONE)
STATE = STATE.with_mcim(replace(MCIM, previous=replace(MCIM, revision=1), fall_back_to=OLD.mcim_id))
STATE = STATE.with_sequence("sho1.example", 7)


def test_state_survives_dump_and_load() -> None:
    assert TreState.load(STATE.dump()) == STATE
    assert STATE.next_sequence("sho1.example") == 8
    assert STATE.next_sequence("other.example") == STATE.next_sequence(None) == 1


def test_no_repr_shows_a_secret() -> None:
    """REQ-42, REQ-55."""
    for value in (STATE, MCIM, STATE.registration, STATE.token, STATE.registration_view(), MCIM.info(), KEY):
        text = repr(value)
        assert MCIM.imsi not in text
        for secret in SECRETS.values():
            assert repr(secret)[2:-1] not in text


@pytest.mark.parametrize("octets", [b"", b"[]", b"{}", b'{"format": 3}', b'{"format": 2}', b"\xff"])
def test_another_format_is_a_value_error_without_content(octets: bytes) -> None:
    with pytest.raises(ValueError, match="unknown format") as caught:
        TreState.load(octets)
    assert caught.value.__suppress_context__


def test_only_one_mcim_is_activated() -> None:
    newer = replace(MCIM, mcim_id=UUID(int=2), sequence=8)
    states = {each.mcim_id: each.state for each in STATE.with_mcim(newer).mcims}
    assert states == {
        MCIM.mcim_id: ContainerState.SUSPENDED,
        OLD.mcim_id: ContainerState.SUSPENDED,
        newer.mcim_id: ContainerState.ACTIVATED,
    }


def test_tombstones_are_bounded_and_nobody_falls_back_to_a_deleted_one() -> None:
    """REQ-70: the oldest tombstone goes first; the sequence of its home operator still holds its package off."""
    state = STATE
    for number in range(MAX_TOMBSTONES + 5):
        other = replace(OLD, mcim_id=UUID(int=1000 + number))
        state = state.with_mcim(other).without_mcim(other)
    assert len(state.tombstones) == MAX_TOMBSTONES
    assert state.tombstone(UUID(int=1000 + MAX_TOMBSTONES + 4)) is not None
    current = STATE.without_mcim(OLD).mcim(MCIM.mcim_id)
    assert current is not None
    assert current.fall_back_to is None


@pytest.mark.parametrize(
    ("imsi", "mask"),
    [
        ("001010123456789", "00101********89"),
        ("310410123456789", "310410*******89"),
        ("123456", "****56"),
        ("12345678", "12****78"),
    ],
)
def test_imsi_mask(imsi: str, mask: str) -> None:
    assert mask_imsi(imsi) == mask


@given(st.text("0123456789", min_size=6, max_size=15))
def test_imsi_mask_keeps_length_and_hides_the_middle(imsi: str) -> None:
    mask = mask_imsi(imsi)
    assert len(mask) == len(imsi)
    assert mask.count("*") >= 4
    assert mask[-2:] == imsi[-2:]


def test_token_verifier() -> None:
    """REQ-61: only salt and hash are kept."""
    verifier = TokenVerifier.of(b"label-1", os.urandom)
    assert verifier.matches(b"label-1")
    assert not verifier.matches(b"label-2")
    assert replace(verifier, tries_left=1).restored().tries_left == TRIES


def test_store_is_sealed_private_and_bound_to_its_key(tmp_path: Path) -> None:
    """REQ-42: what lies on the disk is sealed, readable by its owner only, and opens with no other key."""
    store = SealedStore(tmp_path, KEY)
    assert not store.exists()
    store.write(b"top secret state")
    path = tmp_path / STORE_NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"secret" not in path.read_bytes()
    assert store.read() == b"top secret state"
    with pytest.raises(UnsealError):
        SealedStore(tmp_path, SealingKey(bytes(32))).read()
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    with pytest.raises(UnsealError):
        store.read()


def _fail(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _fail_on(call: int, original: object) -> object:
    calls = iter(range(1, 100))

    def sometimes(*args: object, **kwargs: object) -> object:
        assert callable(original)
        return _fail() if next(calls) == call else original(*args, **kwargs)

    return sometimes


FAILURES = {
    "file cannot be made": ("open", lambda: _fail),
    "data cannot be flushed": ("fsync", lambda: _fail_on(1, os.fsync)),
    "name cannot be changed": ("replace", lambda: _fail),
    "directory cannot be flushed": ("fsync", lambda: _fail_on(2, os.fsync)),
}


@pytest.mark.parametrize(("function", "fault"), FAILURES.values(), ids=FAILURES)
def test_a_failed_write_leaves_the_previous_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, fault: object
) -> None:
    """REQ-56: whatever call fails, the file holds the state before, and no litter stays."""
    store = SealedStore(tmp_path, KEY)
    store.write(b"before")
    assert callable(fault)
    with monkeypatch.context() as patch:
        patch.setattr(os, function, fault())
        with pytest.raises(StorageFailed) as caught:
            store.write(b"after")
    assert not caught.value.broken
    assert store.read() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == [STORE_NAME]
    store.write(b"after")
    assert store.read() == b"after"


def test_when_not_even_the_way_back_works_the_store_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """REQ-56: the new file is in place, unproven, and the old one cannot be put back."""
    store = SealedStore(tmp_path, KEY)
    store.write(b"before")
    real_fsync, calls = os.fsync, iter(range(1, 100))

    def only_the_first(descriptor: int) -> None:
        if next(calls) > 1:
            _fail()
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", only_the_first)
    with pytest.raises(StorageFailed) as caught:
        store.write(b"after")
    assert caught.value.broken
