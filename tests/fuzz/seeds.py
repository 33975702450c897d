"""Seeds for the targets: documents of every kind, made by the real encoders."""

from __future__ import annotations

from pathlib import Path

from syncml.codec import Encoding, encode
from syncml.codes import AuthType, Format, MediaType
from syncml.model import (
    Add,
    Alert,
    Atomic,
    Chal,
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
from syncml.tnds import Tnds, TndsNode, encode_tnds
from syncml.tree import Acl
from syncml.values import leaf_item, node_item

TREE = Tnds(
    (
        TndsNode(
            "A",
            format=Format.NODE,
            object_type="urn:oma:mo:x:1.0",
            acl=Acl.parse("Get=*&Replace=srv"),
            title="T",
            ver_no="1",
            children=(
                TndsNode("b", format=Format.BIN, type="application/octet-stream", value=b"\x00\xff", size="2"),
                TndsNode("c", format=Format.CHR, type="text/plain", value="v & w"),
                TndsNode("x", format=Format.XML, type="text/xml", value="<a/>"),
            ),
        ),
    ),
    manufacturer="Acme",
    model="T1",
)


def _message(*commands: Command, cred: Cred | None = None, final: bool = True) -> Message:
    header = SyncHdr(
        session_id="2F",
        msg_id="1",
        target="https://dm.example.test/dm",
        source="IMEI:004999010640000",
        source_name="dev1",
        cred=cred,
        meta=Meta(max_msg_size=16000, max_obj_size=512000),
    )
    return Message(header=header, commands=commands, final=final)


_HEADER_STATUS = Status(
    cmd_id="1",
    msg_ref="1",
    cmd_ref="0",
    cmd="SyncHdr",
    code=212,
    target_refs=("https://dm.example.test/dm",),
    source_refs=("IMEI:004999010640000",),
    chal=Chal(type=AuthType.MD5, next_nonce=b"0123456789abcdef"),
)
_DEV_INFO = {"DevId": "IMEI:004999010640000", "Man": "Acme", "Mod": "T1", "DmV": "1.2", "Lang": "en-GB"}

MESSAGES: dict[str, Message] = {
    "package 1": _message(
        Alert(cmd_id="1", code=1201),
        Replace(
            cmd_id="2", items=tuple(Item(source=f"./DevInfo/{name}", data=value) for name, value in _DEV_INFO.items())
        ),
        cred=Cred(type=AuthType.MD5, data="Zz6EivR3yeaaENcRN6lpAQ=="),
    ),
    "package 2": _message(
        _HEADER_STATUS,
        Status(cmd_id="2", msg_ref="1", cmd_ref="1", cmd="Alert", code=200),
        Get(cmd_id="3", items=(Item(target="./DevDetail/SwV"), Item(target="./A?list=Struct"))),
        Add(
            cmd_id="4", items=(node_item("./A", "urn:oma:mo:x:1.0"), leaf_item("./A/b", b"\x00\xff", format=Format.BIN))
        ),
        Replace(cmd_id="5", meta=Meta(format="int"), items=(Item(target="./A/c", data="7"),)),
        Delete(cmd_id="6", items=(Item(target="./B"),)),
        Copy(cmd_id="7", items=(Item(target="./C", source="./A/c"),)),
        Exec(cmd_id="8", correlator="job-17", items=(Item(target="./FUMO/1/Update"),)),
    ),
    "groups and user interaction": _message(
        Sequence(
            cmd_id="1",
            commands=(
                Alert(cmd_id="2", code=1101, items=(Item(data="MINDT=10&DR=1"), Item(data="Übernehmen?"))),
                Atomic(cmd_id="3", commands=(Add(cmd_id="4", items=(leaf_item("./A", "<v>"),)),)),
            ),
        )
    ),
    "results and a generic alert": _message(
        Results(
            cmd_id="1", msg_ref="1", cmd_ref="3", items=(Item(source="./A", meta=Meta(format="node"), data="b/c"),)
        ),
        Alert(
            cmd_id="2",
            code=1226,
            correlator="job-17",
            items=(
                Item(
                    source="./FUMO/1", meta=Meta(type="org.example.update", format="int", mark="critical"), data="200"
                ),
            ),
        ),
    ),
    "first chunk": _message(
        Replace(
            cmd_id="1",
            items=(Item(target="./P", meta=Meta(format="b64", size=9000), data="QUJD" * 8, more_data=True),),
        ),
        final=False,
    ),
    "a tree for the inbox": _message(
        Add(
            cmd_id="1",
            items=(
                leaf_item("./Inbox", encode_tnds(TREE, Encoding.XML), format=Format.XML, type=MediaType.TNDS_XML),
                leaf_item("./Inbox", encode_tnds(TREE, Encoding.WBXML), format=Format.XML, type=MediaType.TNDS_WBXML),
            ),
        )
    ),
}

SEEDS: dict[str, list[bytes]] = {
    "xml": [encode(message, Encoding.XML) for message in MESSAGES.values()],
    "wbxml": [encode(message, Encoding.WBXML) for message in MESSAGES.values()],
    "tnds": [
        document if isinstance(document := encode_tnds(TREE, encoding), bytes) else document.encode()
        for encoding in Encoding
    ],
    "ddf": [path.read_bytes() for path in sorted((Path(__file__).parents[1] / "vectors" / "ddf").glob("*.xml"))],
}
