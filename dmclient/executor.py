"""Commands of the server, run against the tree, as results for the session (OMA-TS-DM_RepPro-V1_2 §6.6).

One transaction per Item: each Item of a command has its own Status. An Atomic is one transaction altogether.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeAlias

from dmclient.alerts import AlertQueue, PendingAlert
from dmclient.behaviour import USUAL, AlertRule, Behaviour, ResultsForm, Rule
from dmclient.management_tree import ManagementTree, TreeChanged, UndoFailed
from dmclient.nodes import Path, TreeRefusal
from dmclient.tree_listing import is_list, list_tree
from dmclient.tree_tnds import apply_tnds, read_tnds
from dmclient.tree_transaction import Transaction
from dmclient.user_interaction import UserInterface, interact
from dmclient.value_rules import Content
from syncml.client_session import CommandResult
from syncml.codec import Encoding
from syncml.codes import Format, MediaType, StatusCode, is_success
from syncml.errors import SyncMLError
from syncml.model import Add, Alert, Atomic, Command, Copy, Delete, Exec, Get, Item, Meta, Replace, Sequence
from syncml.tree import NodeUri
from syncml.values import item_value, leaf_item

_ItemCommand: TypeAlias = Add | Replace | Delete | Copy | Get | Exec

TNDS_TYPES: Final = frozenset({MediaType.TNDS_XML.value, MediaType.TNDS_WBXML.value})
STOPS: Final = frozenset({StatusCode.NOT_MODIFIED, StatusCode.OPERATION_CANCELLED, StatusCode.REQUEST_TIMEOUT})
"""Statuses of a user-interaction alert after which the rest of its Sequence is not executed."""


class Operator(Protocol):
    """Somebody who decides by hand what a command is answered with."""

    async def status_for(self, command: str, uri: str) -> int | None:
        """The Status to answer, None to do the command as usual."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is around the tree when commands are executed."""

    behaviour: Behaviour = USUAL
    user: UserInterface | None = None  # None: a device without display and keys
    operator: Operator | None = None  # None: nobody decides by hand
    alerts: AlertQueue = field(default_factory=AlertQueue)  # where the end of an asynchronous Exec is told
    encoding: Encoding = Encoding.XML  # of the session: what a serialised sub-tree is written in


@dataclass(slots=True)
class _Done:
    """A child of an Atomic, done so far, with its share of the effects outside the tree."""

    result: CommandResult
    effects: range


