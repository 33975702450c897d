"""T3, REQ-53: an old store that is put back is found out; a power cut is not taken for one."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from dmclient.tre.base import Hints, TreError
from dmclient.tre.counter import COUNTER_NAME
from dmclient.tre.store import STORE_NAME
from mcim.vocabulary import Operation, RegistrationState, ResultCode
from tests.support_tre import MCIM_ID, NOW, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, key_type="ec")
    world.register()
    return world


def test_a_store_put_back_is_tampering(world: World) -> None:
    """T3, REQ-53: the state before an installation, with its nonce still open: nothing is accepted any more."""
    package = world.package()
    before = world.snapshot()
    assert world.provision(package).code is ResultCode.SUCCESS
    last = world.receipt_of(world.provision(b"")).counter
    tre = world.restore({STORE_NAME: before[STORE_NAME]})
    assert tre.facts().state == "tampered"
    outcome = world.provision(package)
    assert outcome.code is ResultCode.TRE_STATE_NOT_OK
    assert tre.command(Operation.ACTIVATE, package, Hints(), NOW).code is ResultCode.TRE_STATE_NOT_OK
    assert world.receipt_of(outcome).counter > last  # no number is used twice
    assert tre.mcims() == ()
    with pytest.raises(TreError):
        world.register()
    assert world.reopen().facts().state == "tampered"  # for good


def test_the_whole_directory_put_back_is_not_seen(world: World) -> None:
    """T3: the limit of a counter in a file; a token's or a TPM's counter cannot be put back with it."""
    before = world.snapshot()
    assert world.provision(world.package()).code is ResultCode.SUCCESS
    assert world.restore(before).facts().state == "ok"


COUNTERS = {"lost": None, "turned back": b"1", "too far ahead": b"99"}


@pytest.mark.parametrize("counter", COUNTERS.values(), ids=COUNTERS)
def test_a_counter_of_another_time_is_tampering(world: World, counter: bytes | None) -> None:
    """T3: state and counter must fit, whichever of them was changed."""
    path = world.directory / COUNTER_NAME
    path.unlink() if counter is None else path.write_bytes(counter)
    assert world.reopen().facts().state == "tampered"


def test_a_counter_one_behind_catches_up(world: World) -> None:
    """REQ-56: the power went between the two writes."""
    before = world.snapshot()
    registration = world.register()
    tre = world.restore({COUNTER_NAME: before[COUNTER_NAME]})
    assert (tre.facts().state, tre.registration(NOW)) == ("ok", registration)
    assert world.reopen().facts().state == "ok"
    assert world.provision(world.package()).code is ResultCode.SUCCESS
    assert world.reopen().facts().state == "ok"


def test_a_counter_that_does_not_follow_stops_the_tre(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """REQ-56: the state is written and may be turned back unseen: nothing goes on until a new start settles it."""
    package = world.package()

    def stuck() -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(world.tre._key_store.counter, "increment", stuck)
        assert world.provision(package).code is ResultCode.STORAGE_FAILURE
    assert world.tre.facts().state == "locked"
    assert world.reopen().facts().state == "ok"
    assert [each.mcim_id for each in world.tre.mcims()] == [MCIM_ID]


def test_two_processes_do_not_write_over_each_other(world: World) -> None:
    """REQ-56: whoever knows an older state than the one on the disk writes nothing."""
    first = world.tre
    world.reopen().renew_registration(reason="initial", sho_id=None, now=NOW)
    with pytest.raises(TreError):
        first.renew_registration(reason="initial", sho_id=None, now=NOW)
    assert first.facts().state == "locked"
    assert world.reopen().registration(NOW).state is RegistrationState.REQUESTED
