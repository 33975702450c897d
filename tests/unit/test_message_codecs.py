"""What the reader of messages tolerates and the writer insists on, in XML and in WBXML alike."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace

import pytest

from syncml.codec import Encoding, decode, encode
from syncml.codes import AuthType, Format, MediaType
from syncml.document import DDF, METINF, Element, Limits
from syncml.errors import LocalProtocolError, MalformedMessage, MessageTooLarge
from syncml.message_reader import read_message
from syncml.model import (
    MAX_GROUP_DEPTH,
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
    UnknownCommand,
)
from syncml.nonces import decode_nonce, nonce_forms
from syncml.values import as_transmitted, item_value, leaf_item
from syncml.wbxml import WBXML_1_2, read_document, write_document
from syncml.wbxml.syncml_pages import SYNCML_1_2
from syncml.wbxml_codec import decode_wbxml, encode_wbxml
from syncml.xml_codec import decode_xml, encode_xml
from syncml.xml_document import MalformedXml, read_xml, xml_text

VERSIONS = "<VerDTD>1.2</VerDTD><VerProto>DM/1.2</VerProto>"
PARTIES = "<Target><LocURI>s</LocURI></Target><Source><LocURI>d</LocURI></Source>"
HEADER = SyncHdr(session_id="1", msg_id="1", target="s", source="d")
M = 'xmlns="syncml:metinf"'


def xml(body: str = "", header: str = "", *, root: str = 'xmlns="SYNCML:SYNCML1.2"', parties: str = PARTIES) -> bytes:
    head = f"{VERSIONS}<SessionID>1</SessionID><MsgID>1</MsgID>{parties}{header}"
    return f"<SyncML {root}><SyncHdr>{head}</SyncHdr><SyncBody>{body}</SyncBody></SyncML>".encode()


def wbxml(document: bytes) -> bytes:
    """The same document in WBXML, element by element and in the same order."""
    return write_document(read_xml(document, "SyncML", Limits()), SYNCML_1_2, version=WBXML_1_2)


def both(document: bytes) -> tuple[Message, Message]:
    return decode_xml(document), decode_wbxml(wbxml(document))


def status(**changes: object) -> Status:
    return Status(**({"cmd_id": "1", "msg_ref": "1", "cmd_ref": "0", "cmd": "SyncHdr", "code": 200} | changes))


def add(**item: object) -> Add:
    return Add(cmd_id="1", items=(Item(**item),))


STATUS = "<CmdID>1</CmdID><MsgRef>1</MsgRef><CmdRef>0</CmdRef><Cmd>SyncHdr</Cmd>"

READ_ALIKE: dict[str, tuple[str, Command]] = {
    "children of Status in another order, Data before TargetRef": (
        f"<Status><Data>200</Data>{STATUS}<TargetRef>./A</TargetRef></Status>",
        status(target_refs=("./A",)),
    ),
    "several TargetRefs and SourceRefs": (
        f"<Status>{STATUS}<TargetRef>a</TargetRef><TargetRef> b </TargetRef><SourceRef>c</SourceRef><SourceRef>d"
        "</SourceRef><Data>200</Data></Status>",
        status(target_refs=("a", "b"), source_refs=("c", "d")),
    ),
    "Status of the header without MsgRef and CmdRef": (
        "<Status><CmdID>1</CmdID><Cmd>SyncHdr</Cmd><Data>200</Data></Status>",
        status(msg_ref=""),
    ),
    "Status of a command without CmdRef": (
        "<Status><CmdID>1</CmdID><MsgRef>1</MsgRef><Cmd>Get</Cmd><Data>200</Data></Status>",
        status(cmd_ref="", cmd="Get"),
    ),
    "status code 0": (f"<Status>{STATUS}<Data>0</Data></Status>", status(code=0)),
    "white space around codes": (
        "<Status><CmdID> 1 </CmdID><MsgRef>1\n</MsgRef><CmdRef>\t0</CmdRef><Cmd> SyncHdr </Cmd><Data>\n 212 </Data>"
        "</Status>",
        status(code=212),
    ),
    "detail in an Item of a Status": (
        f"<Status>{STATUS}<Data>405</Data><Item><Target><LocURI>./A</LocURI></Target></Item></Status>",
        status(code=405, items=(Item(target="./A"),)),
    ),
    "Item in the order Source, Meta, Data": (
        f"<Results><CmdID>1</CmdID><CmdRef>4</CmdRef><Cmd>Get</Cmd><Item><Source><LocURI>./A</LocURI></Source><Meta>"
        f"<Format {M}>int</Format></Meta><Data>7</Data></Item></Results>",
        Results(cmd_id="1", cmd_ref="4", items=(Item(source="./A", meta=Meta(format="int"), data="7"),)),
    ),
    "Item in the order Data, Meta, Target": (
        f"<Add><CmdID>1</CmdID><Item><Data>7</Data><Meta><Format {M}>int</Format></Meta><Target><LocURI>./A</LocURI>"
        "</Target></Item></Add>",
        add(target="./A", meta=Meta(format="int"), data="7"),
    ),
    "Results without references count as 1": (
        "<Results><CmdID>1</CmdID><Item><Source><LocURI>./A</LocURI></Source><Data>v</Data></Item></Results>",
        Results(cmd_id="1", msg_ref="1", cmd_ref="1", items=(Item(source="./A", data="v"),)),
    ),
    "Meta inside MetInf": (
        f"<Add><CmdID>1</CmdID><Item><Meta><MetInf {M}><Format>chr</Format><Type>text/plain</Type></MetInf></Meta>"
        "</Item></Add>",
        add(meta=Meta(format="chr", type="text/plain")),
    ),
    "white space around Format and Type": (
        f"<Add><CmdID>1</CmdID><Item><Meta><Format {M}>\n chr </Format><Type {M}> text/plain\t</Type></Meta></Item>"
        "</Add>",
        add(meta=Meta(format="chr", type="text/plain")),
    ),
    "Meta on the command": (
        f"<Replace><CmdID>1</CmdID><Meta><Format {M}>int</Format></Meta><Item><Data>1</Data></Item></Replace>",
        Replace(cmd_id="1", meta=Meta(format="int"), items=(Item(data="1"),)),
    ),
    "EMI, Mark and sizes": (
        f"<Alert><CmdID>1</CmdID><Data>1226</Data><Item><Meta><EMI {M}>a</EMI><Mark {M}>critical</Mark><Size {M}>9"
        f"</Size><EMI {M}>b</EMI></Meta></Item></Alert>",
        Alert(cmd_id="1", code=1226, items=(Item(meta=Meta(mark="critical", size=9, emi=("a", "b"))),)),
    ),
    "a number out of range is none": (
        f"<Add><CmdID>1</CmdID><Item><Meta><Size {M}>99999999999</Size></Meta></Item></Add>",
        add(meta=Meta()),
    ),
    "an Alert whose code is no number": (
        "<Alert><CmdID>1</CmdID><Data>x</Data></Alert>",
        Alert(cmd_id="1", code=None),
    ),
    "an Alert without a code": ("<Alert><CmdID>1</CmdID></Alert>", Alert(cmd_id="1", code=None)),
    "user data with white space around it": (
        "<Add><CmdID>1</CmdID><Item><Data>\n  v\t</Data></Item></Add>",
        add(data="\n  v\t"),
    ),
    "empty Data is not no Data": ("<Add><CmdID>1</CmdID><Item><Data/></Item></Add>", add(data="")),
    "no Data": ("<Add><CmdID>1</CmdID><Item/></Add>", add(data=None)),
    "CDATA": ("<Add><CmdID>1</CmdID><Item><Data><![CDATA[<a> & ]]>b</Data></Item></Add>", add(data="<a> & b")),
    "Target without LocURI": ("<Get><CmdID>1</CmdID><Item><Target/></Item></Get>", Get(cmd_id="1", items=(Item(),))),
    "Target with a bare path": (
        "<Copy><CmdID>1</CmdID><Item><Target>./B</Target><Source> ./A </Source></Item></Copy>",
        Copy(cmd_id="1", items=(Item(target="./B", source="./A"),)),
    ),
    "Target with an empty LocURI": (
        "<Delete><CmdID>1</CmdID><Item><Target><LocURI/></Target></Item></Delete>",
        Delete(cmd_id="1", items=(Item(target=""),)),
    ),
    "CmdID is missing": ("<Get><Item/></Get>", Get(cmd_id="", items=(Item(),))),
    "a command of data synchronisation": ("<Put><CmdID>1</CmdID></Put>", UnknownCommand(cmd_id="1", element="Put")),
    "NoResp": ("<Get><CmdID>1</CmdID><NoResp/></Get>", Get(cmd_id="1", no_resp=True)),
    "groups": (
        "<Sequence><CmdID>1</CmdID><Meta/><Atomic><CmdID>2</CmdID><Delete><CmdID>3</CmdID></Delete></Atomic>"
        "<Alert><CmdID>4</CmdID><Data>1101</Data></Alert></Sequence>",
        Sequence(
            cmd_id="1",
            commands=(Atomic(cmd_id="2", commands=(Delete(cmd_id="3"),)), Alert(cmd_id="4", code=1101)),
        ),
    ),
    "NextNonce as Base64": (
        f"<Status>{STATUS}<Chal><Meta><Format {M}>b64</Format><Type {M}>syncml:auth-md5</Type><NextNonce {M}> AP8= "
        "</NextNonce></Meta></Chal><Data>401</Data></Status>",
        status(code=401, chal=Chal(type=AuthType.MD5, next_nonce=b"\x00\xff")),
    ),
    "NextNonce that is no Base64": (
        f"<Status>{STATUS}<Chal><Meta><NextNonce {M}>a-nonce</NextNonce></Meta></Chal><Data>401</Data></Status>",
        status(code=401, chal=Chal(type="", format=None, next_nonce=b"a-nonce")),
    ),
    "a challenge without Meta": (
        f"<Status>{STATUS}<Chal/><Data>401</Data></Status>",
        status(code=401, chal=Chal(type="", format=None)),
    ),
}


@pytest.mark.parametrize(("body", "command"), READ_ALIKE.values(), ids=READ_ALIKE)
def test_read_alike_in_both_encodings(body: str, command: Command) -> None:
    """XS-025, XS-027, interop: any order, missing parts and white space are read, in XML and in WBXML."""
    document = xml(body)
    assert decode_xml(document).commands == (command,)
    assert decode_wbxml(wbxml(document)).commands == (command,)


HEADERS: dict[str, tuple[bytes, SyncHdr]] = {
    "no namespace": (xml(root=""), HEADER),
    "namespace of 1.1": (xml(root='xmlns="SYNCML:SYNCML1.1"'), HEADER),
    "namespace in lower case": (xml(root='xmlns="syncml:syncml1.2"'), HEADER),
    "credentials without Data": (
        xml(header=f"<Cred><Meta><Type {M}>syncml:auth-md5</Type></Meta></Cred>"),
        SyncHdr(session_id="1", msg_id="1", target="s", source="d", cred=Cred(type=AuthType.MD5, format=None, data="")),
    ),
    "credentials with empty Data": (
        xml(header=f"<Cred><Meta><Type {M}>syncml:auth-basic</Type><Format {M}>b64</Format></Meta><Data/></Cred>"),
        SyncHdr(session_id="1", msg_id="1", target="s", source="d", cred=Cred(type=AuthType.BASIC, data="")),
    ),
    "credentials without Meta": (
        xml(header="<Cred><Data> eDp5 </Data></Cred>"),
        SyncHdr(
            session_id="1", msg_id="1", target="s", source="d", cred=Cred(type=AuthType.BASIC, format=None, data="eDp5")
        ),
    ),
    "bare paths": (xml(parties="<Target>s</Target><Source> d </Source>"), HEADER),
    "no Target": (
        xml(parties="<Source><LocURI>d</LocURI></Source>"),
        SyncHdr(session_id="1", msg_id="1", target="", source="d"),
    ),
    "everything": (
        xml(
            parties="<Target><LocURI>s</LocURI><LocName>S</LocName></Target><Source><LocName>D</LocName><LocURI>d"
            "</LocURI></Source>",
            header=f"<RespURI>r</RespURI><NoResp/><Meta><MaxMsgSize {M}>5000</MaxMsgSize><MaxObjSize {M}>9</MaxObjSize>"
            "</Meta>",
        ),
        SyncHdr(
            session_id="1",
            msg_id="1",
            target="s",
            target_name="S",
            source="d",
            source_name="D",
            resp_uri="r",
            no_resp=True,
            meta=Meta(max_msg_size=5000, max_obj_size=9),
        ),
    ),
}


@pytest.mark.parametrize(("document", "header"), HEADERS.values(), ids=HEADERS)
def test_headers_read_alike(document: bytes, header: SyncHdr) -> None:
    """XS-025, interop: namespaces old and missing, LocName or not, credentials with nothing in them."""
    assert [message.header for message in both(document)] == [header, header]


UNREADABLE = {
    "no SyncHdr": b"<SyncML><SyncBody/></SyncML>",
    "no SyncBody": b"<SyncML><SyncHdr/></SyncML>",
    "no Source": xml(parties="<Target><LocURI>s</LocURI></Target>"),
    "Source without LocURI": xml(parties="<Source/>"),
    "a Status without a code": xml(f"<Status>{STATUS}</Status>"),
    "a Status whose code is no number": xml(f"<Status>{STATUS}<Data>OK</Data></Status>"),
    "CmdID 0": xml("<Get><CmdID>0</CmdID></Get>"),
    "groups too deep": xml("<Sequence>" * 9 + "</Sequence>" * 9),
}


@pytest.mark.parametrize("document", UNREADABLE.values(), ids=UNREADABLE)
def test_unreadable_in_both_encodings(document: bytes) -> None:
    """XS-037: one typed error."""
    for body, encoding in ((document, Encoding.XML), (wbxml(document), Encoding.WBXML)):
        with pytest.raises(MalformedMessage):
            decode(body, encoding)


# -- XML alone -----------------------------------------------------------------------------------------------------

NAMESPACES: dict[str, tuple[str, Command]] = {
    "Meta without a namespace of its own": (
        "<Add><CmdID>1</CmdID><Item><Meta><Format>chr</Format></Meta></Item></Add>",
        add(meta=Meta(format="chr")),
    ),
    "foreign elements are passed over with what is in them": (
        '<f:Add xmlns:f="urn:f"><CmdID>9</CmdID></f:Add><Exec><CmdID>1</CmdID><Data xmlns="urn:f">x</Data><Correlator>c'
        "</Correlator></Exec>",
        Exec(cmd_id="1", correlator="c"),
    ),
}


@pytest.mark.parametrize(("body", "command"), NAMESPACES.values(), ids=NAMESPACES)
def test_namespaces(body: str, command: Command) -> None:
    """XS-025, interop: a namespace forgotten, and elements of others."""
    assert decode_xml(xml(body)).commands == (command,)


NULS: dict[str, tuple[bytes, str | None]] = {
    "at the end of a value": (b"<Data>v\0</Data>", "v"),
    "several at the end of a value": (b"<Data>v\0\0\0</Data>", "v"),
    "a value of nothing else": (b"<Data>\0</Data>", ""),
    "at the end of CDATA": (b"<Data><![CDATA[v\0]]></Data>", "v"),
    "inside a value": (b"<Data>a\0b</Data>", None),
    "at the start of a value": (b"<Data>\0b</Data>", None),
    "inside markup": (b"<Da\0ta>b</Data>", None),
    "as a reference": (b"<Data>a&#0;</Data>", None),
}


@pytest.mark.parametrize(("data", "value"), NULS.values(), ids=NULS)
def test_nul_in_xml(data: bytes, value: str | None) -> None:
    """Interop: a NUL that a C string left at the end of a value is dropped; XML cannot have it anywhere else."""
    document = xml("<Add><CmdID>1</CmdID><Item>@</Item></Add>").replace(b"@", data)
    if value is None:
        with pytest.raises(MalformedXml):
            decode_xml(document)
    else:
        assert decode_xml(document).commands == (add(data=value),)


def test_nul_behind_the_document() -> None:
    """Interop: the terminator of the buffer, sent along."""
    assert decode_xml(xml() + b"\0").header == HEADER
    assert decode_xml(xml() + b"\0\n\0").header == HEADER


def test_many_nuls_are_read_in_linear_time() -> None:
    with pytest.raises(MalformedXml):
        decode_xml(xml("<a>" + "\0" * 500_000 + "x</a>"))


INLINE = {
    "with its own namespace": (
        '<Data><MgmtTree xmlns="syncml:dmddf1.2"><VerDTD>1.2</VerDTD></MgmtTree></Data>',
        '<MgmtTree xmlns="syncml:dmddf1.2"><VerDTD>1.2</VerDTD></MgmtTree>',
    ),
    "with a prefix declared above": (
        '<Data xmlns:d="syncml:dmddf1.2"> <d:MgmtTree>x &lt; y</d:MgmtTree>\n</Data>',
        ' <d:MgmtTree xmlns:d="syncml:dmddf1.2" xmlns="SYNCML:SYNCML1.2">x &lt; y</d:MgmtTree>\n',
    ),
    "of a foreign namespace": ('<Data>a &amp; <x xmlns="urn:x" y="z"/></Data>', 'a &amp; <x xmlns="urn:x" y="z"/>'),
    "Data inside Data": (
        '<Data><d xmlns="urn:x"><Data>1</Data></d></Data>',
        '<d xmlns="urn:x"><Data>1</Data></d>',
    ),
}


@pytest.mark.parametrize(("data", "text"), INLINE.values(), ids=INLINE)
def test_elements_inside_data_come_as_xml_text(data: str, text: str) -> None:
    """OMA-TS-DM_TND-V1_2 §7: a tree may stand in Data as elements."""
    assert decode_xml(xml(f"<Add><CmdID>1</CmdID><Item>{data}</Item></Add>")).commands == (add(data=text),)


def declared(count: int) -> str:
    return " ".join(f'xmlns:n{number}="urn:n"' for number in range(count))


GROWING = {
    "a namespace too many above one element": f"<Add><Item {declared(65)}><Data><a/></Data></Item></Add>",
    "many namespaces above": f"<Add><Item {declared(20_000)}><Data>{'<a/>' * 2000}</Data></Item></Add>",
    "some namespaces above many elements": f"<Add><Item {declared(50)}><Data>{'<a/>' * 2000}</Data></Item></Add>",
    "in many Items": "<Add>" + f"<Item {declared(50)}><Data>{'<a/>' * 100}</Data></Item>" * 20 + "</Add>",
}


@pytest.mark.parametrize("body", GROWING.values(), ids=GROWING)
def test_a_document_that_grows_as_text_is_refused_early(body: str) -> None:
    """XS-037: elements in Data repeat the namespaces above them; 300 kB would have become gigabytes."""
    with pytest.raises(MalformedXml, match="grow"):
        decode_xml(xml(body))


@pytest.mark.parametrize(
    "document",
    [
        xml().replace(b"<SyncBody/>", b"<SyncBody>") + b"x",
        xml("<a>" * 70 + "</a>" * 70),
        xml("<Add><Item><Data>" + "<a>" * 70 + "</a>" * 70 + "</Data></Item></Add>"),
        b'<?xml version="1.0" encoding="ebcdic"?>' + xml(),
        b"<!DOCTYPE MgmtTree>" + xml(),
        b"\xff" + xml(),
    ],
    ids=["trailing text", "depth", "depth inside Data", "character encoding", "another document type", "no UTF-8"],
)
def test_xml_that_is_refused(document: bytes) -> None:
    """XS-037."""
    with pytest.raises(MalformedXml):
        decode_xml(document)


def test_an_error_of_xml_knows_its_line() -> None:
    with pytest.raises(MalformedXml) as caught:
        decode_xml(b"<?xml version='1.0'?>\n<SyncML><SyncHdr>\n</SyncML>")
    assert caught.value.line == 3
    assert str(caught.value).startswith("line 3: ")


def test_utf_16_is_read() -> None:
    """XML 1.0 §4.3.3."""
    text = '<?xml version="1.0" encoding="UTF-16"?>' + xml("<Final/>").decode()
    assert decode_xml(text.encode("utf-16")).final


def test_neither_octets_nor_strange_characters_get_into_xml() -> None:
    for content in (b"x", "\x01", "\ud800", "\ufffe"):
        with pytest.raises(LocalProtocolError):
            xml_text(Element(name="Data", content=(content,)))


# -- WBXML alone ---------------------------------------------------------------------------------------------------

# Made by hand from RepPro §8 and read by libwbxml's wbxml2xml: a first message with Alert 1201.
PACKAGE_1 = bytes.fromhex(
    "02a4016a00 6d 6c 7103312e320001 7203444d2f312e320001 6503310001 5b03310001"
    "6e5703687474703a2f2f612f000101 675703494d45493a31000101 5a00014c0335303030000101 01"
    "0000 6b 464b03310001 4f0331323031000101 12 01 01"
)
PACKAGE_1_MESSAGE = Message(
    header=SyncHdr(session_id="1", msg_id="1", target="http://a/", source="IMEI:1", meta=Meta(max_msg_size=5000)),
    commands=(Alert(cmd_id="1", code=1201),),
    final=True,
)
TNDS = bytes.fromhex(
    "0200006a1b2d2f2f4f4d412f2f4454442d444d2d44444620312e322f2f454e00"
    "0002607703312e320001 64660341 0001 6f5c25017551 0375726e3a6f6d613a6d6f3a783a312e30 0001010101 01"
)
ADD_TNDS = (
    bytes.fromhex(
        "02a4016a006d6c7103312e3200017203444d2f312e32000165033100015b0331000"
        "16e570349000101675703530001010" + "1"
        "6b454b03310001546e57032e2f496e626f78000101"
        "5a00014703786d6c00015303"
    )
    + b"application/vnd.syncml.dmtnds+wbxml"
    + bytes.fromhex("000101 00004fc34d")
    + TNDS
    + bytes.fromhex("010101 12 0101")
)
ADD_TNDS_MESSAGE = Message(
    header=SyncHdr(session_id="1", msg_id="1", target="I", source="S"),
    commands=(add(target="./Inbox", meta=Meta(format="xml", type=MediaType.TNDS_WBXML), data=TNDS),),
    final=True,
)


@pytest.mark.parametrize(
    ("octets", "message"),
    [(PACKAGE_1, PACKAGE_1_MESSAGE), (ADD_TNDS, ADD_TNDS_MESSAGE)],
    ids=["package 1", "tree for the inbox"],
)
def test_byte_samples(octets: bytes, message: Message) -> None:
    """XS-027, RepPro §8: octet for octet, both ways."""
    assert decode_wbxml(octets) == message
    assert encode_wbxml(message) == octets


BODY = PACKAGE_1[5:]
FPI = b"-//SYNCML//DTD SyncML 1.2//EN"
OLD_FPI = b"-//SYNCML//DTD SyncML 1.1//EN"
PROLOGUES = {
    "version 1.1": bytes.fromhex("01a4016a00"),
    "version 1.3": bytes.fromhex("03a4016a00"),
    "version 1.15": bytes.fromhex("0fa4016a00"),
    "version 1.0, which has no character set": bytes.fromhex("00a40100"),
    "unknown identifier": bytes.fromhex("02016a00"),
    "identifier of SyncML 1.1": bytes.fromhex("029f536a00"),
    "identifier of SyncML 1.0": bytes.fromhex("029f516a00"),
    "spelled out": bytes.fromhex("0200006a1e") + FPI + b"\0",
    "spelled out without NUL": bytes.fromhex("0200006a1d") + FPI,
    "spelled out, SyncML 1.1": bytes.fromhex("0200006a1e") + OLD_FPI + b"\0",
    "spelled out, SyncML 1.1 without NUL": bytes.fromhex("0200006a1d") + OLD_FPI,
    "spelled out behind another string": bytes.fromhex("0200026a20") + b"x\0" + FPI + b"\0",
    "number and a table as well": bytes.fromhex("02a4016a1e") + FPI + b"\0",
    "ASCII": bytes.fromhex("02a4010300"),
    "unknown character set": bytes.fromhex("02a4010000"),
}


@pytest.mark.parametrize("prologue", PROLOGUES.values(), ids=PROLOGUES)
def test_prologues(prologue: bytes) -> None:
    """SL-01, interop: Obigo and the SyncML toolkit leave out the NUL of the table."""
    assert decode_wbxml(prologue + BODY) == PACKAGE_1_MESSAGE


def test_the_writer_says_version_and_identifier() -> None:
    assert encode_wbxml(PACKAGE_1_MESSAGE)[:5] == bytes.fromhex("02a4016a00")


NOKIA = bytes.fromhex("ed040003") + b"SYNCML:SYNCML1.2\0" + b"\x01"
STRANGE: dict[str, bytes] = {
    "xmlns as a literal attribute": PACKAGE_1[:5] + NOKIA + PACKAGE_1[6:],
    "xmlns as a literal attribute with a table": bytes.fromhex("02a4016a06") + b"xmlns\0" + NOKIA + PACKAGE_1[6:],
    "texts from the table": bytes.fromhex("02a4016a04")
    + b"1.2\0"
    + BODY.replace(b"\x71\x03\x31\x2e\x32\0", b"\x71\x83\0"),
    "text as an opaque": PACKAGE_1.replace(b"\x031201\0", b"\xc3\x041201"),
    "text as an opaque with a NUL": PACKAGE_1.replace(b"\x031201\0", b"\xc3\x051201\0"),
    "text as entities": PACKAGE_1.replace(b"\x031201\0", bytes.fromhex("0231 0232 0230 0231")),
    "text in pieces": PACKAGE_1.replace(b"\x031201\0", b"\x0312\0\xc3\x0201"),
    "unknown tag with content": PACKAGE_1.replace(b"\x46\x4b", b"\x7f\x46\x4b\x039\0\x01\x01\x01\x46\x4b"),
    "unknown empty tag": PACKAGE_1.replace(b"\x46\x4b", b"\x3f\x46\x4b"),
    "unknown page": PACKAGE_1.replace(b"\x12\x01\x01", b"\x00\x07\x45\x031\0\x01\x00\x00\x12\x01\x01"),
    "page of trees with a name that commands have": PACKAGE_1.replace(
        b"\x12\x01\x01", b"\x00\x02\x47\x031\0\x01\x00\x00\x12\x01\x01"
    ),
    "processing instruction": PACKAGE_1.replace(b"\x12\x01\x01", b"\x43\x05\x01\x12\x01\x01"),
    "empty elements with END": PACKAGE_1.replace(b"\x12\x01\x01", b"\x52\x01\x01\x01"),
    "a page chosen twice": PACKAGE_1.replace(b"\x12\x01\x01", b"\x00\x00\x00\x00\x12\x01\x01"),
}


@pytest.mark.parametrize("octets", STRANGE.values(), ids=STRANGE)
def test_strange_but_readable(octets: bytes) -> None:
    """Interop, WBXML 1.3 §5: every form of text, tags nobody knows, Nokia's attribute."""
    assert octets != PACKAGE_1
    assert decode_wbxml(octets) == PACKAGE_1_MESSAGE


