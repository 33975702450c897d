"""What became of an operator's request: from what the session engine says to the record of each command.

Devices answer as they like: one Status for a command or one for each Item, with or without TargetRef, a group without a
Status of its own. What they do not say counts as the Status of the whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar

from dmserver.answers import node_key
from dmserver.operator_commands import (
    CommandRecord,
    Grouping,
    ItemCode,
    OperatorCommand,
    OperatorRequest,
    Outcome,
    RequestState,
    ResultValue,
    dump_value,
    hides_input,
)
from syncml.codes import Format, MediaType, StatusCode, is_success
from syncml.errors import RemoteProtocolError
from syncml.model import Exec, Item, Meta, Results, Status
from syncml.session import CommandAnswered, worst
from syncml.values import item_value

MAX_KEPT_VALUE: Final = 512 * 1024  # octets (characters of text) of one value
MAX_KEPT: Final = 4 * 1024 * 1024  # of all values of one command
MAX_KEPT_RESULTS: Final = 1024  # values of one command

SECRET_LEAVES: Final = frozenset(
    # Of a DM account, in DM 1.2 (OMA-TS-DM_StdObj-V1_2 §5.3.3) and in 1.1; and what vendors call theirs.
    {"AAuthSecret", "AAuthData", "ClientPW", "ServerPW", "ClientNonce", "ServerNonce", "Password", "PSK", "Secret"}
)
WITHHELD: Final = "[withheld]"

Referring = TypeVar("Referring", Status, Results)


def settle(request: OperatorRequest, answered: Sequence[CommandAnswered]) -> OperatorRequest:
    """The request after the device has answered its package."""
    if request.grouping is Grouping.NONE:
        by_command = {id(event.command): event for event in answered}
        records = []
        for record in request.commands:
            event = by_command.get(id(record.command))
            outcome = (
                _outcome(record.command, event.code, event.statuses, event.results)
                if event is not None
                else Outcome(code=StatusCode.COMMAND_FAILED)
            )
            records.append(dataclasses.replace(record, outcome=outcome))
        return judge(dataclasses.replace(request, commands=tuple(records)))
    if not answered:
        return judge(dataclasses.replace(request, code=int(StatusCode.COMMAND_FAILED)))
    return judge(_settle_group(request, answered[0]))


def judge(request: OperatorRequest) -> OperatorRequest:
    """The state that the outcomes of its commands make, without a word on what has not been answered."""
    codes = [record.outcome.code for record in request.commands if record.outcome is not None]
    if request.grouping is not Grouping.NONE and request.code is not None:
        codes.insert(0, request.code)
    bad = next((code for code in codes if _failed(code)), None)
    if bad is not None:
        return dataclasses.replace(request, state=RequestState.FAILED, code=bad, detail=f"Status {bad}")
    if any(waits(record) for record in request.commands):
        return dataclasses.replace(request, state=RequestState.WAITING)
    return dataclasses.replace(request, state=RequestState.DONE, code=request.code or worst(codes), detail="")


def waits(record: CommandRecord) -> bool:
    """Whether the command was accepted and its result comes later (Exec 202, then Alert 1226)."""
    pending = record.outcome is not None and record.outcome.code == StatusCode.ACCEPTED_FOR_PROCESSING
    return pending and isinstance(record.command, Exec) and not record.alert


def _failed(code: int) -> bool:
    """304 is a user's answer; 214 to 216 say that a command was not done; 0, which some devices send, says nothing."""
    return not 100 <= code < StatusCode.BAD_REQUEST or code in (
        StatusCode.OPERATION_CANCELLED,
        StatusCode.NOT_EXECUTED,
        StatusCode.ATOMIC_ROLL_BACK_OK,
    )