class Executor:
    """Runs the commands of one authenticated server."""

    def __init__(self, tree: ManagementTree, server_id: str, around: Surroundings | None = None) -> None:
        self._tree = tree
        self._server_id = server_id
        self._around = around if around is not None else Surroundings()
        self._cancelled = False

    def begin_message(self) -> None:
        """A new message: what a user cancelled in the one before is over."""
        self._cancelled = False

    async def execute(self, command: Command) -> list[CommandResult]:
        """Do a command; results in the order the answer has them: a Sequence or Atomic before its children.

        That the answer to an Atomic has room in one message (517) is seen to before it comes here.
        """
        if self._cancelled:
            return _not_executed(command)
        results = await self._execute(command)
        if isinstance(command, Alert) and results[0].code == StatusCode.OPERATION_CANCELLED:
            # Directly in the SyncBody a cancelled alert stops the message (RepPro §8.2).
            self._cancelled = True
        return results

    async def _execute(self, command: Command) -> list[CommandResult]:
        if isinstance(command, Sequence | Atomic):
            status = self._around.behaviour.rule_for(command.name).status
            if status is not None:
                inner = [each for child in command.commands for each in _not_executed(child)]
                return [_whole(command, status), *inner]
            return await (self._sequence(command) if isinstance(command, Sequence) else self._atomic(command))
        if isinstance(command, Alert):
            return [await self._alert(command)]
        if not isinstance(command, _ItemCommand):
            return [_whole(command, StatusCode.OPTIONAL_FEATURE_NOT_SUPPORTED)]
        if not command.items or (isinstance(command, Exec) and len(command.items) != 1):
            return [_whole(command, StatusCode.INCOMPLETE_COMMAND)]
        return [await self._one(command, item) for item in command.items]

    async def _sequence(self, sequence: Sequence) -> list[CommandResult]:
        """200 says that execution began; a child that fails does not stop the others, a user who says no does."""
        results = [_whole(sequence, StatusCode.OK)]
        stopped = False
        for child in sequence.commands:
            if stopped:
                results += _not_executed(child)
                continue
            found = await self._execute(child)
            results += found
            stopped = isinstance(child, Alert) and found[0].code in STOPS
        return results

    async def _alert(self, alert: Alert) -> CommandResult:
        status = self._around.behaviour.rule_for(alert.name, alert_code=alert.code).status
        if status is not None:
            return _whole(alert, status)
        try:
            interaction = await interact(self._around.user, alert)
        except TreeRefusal as refusal:
            return _whole(alert, refusal.code)
        return CommandResult(cmd_id=alert.cmd_id, code=int(interaction.code), detail=interaction.items)

    async def _one(self, command: _ItemCommand, item: Item) -> CommandResult:
        rule, constant = await self._decide(command, item)
        if constant is not None and not rule.execute:
            return _item_result(command, item, constant)
        transaction = Transaction(self._tree, self._server_id)
        try:
            result = self._run(transaction, command, item, rule)
        except TreeRefusal as refusal:
            transaction.rollback()
            return _refusal(command, item, refusal) if constant is None else _item_result(command, item, constant)
        except BaseException:
            transaction.rollback()
            raise
        transaction.commit()  # an Exec may have failed in its own way, and have noted so in the tree
        return result if constant is None else replace(result, code=constant, item=None)

    async def _decide(self, command: _ItemCommand, item: Item) -> tuple[Rule, int | None]:
        """The rule for one Item, and the Status that it or the tester fixed."""
        rule = self._around.behaviour.rule_for(command.name, item.target)
        if rule.answer == "manual" and self._around.operator is not None:
            return rule, await self._around.operator.status_for(command.name, item.target or "")
        return rule, rule.status

    async def _atomic(self, atomic: Atomic) -> list[CommandResult]:
        """All children or none: the failing one keeps its code, those before are 216, those after 215."""
        transaction = Transaction(self._tree, self._server_id)
        done: list[_Done] = []
        failed: CommandResult | None = None
        skipped: list[CommandResult] = []
        try:
            for child in atomic.commands:
                if failed is not None:
                    skipped.extend(_not_executed(child))
                    continue
                if isinstance(child, Alert):
                    result = await self._alert(child)
                    if is_success(result.code):
                        done.append(_Done(result, range(0)))
                    else:
                        failed = result
                    continue
                if not isinstance(child, Add | Replace | Delete | Copy) or not child.items:
                    failed = _unfit(child)
                    skipped.extend(_not_executed(child)[1:])  # what is inside a group that has no place here
                    continue
                for item in child.items:
                    if failed is not None:
                        skipped.append(_item_result(child, item, StatusCode.NOT_EXECUTED))
                        continue
                    before = len(transaction.effects)
                    result = await self._part(transaction, child, item)
                    if is_success(result.code):
                        done.append(_Done(result, range(before, len(transaction.effects))))
                    else:
                        failed = result
            if failed is None:
                transaction.commit()
                return [_whole(atomic, StatusCode.OK), *(each.result for each in done)]
        except TreeChanged:
            return [_whole(atomic, StatusCode.ATOMIC_FAILED), *_undone(done, frozenset())]
        except BaseException:
            transaction.rollback()
            raise
        undone = _undone(done, transaction.rollback())
        return [_whole(atomic, StatusCode.ATOMIC_FAILED), *undone, failed, *skipped]

    async def _part(self, transaction: Transaction, command: _ItemCommand, item: Item) -> CommandResult:
        """One Item inside an Atomic."""
        rule, constant = await self._decide(command, item)
        if constant is not None and not rule.execute:
            return _item_result(command, item, constant)
        try:
            result = self._run(transaction, command, item, rule)
        except TreeRefusal as refusal:
            return _refusal(command, item, refusal)
        return result if constant is None else replace(result, code=constant)

    def _run(self, transaction: Transaction, command: _ItemCommand, item: Item, rule: Rule) -> CommandResult:
        """One Item of a command.

        Raises:
            TreeRefusal: it is not done.
        """
        if item.target is None:
            raise TreeRefusal(StatusCode.INCOMPLETE_COMMAND, "no Target")
        if item.more_data:  # the session joins chunks, except in groups, which never span messages (Protocol §7)
            raise TreeRefusal(StatusCode.INCOMPLETE_COMMAND, "a chunk inside a group")
        code: int = StatusCode.OK
        match command:
            case Add() | Replace() if _is_tnds(command, item):
                tnds = read_tnds(_content(command, item).value)
                apply_tnds(transaction, item.target, tnds, replacing=isinstance(command, Replace))
            case Add():
                transaction.add(item.target, _content(command, item))
            case Replace():
                transaction.replace(item.target, _content(command, item))
            case Delete():
                transaction.delete(item.target)
            case Copy():
                if item.source is None:
                    raise TreeRefusal(StatusCode.INCOMPLETE_COMMAND, "no Source")
                transaction.copy(item.source, item.target)
            case Exec() if rule.alert is not None:
                transaction.executable(item.target)
                self._tell_later(rule.alert, item.target, command.correlator)
                code = StatusCode.ACCEPTED_FOR_PROCESSING
            case Exec():
                argument = _content(command, item).value
                code = transaction.execute(item.target, correlator=command.correlator, argument=argument)
            case Get():
                return self._get(transaction, command, item, rule)
        if rule.undo == "fails":
            transaction.effects.append((transaction.path_of(item.target), _cannot_undo))
        return _item_result(command, item, code)

    def _get(self, transaction: Transaction, command: Get, item: Item, rule: Rule) -> CommandResult:
        uri = item.target or ""
        if is_list(uri):
            return self._listed(transaction, command, item, rule)
        answer = transaction.get(uri)
        value = None if answer.format is Format.NULL else answer.value
        if rule.value is not None:
            value = rule.value.encode() if isinstance(value, bytes) else rule.value
        found = leaf_item(uri, value, format=answer.format, type=answer.type)
        # In Results the node is at the sender: Source, not Target (OMA-TS-DM_RepPro-V1_2 §6.6.14).
        return _item_result(
            command, item, StatusCode.OK, results=_as_wanted((replace(found, target=None, source=uri),), rule)
        )

    def _listed(self, transaction: Transaction, command: Get, item: Item, rule: Rule) -> CommandResult:
        items = list_tree(transaction, item.target or "", self._around.encoding)
        return _item_result(command, item, StatusCode.OK, results=_as_wanted(items, rule))

    def _tell_later(self, rule: AlertRule, uri: str, correlator: str | None) -> None:
        """The generic alert that says how an Exec ended, with the Exec's Correlator (Protocol §8.7)."""
        alert = PendingAlert(
            type=rule.type,
            source=rule.source if rule.source is not None else uri,
            format=rule.format.value,
            data=rule.data,
            mark=rule.mark,
            correlator=correlator,
            server_id=self._server_id,
        )
        self._around.alerts.push(alert, at_once=rule.when == "now")