WBXML_REFUSED = {
    "nothing": b"",
    "XML": xml(),
    "no END": PACKAGE_1[:-1],
    "too many ENDs": PACKAGE_1 + b"\x01",
    "major version 2": b"\x12" + PACKAGE_1[1:],
    "identifier of provisioning documents": bytes.fromhex("020b6a00") + BODY,
    "another identifier spelled out": bytes.fromhex("0200006a02") + b"x\0" + BODY,
    "another document element": bytes.fromhex("02a4016a00 6c01"),
    "opaque that is no text": PACKAGE_1.replace(b"\x031201\0", b"\xc3\x02\xff\xfe"),
    "elements too deep": bytes.fromhex("02a4016a00 6d") + b"\x54" * 70 + b"\x01" * 71,
}


@pytest.mark.parametrize("octets", WBXML_REFUSED.values(), ids=WBXML_REFUSED)
def test_wbxml_that_is_refused(octets: bytes) -> None:
    """XS-037."""
    with pytest.raises(MalformedMessage):
        decode_wbxml(octets)


def test_every_truncation_of_wbxml_is_refused() -> None:
    for octets in (PACKAGE_1, ADD_TNDS):
        for length in range(len(octets)):
            with pytest.raises(MalformedMessage):
                decode_wbxml(octets[:length])


