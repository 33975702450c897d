"""XML codec, values and credentials: strict out, tolerant in, nothing but typed errors."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncml.auth import Credentials, basic_data, hmac_value, inner_digest, md5_data
from syncml.codec import Encoding, decode, encode, encoding_of
from syncml.codes import AuthType, Format
from syncml.errors import LocalProtocolError, MalformedMessage, MessageTooLarge, RemoteProtocolError
from syncml.model import (
    Add,
    Alert,
    Atomic,
    Chal,
    Cred,
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
)
from syncml.values import as_transmitted, item_value, leaf_item, node_item
from syncml.xml_codec import decode_xml, encode_xml

HEADER = SyncHdr(
    session_id="2F",
    msg_id="1",
    target="https://dpf.example/dm",
    source="urn:uuid:1",
    source_name="device",
    resp_uri="https://dpf.example/dm?s=1",
    cred=Cred(type=AuthType.MD5, data="Zz6EivR3yeaaENcRN6lpAQ=="),
    meta=Meta(max_msg_size=4096, max_obj_size=65536),
)
EVERYTHING = Message(
    header=HEADER,
    commands=(
        Status(
            cmd_id="1",
            msg_ref="1",
            cmd_ref="0",
            cmd="SyncHdr",
            code=212,
            target_refs=("a", "b"),
            source_refs=("c",),
            chal=Chal(type=AuthType.MD5, next_nonce=b"\x00\xffnonce"),
        ),
        Alert(
            cmd_id="2",
            code=1226,
            correlator="x",
            items=(Item(source="./A", meta=Meta(type="t", format="int", mark="fatal"), data="1 < 2 & 3"),),
        ),
        Add(cmd_id="3", items=(Item(target="./A", meta=Meta(format="chr", size=9), data="é", more_data=True),)),
        Sequence(cmd_id="4", commands=(Get(cmd_id="5", items=(Item(target="./A?prop=ACL"),)), Exec(cmd_id="6"))),
        Atomic(cmd_id="7", commands=(Replace(cmd_id="8", meta=Meta(format="chr"), items=(Item(target="./B"),)),)),
        Results(cmd_id="9", msg_ref="2", cmd_ref="5", items=(Item(source="./A", data=""),)),
    ),
    final=True,
)


def body(inner: str = "", header: str = "", *, prolog: str = "", root: str = 'xmlns="SYNCML:SYNCML1.2"') -> bytes:
    head = (
        "<VerDTD>1.2</VerDTD><VerProto>DM/1.2</VerProto><SessionID>1</SessionID><MsgID>1</MsgID>"
        "<Target><LocURI>s</LocURI></Target><Source><LocURI>d</LocURI></Source>"
    )
    text = f"{prolog}<SyncML {root}><SyncHdr>{head}{header}</SyncHdr><SyncBody>{inner}</SyncBody></SyncML>"
    return text.encode()


def test_round_trip_of_every_element() -> None:
    """RepPro §6: what is written is read again."""
    assert decode(encode(EVERYTHING, Encoding.XML), Encoding.XML) == EVERYTHING


def test_writer_keeps_the_order_of_the_dtd_and_declares_metinf() -> None:
    text = encode_xml(EVERYTHING).decode()
    order = ["VerDTD", "VerProto", "SessionID", "MsgID", "Target", "Source", "RespURI", "Cred", "Meta", "Final"]
    positions = [text.index(f"<{name}") for name in order]
    assert positions == sorted(positions)
    assert '<MaxMsgSize xmlns="syncml:metinf">4096</MaxMsgSize>' in text


def test_octets_travel_as_base64() -> None:
    """XC-061: binary over XML is b64."""
    message = Message(header=HEADER, commands=(Add(cmd_id="1", items=(leaf_item("./A", b"\x00", format=Format.BIN),)),))
    read = decode_xml(encode_xml(message)).commands[0]
    assert isinstance(read, Add)
    assert (read.items[0].data, read.items[0].meta and read.items[0].meta.format) == ("AA==", "b64")
    assert item_value(read.items[0]) == b"\x00"


TOLERATED = {
    "no namespace": body("<Alert><CmdID>1</CmdID><Data>1201</Data></Alert>", root=""),
    "older namespace": body("<Alert><CmdID>1</CmdID><Data>1201</Data></Alert>", root='xmlns="SYNCML:SYNCML1.1"'),
    "white space in codes": body("<Alert><CmdID> 1 </CmdID><Data>\n1201 </Data></Alert>"),
    "another order": body("<Alert><Data>1201</Data><CmdID>1</CmdID></Alert>"),
    "foreign attributes and elements": body('<Alert x="y"><CmdID>1</CmdID><Foreign/><Data>1201</Data></Alert>'),
    "comment": body("<!-- c --><Alert><CmdID>1</CmdID><Data>12<!-- c -->01</Data></Alert>"),
    "plain DOCTYPE": body(
        "<Alert><CmdID>1</CmdID><Data>1201</Data></Alert>",
        prolog='<!DOCTYPE SyncML PUBLIC "-//SYNCML//DTD SyncML 1.2//EN" "http://x.invalid/x.dtd">',
    ),
}


@pytest.mark.parametrize("octets", TOLERATED.values(), ids=TOLERATED)
def test_tolerances_of_the_reader(octets: bytes) -> None:
    """XS-025: what real peers send is read."""
    assert decode_xml(octets).commands == (Alert(cmd_id="1", code=1201),)


def test_meta_inside_metinf_and_data_kept_as_it_is() -> None:
    (command,) = decode_xml(
        body(
            "<Add><CmdID>1</CmdID><Item><Data> x <b>y</b></Data><Meta><MetInf><Format> chr </Format></MetInf></Meta>"
            "</Item></Add><Final/>"
        )
    ).commands
    assert isinstance(command, Add)
    item = command.items[0]
    assert item.meta == Meta(format="chr")
    assert isinstance(item.data, str)
    assert item.data.startswith(" x <b")


def test_unknown_commands_survive() -> None:
    assert decode_xml(body("<Put><CmdID>4</CmdID></Put>")).commands == (UnknownCommand(cmd_id="4", element="Put"),)


MALFORMED = {
    "empty": b"",
    "not XML": b"\x00\x01",
    "another root": b"<a/>",
    "no body": b"<SyncML><SyncHdr/></SyncML>",
    "no session": b"<SyncML><SyncHdr/><SyncBody/></SyncML>",
    "entity": body("&x;", prolog='<!DOCTYPE SyncML [<!ENTITY x "y">]>'),
    "entity bomb": body(
        "<Alert><Data>&b;</Data></Alert>",
        prolog='<!DOCTYPE SyncML [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>',
    ),
    "external entity": body("&x;", prolog='<!DOCTYPE SyncML [<!ENTITY x SYSTEM "file:///etc/passwd">]>'),
    "declared element": body("", prolog="<!DOCTYPE SyncML [<!ELEMENT SyncML ANY>]>"),
    "status without code": body("<Status><CmdID>1</CmdID></Status>"),
    "CmdID 0": body("<Alert><CmdID>0</CmdID></Alert>"),
    "nested too deep": body("<Atomic>" * 12 + "</Atomic>" * 12),
    "too many elements": body("<x/>" * 20_001),
}


@pytest.mark.parametrize("octets", MALFORMED.values(), ids=MALFORMED)
def test_malformed(octets: bytes) -> None:
    """XS-037: DTDs, entities and broken XML are one typed error."""
    with pytest.raises(MalformedMessage):
        decode_xml(octets)


def test_too_large() -> None:
    with pytest.raises(MessageTooLarge):
        decode_xml(body(), max_size=10)


@given(st.binary(max_size=300) | st.text(max_size=200).map(lambda text: body(text)))
def test_any_octets_give_a_message_or_a_typed_error(octets: bytes) -> None:
    try:
        message = decode_xml(octets)
    except RemoteProtocolError:
        return
    assert message.header.source


@given(
    st.lists(
        st.builds(
            Item,
            target=st.text(st.characters(categories=["L", "N"]), min_size=1).map(lambda text: "./" + text),
            data=st.none() | st.text(st.characters(exclude_categories=["Cs", "Cc"])),
            more_data=st.booleans(),
        ),
        max_size=4,
    )
)
def test_any_text_survives(items: list[Item]) -> None:
    message = Message(header=HEADER, commands=(Add(cmd_id="1", items=tuple(items)),))
    assert decode_xml(encode_xml(message)) == message


@pytest.mark.parametrize(
    "command",
    [Get(), UnknownCommand(cmd_id="1", element="Put"), Add(cmd_id="1", items=(Item(target="./A", data="\x00"),))],
)
def test_writer_refuses_what_cannot_be_sent(command: Get | UnknownCommand | Add) -> None:
    with pytest.raises(LocalProtocolError):
        encode_xml(Message(header=HEADER, commands=(command,)))


def test_encodings() -> None:
    assert encoding_of("Application/vnd.syncml.dm+XML; charset=utf-8") is Encoding.XML
    assert encoding_of("application/vnd.syncml.dm+wbxml") is Encoding.WBXML
    assert encoding_of("text/html") is None


def test_values() -> None:
    assert item_value(leaf_item("./A", 7, format=Format.INT)) == "7"
    assert item_value(leaf_item("./A", True, format=Format.BOOL)) == "true"
    assert item_value(Item(data="QQ==\n"), Meta(format="b64")) == b"A"
    assert node_item("./A", "urn:x").meta == Meta(format="node", type="urn:x")
    assert as_transmitted(leaf_item("./A", b"A", format=Format.BIN), Encoding.XML).data == "QQ=="
    with pytest.raises(RemoteProtocolError):
        item_value(Item(meta=Meta(format="b64"), data="*"))


NONCE = b"Nonce"
EMPTY_BODY_MAC = "gbjsdKI2jLRPFi9gmOstJg=="


def test_credential_known_answers() -> None:
    """OMA-TS-DM_Security-V1_2 §5.3: the specification's own example and computed ones."""
    assert basic_data("Bruce2", "OhBehave") == "QnJ1Y2UyOk9oQmVoYXZl"
    assert inner_digest("Bruce2", "OhBehave") == "PtEdr8lBQ45IbT1bZIkrOQ=="
    assert md5_data("Bruce2", "OhBehave", NONCE) == "Zz6EivR3yeaaENcRN6lpAQ=="
    assert md5_data("user@example.test", "s3cret", bytes(range(16))) == "5cvSZnmJL4pMBKyOWYaRaA=="
    document = b"<SyncML xmlns='SYNCML:SYNCML1.2'></SyncML>"
    assert hmac_value("Bruce2", "OhBehave", NONCE, document) == "6AZk96DG6F0jSIaEpbK4Ng=="
    assert hmac_value("Bruce2", "OhBehave", NONCE, b"") == EMPTY_BODY_MAC


def test_credentials_check_type_and_value() -> None:
    md5 = Credentials(type=AuthType.MD5, name="u", secret="p", nonce=NONCE)
    assert md5.accepts(md5.prove())
    assert not md5.accepts(None)
    assert not md5.accepts(Cred(type=AuthType.BASIC, data=basic_data("u", "p")))
    assert not md5.accepts(Cred(type=AuthType.MD5, data="é"))
    assert "p'" not in repr(md5)
    basic = Credentials(type=AuthType.BASIC, name="u", secret="p")
    assert basic.accepts(Cred(type=AuthType.BASIC, data=base64.b64encode(b"u:p").decode()))
    assert basic.challenge().next_nonce is None
    with pytest.raises(LocalProtocolError):
        Credentials(type=AuthType.MAC, name="u", secret="p")
