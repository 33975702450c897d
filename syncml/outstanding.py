"""The commands of one server package: what of them is on its way, and what the device says of each.

Devices answer in every form: one Status for a command or one for each Item, before or after the Results or without
them, with a `MsgRef` of another message or no `CmdRef` at all. References lead to the command where they can; where
they contradict each other, its name and its node do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from syncml.codes import StatusCode, is_success
from syncml.model import Add, Alert, Command, Exec, Item, Replace, Results, Sequence, Status, walk
from syncml.outbox import items_of
from syncml.session import CommandAnswered, worst

MAX_HEARD: Final = 16 * 1024 * 1024  # octets of values, and of Statuses, that are kept of the answers to one package
STATUS_COST: Final = 256  # octets that a Status counts for
OBJECT_INCOMPLETE: Final = StatusCode.SIZE_MISMATCH
"""What a value counts as that the device stopped taking before its last chunk, whatever it said of the chunks."""


@dataclass(slots=True)
class Pending:
    """A command the policy gave, and the answers so far."""

    command: Command
    statuses: list[Status] = field(default_factory=list)
    chunk_statuses: list[Status] = field(default_factory=list)  # of the messages that carried a large object
    results: list[Results] = field(default_factory=list)
    refused: int | None = None  # 413 when we could not send it or hear it all, 424 when the device stopped half-way
    amid_object: bool = False  # its last message had `MoreData`
    resent: bool = False  # its object was sent a second time

    def answered(self) -> CommandAnswered:
        """The outcome, with all that was said."""
        chunks = [status for status in self.chunk_statuses if status.code != StatusCode.CHUNK_ACCEPTED]
        statuses = [*self.statuses, *chunks]
        if self.refused is not None:
            code = self.refused
        elif statuses:
            code = worst([status.code for status in statuses])
        else:
            code = int(StatusCode.OK) if self.results else int(StatusCode.COMMAND_FAILED)
        return CommandAnswered(command=self.command, code=code, statuses=tuple(statuses), results=tuple(self.results))


@dataclass(frozen=True, slots=True)
class _Sent:
    """A command as it went out, alone or inside a group."""

    pending: Pending
    command: Command  # as numbered on the wire
    chunk: bool  # part of a large object


@dataclass(frozen=True, slots=True)
class _Step:
    """Commands that go out together. `guard`: only if the alerts of that command before were not declined."""

    commands: tuple[Command, ...]
    guard: Pending | None = None


class OutstandingPackage:
    """One decision of the policy on its way."""

    def __init__(self) -> None:
        self._pending: list[Pending] = []  # in the order the policy gave
        self._owners: dict[int, Pending] = {}  # id of a command in the queue → command of the policy
        self._sent: dict[tuple[str, str], _Sent] = {}  # (MsgID, CmdID)
        self._steps: list[_Step] = []  # still to go out
        self._kept: list[Command] = []  # commands of ours whose id is a key above
        self._heard = 0  # octets kept of the answers

    def plan(self, commands: tuple[Command, ...], *, sequences: bool) -> None:
        """Take the commands of a decision. Without `sequences`, the children of a Sequence go out one by one."""
        together: list[Command] = []
        for command in commands:
            pending = Pending(command)
            self._pending.append(pending)
            if sequences or not isinstance(command, Sequence):
                self._owners[id(command)] = pending
                together.append(command)
                continue
            self._steps += [_Step(tuple(together))] if together else []
            together = []
            for child in _flat(command):
                self._owners[id(child)] = pending
                self._steps.append(_Step((child,), guard=pending))
        self._steps += [_Step(tuple(together))] if together else []

    def next_step(self) -> tuple[Command, ...]:
        """What goes out next; nothing when all has."""
        while self._steps:
            step = self._steps.pop(0)
            if step.guard is None or not _declined(step.guard):
                return step.commands
        return ()

    def sent(self, msg_id: str, carried: tuple[tuple[Command, Command], ...]) -> None:
        """Note what a message carries: commands as numbered, and what they come from."""
        for on_wire, origin in carried:
            if (pending := self._owners.get(id(origin))) is None:
                continue  # an alert of our own
            more = any(item.more_data for item in items_of(on_wire))
            chunk, pending.amid_object = more or pending.amid_object, more
            for each in walk((on_wire,)):  # children answer for themselves, under their group
                self._sent[msg_id, each.cmd_id] = _Sent(pending, each, chunk)

    def refused(self, commands: tuple[Command, ...]) -> None:
        """Note what the device cannot take in any form."""
        for command in commands:
            if (pending := self._owners.get(id(command))) is not None:
                pending.refused = StatusCode.REQUEST_ENTITY_TOO_LARGE

    def hear_status(self, status: Status) -> bool:
        """Take a Status of the device; True when it ends an object of which chunks are left."""
        sent = self._find(status.msg_ref, status.cmd_ref, status.cmd, status.target_refs)
        if sent is None or not self._has_room(STATUS_COST + _octets(status.items)):
            return False
        pending = sent.pending
        (pending.chunk_statuses if sent.chunk else pending.statuses).append(status)
        if not sent.chunk or not pending.amid_object or status.code == StatusCode.CHUNK_ACCEPTED:
            return False
        if status.code < StatusCode.BAD_REQUEST:
            # 200 where 213 is due: the device thinks that it has everything, and it has a part.
            pending.refused = OBJECT_INCOMPLETE
        pending.amid_object = False
        return True

    def hear_results(self, results: Results, items: tuple[Item, ...]) -> bool:
        """Take Results whose Items are whole; False when the device says more than is kept, and the command failed.

        A device may repeat itself, and go on for as many messages as a session can have.
        """
        pending = self.asker(results)
        if not items or pending is None:
            return True
        if not self._has_room(STATUS_COST + _octets(items)):
            pending.refused = StatusCode.REQUEST_ENTITY_TOO_LARGE
            return False
        pending.results.append(replace(results, items=items))
        return True

    def _has_room(self, octets: int) -> bool:
        if self._heard + octets > MAX_HEARD:
            return False
        self._heard += octets
        return True

    def asker(self, results: Results) -> Pending | None:
        """The command these Results answer."""
        uris = tuple(uri for item in results.items for uri in (item.source, item.target) if uri)
        uris += tuple(uri for uri in (results.source_ref, results.target_ref) if uri)
        sent = self._find(results.msg_ref, results.cmd_ref, "Get", uris)
        return None if sent is None else sent.pending

    def restart(self, alert: Alert) -> Command | None:
        """Alert 1225: the object to send from its beginning, once; None when there is none or it was sent again.

        An object that is not sent again has failed.
        """
        uris = {_bare(uri) for item in alert.items for uri in (item.target, item.source) if uri}
        chunks = [sent for sent in self._sent.values() if sent.chunk]
        named = [sent for sent in chunks if uris & set(_uris(sent.command))] or (chunks if not uris else [])
        if not named:
            return None
        pending, uri = named[-1].pending, _uris(named[-1].command)[0]
        pending.chunk_statuses, pending.amid_object = [], False
        if pending.resent:
            pending.refused = OBJECT_INCOMPLETE
            return None
        pending.resent = True
        for whole in walk((pending.command,)):
            if not isinstance(whole, Add | Replace | Exec):
                continue  # nothing else that a server sends has a value to cut
            for item in whole.items:
                if _bare(item.target or "") == uri:
                    again = replace(whole, items=(item,))
                    self._owners[id(again)] = pending
                    self._kept.append(again)
                    return again
        return None

    def answers(self) -> list[CommandAnswered]:
        """All outcomes, in the order the policy gave the commands."""
        return [pending.answered() for pending in self._pending]

    def _find(self, msg_ref: str, cmd_ref: str, name: str, uris: tuple[str, ...]) -> _Sent | None:
        """The command meant: by both references; by CmdRef and name; by name and node; by name alone.

        A Status may be given for a child of a group, which answers for itself.
        """
        exact = self._sent.get((msg_ref, cmd_ref))
        if exact is not None and name in (exact.command.name, ""):
            return exact
        wanted = {_bare(uri) for uri in uris}
        tests: tuple[Callable[[str, _Sent], bool], ...] = (
            lambda cmd_id, sent: cmd_id == cmd_ref and sent.command.name == name,
            lambda cmd_id, sent: sent.command.name == name and bool(wanted & set(_uris(sent.command))),
            lambda cmd_id, sent: not cmd_ref and sent.command.name == name,
        )
        for test in tests:
            found = [sent for (_, cmd_id), sent in self._sent.items() if test(cmd_id, sent)]
            if found:
                return found[-1]
        return None


def _flat(sequence: Sequence) -> Iterator[Command]:
    for child in sequence.commands:
        if isinstance(child, Sequence):
            yield from _flat(child)
        else:
            yield child


def _declined(pending: Pending) -> bool:
    """Whether the user said no, or nothing, to an alert: the rest of a Sequence is not executed then."""
    return any(status.cmd == Alert.__name__ and not is_success(status.code) for status in pending.statuses)


def _octets(items: tuple[Item, ...]) -> int:
    return sum(len(item.data or "") for item in items)


def _uris(command: Command) -> list[str]:
    return [_bare(item.target) for item in items_of(command) if item.target]


def _bare(uri: str) -> str:
    return uri.removeprefix("./")
