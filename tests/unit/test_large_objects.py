"""Large objects both ways in both encodings, what a peer profile changes, and the search for what fits."""

from __future__ import annotations

import base64
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncml.client_session import CommandResult
from syncml.codec import Encoding, decode, encode
from syncml.codes import Format
from syncml.errors import PeerLimitTooSmall
from syncml.large_object import Reassembly
from syncml.model import (
    Add,
    Alert,
    Command,
    Copy,
    Cred,
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
)
from syncml.outbox import Ending, Outbox, _longest, _most
from syncml.peer_profile import PeerProfile
from syncml.policy import Continue
from syncml.values import item_value, leaf_item, transmitted_size
from tests.support_syncml import answer_all, client_session, get, pump, server_session

OCTETS = random.Random(4).randbytes(200_000)
TEXT = "".join(random.Random(5).choices("aé€😀<&>\r\n \t", k=130_000))  # about 200 kB of UTF-8
VALUES = {
    "binary": (OCTETS, Format.BIN),
    "text": (TEXT, Format.CHR),
    "Base64": (base64.b64encode(OCTETS).decode(), Format.B64),
}
MAX_OBJECT = 1024 * 1024


def data_of(command: Command) -> tuple[str | bytes, Meta]:
    assert isinstance(command, Replace | Results)
    (item,) = command.items
    return item.data or "", item.meta or Meta()


def check_chunks(messages: list[Message], encoding: Encoding, value: str | bytes) -> None:
    """Chunks as the specification wants them: last in their message, Size in the first only, nothing in between."""
    with_chunk = [m for m in messages for c in m.commands if isinstance(c, Replace | Results) and c.items[0].more_data]
    chunks = [
        c for m in messages for c in m.commands if isinstance(c, Replace | Results) and c.items[0].source != "./I"
    ]
    chunks = [c for c in chunks if (c.items[0].target or c.items[0].source) == "./P"]
    assert len(chunks) > 40
    assert not any(m.final for m in with_chunk)
    assert all(isinstance(m.commands[-1], Replace | Results) for m in with_chunk)
    pieces = [data_of(chunk) for chunk in chunks]
    expected: str | bytes = value
    if isinstance(value, bytes) and encoding is Encoding.XML:
        expected = base64.b64encode(value).decode()
    assert isinstance(expected, bytes) == isinstance(pieces[0][0], bytes)
    joined = b"".join(data if isinstance(data, bytes) else data.encode() for data, _ in pieces)
    assert joined == (expected if isinstance(expected, bytes) else expected.encode())
    assert [meta.size for _, meta in pieces] == [transmitted_size(expected)] + [None] * (len(pieces) - 1)
    assert len({meta.format for _, meta in pieces}) == 1
    if pieces[0][1].format == "b64":
        assert all(len(data) % 4 == 0 for data, _ in pieces)  # for peers that decode chunk by chunk


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize(("value", "format"), VALUES.values(), ids=VALUES)
def test_200_kb_to_the_device(encoding: Encoding, value: str | bytes, format: Format) -> None:
    """XI-4, XC-080, XS-016: 200 kB in messages of 4 kB; the device executes the command once, with the whole value."""
    replace_all = Replace(items=(leaf_item("./P", value, format=format),))
    run = pump(
        client_session(max_msg_size=4096, max_obj_size=MAX_OBJECT, encoding=encoding),
        server_session(max_msg_size=4096, max_obj_size=MAX_OBJECT, encoding=encoding),
        [Continue((get("./A"), replace_all, get("./B")))],
        limit=1000,
        encoding=encoding,
    )
    assert max(run.sizes) <= 4096
    assert max(run.client_sizes) <= 4096
    check_chunks(run.server_messages, encoding, value)
    assert [command.name for command in run.received] == ["Get", "Replace", "Get"]
    received = run.received[1]
    assert isinstance(received, Replace)
    assert item_value(received.items[0]) == item_value(replace_all.items[0])
    assert [answer.code for answer in run.answers] == [200, 200, 200]


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize(("value", "format"), VALUES.values(), ids=VALUES)
def test_200_kb_from_the_device(encoding: Encoding, value: str | bytes, format: Format) -> None:
    """XI-4, XC-083, XS-018: Results in chunks, each answered with 213 and Alert 1222."""
    item = replace(leaf_item("./P", value, format=format), target=None, source="./P")

    def execute(command: Command) -> list[CommandResult]:
        return [replace(answer_all(command)[0], item=item)]

    run = pump(
        client_session(max_msg_size=4096, max_obj_size=MAX_OBJECT, encoding=encoding),
        server_session(max_msg_size=4096, max_obj_size=MAX_OBJECT, encoding=encoding),
        [Continue((get("./P"),))],
        execute,
        limit=1000,
        encoding=encoding,
    )
    assert max(run.client_sizes) <= 4096
    check_chunks(run.client_messages, encoding, value)
    (answer,) = run.answers
    assert answer.values() == {"./P": item_value(item)}
    accepted = [c for m in run.server_messages for c in m.commands if isinstance(c, Status) and c.code == 213]
    assert len(accepted) > 40