def test_too_large() -> None:
    with pytest.raises(MessageTooLarge):
        decode_wbxml(PACKAGE_1, max_size=10)


def message_with_data(*content: Element | str | bytes, format: str | None = None, type: str | None = None) -> bytes:
    meta = tuple(
        Element(name=name, page=METINF, content=(value,))
        for name, value in (("Format", format), ("Type", type))
        if value
    )
    item = (Element(name="Meta", content=meta), Element(name="Data", content=content))
    command = Element(
        name="Add",
        content=(Element(name="CmdID", content=("1",)), Element(name="Item", content=item)),
    )
    header, _ = read_document(PACKAGE_1, SYNCML_1_2).elements
    root = Element(name="SyncML", content=(header, Element(name="SyncBody", content=(command,))))
    return write_document(root, SYNCML_1_2, version=WBXML_1_2)


def ddf(name: str, *content: Element | str | bytes) -> Element:
    return Element(name=name, page=DDF, content=content)


OPAQUES: dict[str, tuple[bytes, str | bytes]] = {
    "bin": (message_with_data(b"text", format="bin"), b"text"),
    "bin with a NUL at its end": (message_with_data(b"a\0", format="bin"), b"a\0"),
    "bin of nothing": (message_with_data(b"", format="bin"), b""),
    "bin in pieces": (message_with_data(b"a", "b", b"c", format="bin"), b"abc"),
    "bin as Base64 text": (message_with_data("QQ==", format="bin"), "QQ=="),
    "chr": (message_with_data("ä".encode(), format="chr"), "ä"),
    "chr with a NUL at its end": (message_with_data(b"a\0", format="chr"), "a"),
    "chr that is no text": (message_with_data(b"\xff", format="chr"), b"\xff"),
    "chr with a NUL inside": (message_with_data(b"a\0b", format="chr"), b"a\0b"),
    "chr with a character that XML has not": (message_with_data("a\x01", format="chr"), b"a\x01"),
    "no Format": (message_with_data(b"text"), "text"),
    "int": (message_with_data(b"7", format="int"), "7"),
    "b64 as Base64 text": (message_with_data(b"QQ==", format="b64"), "QQ=="),
    "b64 as Base64 text in lines": (message_with_data(b"QUFB\r\nQQ==\0", format="b64"), "QUFB\r\nQQ=="),
    "b64 as raw octets": (message_with_data(b"\x00\xff", format="b64"), b"\x00\xff"),
    "b64 as raw octets that are text": (message_with_data(b"Hello", format="b64"), b"Hello"),
    "XML as an opaque, as libwbxml writes CDATA": (message_with_data(b"<a/>", format="xml"), "<a/>"),
    "a nested document": (message_with_data(TNDS, format="xml", type=MediaType.TNDS_WBXML), TNDS),
    "a nested document whose Type says XML": (message_with_data(TNDS, format="xml", type=MediaType.TNDS_XML), TNDS),
    "a tree as elements": (
        message_with_data(
            ddf("MgmtTree", ddf("VerDTD", "1.2"), ddf("Node", ddf("NodeName", "A&B"), ddf("Value", b"\xff"))),
            format="xml",
        ),
        '<MgmtTree xmlns="syncml:dmddf1.2"><VerDTD>1.2</VerDTD><Node><NodeName>A&amp;B</NodeName><Value>/w==</Value>'
        "</Node></MgmtTree>",
    ),
    "a tree as elements, one of them unknown": (
        message_with_data(ddf("MgmtTree", ddf("VerNo", "1"), "x")).replace(b"\x78\x031\0\x01", b"\x7f\x031\0\x01"),
        '<MgmtTree xmlns="syncml:dmddf1.2">x</MgmtTree>',
    ),
    "a tree as elements with text around": (
        message_with_data(" ", ddf("MgmtTree", "x"), b"\n"),
        ' <MgmtTree xmlns="syncml:dmddf1.2">x</MgmtTree>\n',
    ),
    "DevInf of data synchronisation on the page of trees": (
        message_with_data(Element(name="bool", page=DDF, content=(ddf("Format", "x"),))),  # 0A is DevInf there
        "",
    ),
    "elements of SyncML": (message_with_data(Element(name="Item")), '<Item xmlns="SYNCML:SYNCML1.2"/>'),
    "nothing": (message_with_data(), ""),
}  # fmt: skip


