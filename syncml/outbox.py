"""What waits to be sent, cut into messages that the peer takes.

MaxMsgSize counts the encoded message, so every decision here is made on encoded octets. A command, and a whole Atomic
or Sequence with it, stays in one message; what does not fit moves to the next message of the package. Only the data of
one Item may be spread over messages (OMA-TS-DM_Protocol-V1_2 §7, OMA-TS-SyncML_MetaInfo-V1_2 §5.3.8 and §5.3.9).
Binary is cut as the encoding carries it: Base64 text in XML, octets in WBXML; text is never cut inside a character.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from itertools import count
from typing import Final

from syncml.codec import Encoding, encode
from syncml.codes import AlertCode, Format, StatusCode
from syncml.errors import LocalProtocolError, PeerLimitTooSmall
from syncml.model import (
    Add,
    Alert,
    Atomic,
    Command,
    Copy,
    Delete,
    Exec,
    Get,
    Item,
    Message,
    Meta,
    Replace,
    Results,
    Sequence,
    Status,
    SyncHdr,
    UnknownCommand,
    walk,
)
from syncml.peer_profile import DEFAULT_PROFILE, PeerProfile
from syncml.values import as_transmitted, transmitted_size

DEFAULT_PEER_SIZE: Final = 512 * 1024  # octets; used when a peer announces no MaxMsgSize
MIN_PEER_SIZE: Final = 1024  # octets; a header with its Status needs about as much
MIN_COMMAND: Final = 12  # octets; no command of ours takes less in either encoding
MAX_WEIGHT: Final = 2000  # commands and Items of one message, about a dozen elements each: readers bound them, ours too
MIN_CHUNK: Final = 64  # characters or octets; less is not worth beginning an object in this message


class Ending(Enum):
    """How a message ends when all that waits is in it; if not, it ends without any of these."""

    FINAL = auto()  # `Final`: last message of our package
    ASK = auto()  # Alert 1222: the peer's package is not complete
    OPEN = auto()  # nothing: our package goes on although nothing waits


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """A command in the queue. `origin` is the object the caller gave; several entries may be parts of one."""

    command: Command
    origin: Command
    sent: int = 0  # characters or octets of a large object's data that have gone
    admitted: bool = False  # it has its final form: it fits into a message of its own, or may be cut
    large: bool = False  # it may be cut; its data is as it travels

    @property
    def item(self) -> Item:
        """The Item that is cut."""
        return items_of(self.command)[0]

    @property
    def left(self) -> int:
        """Characters or octets that have not gone."""
        return len(self.item.data or "") - self.sent

    def piece(self, length: int | None = None) -> Command:
        """The command with the next `length` characters or octets, or with all that is left.

        `Size` stands in the first chunk only; the rest of Meta and the Target are repeated in each.
        """
        if length is None and not self.sent:
            return self.command
        data = self.item.data or ""
        end = len(data) if length is None else self.sent + length
        meta = replace(self.item.meta or Meta(), size=None if self.sent else transmitted_size(data))
        return _with_items(
            self.command, replace(self.item, meta=meta, data=data[self.sent : end], more_data=end < len(data))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """One message, and what became of the queue."""

    message: Message
    carried: tuple[tuple[Command, Command], ...]  # command as numbered on the wire, and its origin
    refused: tuple[Command, ...]  # origins the peer cannot take in any form


class Outbox:
    """One side's way out. At most one message is in flight, and its commands may be taken back."""

    def __init__(self, encoding: Encoding, peer: PeerProfile = DEFAULT_PROFILE) -> None:
        self.encoding = encoding
        self.peer = peer
        self.peer_size = min(DEFAULT_PEER_SIZE, peer.max_msg_size or DEFAULT_PEER_SIZE)  # octets
        self.peer_object_size: int | None = None  # octets; None: unlimited
        self.owed: list[Status] = []  # Statuses for commands of the peer
        self.queue: list[Queued] = []
        self._in_flight: list[Queued] = []  # as they were before the last message
        self._stalled = False  # the last message had room for nothing of the queue

    def learn(self, meta: Meta | None) -> None:
        """Take the peer's limits out of a header.

        Raises:
            PeerLimitTooSmall: no message of ours can be that small.
        """
        if meta is None:
            return
        if meta.max_msg_size:
            if meta.max_msg_size < MIN_PEER_SIZE:
                raise PeerLimitTooSmall(f"MaxMsgSize {meta.max_msg_size}: a header with its Status does not fit")
            self.peer_size = min(meta.max_msg_size, self.peer.max_msg_size or meta.max_msg_size)
        if meta.max_obj_size:
            self.peer_object_size = meta.max_obj_size

    @property
    def empty(self) -> bool:
        """Nothing waits and no object is half sent."""
        return not self.queue and not self.owed

    @property
    def amid_object(self) -> bool:
        """Whether the last chunk of an object is still here."""
        return bool(self.queue) and self.queue[0].sent > 0

    def put(self, *commands: Command) -> None:
        """Queue commands of our own."""
        self.queue.extend(self._queued(command) for command in commands)

    def put_first(self, command: Command) -> None:
        """Queue a command of our own in front of all others."""
        self.queue.insert(0, self._queued(command))

    def _queued(self, command: Command) -> Queued:
        return Queued(command=_shaped(command, self.peer), origin=command)

    def abandon_object(self) -> None:
        """The peer gave a half-sent object up."""
        if self.amid_object:
            del self.queue[0]

    def take_back(self) -> None:
        """The commands of the last message count as not sent: they go out again, in front of all others."""
        cut = bool(self._in_flight) and self.amid_object  # what is half sent was the last of that message
        rest = self.queue[1:] if cut else self.queue
        self.queue, self._in_flight = [*self._in_flight, *rest], []

    def clear(self) -> None:
        """Nothing of the queue goes out any more."""
        self.queue, self._in_flight = [], []

    def takes(self, item: Item) -> bool:
        """Whether the peer's MaxObjSize admits the Item's data, counted as transmitted."""
        if self.peer_object_size is None or item.data is None:
            return True
        return transmitted_size(as_transmitted(item, self.encoding).data or "") <= self.peer_object_size

    def fill(self, header: SyncHdr, header_status: Status | None, ending: Ending) -> Filled:
        """The next message: Status of the header, Statuses owed, then as much of the queue as fits."""
        base: list[Command] = [] if header_status is None else [header_status]

        def message(entries: list[Command], last: Ending = Ending.OPEN) -> Message:
            tail = [Alert(code=AlertCode.NEXT_MESSAGE)] if last is Ending.ASK else []
            return Message(header=header, commands=_numbered([*base, *entries, *tail]), final=last is Ending.FINAL)

        def fits(entries: list[Command], last: Ending = Ending.OPEN) -> bool:
            # What they take at the least is known without encoding a large object, or the whole queue, again and again.
            if len(entries) > 1 and sum(map(_weight, entries)) > MAX_WEIGHT:
                return False
            floor = MIN_COMMAND * len(entries)
            floor += sum(len(item.data or "") for entry in entries for item in items_of(entry))
            return floor <= self.peer_size and self._size(message(entries, last)) <= self.peer_size

        refused = self._admit(header)
        if self._stalled and self.queue:
            refused.append(self.queue.pop(0).origin)  # it had a message to itself and did not fit
        waiting: list[Command] = [*self.owed, *(entry.piece() for entry in self.queue)]
        placed = len(waiting)
        if not fits(waiting, ending):
            ending = Ending.OPEN
            placed = _most(placed, lambda count: fits(waiting[:count]))
        commands, room_for_more = waiting[:placed], placed >= len(self.owed)
        whole, said = max(placed - len(self.owed), 0), min(placed, len(self.owed))
        self._in_flight, remaining = self.queue[:whole], self.queue[whole:]
        del self.owed[:placed]
        if (
            remaining
            and room_for_more
            and (length := self._room(remaining[0], lambda more: message([*commands, more])))
        ):
            self._in_flight.append(remaining[0])
            commands.append(remaining[0].piece(length))
            remaining[0] = replace(remaining[0], sent=remaining[0].sent + length)
        self.queue = remaining
        # Beside one Status every admitted command fits; beside more it may just have to wait for the next message.
        self._stalled = bool(remaining) and room_for_more and not self._in_flight and said <= 1
        filled = message(commands, ending)
        end = len(base) + len(commands)
        on_wire = filled.commands[end - len(self._in_flight) : end]
        carried = tuple(zip(on_wire, (entry.origin for entry in self._in_flight), strict=True))
        return Filled(message=filled, carried=carried, refused=tuple(refused))

    def _size(self, message: Message) -> int:
        return len(encode(message, self.encoding))

    def _room(self, entry: Queued, message: Callable[[Command], Message]) -> int:
        """How many characters or octets of a large object go into this message; 0: none, or it should begin in the
        next.
        """
        if not entry.large:
            return 0
        spare = self.peer_size - self._size(message(entry.piece(0)))
        length = _longest(
            min(spare, entry.left - 1), lambda count: self._size(message(entry.piece(count))) <= self.peer_size
        )
        if (entry.item.meta or Meta()).format == Format.B64:
            length -= length % 4  # whole groups, for peers that decode chunk by chunk
        return length if entry.sent or length >= MIN_CHUNK else 0

    def _admit(self, header: SyncHdr) -> list[Command]:
        """Give each new entry the form it will go out in; the origins that have none are taken out and returned."""
        # What a message has at the least beside the entry: a Status of the header and one of an Alert 1222.
        spare = Status(msg_ref="000", cmd_ref="0", cmd="SyncHdr", code=StatusCode.OK, target_refs=(header.source,))
        bare = replace(header, cred=None)

        def alone(command: Command) -> bool:
            commands = _numbered([replace(spare, source_refs=(header.target,)), spare, command])
            return self._size(Message(header=bare, commands=commands, final=True)) <= self.peer_size

        def forms(entry: Queued) -> list[Queued]:
            if entry.admitted:
                return [entry]
            items = items_of(entry.command)
            if not all(self.takes(item) for item in items):
                return []
            if (len(items) <= 1 or _weight(entry.command) <= MAX_WEIGHT) and alone(entry.command):
                return [replace(entry, admitted=True)]
            if len(items) > 1:  # commands outside Atomic and Sequence mean the same Item by Item
                parts = [forms(replace(entry, command=_with_items(entry.command, item))) for item in items]
                return [each for part in parts for each in part] if all(parts) else []
            if not items or items[0].data is None or not self.peer.large_objects:
                return []
            large = replace(
                entry,
                command=_with_items(entry.command, as_transmitted(items[0], self.encoding)),
                admitted=True,
                large=True,
            )
            return [large] if alone(large.piece(MIN_CHUNK)) else []

        admitted: list[Queued] = []
        refused: list[Command] = []
        for entry in self.queue:
            found = forms(entry)
            admitted.extend(found)
            if not found:
                refused.append(entry.origin)
        self.queue = admitted
        return refused