@pytest.mark.parametrize("encoding", Encoding)
def test_a_session_in_either_encoding(encoding: Encoding) -> None:
    """XI-1: a whole session in either encoding, every message in that one."""
    run = pump(
        client_session(encoding=encoding),
        server_session(encoding=encoding),
        [Continue((get("./A"), Add(items=(leaf_item("./P", b"\xff", format=Format.BIN),))))],
        encoding=encoding,
    )
    assert [answer.code for answer in run.answers] == [200, 200]
    added = run.received[1]
    assert isinstance(added, Add)
    assert item_value(added.items[0]) == b"\xff"
    assert added.items[0].data == (b"\xff" if encoding is Encoding.WBXML else "/w==")


# -- reassembly ----------------------------------------------------------------------------------------------------


def chunk(data: str | bytes, *, more: bool = True, uri: str = "./P", **meta: object) -> Item:
    return Item(target=uri, meta=Meta(**meta) if meta else None, data=data, more_data=more)


EURO = "a€b".encode()
REASSEMBLED: dict[str, tuple[list[Item], str | bytes]] = {
    "Size in the first chunk": ([chunk("ab", size=4), chunk("cd", more=False)], "abcd"),
    "Size in all chunks": ([chunk("ab", size=4), chunk("c", size=4), chunk("d", size=4, more=False)], "abcd"),
    "no Size": ([chunk("ab"), chunk("cd", more=False)], "abcd"),
    "Size in a later chunk": ([chunk("ab", format="chr"), chunk("cd", more=False, size=4)], "abcd"),
    "Size counts octets": ([chunk("a€", size=5), chunk("b", more=False)], "a€b"),
    "octets": ([chunk(b"\x00", format="bin", size=2), chunk(b"\xff", more=False)], b"\x00\xff"),
    "octets that are text": ([chunk(b"a", format="bin"), chunk(b"b", more=False)], b"ab"),
    "cut inside a character": ([chunk(EURO[:2], format="chr", size=5), chunk(EURO[2:], more=False)], "a€b"),
    "text and octets": ([chunk("a", format="chr"), chunk(EURO[1:3]), chunk(EURO[3:], more=False)], "a€b"),
    "Base64 cut inside a group, as opaques": ([chunk(b"QU", format="b64"), chunk(b"I=", more=False)], "QUI="),
    "empty chunks": ([chunk("", size=1), chunk(""), chunk("a", more=False)], "a"),
    "an empty last chunk": ([chunk("ab", size=2), chunk("", more=False)], "ab"),
    "a last chunk without Data": ([chunk("ab", size=2), Item(target="./P")], "ab"),
}


@pytest.mark.parametrize(("items", "value"), REASSEMBLED.values(), ids=REASSEMBLED)
def test_reassembly(items: list[Item], value: str | bytes) -> None:
    """XC-080, XS-018, interop: Size in the first chunk only, in all or in none; text and octets."""
    buffer = Reassembly(limit=5)
    *first, last = items
    assert [buffer.take("Add", item) for item in first] == [213] * len(first)
    whole = buffer.take("Add", last)
    assert isinstance(whole, Item)
    assert whole.data == value
    assert not whole.more_data
    assert not buffer.open


def test_the_memory_is_bounded() -> None:
    """XC-084: 413 as soon as it is known, and nothing is kept."""
    buffer = Reassembly(limit=1000)
    assert buffer.take("Add", chunk("x", size=1001)) == 413
    for data in ("x" * 400, "x" * 400):
        assert buffer.take("Add", chunk(data, uri="./Q")) == 213
    assert buffer.take("Add", chunk("x" * 400, uri="./Q")) == 413
    assert len(buffer.octets) == 0
    assert buffer.take("Add", chunk("x", uri="./Q", more=False)) == 413