@pytest.mark.parametrize(("octets", "data"), OPAQUES.values(), ids=OPAQUES)
def test_data_in_wbxml(octets: bytes, data: str | bytes) -> None:
    """Interop, OMA-TS-DM_RepPro-V1_2 §7: octets and text are told apart by the Format and by what they are."""
    (command,) = decode_wbxml(octets).commands
    assert isinstance(command, Add)
    assert command.items[0].data == data


def test_the_format_may_stand_on_the_command() -> None:
    command = Add(cmd_id="1", meta=Meta(format="bin"), items=(Item(target="./A", data=b"text"),))
    (read,) = decode_wbxml(encode_wbxml(Message(header=HEADER, commands=(command,)))).commands
    assert isinstance(read, Add)
    assert read.items[0].data == b"text"


WRITTEN: dict[str, tuple[Item, Encoding, str | None, str | bytes | None]] = {
    "bin in XML": (leaf_item("./A", b"\xff", format=Format.BIN), Encoding.XML, "b64", "/w=="),
    "bin in WBXML": (leaf_item("./A", b"\xff", format=Format.BIN), Encoding.WBXML, "bin", b"\xff"),
    "b64 in XML": (leaf_item("./A", b"\xff", format=Format.B64), Encoding.XML, "b64", "/w=="),
    "b64 in WBXML": (leaf_item("./A", b"\xff", format=Format.B64), Encoding.WBXML, "b64", "/w=="),
    "octets without Format in XML": (Item(data=b"\xff"), Encoding.XML, "b64", "/w=="),
    "octets without Format in WBXML": (Item(data=b"\xff"), Encoding.WBXML, "bin", b"\xff"),
    "octets of a text format in WBXML": (leaf_item("./A", b"\xff"), Encoding.WBXML, "bin", b"\xff"),
    "a nested document in WBXML": (
        leaf_item("./A", TNDS, format=Format.XML, type=MediaType.TNDS_WBXML),
        Encoding.WBXML,
        "xml",
        TNDS,
    ),
    "Base64 text in WBXML": (leaf_item("./A", "/w==", format=Format.B64), Encoding.WBXML, "b64", "/w=="),
    "text": (leaf_item("./A", "x"), Encoding.WBXML, "chr", "x"),
    "nothing": (Item(target="./A"), Encoding.XML, None, None),
}


