"""Everything else in a provisioning document: connectivity, several accounts, what vendors add; WBXML and XML."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncml.bootstrap import (
    AppAddress,
    BootstrapReason,
    BootstrapRefused,
    Characteristic,
    Connectivity,
    CpDocument,
    DmBootstrap,
    DmCredentials,
    NapAuthInfo,
    NapDef,
    Parm,
    Port,
    PxLogical,
    PxPhysical,
    TransportCredentials,
    Validity,
    decode_cp,
    decode_cp_xml,
    encode_cp,
    encode_cp_xml,
    read_accounts,
    read_connectivity,
    to_document,
)
from syncml.bootstrap.connectivity import (
    MAX_PORTS,
    Access,
    BootstrapContext,
    ClientIdentity,
    PxAuthInfo,
    VendorConfig,
    connectivity_groups,
)
from syncml.bootstrap.cp import MAX_DEPTH, MAX_ITEMS
from syncml.bootstrap.cp_xml import DOCTYPE, MAX_XML_SIZE
from syncml.codes import AuthType
from syncml.errors import LocalProtocolError

FULL = Connectivity(
    napdefs=(
        NapDef(
            napid="NAP1",
            bearers=("GSM-GPRS", "GSM-CSD"),
            name="Access",
            internet=True,
            address="internet.example",
            address_type="APN",
            auth=(NapAuthInfo(auth_type="PAP", name="u", secret="p", entities=("AAA", "HA"), spi="1"),),
            validity=(Validity(country="262", network="01", sid="2", soc="3", valid_until="2027-01-01T00:00:00Z"),),
            parms=(Parm("DNS-ADDR", "192.0.2.1"), Parm("LINGER", "30"), Parm("TRAFFIC-CLASS", "2")),
        ),
        NapDef(napid="NAP2"),
    ),
    proxies=(
        PxLogical(
            proxy_id="PX1",
            password="pw",
            name="Proxy",
            startpage="http://home.example/",
            domains=("example",),
            auth=(PxAuthInfo(auth_type="HTTP-BASIC", id="id", password="pw"),),
            ports=(Port(number=9201, services=("CO-WSP",)),),
            physical=(
                PxPhysical(
                    physical_proxy_id="PP1",
                    address="192.0.2.2",
                    address_type="IPV4",
                    to_napids=("NAP1", "NAP2"),
                    domains=("a.example",),
                    ports=(Port(number=8080), Port(number=443, services=("OTA-HTTP-TO", "OTA-HTTP-PO"))),
                    parms=(Parm("PUSHENABLED", "1"),),
                ),
            ),
            parms=(Parm("TRUST"), Parm("MASTER")),
        ),
    ),
    contexts=(
        BootstrapContext(
            name="b", networks=("26201",), country="49", proxy_ids=("PX1",), prov_url="http://p/", context_allow="0"
        ),
    ),
    identities=(ClientIdentity(client_id="c"),),
    accesses=(
        Access(
            rules=("1", "2"),
            app_ids=("w7",),
            port_numbers=("80",),
            domains=("d.example",),
            to_napids=("NAP1",),
            to_proxies=("PX1",),
        ),
    ),
    vendor_configs=(VendorConfig(parms=(Parm("NAME", "v"), Parm("NAME", "w"), Parm("X-OWN", "1"))),),
)
DOCUMENT = CpDocument(characteristics=connectivity_groups(FULL))

ACCOUNT = DmBootstrap(
    server_id="dpf.example",
    addr="https://dpf.example/dm",
    name="Registration operator",
    port=8443,
    addresses=(
        AppAddress(addr="192.0.2.3", addr_type="IPV4"),
        AppAddress(addr="https://dpf.example/dm", ports=(Port(number=8443), Port(number=443, services=("x",)))),
    ),
    client=DmCredentials(auth_type=AuthType.MD5, name="c", secret="s1", nonce=b"\0\1"),
    server=DmCredentials(auth_type=AuthType.MAC, name="d", secret="s2", nonce=b"\2\3"),
    obex=TransportCredentials(auth_type="HTTP-DIGEST", name="o", secret="s3", data=b"\4"),
    to_proxies=("PX1",),
    to_napids=("NAP1", "INTERNET"),
    proxies=FULL.proxies,
    napdefs=FULL.napdefs,
    accept="application/vnd.syncml.dm+wbxml",
    protocol="x",
    connect_now=True,
    extras=(
        Parm("ROLE", "1"),
        Parm("PROTOVER", "1.2"),
        Parm("CONNRETRYFREQ", "3"),
        Parm("BACKCOMPATRETRYDISABLED"),
        Parm("DEFAULTENCODING", "application/vnd.syncml.dm+xml"),
    ),
)


def through_wbxml(document: CpDocument) -> CpDocument:
    return decode_cp(encode_cp(document))


def through_xml(document: CpDocument) -> CpDocument:
    return decode_cp_xml(encode_cp_xml(document))


FORMS = {"WBXML": through_wbxml, "XML": through_xml}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_connectivity_there_and_back(form):
    """XC-094: every characteristic and parameter arrives, those without a view too."""
    assert form(DOCUMENT) == DOCUMENT
    assert read_connectivity(form(DOCUMENT)) == FULL
    assert FULL.vendor_configs[0].name == "v"


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_several_accounts_in_one_document(form):
    """XC-094: each with the connectivity of the document; applications that are not w7 are passed over."""
    other = DmBootstrap(
        server_id="other.example", addr="http://other.example/", proxies=FULL.proxies, napdefs=FULL.napdefs
    )
    document = to_document(ACCOUNT, other)
    assert len(document.all("NAPDEF")) == 2
    assert len(document.all("PXLOGICAL")) == 1
    mail = Characteristic(type="APPLICATION", parms=(Parm("APPID", "25"),))
    mixed = replace(document, characteristics=(mail, *document.characteristics))
    assert read_accounts(form(mixed)) == (ACCOUNT, other)


def test_two_accounts_of_one_server():
    """XC-094: which one counts would be a guess."""
    with pytest.raises(LocalProtocolError, match="two accounts of one server"):
        to_document(ACCOUNT, ACCOUNT)


def test_no_secret_shows():
    """XC-094: passwords of access points and proxies are in no repr."""
    for text in (repr(FULL), repr(ACCOUNT)):
        assert "secret=" not in text
        assert "password=" not in text
        assert "'pw'" not in text


def group(group_type: str, *parms: tuple[str, str], inner: tuple[Characteristic, ...] = ()) -> Characteristic:
    return Characteristic(type=group_type, parms=tuple(Parm(*each) for each in parms), characteristics=inner)


BAD = {
    "no NAPID": (group("NAPDEF"), BootstrapReason.MISSING),
    "empty NAPID": (group("NAPDEF", ("NAPID", "")), BootstrapReason.MISSING),
    "no PROXY-ID": (group("PXLOGICAL"), BootstrapReason.MISSING),
    "port that is no number": (
        group("PXLOGICAL", ("PROXY-ID", "p"), inner=(group("PORT", ("PORTNBR", "x")),)), BootstrapReason.INVALID),
    "port 0": (group("PXLOGICAL", ("PROXY-ID", "p"), inner=(group("PORT", ("PORTNBR", "0")),)),
               BootstrapReason.INVALID),
    "ports without end": (
        group("PXLOGICAL", ("PROXY-ID", "p"), inner=(group("PORT", ("PORTNBR", "1")),) * (MAX_PORTS + 1)),
        BootstrapReason.OVERSIZED),
    "secret twice": (
        group("NAPDEF", ("NAPID", "n"), inner=(group("NAPAUTHINFO", ("AUTHSECRET", "a"), ("AUTHSECRET", "b")),)),
        BootstrapReason.DUPLICATE),
}  # fmt: skip


@pytest.mark.parametrize(("bad", "reason"), BAD.values(), ids=BAD)
def test_refused(bad, reason):
    """XC-094: with the reason for the log."""
    with pytest.raises(BootstrapRefused) as caught:
        read_connectivity(CpDocument(characteristics=(bad,)))
    assert caught.value.reason is reason


# -- XML --------------------------------------------------------------------------------------------------------------

SMALL = CpDocument(
    characteristics=(Characteristic(type="A", parms=(Parm("N", "a<\"&>\t\n\r'ü"), Parm("SWITCH"))),), version="1.1"
)


def test_text_form():
    """XS-034: declaration, document type of the specification, upper-case names as they are."""
    lines = encode_cp_xml(SMALL).decode().splitlines()
    assert lines[:3] == [
        '<?xml version="1.0" encoding="UTF-8"?>',
        DOCTYPE,
        '<wap-provisioningdoc version="1.1">',
    ]
    assert lines[-1] == "</wap-provisioningdoc>"
    assert decode_cp_xml(encode_cp_xml(SMALL)) == SMALL


TOLERATED = {
    "byte order mark": b"\xef\xbb\xbf" + encode_cp_xml(SMALL),
    "no declaration, no document type": encode_cp_xml(SMALL).split(b"\n", 2)[2],
    "white space around": b"\n\n " + encode_cp_xml(SMALL).split(b"\n", 1)[1] + b"\n",
    "comments": b"<!-- a -->" + encode_cp_xml(SMALL).split(b"\n", 1)[1].replace(b"<parm", b"<!-- - --><parm"),
    "system identifier alone": encode_cp_xml(SMALL).replace(
        DOCTYPE.encode(), b'<!DOCTYPE wap-provisioningdoc SYSTEM "x">'),
    "elements that do not belong": encode_cp_xml(SMALL).replace(b"<characteristic", b"<x/>text<characteristic"),
    "a namespace": encode_cp_xml(SMALL).replace(b"<wap-provisioningdoc ", b'<wap-provisioningdoc xmlns="urn:x" '),
    "lower-case encoding": encode_cp_xml(SMALL).replace(b"UTF-8", b"utf-8"),
}  # fmt: skip


@pytest.mark.parametrize("octets", TOLERATED.values(), ids=TOLERATED)
def test_tolerated_in_text(octets):
    """XC-094: what tools write."""
    assert decode_cp_xml(octets) == SMALL


def _document(inner: str) -> bytes:
    return f"<wap-provisioningdoc>{inner}</wap-provisioningdoc>".encode()


MALFORMED = {
    "nothing": b"",
    "no XML": b"\x03\x0b\x6a\x00",
    "another document": b"<html/>",
    "not closed": b"<wap-provisioningdoc>",
    "no type": _document("<characteristic/>"),
    "no name": _document('<characteristic type="A"><parm value="x"/></characteristic>'),
    "too deep": _document('<characteristic type="A">' * MAX_DEPTH + "</characteristic>" * MAX_DEPTH),
    "much too deep": _document('<characteristic type="A">' * 1000 + "</characteristic>" * 1000),
    "entity": b'<!DOCTYPE wap-provisioningdoc [<!ENTITY x "y">]>' + _document('<characteristic type="&x;"/>'),
    "external entity": b'<!DOCTYPE wap-provisioningdoc [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + _document("&x;"),
    "unknown entity": _document('<characteristic type="&x;"/>'),
    "UTF-16": encode_cp_xml(SMALL).decode().replace("UTF-8", "UTF-16").encode("utf-16"),
    "another character set": encode_cp_xml(SMALL).replace(b"UTF-8", b"ISO-8859-1"),
    "not UTF-8": _document('<characteristic type="A"/>').replace(b"A", b"\xff"),
}


@pytest.mark.parametrize("octets", MALFORMED.values(), ids=MALFORMED)
def test_malformed_text(octets):
    """XC-094: a typed error and nothing else."""
    with pytest.raises(BootstrapRefused) as caught:
        decode_cp_xml(octets)
    assert caught.value.reason is BootstrapReason.MALFORMED


OVERSIZED = {
    "octets": _document("x" * MAX_XML_SIZE),
    "elements": _document("<x/>" * (MAX_ITEMS + 1)),
}


@pytest.mark.parametrize("octets", OVERSIZED.values(), ids=OVERSIZED)
def test_oversized_text(octets):
    """XC-094: bounded in size and number."""
    with pytest.raises(BootstrapRefused) as caught:
        decode_cp_xml(octets)
    assert caught.value.reason is BootstrapReason.OVERSIZED


def test_what_xml_cannot_carry():
    """XS-034: our mistake."""
    with pytest.raises(LocalProtocolError):
        encode_cp_xml(CpDocument(characteristics=(Characteristic(type="\1"),)))
    with pytest.raises(LocalProtocolError):
        encode_cp_xml(CpDocument(characteristics=(Characteristic(type="A" * MAX_XML_SIZE),)))


TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff") | st.sampled_from("\t\n\r"),
    max_size=12,
)
PARMS = st.lists(st.builds(Parm, TEXT, st.none() | TEXT), max_size=3).map(tuple)
GROUPS = st.recursive(
    st.builds(Characteristic, type=TEXT, parms=PARMS),
    lambda inner: st.builds(
        Characteristic, type=TEXT, parms=PARMS, characteristics=st.lists(inner, max_size=2).map(tuple)
    ),
    max_leaves=4,
)


@given(st.builds(CpDocument, characteristics=st.lists(GROUPS, max_size=3).map(tuple)))
def test_any_document_there_and_back(document):
    """XC-094: in both forms, as long as it is not too deep."""

    def depth(each: Characteristic) -> int:
        return 1 + max(map(depth, each.characteristics), default=0)

    if max(map(depth, document.characteristics), default=0) + 2 > MAX_DEPTH:
        return
    assert through_xml(document) == document
    assert through_wbxml(document) == document


@given(st.integers(0, 400), st.binary(max_size=4), st.integers(0, 4))
def test_damaged_text_gives_a_document_or_a_typed_error(at, patch, removed):
    """XC-094: any octets."""
    octets = encode_cp_xml(DOCUMENT)
    try:
        decoded = decode_cp_xml(octets[:at] + patch + octets[at + removed :])
        read_connectivity(decoded)
    except BootstrapRefused:
        return
    assert isinstance(decoded, CpDocument)