def _settle_group(request: OperatorRequest, event: CommandAnswered) -> OperatorRequest:
    """Statuses of an Atomic or Sequence, spread over its children by their CmdRefs."""
    own = [status for status in event.statuses if status.cmd.lower() == request.grouping]
    code = own[-1].code if own else event.code
    refs = _places([status for status in event.statuses if status not in own], own, len(request.commands))
    records = []
    for index, record in enumerate(request.commands):
        statuses = [
            status
            for status in event.statuses
            if status not in own and _is_of(status, refs, index, record.command, request.commands)
        ]
        results = [result for result in event.results if _is_of(result, refs, index, record.command, request.commands)]
        if statuses:
            mine = worst([status.code for status in statuses])
        elif results:
            mine = int(StatusCode.OK)
        else:
            # A group whose own Status says why (406, 507, 413) speaks for children without one.
            mine = int(StatusCode.NOT_EXECUTED) if own and is_success(code) else code
        records.append(dataclasses.replace(record, outcome=_outcome(record.command, mine, statuses, results)))
    return dataclasses.replace(request, code=code, commands=tuple(records))


def _places(statuses: Iterable[Status], own: Sequence[Status], count: int) -> dict[tuple[str, str], int]:
    """(MsgRef, CmdRef) of a child → its place in the group; empty when references do not tell.

    A group is never split over messages, so its children are numbered after it in document order. A device that has
    the children sent one by one, without their group, answers each in the same order.
    """
    if own and own[0].cmd_ref.isdecimal() and len(own[0].cmd_ref) < 10:
        first, message = int(own[0].cmd_ref) + 1, own[0].msg_ref
        return {(message, str(first + index)): index for index in range(count)}
    seen = list(dict.fromkeys((status.msg_ref, status.cmd_ref) for status in statuses))
    if len(seen) == count:
        return {reference: index for index, reference in enumerate(seen)}
    return {}


def _is_of(
    answer: Status | Results,
    refs: dict[tuple[str, str], int],
    index: int,
    command: OperatorCommand,
    all_commands: tuple[CommandRecord, ...],
) -> bool:
    place = refs.get((answer.msg_ref, answer.cmd_ref))
    if place is not None:
        return place == index
    if isinstance(answer, Status) and answer.cmd != command.name:
        return False
    if isinstance(answer, Results) and command.name != "Get":
        return False
    named = set(map(node_key, _references(answer)))
    if named:
        return bool(named & {node_key(item.target or "") for item in command.items})
    alike = [each for each, record in enumerate(all_commands) if record.command.name == command.name]
    return alike == [index]


def _references(answer: Status | Results) -> list[str]:
    if isinstance(answer, Status):
        return list(answer.target_refs)
    found = [item.source or item.target or "" for item in answer.items]
    return [uri for uri in (answer.source_ref, answer.target_ref, *found) if uri]


def _outcome(command: OperatorCommand, code: int, statuses: Sequence[Status], results: Sequence[Results]) -> Outcome:
    return Outcome(
        code=code,
        items=_item_codes(command, code, [status for status in statuses if status.code != StatusCode.CHUNK_ACCEPTED]),
        results=_bounded(
            [*_values(results), *(_detail(item) for status in statuses for item in status.items if item.data)]
        ),
    )


def _item_codes(command: OperatorCommand, code: int, statuses: Sequence[Status]) -> tuple[ItemCode, ...]:
    uris = [item.target or "" for item in command.items if item.target]
    if not uris:
        return ()
    codes: dict[str, int] = {}
    whole = [status for status in statuses if not status.target_refs]
    for status in statuses:
        codes.update(dict.fromkeys(map(node_key, status.target_refs), status.code))
    if len(whole) == len(uris) > 1:
        # The command went out in several, one Item each, and their Statuses name no node.
        codes.update({node_key(uri): status.code for uri, status in zip(uris, whole, strict=True)})
    rest = whole[-1].code if whole else code
    return tuple(ItemCode(uri=uri, code=codes.get(node_key(uri), rest)) for uri in uris)


def _values(results: Iterable[Results]) -> Iterable[ResultValue]:
    for result in results:
        for item in result.items:
            yield _value(item, result.meta, item.source or item.target or result.source_ref or result.target_ref or "")


def _detail(item: Item) -> ResultValue:
    """An Item of a Status: what a user answered, or the node at which an implicit Add failed."""
    return _value(item, None, item.target or item.source or "")