def _most(limit: int, fits: Callable[[int], bool]) -> int:
    """The largest count up to `limit` that fits, 0 if none does; tries small ones first, as big ones cost more."""
    low, step = 0, 1
    while low + step <= limit and fits(low + step):
        low, step = low + step, 2 * step
    high = min(low + step - 1, limit)  # the next one was refused, or there is none
    return low + bisect_left(range(low + 1, high + 1), True, key=lambda count: not fits(count))


def _longest(limit: int, fits: Callable[[int], bool]) -> int:
    """The largest length up to `limit` that fits, 0 if none does; `limit` is a good guess, so the search starts there.

    Escaping makes the size depend on the text itself, so the length is searched for and not computed.
    """
    low, refused, step = limit, limit + 1, 8
    while low > 0 and not fits(low):
        low, refused, step = max(low - step, 0), low, 8 * step
    return low + bisect_left(range(low + 1, refused), True, key=lambda length: not fits(length))


def _shaped(command: Command, peer: PeerProfile) -> Command:
    """The command in the form that this kind of peer needs."""
    match command:
        case Atomic() | Sequence():
            return replace(command, commands=tuple(_shaped(child, peer) for child in command.commands))
        case Add() | Replace() | Exec() | Results() | Get() | Delete() | Copy() if peer.item_meta and command.meta:
            items = tuple(replace(item, meta=command.meta.inherited_by(item.meta)) for item in command.items)
            command = replace(command, meta=None, items=items)
    match command:
        case Add() | Replace() | Exec() | Results() | Alert() if peer.empty_data:
            filled = (item if item.data is not None else replace(item, data="") for item in command.items)
            return replace(command, items=tuple(filled))
    return command


def _weight(command: Command) -> int:
    return sum(1 + len(items_of(each)) for each in walk((command,)))


def items_of(command: Command) -> tuple[Item, ...]:
    """Items of a command, none for a group."""
    return () if isinstance(command, Atomic | Sequence | UnknownCommand) else command.items


def _with_items(command: Command, item: Item) -> Command:
    if isinstance(command, Atomic | Sequence | UnknownCommand):
        raise LocalProtocolError(f"a {command.name} carries no Items")
    return replace(command, items=(item,))


def _numbered(commands: list[Command]) -> tuple[Command, ...]:
    """CmdIDs 1, 2, 3 … in document order, through groups as well: unique in the message."""
    ids = count(1)

    def number(command: Command) -> Command:
        own = str(next(ids))
        if isinstance(command, Atomic | Sequence):
            return replace(command, cmd_id=own, commands=tuple(number(child) for child in command.commands))
        return replace(command, cmd_id=own)

    return tuple(number(command) for command in commands)
