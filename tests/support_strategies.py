"""hypothesis strategies for messages and serialised trees: everything that both encodings carry unchanged.

Values that an encoding changes on purpose are left out here and have tests of their own: octets in XML, white space
around identifiers, numbers beyond ten digits.
"""

from __future__ import annotations

import base64
from typing import Any

from hypothesis import strategies as st

from syncml.codec import Encoding
from syncml.codes import Format
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
from syncml.tnds import Tnds, TndsNode
from syncml.tree import AccessType, Acl

_XML_CHARACTERS = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff") | st.sampled_from(
    "\t\n\r <>&'\""
)


def _xml_text(text: str) -> bool:
    return not any(ord(each) & 0xFFFE == 0xFFFE and ord(each) < 0x10000 for each in text)


TEXT = st.text(_XML_CHARACTERS, max_size=30).filter(_xml_text)
"""What `Data` may hold: anything XML can carry, white space and carriage returns included."""

TOKEN = st.text(st.characters(categories=["L", "N", "S", "P"], max_codepoint=0xFFFD), min_size=1, max_size=12).filter(
    _xml_text
)
"""Identifiers, codes and URIs: not empty, no white space."""

NUMBER = st.integers(0, 10**10 - 1)
META = st.builds(
    Meta,
    format=st.none() | st.sampled_from([each.value for each in Format if each is not Format.BIN]) | TOKEN,
    type=st.none() | TOKEN,
    mark=st.none() | TOKEN,
    size=st.none() | NUMBER,
    next_nonce=st.none() | st.binary(max_size=24),
    max_msg_size=st.none() | NUMBER,
    max_obj_size=st.none() | NUMBER,
    emi=st.lists(TOKEN, max_size=2).map(tuple),
).filter(lambda meta: meta != Meta())


def items(encoding: Encoding) -> st.SearchStrategy[Item]:
    """Items as they travel in that encoding."""
    uri = st.none() | TOKEN
    plain = st.builds(
        Item, target=uri, source=uri, meta=st.none() | META, data=st.none() | TEXT, more_data=st.booleans()
    )
    base64_text = st.binary(max_size=30).map(lambda octets: base64.b64encode(octets).decode())
    texts = st.builds(Item, target=uri, meta=st.just(Meta(format="b64")), data=base64_text)
    if encoding is Encoding.XML:
        return plain | texts
    octets = st.builds(Item, target=uri, meta=META.map(_binary), data=st.binary(max_size=30), more_data=st.booleans())
    return plain | texts | octets


def _binary(meta: Meta) -> Meta:
    return Meta(format="bin", type=meta.type, size=meta.size, emi=meta.emi)


def commands(encoding: Encoding) -> st.SearchStrategy[Command]:
    """Commands of either side, groups included."""
    inside = st.lists(items(encoding), max_size=3).map(tuple)
    common: dict[str, Any] = {"cmd_id": TOKEN.filter(lambda text: text != "0"), "no_resp": st.booleans()}
    # A Meta of the command would be inherited and decide how octets are read; it has tests of its own.
    meta = st.none() | META.filter(lambda each: each.format is None and each.type is None)
    refs = st.lists(TOKEN, max_size=3).map(tuple)
    chal = st.builds(Chal, type=TOKEN, next_nonce=st.none() | st.binary(max_size=24), format=st.none() | st.just("b64"))
    leaves = st.one_of(
        *(st.builds(kind, **common, items=inside, meta=meta) for kind in (Add, Replace, Delete, Get, Copy)),
        st.builds(Exec, **common, items=inside, meta=meta, correlator=st.none() | TOKEN),
        st.builds(Alert, **common, items=inside, code=st.none() | NUMBER, correlator=st.none() | TOKEN),
        st.builds(
            Results,
            **common,
            items=inside,
            meta=meta,
            msg_ref=TOKEN,
            cmd_ref=TOKEN,
            target_ref=st.none() | TOKEN,
            source_ref=st.none() | TOKEN,
        ),
        st.builds(
            Status,
            **common,
            msg_ref=TOKEN,
            cmd_ref=TOKEN,
            cmd=TOKEN,
            code=NUMBER,
            target_refs=refs,
            source_refs=refs,
            chal=st.none() | chal,
            items=inside,
        ),
    )
    return st.recursive(
        leaves,
        lambda children: st.builds(
            lambda kind, cmd_id, inner: kind(cmd_id=cmd_id, commands=tuple(inner)),
            st.sampled_from([Atomic, Sequence]),
            common["cmd_id"],
            st.lists(children, max_size=3),
        ),
        max_leaves=4,
    )