@pytest.mark.parametrize(("item", "encoding", "format", "data"), WRITTEN.values(), ids=WRITTEN)
def test_octets_travel_as_each_encoding_can(
    item: Item, encoding: Encoding, format: str | None, data: str | bytes | None
) -> None:
    """XC-061, OMA-TS-DM_RepPro-V1_2 §7: Base64 under b64 in XML, an opaque under bin in WBXML."""
    message = Message(header=HEADER, commands=(Add(cmd_id="1", items=(item,)),))
    (read,) = decode(encode(message, encoding), encoding).commands
    assert isinstance(read, Add)
    assert read.items[0].data == data
    assert (read.items[0].meta.format if read.items[0].meta else None) == format
    assert as_transmitted(item, encoding).data == data
    if isinstance(item.data, bytes) and format != "xml":
        assert item_value(read.items[0]) == item.data


def header_with(*cred_or_meta: Element) -> bytes:
    header, body = read_document(PACKAGE_1, SYNCML_1_2).elements
    content = (*(each for each in header.elements if each.name != "Meta"), *cred_or_meta)
    root = Element(name="SyncML", content=(Element(name="SyncHdr", content=content), body))
    return write_document(root, SYNCML_1_2, version=WBXML_1_2)


CREDENTIALS = {
    "Base64 as an opaque": (b"eDp5", "eDp5"),
    "the raw digest as an opaque": (bytes(range(0xF0, 0x100)), base64.b64encode(bytes(range(0xF0, 0x100))).decode()),
    "Base64 as text": ("eDp5", "eDp5"),
}


