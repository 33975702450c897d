"""DM profile of the bootstrap: accounts as serialised trees in a DM message (OMA-TS-DM_Bootstrap-V1_2 §5.4)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncml.bootstrap import (
    AppAddress,
    BootstrapReason,
    BootstrapRefused,
    BootstrapSecrets,
    DmBootstrap,
    DmCredentials,
    DmSec,
    Port,
    TransportCredentials,
    authenticated,
)
from syncml.bootstrap.dm_profile import (
    ACCOUNT_OBJECTS,
    MAX_MESSAGE,
    MAX_NODES,
    account_node,
    bootstrap_message,
    protect_message,
    read_message,
)
from syncml.codec import decode, encode
from syncml.codes import AuthType, Format, MediaType
from syncml.encoding import Encoding
from syncml.errors import LocalProtocolError
from syncml.model import Add, Atomic, Get, Item, Message, Meta, SyncHdr
from syncml.tnds import Tnds, TndsNode, decode_tnds, encode_tnds
from syncml.tree import Acl
from syncml.wap_push import build_push, http_content_type, parse_push, push_over_http

DEVICE = "urn:imei:004999010640000"
PLAIN = DmBootstrap(server_id="srv", addr="https://dm.example/dm")
FULL = DmBootstrap(
    server_id="dpf.example",
    addr="https://dm.example/dm",
    name="Registration operator",
    port=8443,
    addresses=(
        AppAddress(addr="192.0.2.1", addr_type="IPV4"),
        AppAddress(addr="https://dm.example/dm", ports=(Port(number=8443), Port(number=443))),
    ),
    client=DmCredentials(auth_type=AuthType.MD5, name="c", secret="s1", nonce=b"\0\xff"),
    server=DmCredentials(auth_type=AuthType.MAC, name="d", secret="s2", nonce=b"n"),
    obex=TransportCredentials(auth_type="HTTP-DIGEST", name="o", secret="s3", data=b"\1"),
    auth_pref="DIGEST",
    to_napids=("NAP1", "NAP2"),
)
RIGHTS = Acl.parse("Get=srv&Replace=srv&Delete=srv")
WBXML, XML = MediaType.TNDS_WBXML, MediaType.TNDS_XML


def test_account_there_and_back():
    """XC-095, XS-034: everything of the account, and rights that stand in the document."""
    content = read_message(bootstrap_message(FULL, device_id=DEVICE))
    (offer,) = content.offers
    assert offer.account == FULL
    assert str(offer.acl) == "Delete=dpf.example&Get=dpf.example&Replace=dpf.example"
    assert content.skipped == ()


def test_form_of_the_message():
    """XS-034: WBXML, Add to ./Inbox, an embedded WBXML tree, SessionID 0, MsgID 0, nothing that asks for an answer."""
    body = bootstrap_message(PLAIN, FULL, device_id=DEVICE)
    assert body[:4] == bytes.fromhex("02a4016a")
    message = decode(body, Encoding.WBXML)
    header = message.header
    assert (header.session_id, header.msg_id, header.target, header.source) == ("0", "0", DEVICE, PLAIN.addr)
    assert header.cred is None
    assert message.final
    assert [type(each) for each in message.commands] == [Add, Add]
    (item,) = message.commands[0].items
    assert item.target == "./Inbox"
    assert item.meta.type == WBXML
    assert isinstance(item.data, bytes)
    assert item.data.startswith(bytes.fromhex("0200006a1b") + b"-//OMA//DTD-DM-DDF 1.2//EN\0")
    (node,) = decode_tnds(item.data).nodes
    assert node.object_type == "urn:oma:mo:oma-dm-dmacc:1.0"


def test_no_secret_shows():
    """XS-034."""
    content = read_message(bootstrap_message(FULL, device_id=DEVICE))
    for secret in ("'s1'", "'s2'", "'s3'"):
        assert secret not in repr(content)
        assert secret not in repr(account_node(FULL))


SECRETS = BootstrapSecrets(pin="1234", imsi="493005100592800")


@pytest.mark.parametrize("sec", DmSec)
@pytest.mark.parametrize("over", ["WSP", "HTTP"])
def test_protection(sec, over):
    """XS-034, XC-095: SEC as a word and MAC over the exact octets, under WSP codes 11 and 12 or in the Content-Type."""
    push = protect_message(PLAIN, device_id=DEVICE, secrets=SECRETS, sec=sec, transaction_id=7)
    if over == "WSP":
        octets = build_push(push)
        assert b"\xc2\x91" + sec.encode() + b"\0\x92" + push.mac.encode() + b"\0" in octets
        arrived = parse_push(octets)
    else:
        content_type = http_content_type(push)
        assert content_type == f"application/vnd.syncml.dm+wbxml; SEC={sec}; MAC={push.mac}"
        arrived = push_over_http(content_type, push.body)
    assert authenticated(arrived, SECRETS) is sec
    with pytest.raises(BootstrapRefused) as caught:
        authenticated(replace(arrived, body=arrived.body + b"\0"), SECRETS)
    assert caught.value.reason is BootstrapReason.WRONG_MAC


def test_kinds_of_the_other_profile_do_not_count():
    """XC-095: a number as SEC belongs to the CP profile."""
    push = protect_message(PLAIN, device_id=DEVICE, secrets=SECRETS, sec=DmSec.USERPIN)
    for sec in (1, "X", None):
        with pytest.raises(BootstrapRefused) as caught:
            authenticated(replace(push, sec=sec), SECRETS)
        assert caught.value.reason is BootstrapReason.UNPROTECTED


# -- what others send -------------------------------------------------------------------------------------------------


def message(*commands, session_id: str = "0", final: bool = True) -> bytes:
    header = SyncHdr(session_id=session_id, msg_id="1", target="x", source="y")
    return encode(Message(header=header, commands=commands, final=final), Encoding.WBXML)


def add(*items: Item, cmd_id: str = "1") -> Add:
    return Add(cmd_id=cmd_id, items=items)


def tree(*nodes: TndsNode, target: str = "./Inbox", encoding: Encoding = Encoding.WBXML, **meta: object) -> Item:
    values = {"format": "xml", "type": WBXML if encoding is Encoding.WBXML else XML} | meta
    return Item(target=target, meta=Meta(**values), data=encode_tnds(Tnds(nodes), encoding))


def leaf(name: str, value: str | bytes, path: str | None = None) -> TndsNode:
    octets = isinstance(value, bytes)
    return TndsNode(name=name, path=path, format=Format.BIN if octets else Format.CHR, value=value)


NODE = account_node(PLAIN)
UNKNOWN = TndsNode(name="n", format=Format.NODE, object_type="urn:oma:mo:oma-connmo-x:1.0", children=(leaf("A", "b"),))
FLAT = tuple(
    leaf(name, value, path)
    for path, name, value in (
        ("srv", "AppID", "w7"),
        ("srv", "ServerID", "srv"),
        ("srv/AppAddr/1", "Addr", PLAIN.addr),
    )
)


def at(target: str, value: str | None, format: str = "chr") -> Item:
    return Item(target=target, meta=Meta(format=format), data=value)


def without_type(node: TndsNode) -> TndsNode:
    return replace(node, object_type="")


TOLERATED = {
    "XC-095 identifier of the examples": add(tree(replace(NODE, object_type=ACCOUNT_OBJECTS[2]))),
    "XC-095 version 1.1": add(tree(replace(NODE, object_type=ACCOUNT_OBJECTS[0]))),
    "XC-095 format bin": add(tree(NODE, format="bin")),
    "XC-095 a tree in XML": add(tree(NODE, encoding=Encoding.XML)),
    "XC-095 a tree without Type": add(tree(NODE, type=None)),
    "XC-095 Meta at the command": Add(
        cmd_id="1",
        meta=Meta(format="xml", type=WBXML),
        items=(Item(target="./Inbox", data=encode_tnds(Tnds((NODE,)), Encoding.WBXML)),),
    ),
    "XC-095 Inbox without ./": add(tree(NODE, target="Inbox")),
    "XC-095 a name below Inbox": add(tree(NODE, target="./Inbox/new")),
    "XC-095 no NodeName": add(tree(replace(NODE, name=""))),
    "XC-095 below its parent": add(tree(TndsNode(name="DMAcc", format=Format.NODE, children=(NODE,)))),
    "XC-095 Path instead of nesting": add(tree(replace(NODE, name="srv", children=()), *FLAT)),
    "XC-095 to a fixed place": add(tree(NODE, target="./DMAcc")),
    "XC-095 to a fixed place, node named": add(tree(without_type(replace(NODE, name="a")), target="./DMAcc/a")),
    "XC-095 to a fixed place, node not named": add(tree(replace(NODE, name=""), target="./DMAcc/a")),
    "XC-095 to the place of DM 1.1": add(tree(NODE, target="./SyncML/DMAcc")),
    "XC-095 node by node": add(
        at("./DMAcc/a", None, "node"),
        at("./DMAcc/a/AppID", "w7"),
        at("./DMAcc/a/ServerID", "srv"),
        at("./DMAcc/a/AppAddr/1/Addr", PLAIN.addr),
        at("./DMAcc/a/AppAddr/1/AddrType", "URI"),
    ),
    "XC-095 inside Atomic": Atomic(cmd_id="9", commands=(add(tree(NODE)),)),
    "XC-096 unknown object before": add(tree(UNKNOWN, NODE)),
    "XC-096 unknown object in an Add of its own": add(tree(UNKNOWN), tree(NODE)),
    "XC-096 unknown place": add(tree(UNKNOWN, target="./Other"), tree(NODE)),
    "XC-096 unknown node in the account": add(
        tree(replace(NODE, children=(*NODE.children, TndsNode(name="Ext", children=(leaf("X", "y"),)))))
    ),
    "XC-096 an older version beside": add(
        tree(
            replace(account_node(replace(PLAIN, name="old")), name="o", object_type=ACCOUNT_OBJECTS[1]),
            replace(NODE, name="n", object_type=ACCOUNT_OBJECTS[0]),
        )
    ),
}


@pytest.mark.parametrize("command", TOLERATED.values(), ids=TOLERATED)
def test_forms_that_are_taken(command):
    """XC-095, XC-096: the ids of the cases say which."""
    (offer,) = read_message(message(command)).offers
    assert offer.account == PLAIN


def test_skipped_objects_are_named():
    """XC-096: the rest is applied, the log says what was not."""
    content = read_message(message(add(tree(UNKNOWN, NODE))))
    assert content.skipped == ("urn:oma:mo:oma-connmo-x:1.0",)


def test_commands_that_are_no_add_are_passed_over():
    """XC-095: nothing is answered anyway; SessionID and Final do not matter."""
    get = Get(cmd_id="5", items=(Item(target="./DevInfo"),))
    (offer,) = read_message(message(get, add(tree(NODE)), session_id="A1", final=False)).offers
    assert offer.account == PLAIN


def test_rights_are_those_of_the_document():
    """XC-095: without an ACL in the tree nothing is granted."""
    (offer,) = read_message(message(add(tree(replace(NODE, acl=None))))).offers
    assert not offer.acl
    (offer,) = read_message(message(add(tree(replace(NODE, acl=Acl.parse("Get=*")))))).offers
    assert str(offer.acl) == "Get=*"


def test_references_to_objects_we_skipped_lead_nowhere():
    """XC-096: `./Inbox/…` names an object of the same message."""
    account = replace(PLAIN, to_napids=("./Inbox/NAP/1", "there"))
    (offer,) = read_message(message(add(tree(account_node(account))))).offers
    assert offer.account.to_napids == ("there",)


def test_nonce_as_text():
    """XC-095: Base64 in a chr node, as in the CP profile."""
    auth = TndsNode(
        name="AppAuth",
        children=(
            TndsNode(
                name="1",
                children=(leaf("AAuthLevel", "CLCRED"), leaf("AAuthSecret", "s"), leaf("AAuthData", "bm9uY2U=")),
            ),
        ),
    )
    (offer,) = read_message(message(add(tree(replace(NODE, children=(*NODE.children, auth)))))).offers
    assert offer.account.client == DmCredentials(auth_type=AuthType.MD5, secret="s", nonce=b"nonce")


def changed(name: str, *with_: TndsNode) -> TndsNode:
    return replace(NODE, children=(*(each for each in NODE.children if each.name != name), *with_))


def auth(**values: str) -> TndsNode:
    one = TndsNode(name="1", children=tuple(leaf(name, value) for name, value in values.items()))
    return replace(NODE, children=(*NODE.children, TndsNode(name="AppAuth", children=(one,))))


def port(number: str) -> TndsNode:
    ports = TndsNode(name="Port", children=(TndsNode(name="1", children=(leaf("PortNbr", number),)),))
    address = TndsNode(name="1", children=(leaf("Addr", PLAIN.addr), ports))
    return changed("AppAddr", TndsNode(name="AppAddr", children=(address,)))


R = BootstrapReason
REFUSED = {
    "no commands": ([], R.MISSING),
    "no account": ([add(tree(UNKNOWN))], R.MISSING),
    "a leaf in Inbox": (
        [add(Item(target="./Inbox/x", meta=Meta(format="chr", type="text/plain"), data="y"))], R.MISSING),
    "no tree": ([add(Item(target="./Inbox", meta=Meta(type=WBXML), data=b"x"))], R.MALFORMED),
    "no data": ([add(Item(target="./Inbox", meta=Meta(type=WBXML)))], R.MALFORMED),
    "no target": ([add(Item(meta=Meta(type=WBXML), data=b"x"))], R.MALFORMED),
    "bad target": ([add(tree(NODE, target="./Inbox/../x"))], R.MALFORMED),
    "no ServerID": ([add(tree(changed("ServerID")))], R.MISSING),
    "no address": ([add(tree(changed("AppAddr")))], R.MISSING),
    "another application": ([add(tree(changed("AppID", leaf("AppID", "w2"))))], R.INVALID),
    "server id that would change ACLs": ([add(tree(changed("ServerID", leaf("ServerID", "a&Get=*"))))], R.INVALID),
    "long value": ([add(tree(changed("Name", leaf("Name", "a" * 2000))))], R.OVERSIZED),
    "octets that are no text": ([add(tree(changed("Name", leaf("Name", b"\xff"))))], R.INVALID),
    "no level": ([add(tree(auth(AAuthSecret="s")))], R.MISSING),
    "no secret": ([add(tree(auth(AAuthLevel="CLCRED")))], R.MISSING),
    "unusable type": ([add(tree(auth(AAuthLevel="CLCRED", AAuthSecret="s", AAuthType="X509")))], R.INVALID),
    "nonce that is no Base64": ([add(tree(auth(AAuthLevel="CLCRED", AAuthSecret="s", AAuthData="!")))], R.INVALID),
    "port 0": ([add(tree(port("0")))], R.INVALID),
    "port that is no number": ([add(tree(port("x")))], R.INVALID),
    "two accounts of one server": ([add(tree(NODE, replace(NODE, name="b")))], R.DUPLICATE),
    "two Adds of one node": ([add(tree(NODE, target="./DMAcc"), tree(NODE, target="./DMAcc"))], R.DUPLICATE),
    "accounts without end": (
        [add(tree(*(account_node(replace(PLAIN, server_id=f"s{number}")) for number in range(9))))], R.OVERSIZED),
    "nodes without end": (
        [add(tree(*(leaf(f"n{number}", "") for number in range(MAX_NODES + 1))))], R.OVERSIZED),
}  # fmt: skip


@pytest.mark.parametrize(("commands", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused(commands, reason):
    """XC-095: all of the message or nothing, with the reason for the log."""
    with pytest.raises(BootstrapRefused) as caught:
        read_message(message(*commands))
    assert caught.value.reason is reason


def test_octets_that_are_no_message():
    """XC-095: XML is not allowed here, and rubbish is rubbish."""
    as_xml = encode(decode(bootstrap_message(PLAIN, device_id=DEVICE), Encoding.WBXML), Encoding.XML)
    for body in (b"", as_xml, b"\x03\x0b\x6a\x00", bootstrap_message(PLAIN, device_id=DEVICE)[:-1]):
        with pytest.raises(BootstrapRefused) as caught:
            read_message(body)
        assert caught.value.reason is BootstrapReason.MALFORMED
    with pytest.raises(BootstrapRefused) as caught:
        read_message(bytes(MAX_MESSAGE + 1))
    assert caught.value.reason is BootstrapReason.OVERSIZED


def test_what_we_do_not_send():
    """XS-034: a bootstrap of nothing, or without the secret."""
    with pytest.raises(LocalProtocolError):
        bootstrap_message(device_id=DEVICE)
    with pytest.raises(LocalProtocolError):
        protect_message(PLAIN, device_id=DEVICE, secrets=BootstrapSecrets(), sec=DmSec.USERPIN)


SAMPLE = bootstrap_message(FULL, device_id=DEVICE)


@given(st.integers(0, len(SAMPLE) - 1), st.binary(max_size=4), st.integers(0, 4))
def test_damaged_octets_give_accounts_or_a_typed_error(at_, patch, removed):
    """XC-095: any octets."""
    try:
        content = read_message(SAMPLE[:at_] + patch + SAMPLE[at_ + removed :])
    except BootstrapRefused:
        return
    assert content.offers
