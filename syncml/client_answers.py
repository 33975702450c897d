"""What a device says of the commands of its server: results of the executor, as Statuses and Results."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from syncml.codes import StatusCode
from syncml.errors import LocalProtocolError
from syncml.model import Atomic, Command, Copy, Get, Item, Results, Status, SyncHdr, walk
from syncml.outbox import Outbox, items_of
from syncml.statuses import status_of


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """Outcome of one command, one of its Items (`target`), or one child of a group (`cmd_id`)."""

    cmd_id: str
    code: int
    target: str | None = None  # as received; None: the whole command
    source: str | None = None
    item: Item | None = None  # what a Get found; its `source` is the node
    more_items: tuple[Item, ...] = ()  # the rest of it, when `?list=` found several nodes
    detail: tuple[Item, ...] = ()  # the ancestor that failed, or what a user entered


@dataclass(slots=True)
class _Answer:
    """A command of the server, and its outcome once that is known."""

    command: Command
    results: list[CommandResult] | None


class ClientAnswers:
    """The commands of one message, in their order, each with its outcome."""

    def __init__(self) -> None:
        self._answers: list[_Answer] = []
        self._waiting: dict[int, _Answer] = {}  # id of a command that the executor has → its answer
        self._taken: set[str] = set()  # CmdIDs of all commands so far

    def __bool__(self) -> bool:
        return bool(self._answers)

    def expect(self, command: Command) -> None:
        """A command that the executor will answer."""
        answer = self._waiting[id(command)] = _Answer(command, None)
        self._add(answer)

    def settle(self, command: Command, *results: CommandResult) -> None:
        """A command whose outcome is clear without the executor."""
        self._add(_Answer(command, list(results)))

    def _add(self, answer: _Answer) -> None:
        self._answers.append(answer)
        self._taken.update(each.cmd_id for each in walk((answer.command,)))

    def give(self, command: Command, results: Iterable[CommandResult]) -> None:
        """The executor's outcome of a command.

        Raises:
            LocalProtocolError: nothing of the kind is expected.
        """
        if (answer := self._waiting.get(id(command))) is None:
            raise LocalProtocolError(f"{command.name} {command.cmd_id} waits for no answer")
        answer.results = list(results)

    def names(self, command: Command) -> bool:
        """Whether a command and its children have CmdIDs, each once in the message."""
        own = [each.cmd_id for each in walk((command,))]
        return all(own) and len(set(own)) == len(own) and self._taken.isdisjoint(own)

    @property
    def has_chunk(self) -> bool:
        """Whether a chunk of a large object was taken, so that more of it is to come."""
        return any(each.code == StatusCode.CHUNK_ACCEPTED for a in self._answers for each in a.results or ())

    def hand_over(self, outbox: Outbox, header: SyncHdr | None) -> None:
        """Queue all Statuses and Results.

        Raises:
            LocalProtocolError: a command has no outcome.
        """
        for answer in self._answers:
            if answer.results is None:
                raise LocalProtocolError(f"{answer.command.name} {answer.command.cmd_id} has no answer")
            named = {child.cmd_id: child for child in walk((answer.command,))}
            for result in answer.results:
                _queue(result, named[result.cmd_id], outbox, "" if header is None else header.msg_id)
        self._answers, self._waiting = [], {}


def _queue(result: CommandResult, answered: Command, outbox: Outbox, msg_ref: str) -> None:
    code = result.code
    items = () if result.item is None else (result.item, *result.more_items)
    if not all(map(outbox.takes, items)):
        code, items = StatusCode.REQUEST_ENTITY_TOO_LARGE, ()
    outbox.owed.append(
        Status(
            msg_ref=msg_ref,
            cmd_ref=result.cmd_id,
            cmd=answered.name,
            code=code,
            target_refs=() if result.target is None else (result.target,),
            source_refs=() if result.source is None else (result.source,),
            items=result.detail,
        )
    )
    if items and isinstance(answered, Get):
        outbox.put(Results(msg_ref=msg_ref, cmd_ref=result.cmd_id, items=items))


def statuses_of_atomic(atomic: Atomic, header: SyncHdr) -> list[Status]:
    """The Statuses an Atomic gets at the most: its own, and one for each Item inside."""
    statuses = []
    for command in walk((atomic,)):
        whole = status_of(header, command, StatusCode.ATOMIC_FAILED)
        for item in items_of(command) or (Item(),):
            statuses.append(
                Status(
                    msg_ref=whole.msg_ref,
                    cmd_ref=whole.cmd_ref,
                    cmd=whole.cmd,
                    code=whole.code,
                    target_refs=(item.target,) if item.target else (),
                    source_refs=(item.source,) if item.source and isinstance(command, Copy) else (),
                )
            )
    return statuses


def refused_atomic(atomic: Atomic) -> list[CommandResult]:
    """An Atomic whose answer is too large for one message: 517, and nothing of it was done."""
    children = [each for each in walk((atomic,)) if each is not atomic]
    return [
        CommandResult(cmd_id=atomic.cmd_id, code=StatusCode.ATOMIC_RESPONSE_TOO_LARGE),
        *(CommandResult(cmd_id=child.cmd_id, code=StatusCode.NOT_EXECUTED) for child in children),
    ]