@pytest.mark.parametrize(("data", "read"), CREDENTIALS.values(), ids=CREDENTIALS)
def test_credentials_in_wbxml(data: str | bytes, read: str) -> None:
    """Interop: Base64 text in whatever token."""
    cred = Element(name="Cred", content=(Element(name="Data", content=(data,)),))
    message = decode_wbxml(header_with(cred))
    assert message.header.cred == Cred(type=AuthType.BASIC, format=None, data=read)


NONCES: dict[str, tuple[str | bytes, bytes]] = {
    "Base64 text": ("AP8=", b"\x00\xff"),
    "Base64 text in lines": ("AP\r\n 8=", b"\x00\xff"),
    "raw octets as an opaque": (b"\x00\xff", b"\x00\xff"),
    "raw letters as an opaque": (b"abcdefghijklmnop", b"abcdefghijklmnop"),
    "padded Base64 as an opaque": (b"AP8=", b"\x00\xff"),
    "raw octets that end in an equals sign": (b"\xff=", b"\xff="),
    "nothing as an opaque": (b"", b""),
    "an opaque of padding alone": (b"====", b"===="),
}


@pytest.mark.parametrize(("received", "nonce"), NONCES.values(), ids=NONCES)
def test_nonces_in_wbxml(received: str | bytes, nonce: bytes) -> None:
    """Interop, OMA-TS-DM_Security-V1_2 §5.3: Base64 text, or raw octets as an opaque."""
    assert decode_nonce(received) == nonce
    meta = Element(name="Meta", content=(Element(name="NextNonce", page=METINF, content=(received,)),))
    message = decode_wbxml(header_with(meta))
    assert message.header.meta == Meta(next_nonce=nonce)