def test_the_tail_of_a_refused_object_is_no_value() -> None:
    """XC-081: neither without Size nor with the Size of the whole; a complete new value is taken."""
    buffer = Reassembly(limit=1000)
    assert buffer.take("Add", chunk("x", size=2000)) == 413
    assert buffer.take("Add", chunk("tail", more=False)) == 413
    assert buffer.take("Add", chunk("tail", more=False, size=2000)) == 413
    again = buffer.take("Add", chunk("tail", more=False, size=4))
    assert isinstance(again, Item)


def test_objects_never_mix() -> None:
    """XC-082."""
    buffer = Reassembly(limit=1000)
    assert buffer.take("Add", chunk("a", uri="./A")) == 213
    assert buffer.take("Add", chunk("b", uri="./B")) == 213
    whole = buffer.take("Add", chunk("c", uri="./B", more=False))
    assert isinstance(whole, Item)
    assert whole.data == "bc"


def test_no_value_in_the_repr() -> None:
    buffer = Reassembly(limit=1000)
    buffer.take("Add", chunk("s3cret"))
    assert "s3cret" not in repr(buffer)


# -- profiles ------------------------------------------------------------------------------------------------------

HEADER = SyncHdr(session_id="1", msg_id="1", target="device", source="server")


def filled(outbox: Outbox) -> Message:
    return outbox.fill(HEADER, None, Ending.FINAL).message


def sent(profile: PeerProfile, command: Command, encoding: Encoding = Encoding.XML) -> Command:
    outbox = Outbox(encoding, profile)
    outbox.put(command)
    result = outbox.fill(HEADER, None, Ending.FINAL)
    assert result.carried[0][1] is command
    (on_wire,) = decode(encode(result.message, encoding), encoding).commands
    return on_wire


EMPTY_DATA = PeerProfile(name="t", empty_data=True)
ITEM_META = PeerProfile(name="t", item_meta=True)
A = Item(target="./A")
SHAPES: dict[str, tuple[PeerProfile, Command, Command]] = {
    "Data of Add": (EMPTY_DATA, Add(items=(A,)), Add(cmd_id="1", items=(replace(A, data=""),))),
    "Data of Exec": (EMPTY_DATA, Exec(items=(A,)), Exec(cmd_id="1", items=(replace(A, data=""),))),
    "Data of Alert": (
        EMPTY_DATA,
        Alert(code=1226, items=(A,)),
        Alert(cmd_id="1", code=1226, items=(replace(A, data=""),)),
    ),
    "Data that is there": (
        EMPTY_DATA,
        Replace(items=(Item(data="x"),)),
        Replace(cmd_id="1", items=(Item(data="x"),)),
    ),
    "no Data of Get": (EMPTY_DATA, Get(items=(A,)), Get(cmd_id="1", items=(A,))),
    "no Data of Delete": (EMPTY_DATA, Delete(items=(A,)), Delete(cmd_id="1", items=(A,))),
    "no Data of Copy": (EMPTY_DATA, Copy(items=(A,)), Copy(cmd_id="1", items=(A,))),
    "Meta into each Item": (
        ITEM_META,
        Replace(meta=Meta(format="int", type="t"), items=(A, Item(target="./B", meta=Meta(format="chr")))),
        Replace(
            cmd_id="1",
            items=(
                replace(A, meta=Meta(format="int", type="t")),
                Item(target="./B", meta=Meta(format="chr", type="t")),
            ),
        ),
    ),
    "inside a group": (
        ITEM_META,
        Sequence(commands=(Add(meta=Meta(format="int"), items=(A,)),)),
        Sequence(cmd_id="1", commands=(Add(cmd_id="2", items=(replace(A, meta=Meta(format="int")),)),)),
    ),
    "nothing by default": (
        PeerProfile(name="t"),
        Add(meta=Meta(format="int"), items=(A,)),
        Add(cmd_id="1", meta=Meta(format="int"), items=(A,)),
    ),
}


