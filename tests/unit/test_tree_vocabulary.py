"""Node addresses, queries and ACLs (OMA-TS-DM_TND-V1_2 §6, §7.7)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncml.codes import StatusCode
from syncml.errors import LocalProtocolError, MalformedAcl, MalformedUri
from syncml.tree import (
    MAX_URI_LENGTH,
    AccessType,
    Acl,
    NodeUri,
    PropertyName,
    Query,
    QueryKind,
    UriLimits,
    UriTooLong,
    property_uri,
    split_query,
)

SAME_ADDRESS = {
    "the root": (".", ()),
    "with the leading dot": ("./DMAcc/x", ("DMAcc", "x")),
    "without it": ("DMAcc/x", ("DMAcc", "x")),
    "escapes are decoded": ("./a%20b/%3F%23%25", ("a b", "?#%")),
    "escaped UTF-8": ("./%C3%A4", ("ä",)),
    "plain UTF-8": ("./ä", ("ä",)),
    "a dot inside a name": ("./a.b/...", ("a.b", "...")),
    "case is kept": ("./dmacc/X", ("dmacc", "X")),
}


@pytest.mark.parametrize(("text", "segments"), SAME_ADDRESS.values(), ids=SAME_ADDRESS)
def test_parse(text: str, segments: tuple[str, ...]) -> None:
    uri = NodeUri.parse(text)
    assert uri.segments == segments
    assert NodeUri.parse(str(uri)) == uri


MALFORMED = {
    "empty": "",
    "dot and slash only": "./",
    "leading slash": "/A",
    "trailing slash": "./A/",
    "empty segment": "A//B",
    "parent": "./A/../B",
    "parent in front": "../A",
    "dot in the middle": "A/./B",
    "escaped parent": "A/%2e%2E",
    "escaped slash": "A/b%2Fc",
    "bad escape": "A/%2",
    "escape of no hexadecimal": "A/%zz",
    "escaped octets that are no UTF-8": "A/%FF",
    "NUL": "A/%00",
    "line feed": "A/b\nc",
    "query": "A?prop=ACL",
    "fragment": "A#b",
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_malformed_addresses_are_refused_with_404(text: str) -> None:
    with pytest.raises(MalformedUri) as caught:
        NodeUri.parse(text)
    assert caught.value.code == StatusCode.NOT_FOUND


@pytest.mark.parametrize("parse", [NodeUri.parse, split_query])
def test_an_address_beyond_any_limit_is_refused_with_414(parse) -> None:
    with pytest.raises(UriTooLong) as caught:
        parse("a/" * MAX_URI_LENGTH + "a")
    assert caught.value.code == StatusCode.URI_TOO_LONG


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0", "\ud800"])
def test_no_address_is_made_of_impossible_names(name: str) -> None:
    with pytest.raises(LocalProtocolError):
        NodeUri().child(name)


def test_walking_through_addresses() -> None:
    uri = NodeUri().child("M2MMobj", "TRE")
    assert (str(uri), uri.name, str(NodeUri()), NodeUri().name) == ("./M2MMobj/TRE", "TRE", ".", "")
    assert uri.parent == NodeUri(("M2MMobj",))
    assert NodeUri().parent is None
    assert uri.is_below(NodeUri())
    assert uri.is_below(uri)
    assert not uri.is_below(NodeUri(("M2M",)))
    assert property_uri(uri, PropertyName.TYPE) == "./M2MMobj/TRE?prop=Type"


@pytest.mark.parametrize(
    ("limits", "exceeded"),
    [
        (UriLimits(), False),
        (UriLimits(max_depth=2, max_total_length=8, max_segment_length=4), False),
        (UriLimits(max_depth=1), True),
        (UriLimits(max_total_length=7), True),
        (UriLimits(max_segment_length=3), True),
    ],
)
def test_limits_of_a_device(limits: UriLimits, exceeded: bool) -> None:
    uri = NodeUri(("abcd", "efg"))
    if exceeded:
        with pytest.raises(UriTooLong):
            limits.check(uri)
    else:
        limits.check(uri)
    limits.check(NodeUri())


QUERIES = {
    "./A": (("A",), None),
    ".?prop=ACL": ((), Query(QueryKind.PROP, "ACL")),
    "./A?prop=Nobody": (("A",), Query(QueryKind.PROP, "Nobody")),
    "./A?list=TNDS+Value+ACL": (("A",), Query(QueryKind.LIST, "TNDS+Value+ACL")),
    "./A?list=TNDS%2BValue": (("A",), Query(QueryKind.LIST, "TNDS+Value")),
}


@pytest.mark.parametrize("text", QUERIES)
def test_split_query(text: str) -> None:
    segments, query = QUERIES[text]
    assert split_query(text) == (NodeUri(segments), query)


def test_a_query_prints_as_it_is_written() -> None:
    assert str(split_query("./A?list=StructData")[1]) == "list=StructData"


@pytest.mark.parametrize(
    "text", ["./A?", "./A?prop", "./A?prop=", "./A?Prop=ACL", "./A?x=y", "?prop=ACL", "./A?prop=%"]
)
def test_other_queries_are_malformed(text: str) -> None:
    with pytest.raises(MalformedUri):
        split_query(text)


# -- ACL --------------------------------------------------------------------------------------------------------------

SONERA = "Add=www.sonera.fi-8765&Delete=www.sonera.fi-8765&Replace=www.sonera.fi-8765+321_ibm.com&Get=*"


def test_the_specifications_example_of_an_acl() -> None:
    acl = Acl.parse(SONERA)
    assert str(acl) == SONERA
    assert acl.allows(AccessType.REPLACE, "321_ibm.com")
    assert not acl.allows(AccessType.DELETE, "321_ibm.com")
    assert acl.allows(AccessType.GET, "anybody")
    assert not acl.allows(AccessType.EXEC, "www.sonera.fi-8765")
    assert not acl.allows(AccessType.COPY, "www.sonera.fi-8765")


def test_a_command_that_occurs_twice_means_both_entries() -> None:
    assert str(Acl.parse("Get=ServerA&Replace=ServerA&Get=ServerB")) == "Get=ServerA+ServerB&Replace=ServerA"


def test_an_empty_acl_inherits_and_allows_nothing_itself() -> None:
    acl = Acl.parse("")
    assert not acl
    assert str(acl) == ""
    assert not acl.allows(AccessType.GET, "a")


MALFORMED_ACLS = [
    "Get",
    "Get=",
    "Get=a+",
    "get=a",
    "Copy=a",
    "Nop=a",
    "Get=a&",
    "&",
    "Get=a b",
    "Get=a=b",
    "Get=a*",
    " Get=a",
]


@pytest.mark.parametrize("text", MALFORMED_ACLS)
def test_malformed_acls(text: str) -> None:
    with pytest.raises(MalformedAcl) as caught:
        Acl.parse(text)
    assert caught.value.code == StatusCode.BAD_REQUEST


@pytest.mark.parametrize(
    ("before", "after"),
    [("Get=a+b&Add=a", "Get=b"), ("Get=*&Exec=a", "Get=*"), ("Get=a", ""), ("Get=ab", "Get=ab"), ("", "")],
)
def test_a_server_that_lost_its_account_leaves_the_acl(before: str, after: str) -> None:
    assert str(Acl.parse(before).without("a")) == after


def test_granting() -> None:
    acl = Acl.granting("srv", [AccessType.REPLACE, AccessType.GET])
    assert str(acl) == "Get=srv&Replace=srv"


@pytest.mark.parametrize("server_id", ["", "*", "a&Get=*", "a+b", "a b", "a=b"])
def test_an_identifier_cannot_smuggle_rights_into_an_acl(server_id: str) -> None:
    with pytest.raises(LocalProtocolError):
        Acl.granting(server_id, [AccessType.GET])


def test_copy_has_no_entry() -> None:
    with pytest.raises(LocalProtocolError):
        Acl.granting("srv", [AccessType.COPY])


# -- any text ---------------------------------------------------------------------------------------------------------


@given(st.text(max_size=60) | st.text(alphabet="./ab%2eF?=", max_size=30))
def test_any_text_is_an_address_or_malformed(text: str) -> None:
    try:
        uri, _ = split_query(text)
    except MalformedUri:
        return
    assert NodeUri.parse(str(uri)) == uri
    assert str(uri).isascii()


@given(st.text(max_size=60) | st.text(alphabet="GetAddExc=&+*ab ", max_size=40))
def test_any_text_is_an_acl_or_malformed(text: str) -> None:
    try:
        acl = Acl.parse(text)
    except MalformedAcl:
        return
    assert Acl.parse(str(acl)) == acl