FORMS = {
    "random": (b"\x00\xff", (b"\x00\xff", b"AP8=")),
    "encoded twice": (b"AP8=", (b"AP8=", b"QVA4PQ==", b"\x00\xff")),
    "letters that pass as Base64": (b"abcd", (b"abcd", b"YWJjZA==", b"\x69\xb7\x1d")),
    "nothing": (b"", (b"",)),
}


@pytest.mark.parametrize(("nonce", "forms"), FORMS.values(), ids=FORMS)
def test_forms_of_a_nonce(nonce: bytes, forms: tuple[bytes, ...]) -> None:
    """Interop: hashed decoded, undecoded, or decoded once too often."""
    assert nonce_forms(nonce) == forms


IDS: dict[str, Callable[[str], Message]] = {
    "LocURI": lambda text: Message(header=HEADER, commands=(add(target=text),)),
    "MsgID": lambda text: Message(header=replace(HEADER, msg_id=text)),
    "SessionID": lambda text: Message(header=replace(HEADER, session_id=text)),
    "Source": lambda text: Message(header=replace(HEADER, source=text)),
    "CmdID": lambda text: Message(header=HEADER, commands=(Get(cmd_id=text),)),
    "Correlator": lambda text: Message(header=HEADER, commands=(Exec(cmd_id="1", correlator=text),)),
    "Type": lambda text: Message(header=HEADER, commands=(add(meta=Meta(type=text)),)),
}