HEADERS = st.builds(
    SyncHdr,
    session_id=TOKEN,
    msg_id=TOKEN,
    target=TOKEN,
    source=TOKEN,
    target_name=st.none() | TOKEN,
    source_name=st.none() | TOKEN,
    resp_uri=st.none() | TOKEN,
    no_resp=st.booleans(),
    cred=st.none() | st.builds(Cred, type=TOKEN, data=st.just("") | TOKEN, format=st.none() | st.just("b64")),
    meta=st.none() | META,
    ver_dtd=TOKEN,
    ver_proto=TOKEN,
)


def messages(encoding: Encoding) -> st.SearchStrategy[Message]:
    """Messages that the encoding carries unchanged."""
    body = st.lists(commands(encoding), max_size=4).map(tuple)
    return st.builds(Message, header=HEADERS, commands=body, final=st.booleans())


_NAMES = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)
_ACLS = st.builds(
    lambda grants: Acl(tuple(grants.items())),
    st.dictionaries(
        st.sampled_from([each for each in AccessType if each is not AccessType.COPY]),
        st.lists(_NAMES | st.just("*"), min_size=1, max_size=2, unique=True).map(tuple),
        max_size=3,
    ),
)
_OPTIONAL = st.none() | TOKEN
_PROPERTIES: dict[str, Any] = {
    "path": _OPTIONAL,
    "acl": st.none() | _ACLS,
    "title": _OPTIONAL,
    "t_stamp": _OPTIONAL,
    "ver_no": _OPTIONAL,
}
_TEXT_FORMATS = [each for each in Format if each not in (Format.BIN, Format.B64, Format.NODE, Format.NULL)]
_LEAVES = st.one_of(
    st.builds(
        TndsNode, _NAMES, format=st.sampled_from(_TEXT_FORMATS), type=TOKEN, value=st.none() | TEXT, **_PROPERTIES
    ),
    st.builds(
        TndsNode,
        _NAMES,
        format=st.sampled_from([Format.BIN, Format.B64]),
        type=TOKEN,
        value=st.none() | st.binary(max_size=20),
        size=_OPTIONAL,
        **_PROPERTIES,
    ),
    st.builds(TndsNode, _NAMES, format=st.just(Format.NULL), type=TOKEN, **_PROPERTIES),
    st.builds(TndsNode, _NAMES, type=TOKEN, value=TEXT, **_PROPERTIES),
)


def _interior(children: st.SearchStrategy[TndsNode]) -> st.SearchStrategy[TndsNode]:
    return st.builds(
        TndsNode,
        _NAMES,
        format=st.just(Format.NODE),
        object_type=st.just("") | TOKEN,
        children=st.lists(children, max_size=3, unique_by=lambda node: node.name).map(tuple),
        **_PROPERTIES,
    )


TREES = st.builds(
    Tnds,
    st.lists(
        _interior(st.recursive(_LEAVES, _interior, max_leaves=6)),
        min_size=1,
        max_size=2,
        unique_by=lambda node: node.name,
    ).map(tuple),
    manufacturer=st.just("") | TOKEN,
    model=st.just("") | TOKEN,
)
"""Serialised trees that both encodings carry unchanged."""