def _as_wanted(items: tuple[Item, ...], rule: Rule) -> tuple[Item, ...]:
    return {ResultsForm.ONCE: items, ResultsForm.NONE: (), ResultsForm.TWICE: items * 2}[rule.results]


def uri_of(path: Path) -> str:
    """The address as it stands in a message: `./A/B`, the root being `.`."""
    return str(NodeUri(path))


def _cannot_undo() -> None:
    raise UndoFailed("the behaviour file says so")


def _undone(done: list[_Done], stayed: frozenset[int]) -> list[CommandResult]:
    """Results of children that were rolled back, or could not be (OMA-TS-DM_RepPro-V1_2 §10: 216, 516)."""
    return [
        CommandResult(
            cmd_id=each.result.cmd_id,
            code=int(
                StatusCode.ATOMIC_ROLL_BACK_OK
                if stayed.isdisjoint(each.effects)
                else StatusCode.ATOMIC_ROLL_BACK_FAILED
            ),
            target=each.result.target,
            source=each.result.source,
        )
        for each in done
    ]


def _unfit(child: Command) -> CommandResult:
    """The result of a child that cannot be part of an Atomic: only Add, Replace, Delete, Copy and Alert can.

    The specification leaves Get, Exec and groups out (500).
    """
    if isinstance(child, Add | Replace | Delete | Copy):
        return _whole(child, StatusCode.INCOMPLETE_COMMAND)
    return _whole(child, StatusCode.COMMAND_FAILED)


def _whole(command: Command, code: int) -> CommandResult:
    return CommandResult(cmd_id=command.cmd_id, code=int(code))


def _item_result(
    command: _ItemCommand, item: Item, code: int, *, results: tuple[Item, ...] = (), detail: tuple[Item, ...] = ()
) -> CommandResult:
    return CommandResult(
        cmd_id=command.cmd_id,
        code=int(code),
        target=item.target,
        item=results[0] if results else None,
        more_items=results[1:],
        source=item.source if isinstance(command, Copy) else None,
        detail=detail,
    )


def _refusal(command: _ItemCommand, item: Item, refusal: TreeRefusal) -> CommandResult:
    detail = () if refusal.ancestor is None else (Item(target=uri_of(refusal.ancestor)),)
    return _item_result(command, item, refusal.code, detail=detail)


def _not_executed(command: Command) -> list[CommandResult]:
    inner = command.commands if isinstance(command, Atomic | Sequence) else ()
    return [_whole(command, StatusCode.NOT_EXECUTED)] + [each for child in inner for each in _not_executed(child)]


def _is_tnds(command: Add | Replace, item: Item) -> bool:
    meta = (command.meta or Meta()).inherited_by(item.meta)
    return meta.type is not None and meta.type.strip().lower() in TNDS_TYPES


def _content(command: Add | Replace | Exec, item: Item) -> Content:
    meta = (command.meta or Meta()).inherited_by(item.meta)
    if item.data is None:
        return Content(format=meta.format, type=meta.type)
    try:
        value = item_value(item, command.meta)
    except SyncMLError as error:
        raise TreeRefusal(StatusCode.UNSUPPORTED_MEDIA_TYPE_OR_FORMAT, "Data do not decode") from error
    return Content(format=meta.format, type=meta.type, value=value)