@pytest.mark.parametrize(("profile", "command", "on_wire"), SHAPES.values(), ids=SHAPES)
def test_the_shape_a_profile_asks_for(profile: PeerProfile, command: Command, on_wire: Command) -> None:
    """Interop: devices that look for Meta in the Item, or for Data in any case."""
    for encoding in Encoding:
        assert sent(profile, command, encoding) == on_wire


@pytest.mark.parametrize(
    ("announced", "own", "size"), [(None, 2048, 2048), (8192, 2048, 2048), (1500, 2048, 1500), (8192, None, 8192)]
)
def test_the_smaller_limit_counts(announced: int | None, own: int | None, size: int) -> None:
    """XS-015, interop: a profile may lower what a peer announces, never raise it."""
    outbox = Outbox(Encoding.XML, PeerProfile(name="t", max_msg_size=own))
    outbox.learn(Meta(max_msg_size=announced))
    assert outbox.peer_size == size
    outbox.put(Add(items=(leaf_item("./P", "x" * 40_000),)))
    for _ in range(3):
        assert size - 64 <= len(encode(filled(outbox), Encoding.XML)) <= size


def test_no_large_object_for_a_peer_that_has_none() -> None:
    """Interop: refused here (413), and the rest goes out."""
    outbox = Outbox(Encoding.XML, PeerProfile(name="t", max_msg_size=2048, large_objects=False))
    large, small = Add(items=(leaf_item("./P", "x" * 5000),)), get("./A")
    outbox.put(large, small)
    result = outbox.fill(HEADER, None, Ending.FINAL)
    assert result.refused == (large,)
    assert [origin for _, origin in result.carried] == [small]


def test_a_command_may_be_put_in_front() -> None:
    outbox = Outbox(Encoding.XML)
    outbox.put(get("./B"))
    outbox.put_first(get("./A"))
    commands = filled(outbox).commands
    assert [item.target for command in commands if isinstance(command, Get) for item in command.items] == ["./A", "./B"]


@pytest.mark.parametrize("encoding", Encoding)
def test_max_obj_size_counts_what_travels(encoding: Encoding) -> None:
    """XS-017: Base64 text in XML, octets in WBXML, UTF-8 of text."""
    outbox = Outbox(encoding)
    outbox.learn(Meta(max_obj_size=100))
    assert outbox.takes(Item(data=None))
    assert outbox.takes(Item(data="é" * 50))
    assert not outbox.takes(Item(data="é" * 51))
    assert outbox.takes(Item(data=bytes(75)))
    assert outbox.takes(Item(data=bytes(76))) is (encoding is Encoding.WBXML)


def test_many_commands_are_cut_without_encoding_all_of_them_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interop: what a message costs does not grow with what waits behind it."""
    encoded = 0

    def counted(message: Message, encoding: Encoding) -> bytes:
        nonlocal encoded
        octets = encode(message, encoding)
        encoded += len(octets)
        return octets

    outbox = Outbox(Encoding.XML, PeerProfile(name="t", max_msg_size=4096))
    outbox.put(Add(items=(leaf_item("./P", OCTETS),)))
    filled(outbox)
    monkeypatch.setattr("syncml.outbox.encode", counted)
    for _ in range(10):
        filled(outbox)
    assert encoded < 10 * 10 * 4096


def test_a_long_queue_of_commands_without_data_is_not_encoded_for_every_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Interop: the same for many small commands, of which most wait for a later message."""
    encoded = 0

    def counted(message: Message, encoding: Encoding) -> bytes:
        nonlocal encoded
        octets = encode(message, encoding)
        encoded += len(octets)
        return octets

    outbox = Outbox(Encoding.WBXML, PeerProfile(name="t", max_msg_size=2048))
    outbox.put(*(Delete(items=(Item(target=f"./A/{number}"),)) for number in range(3000)))
    filled(outbox)
    monkeypatch.setattr("syncml.outbox.encode", counted)
    for _ in range(10):
        filled(outbox)
    assert outbox.queue
    assert encoded < 10 * 20 * 2048


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_searches_find_the_largest(limit: int, largest: int) -> None:
    for search in (_most, _longest):
        asked: list[int] = []

        def fits(count: int) -> bool:
            asked.append(count)  # noqa: B023
            return count <= largest

        assert search(limit, fits) == min(limit, largest)
        assert all(0 < count <= limit for count in asked)
        assert len(asked) < 30


def test_a_message_that_small_is_refused() -> None:
    """XS-015."""
    with pytest.raises(PeerLimitTooSmall):
        Outbox(Encoding.XML).learn(Meta(max_msg_size=1023))


