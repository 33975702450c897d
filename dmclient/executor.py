"""Commands of the server, run against the tree, as results for the session (OMA-TS-DM_RepPro-V1_2 §6.6).

One transaction per Item: each Item of a command has its own Status. An Atomic is one transaction altogether.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

from dmclient.management_tree import ManagementTree
from dmclient.nodes import Path, TreeRefusal
from dmclient.tree_transaction import Content, Transaction
from syncml.client_session import CommandResult
from syncml.codes import Format, StatusCode
from syncml.errors import SyncMLError
from syncml.model import Add, Alert, Atomic, Command, Copy, Delete, Exec, Get, Item, Meta, Replace, Sequence
from syncml.tree import NodeUri
from syncml.values import item_value, leaf_item

_ItemCommand: TypeAlias = Add | Replace | Delete | Copy | Get | Exec


class Executor:
    """Runs the commands of one authenticated server."""

    def __init__(self, tree: ManagementTree, server_id: str) -> None:
        self._tree = tree
        self._server_id = server_id

    def execute(self, command: Command) -> list[CommandResult]:
        """Do a command; results in the order the answer has them: a Sequence or Atomic before its children."""
        if isinstance(command, Sequence):
            # 200 says that execution began; a child that fails does not stop the others (RepPro §6.6.15).
            return [_whole(command, StatusCode.OK)] + [
                result for child in command.commands for result in self.execute(child)
            ]
        if isinstance(command, Atomic):
            return self._atomic(command)
        if not isinstance(command, _ItemCommand):
            # Alerts of the server want a user in front of the device, other elements are not DM.
            return [_whole(command, StatusCode.OPTIONAL_FEATURE_NOT_SUPPORTED)]
        if not command.items or (isinstance(command, Exec) and len(command.items) != 1):
            return [_whole(command, StatusCode.INCOMPLETE_COMMAND)]
        return [self._one(command, item) for item in command.items]

    def _one(self, command: _ItemCommand, item: Item) -> CommandResult:
        transaction = Transaction(self._tree, self._server_id)
        try:
            result = _run(transaction, command, item)
        except TreeRefusal as refusal:
            transaction.rollback()
            return _refusal(command, item, refusal)
        except BaseException:
            transaction.rollback()
            raise
        transaction.commit()  # an Exec may have failed in its own way, and have noted so in the tree
        return result

    def _atomic(self, atomic: Atomic) -> list[CommandResult]:
        """All children or none: the failing one keeps its code, those before are 216, those after 215."""
        transaction = Transaction(self._tree, self._server_id)
        done: list[CommandResult] = []
        failed: CommandResult | None = None
        skipped: list[CommandResult] = []
        try:
            for child in atomic.commands:
                if failed is not None:
                    skipped.extend(_not_executed(child))
                    continue
                if not isinstance(child, Add | Replace | Delete | Copy) or not child.items:
                    failed = _unfit(child)
                    continue
                for item in child.items:
                    if failed is not None:
                        skipped.append(_item_result(child, item, StatusCode.NOT_EXECUTED))
                        continue
                    try:
                        done.append(_run(transaction, child, item))
                    except TreeRefusal as refusal:
                        failed = _refusal(child, item, refusal)
        except BaseException:
            transaction.rollback()
            raise
        if failed is None:
            transaction.commit()
            return [_whole(atomic, StatusCode.OK), *done]
        transaction.rollback()
        undone = [
            CommandResult(
                cmd_id=each.cmd_id, code=StatusCode.ATOMIC_ROLL_BACK_OK, target=each.target, source=each.source
            )
            for each in done
        ]
        return [_whole(atomic, StatusCode.ATOMIC_FAILED), *undone, failed, *skipped]


def uri_of(path: Path) -> str:
    """The address as it stands in a message: `./A/B`, the root being `.`."""
    return str(NodeUri(path))


def _unfit(child: Command) -> CommandResult:
    """The result of a child that cannot be part of an Atomic: only Add, Replace, Delete and Copy with Items can.

    The specification leaves Get, Exec and Atomic out (500); alerts want a user in front of the device (406).
    """
    if isinstance(child, Add | Replace | Delete | Copy):
        return _whole(child, StatusCode.INCOMPLETE_COMMAND)
    if isinstance(child, Alert):
        return _whole(child, StatusCode.OPTIONAL_FEATURE_NOT_SUPPORTED)
    return _whole(child, StatusCode.COMMAND_FAILED)


def _whole(command: Command, code: int) -> CommandResult:
    return CommandResult(cmd_id=command.cmd_id, code=int(code))


def _item_result(
    command: _ItemCommand, item: Item, code: int, *, results: Item | None = None, detail: tuple[Item, ...] = ()
) -> CommandResult:
    return CommandResult(
        cmd_id=command.cmd_id,
        code=int(code),
        target=item.target,
        item=results,
        source=item.source if isinstance(command, Copy) else None,
        detail=detail,
    )


def _refusal(command: _ItemCommand, item: Item, refusal: TreeRefusal) -> CommandResult:
    detail = () if refusal.ancestor is None else (Item(target=uri_of(refusal.ancestor)),)
    return _item_result(command, item, refusal.code, detail=detail)


def _not_executed(command: Command) -> list[CommandResult]:
    inner = command.commands if isinstance(command, Atomic | Sequence) else ()
    return [_whole(command, StatusCode.NOT_EXECUTED)] + [each for child in inner for each in _not_executed(child)]


def _run(transaction: Transaction, command: _ItemCommand, item: Item) -> CommandResult:
    """One Item of a command.

    Raises:
        TreeRefusal: it is not done.
    """
    if item.target is None:
        raise TreeRefusal(StatusCode.INCOMPLETE_COMMAND, "no Target")
    code: int = StatusCode.OK
    match command:
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
        case Exec():
            argument = _content(command, item).value
            code = transaction.execute(item.target, correlator=command.correlator, argument=argument)
        case Get():
            answer = transaction.get(item.target)
            value = None if answer.format is Format.NULL else answer.value
            found = leaf_item(item.target, value, format=answer.format, type=answer.type)
            # In Results the node is at the sender: Source, not Target (OMA-TS-DM_RepPro-V1_2 §6.6.14).
            return _item_result(command, item, code, results=replace(found, target=None, source=item.target))
    return _item_result(command, item, code)


def _content(command: Add | Replace | Exec, item: Item) -> Content:
    meta = (command.meta or Meta()).inherited_by(item.meta)
    if item.data is None:
        return Content(format=meta.format, type=meta.type)
    try:
        value = item_value(item, command.meta)
    except SyncMLError as error:
        raise TreeRefusal(StatusCode.UNSUPPORTED_MEDIA_TYPE_OR_FORMAT, "Data do not decode") from error
    return Content(format=meta.format, type=meta.type, value=value)
