"""The power goes at every single step of every write (T3, REQ-56): the state before or the one after, never between.

A simulated disk: whatever was not flushed may be lost. The power is cut before each call that touches it, for every
call until the operation passes; what was not flushed is kept in one run and lost in the other.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from dmclient.tre.base import TreError
from dmclient.tre.rekeying import der
from dmclient.tre.state import TreState
from mcim import aka
from mcim.milenage import Milenage
from mcim.network_keys import NetworkKeys
from mcim.vocabulary import AlgorithmId, McimPolicy, Operation, ResultCode
from tests.support_tre import MCIM_ID, NO_HINTS, NOW, OPC, OTHER_SHO, K, World

NEW_ID = UUID(int=2)
NEW_KEYS = NetworkKeys(algorithm=AlgorithmId.MILENAGE, k=b"\x21" * 16, opc=b"\x42" * 16)
MAX_STEPS = 200  # more than any operation makes: reaching it means that one never passes


class PowerCut(BaseException):
    """Nothing runs after it, no `except` of the code under test either."""


@dataclass
class Disk:
    """Files of one directory, with the power cut at the step of number `at`."""

    directory: Path
    at: int
    keeps: bool  # whether what was not flushed when the power went is there all the same
    steps: list[str] = field(default_factory=list)
    renamed: list[tuple[Path, bytes | None]] = field(default_factory=list)  # not flushed: names, what they were before
    dirty: set[Path] = field(default_factory=set)  # files whose content was not flushed

    def step(self, name: str) -> None:
        self.steps.append(name)
        if len(self.steps) == self.at:
            raise PowerCut

    def lose(self) -> None:
        """What the disk looks like when the power is back."""
        if self.keeps:
            return
        for path in self.dirty:
            if path.exists():
                path.write_bytes(b"")
        for path, before in reversed(self.renamed):
            path.unlink(missing_ok=True) if before is None else path.write_bytes(before)

    def opened(self, path: Path, writing: bool) -> None:
        if writing:
            self.dirty.add(path)
            self.step("truncated")

    def flushed(self, path: Path) -> None:
        if path.is_dir():
            self.renamed.clear()
        self.dirty.discard(path)

    def moved(self, source: Path, target: Path, before: bytes | None) -> None:
        self.renamed.append((target, before))
        if source in self.dirty:
            self.dirty = self.dirty - {source} | {target}


@contextmanager
def cut_at(disk: Disk) -> Iterator[None]:
    """Run something with the power cut at the disk's step."""
    os_open, io_open, fsync, rename = os.open, io.open, os.fsync, os.replace

    def opening(path: Any, flags: int, *args: Any, **more: Any) -> int:
        disk.step("open")
        descriptor = os_open(path, flags, *args, **more)
        disk.opened(Path(path), bool(flags & os.O_TRUNC))
        return descriptor

    def opening_file(path: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        file = io_open(path, mode, *args, **more)
        disk.opened(Path(str(path)), "w" in mode and not isinstance(path, int))
        return file

    def flushing(descriptor: int) -> None:
        disk.step("fsync")
        fsync(descriptor)
        disk.flushed(Path(os.readlink(f"/proc/self/fd/{descriptor}")))

    def renaming(source: Any, target: Any) -> None:
        disk.step("replace")
        path = Path(target)
        before = path.read_bytes() if path.exists() else None
        rename(source, target)
        disk.moved(Path(source), path, before)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", opening)
        patch.setattr(io, "open", opening_file)
        patch.setattr(os, "fsync", flushing)
        patch.setattr(os, "replace", renaming)
        yield


def facts(state: TreState) -> tuple[Any, ...]:
    """What must be before or after as a whole."""
    return (
        state.mcims,
        state.tombstones,
        state.registration,
        state.sequences,
        state.token and state.token.tries_left,
        state.last_action,
        state.next_keys,
        state.platform_key,
        state.platform_cert,
        state.sho_anchors,
        state.supplier_counter,
    )


def _install(world: World) -> Callable[[], object]:
    world.register()
    package = world.package()
    return lambda: world.provision(package)


def _installed(world: World, **content: Any) -> None:
    world.register()
    assert world.provision(world.package(content=content)).code is ResultCode.SUCCESS


def _update(world: World) -> Callable[[], object]:
    _installed(world, policy=McimPolicy.TWO_PHASE_UPDATE)
    world.register()
    package = world.update(keys=NEW_KEYS, sqn_init=0x40)
    return lambda: world.provision(package)


def _replacement(world: World, **content: Any) -> bytes:
    _installed(world)
    world.register(sho_id=OTHER_SHO)
    inner = {"mcim_id": NEW_ID, "sho_id": OTHER_SHO, "replaces": MCIM_ID} | content
    return world.package(header={"mcim_id": NEW_ID, "sho_id": OTHER_SHO}, content=inner, signer=OTHER_SHO)


def _replace(world: World) -> Callable[[], object]:
    package = _replacement(world)
    return lambda: world.provision(package)


def _command(operation: Operation) -> Callable[[World], Callable[[], object]]:
    def prepare(world: World) -> Callable[[], object]:
        _installed(world)
        world.register()
        command = world.command(operation)
        return lambda: world.tre.command(operation, command, NO_HINTS, NOW)

    return prepare


def _fall_back(world: World) -> Callable[[], object]:
    assert world.provision(_replacement(world)).code is ResultCode.SUCCESS
    return lambda: world.tre.fall_back(NEW_ID, NOW)


def _confirm(world: World) -> Callable[[], object]:
    assert world.provision(_replacement(world)).code is ResultCode.SUCCESS
    return lambda: world.tre.confirm_attach(NEW_ID, NOW)


def _refusal(world: World) -> Callable[[], object]:
    world.register()
    package = world.package(payload=b"\x80")
    return lambda: world.provision(package)


def _register(world: World) -> Callable[[], object]:
    return world.register


def _rekey(world: World) -> Callable[[], object]:
    platform, attest = world.take_over(world.tre.begin_rekey())
    return lambda: world.tre.complete_rekey(platform, attest, [], NOW)


def _supplier(world: World) -> Callable[[], object]:
    command = world.supplier(sho_roots=tuple(der(each) for each in world.certificates[2]))
    return lambda: world.tre.supplier_command(command, NOW)


OPERATIONS: dict[str, Callable[[World], Callable[[], object]]] = {
    "install": _install,
    "update": _update,
    "replace": _replace,
    "suspend": _command(Operation.SUSPEND),
    "delete": _command(Operation.DELETE),
    "fall back": _fall_back,
    "confirm": _confirm,
    "final refusal": _refusal,
    "new request": _register,
    "new keys in use": _rekey,
    "supplier's command": _supplier,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, dict[str, bytes]]:
    world = World(tmp_path_factory.mktemp("tre"), key_type="ec")
    return world, world.snapshot()


@pytest.mark.parametrize("keeps", [True, False], ids=["kept", "lost"])
@pytest.mark.parametrize("prepare", OPERATIONS.values(), ids=OPERATIONS)
def test_before_or_after(
    made: tuple[World, dict[str, bytes]], prepare: Callable[[World], Callable[[], object]], keeps: bool
) -> None:
    """T3, REQ-52, REQ-53, REQ-56: whatever the step, one whole state; the TRE is in order and goes on."""
    world, new = made
    world.restore(new)
    operate = prepare(world)
    start = world.snapshot()
    before = facts(world.reopen()._state)
    operate()
    after = facts(world.reopen()._state)
    found = set()
    for at in range(1, MAX_STEPS):
        world.restore(start)
        disk = Disk(world.directory, at, keeps)
        try:
            with cut_at(disk):
                operate()
        except PowerCut:
            disk.lose()
        else:
            break
        state = world.reopen()._state
        assert state.condition == "ok", f"step {at}: {disk.steps}"
        now = facts(state)
        reached = same(now, after)
        assert reached or now == before, f"step {at}: {disk.steps}"
        found.add(reached)
        # And it goes on: what was not done can be done, what was done is not done twice.
        with suppress(TreError):
            operate()
        assert same(facts(world.reopen()._state), after) or reached
    else:
        pytest.fail("never passed")
    assert at > 5
    assert found == {False, True}


def same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Equal but for what is random or a fresh signature each time."""
    mcims, stones, request, *rest = one
    mcims2, stones2, request2, *rest2 = other
    request_equal = (request.state, bool(request.nonce), request.sho_id) == (
        request2.state,
        bool(request2.nonce),
        request2.sho_id,
    )
    return (mcims, stones, rest) == (mcims2, stones2, rest2) and request_equal


def test_the_nonce_is_used_up_exactly_when_the_mcim_is_there(made: tuple[World, dict[str, bytes]]) -> None:
    """REQ-52, REQ-56: after any cut the same package installs once, and never a second time."""
    world, new = made
    world.restore(new)
    operate = _install(world)
    start = world.snapshot()
    for at in range(1, MAX_STEPS):
        world.restore(start)
        disk = Disk(world.directory, at, keeps=at % 2 == 0)
        try:
            with cut_at(disk):
                operate()
        except PowerCut:
            disk.lose()
        else:
            return
        tre = world.reopen()
        installed = bool(tre.mcims())
        assert installed is not tre._state.registration.is_open
        outcome = operate()
        assert outcome.code is (ResultCode.REPLAY if installed else ResultCode.SUCCESS)
        assert len(world.reopen().mcims()) == 1
    pytest.fail("never passed")


def test_no_free_guess_at_the_token(tmp_path: Path) -> None:
    """REQ-61: wherever the plug is pulled, every comparison with the token has cost a try."""
    world = World(tmp_path, key_type="ec", token=b"label-2026")
    world.register()
    package = world.package(content={"auth_token": b"guess"})
    start = world.snapshot()
    compared: list[int] = []
    for at in range(1, MAX_STEPS):
        world.restore(start)
        disk = Disk(world.directory, at, keeps=False)
        guesses: list[bytes] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dmclient.tre.token._hash", lambda token, salt, seen=guesses: seen.append(token) or b"")
            try:
                with cut_at(disk):
                    world.provision(package)
            except PowerCut:
                disk.lose()
            else:
                break
        compared += [at] if guesses else []
        left = world.reopen()._state.token
        assert left is not None
        assert left.tries_left == 4 or not guesses
        assert world.tre.facts().state == "ok"
    assert compared
    assert len(compared) < at  # the cut came before the comparison, too


def test_no_response_is_good_twice(made: tuple[World, dict[str, bytes]]) -> None:
    """REQ-69: a RES that left belongs to a sequence number that is stored; a challenge is answered once."""
    world, new = made
    world.restore(new)
    _installed(world)
    vector = aka.generate_vector(Milenage(K, OPC), rand=bytes(16), sqn=0x1000)
    start = world.snapshot()
    for at in range(1, MAX_STEPS):
        world.restore(start)
        disk = Disk(world.directory, at, keeps=False)
        try:
            with cut_at(disk):
                world.tre.authenticate(MCIM_ID, bytes(16), vector.autn)
        except PowerCut:
            disk.lose()
        else:
            assert isinstance(world.reopen().authenticate(MCIM_ID, bytes(16), vector.autn), aka.SyncFailure)
            return
        assert world.reopen().facts().state == "ok"
        answers = [world.tre.authenticate(MCIM_ID, bytes(16), vector.autn) for _ in range(2)]
        assert [isinstance(each, aka.Accepted) for each in answers].count(True) <= 1
    pytest.fail("never passed")


def test_a_store_from_before_the_cut_is_no_store_of_today(made: tuple[World, dict[str, bytes]]) -> None:
    """T3: an attacker who cuts the power does not get an old store accepted either."""
    world, new = made
    world.restore(new)
    old = world.snapshot()
    _installed(world)
    disk = Disk(world.directory, 4, keeps=True)
    try:
        with cut_at(disk):
            world.register()
    except (PowerCut, TreError):
        disk.lose()
    world.restore({"tre.sealed": old["tre.sealed"]})
    assert world.tre.facts().state == "tampered"