@pytest.mark.parametrize("made", IDS.values(), ids=IDS)
@pytest.mark.parametrize("text", ["a\x01", "\x1b[2J", "\ufffe", "\x0b1"])
def test_wbxml_says_nothing_that_xml_could_not(made: Callable[[str], Message], text: str) -> None:
    """XS-037, OMA-TS-SyncML_RepPro-V1_2 §8: WBXML is a form of XML. What a peer gets repeated, and what is kept, can
    be written in either encoding, so a character that XML has not is refused at once and not when it goes out."""
    with pytest.raises(MalformedMessage):
        decode(encode(made(text), Encoding.WBXML), Encoding.WBXML)


@pytest.mark.parametrize("name", ["SessionID", "MsgID"])
@pytest.mark.parametrize("encoding", Encoding)
def test_ids_of_the_header_have_a_bound(name: str, encoding: Encoding) -> None:
    """REQ-11: they are kept for the length of a session."""
    assert decode(encode(IDS[name]("7" * 64), encoding), encoding)
    with pytest.raises(MalformedMessage):
        decode(encode(IDS[name]("7" * 65), encoding), encoding)


def test_nul_cannot_be_written() -> None:
    for encoding in Encoding:
        with pytest.raises(LocalProtocolError):
            encode(Message(header=HEADER, commands=(add(data="a\0b"),)), encoding)


def nested(depth: int) -> Command:
    command: Command = Get(cmd_id="1")
    for _ in range(depth):
        command = Sequence(cmd_id="1", commands=(command,))
    return command


def test_groups_are_written_as_deep_as_they_are_read() -> None:
    for encoding in Encoding:
        message = Message(header=HEADER, commands=(nested(MAX_GROUP_DEPTH),))
        assert decode(encode(message, encoding), encoding) == message
        with pytest.raises(LocalProtocolError):
            encode(Message(header=HEADER, commands=(nested(MAX_GROUP_DEPTH + 1),)), encoding)


def test_nothing_secret_in_the_repr_of_a_document() -> None:
    root = read_xml(encode_xml(Message(header=SyncHdr(
        session_id="1", msg_id="1", target="s", source="d", cred=Cred(type=AuthType.BASIC, data="c2VjcmV0")
    ))), "SyncML", Limits())  # fmt: skip
    assert "c2VjcmV0" not in repr(root)
    assert read_message(root).header.cred is not None