def test_items_that_do_not_fit_together_go_out_one_by_one() -> None:
    """XS-029: the same command, Item by Item; an object among them is cut."""
    outbox = Outbox(Encoding.XML, PeerProfile(name="t", max_msg_size=2048))
    command = Add(items=(leaf_item("./A", "a" * 900), leaf_item("./B", "b" * 5000), leaf_item("./C", "c" * 900)))
    outbox.put(command)
    pieces: list[Item] = []
    while not outbox.empty:
        result = outbox.fill(HEADER, None, Ending.FINAL)
        assert len(encode(result.message, Encoding.XML)) <= 2048
        assert {id(origin) for _, origin in result.carried} == {id(command)}
        pieces += [item for each in result.message.commands if isinstance(each, Add) for item in each.items]
    joined = {uri: "".join(str(p.data) for p in pieces if p.target == uri) for uri in ("./A", "./B", "./C")}
    assert joined == {"./A": "a" * 900, "./B": "b" * 5000, "./C": "c" * 900}


def test_nothing_of_a_command_goes_out_when_one_item_cannot() -> None:
    """XS-017."""
    outbox = Outbox(Encoding.XML, PeerProfile(name="t", max_msg_size=2048))
    command = Get(items=(Item(target="./A"), Item(target="./" + "x" * 3000)))
    outbox.put(command)
    result = outbox.fill(HEADER, None, Ending.FINAL)
    assert (result.refused, result.carried) == ((command,), ())


def test_a_command_that_had_a_message_to_itself_and_did_not_fit_is_refused() -> None:
    """XS-015: credentials take the room it would have without them; no endless asking."""
    outbox = Outbox(Encoding.XML, PeerProfile(name="t", max_msg_size=2048))
    command = get("./" + "x" * 800)
    outbox.put(command)
    header = replace(HEADER, cred=Cred(type="t", data="x" * 1000))
    first = outbox.fill(header, None, Ending.FINAL)
    assert (first.refused, first.carried, first.message.final) == ((), (), False)
    second = outbox.fill(header, None, Ending.FINAL)
    assert (second.refused, second.carried) == ((command,), ())
    assert outbox.empty


def test_a_command_waits_for_the_statuses_in_front_of_it() -> None:
    """OMA-TS-DM_Protocol-V1_2 §7: what does not fit beside many Statuses goes out in the next message, whole, and is
    not refused."""
    outbox = Outbox(Encoding.XML, PeerProfile(name="t", max_msg_size=1500))
    long = Delete(items=(Item(target="./A/" + "x" * 600),))
    outbox.put(long)
    outbox.owed = [Status(msg_ref="1", cmd_ref=str(number), cmd="Alert", code=200) for number in range(8)]
    first, second = (outbox.fill(HEADER, None, Ending.FINAL) for _ in range(2))
    assert ({each.name for each in first.message.commands}, first.message.final) == ({"Status"}, False)
    assert ([each.name for each in second.message.commands], second.message.final) == (["Delete"], True)
    assert (first.refused, second.refused) == ((), ())


@pytest.mark.parametrize("encoding", Encoding)
def test_an_object_is_given_up_or_taken_back(encoding: Encoding) -> None:
    """XS-012, XS-019: after a refusal the rest is dropped; after a challenge the last chunk goes out again."""
    outbox = Outbox(encoding, PeerProfile(name="t", max_msg_size=2048))
    outbox.put(Add(items=(leaf_item("./P", OCTETS[:5000], format=Format.BIN),)), get("./A"))
    filled(outbox)
    assert outbox.amid_object
    second = filled(outbox)
    outbox.take_back()
    assert filled(outbox) == second
    outbox.abandon_object()
    assert [command.name for command in filled(outbox).commands] == ["Get"]
    outbox.abandon_object()
    assert outbox.empty


def test_only_an_open_object_can_be_interrupted() -> None:
    """XC-082: whole Items of other nodes pass beside it."""
    buffer = Reassembly(limit=10)
    assert buffer.interrupt() == ""
    assert buffer.take("Add", chunk("a")) == 213
    beside = chunk("b", uri="./Q", more=False)
    assert buffer.take("Add", beside) is beside
    assert buffer.interrupt() == "./P"
    assert not buffer.open