def _value(item: Item, command_meta: Meta | None, uri: str) -> ResultValue:
    meta = (command_meta or Meta()).inherited_by(item.meta)
    try:
        value = item_value(item, command_meta)
    except RemoteProtocolError:
        value = item.data if item.data is not None else ""  # Base64 that is none: shown as it came
    return ResultValue(
        uri=uri[:2048],
        format=(meta.format or Format.CHR)[:32],
        type=(meta.type or MediaType.TEXT)[:255],
        value=value[:MAX_KEPT_VALUE],
        truncated=len(value) > MAX_KEPT_VALUE,
    )


def _bounded(values: Iterable[ResultValue]) -> tuple[ResultValue, ...]:
    """Each node once, the last word wins (some devices repeat Results); no more than what is kept."""
    kept: dict[tuple[str, int], ResultValue] = {}
    for number, value in enumerate(values):
        kept[value.uri, 0 if value.uri else number] = value
    room, bounded = MAX_KEPT, []
    for value in list(kept.values())[:MAX_KEPT_RESULTS]:
        if len(value.value) > room:
            value = dataclasses.replace(value, value="", truncated=True)
        room -= len(value.value)
        bounded.append(value)
    return tuple(bounded)


def alert_values(items: Iterable[Item]) -> tuple[ResultValue, ...]:
    """The Items of a generic alert."""
    return _bounded([_value(item, None, item.source or item.target or "") for item in items])


# --- what an operator sees --------------------------------------------------------------------------------------------


def show_request(request: OperatorRequest) -> dict[str, Any]:
    """A request as JSON, secrets withheld."""
    return {
        "id": request.request_id,
        "deviceId": request.device_id,
        "number": request.number,
        "state": request.state.value,
        "grouping": request.grouping.value,
        "idempotent": request.idempotent,
        "attempts": request.attempt,
        "createdAt": request.created_at.isoformat(),
        "expiresAt": request.expires_at.isoformat(),
        "code": request.code,
        "detail": request.detail,
        "commands": [_show_record(record) for record in request.commands],
    }


def _show_record(record: CommandRecord) -> dict[str, Any]:
    command, outcome = record.command, record.outcome
    shown: dict[str, Any] = {"command": command.name.lower(), "items": [_show_item(item) for item in command.items]}
    if command.name == "Alert":
        shown["alert"] = getattr(command, "code", None)
    if isinstance(command, Exec) and command.correlator is not None:
        shown["correlator"] = command.correlator
    if outcome is not None:
        hidden = hides_input(command)
        shown["code"] = outcome.code
        shown["statuses"] = [{"uri": item.uri, "code": item.code} for item in outcome.items]
        shown["results"] = [_show_value(value, hidden=hidden) for value in outcome.results]
        shown["waiting"] = waits(record)
    if record.alert:
        shown["alertItems"] = [_show_value(value) for value in record.alert]
    return shown


def _show_item(item: Item) -> dict[str, Any]:
    shown: dict[str, Any] = {name: value for name, value in (("uri", item.target), ("source", item.source)) if value}
    if item.data is None:
        return shown
    secret = is_secret(item.target or "", item.meta.type if item.meta is not None else None, item.data)
    return shown | ({"value": WITHHELD} if secret else dump_value(item.data))


def _show_value(value: ResultValue, *, hidden: bool = False) -> dict[str, Any]:
    secret = hidden or is_secret(value.uri, value.type, value.value)
    shown: dict[str, Any] = {"uri": value.uri, "format": value.format, "type": value.type}
    shown |= {"value": WITHHELD} if secret else dump_value(value.value)
    return shown | ({"truncated": True} if value.truncated else {})


def is_secret(uri: str, kind: str | None, value: str | bytes) -> bool:
    """Whether a value is a credential, or a sub-tree with one in it."""
    leaf = node_key(uri).partition("?")[0].rpartition("/")[2]
    if leaf in SECRET_LEAVES:
        return True
    serialised = "dmtnds" in (kind or "") or "?list=" in uri or node_key(uri).rpartition("/")[2] == "Inbox"
    if not serialised:
        return False
    octets = value if isinstance(value, bytes) else value.encode(errors="replace")
    return any(name.encode() in octets for name in SECRET_LEAVES)
