"""Client provisioning documents and the account they describe (REQ-07)."""

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
    CpDocument,
    DmBootstrap,
    DmCredentials,
    NapDef,
    Parm,
    Port,
    TransportCredentials,
    decode_cp,
    encode_cp,
    from_document,
    to_document,
)
from syncml.bootstrap.connectivity import MAX_CONNECTIONS
from syncml.bootstrap.cp import MAX_DOCUMENT_SIZE
from syncml.bootstrap.profile import MAX_ACCOUNTS, MAX_ADDRESSES, MAX_VALUE
from syncml.codes import AuthType
from syncml.errors import LocalProtocolError

# Written by xml2wbxml (libwbxml 0.11.8) from a w7 document made for this test.
SAMPLE = bytes.fromhex(
    "030b6a00c54503312e310001c600015501873600000603773700018700013800000603737276000187070603444d0001"
    "c600015601873400000603687474703a2f2f612f646d000101c600015701873000000600018d01873300000600019301"
    "87310000060375000187000132000006037000018700012f00000603626d39755932553d0001010101"
)
SAMPLE_ACCOUNT = DmBootstrap(
    server_id="srv",
    name="DM",
    addr="http://a/dm",
    client=DmCredentials(auth_type=AuthType.MD5, name="u", secret="p", nonce=b"nonce"),
)

FULL = DmBootstrap(
    server_id="dpf.example.test",
    name="Registration operator",
    addr="https://dpf.example.test/dm",
    port=8443,
    client=DmCredentials(auth_type=AuthType.MD5, name="m2m-1", secret="client secret", nonce=b"\0\1\xff"),
    server=DmCredentials(auth_type=AuthType.MAC, name="dpf", secret="server secret", nonce=b""),
    to_napids=("NAP1", "INTERNET"),
    napdefs=(
        NapDef(napid="NAP1", bearers=("GSM-GPRS",), name="Access", address="internet.example", address_type="APN"),
        NapDef(napid="NAP2"),
    ),
    connect_now=True,
)


def test_a_document_of_another_implementation() -> None:
    assert from_document(decode_cp(SAMPLE)) == SAMPLE_ACCOUNT


def test_our_document_has_the_same_octets() -> None:
    assert encode_cp(to_document(SAMPLE_ACCOUNT)) == SAMPLE


def test_a_full_account_there_and_back() -> None:
    """REQ-07: address, identifier, credentials of both directions and connectivity arrive as sent."""
    assert from_document(decode_cp(encode_cp(to_document(FULL)))) == FULL


def test_no_secret_shows_in_a_repr() -> None:
    for text in (repr(FULL), repr(to_document(FULL))):
        assert "secret'" not in text
        assert "client secret" not in text


PORTS = {
    "no port": ("https://a/dm", None, "https://a/dm"),
    "port beside": ("https://a/dm", 8443, "https://a:8443/dm"),
    "port inside wins": ("https://a:1/dm", 8443, "https://a:1/dm"),
    "empty port inside": ("https://a:/dm", 8443, "https://a:8443/dm"),
    "IPv6": ("https://[::1]/dm?x=1", 8443, "https://[::1]:8443/dm?x=1"),
}


@pytest.mark.parametrize(("addr", "port", "url"), PORTS.values(), ids=PORTS)
def test_server_url(addr: str, port: int | None, url: str) -> None:
    assert DmBootstrap(server_id="s", addr=addr, port=port).server_url == url


def group(group_type: str, *inside: Characteristic | tuple[str, str | None]) -> Characteristic:
    return Characteristic(
        type=group_type,
        parms=tuple(Parm(*each) for each in inside if isinstance(each, tuple)),
        characteristics=tuple(each for each in inside if isinstance(each, Characteristic)),
    )


APPID, PROVIDER = ("APPID", "w7"), ("PROVIDER-ID", "srv")
ADDR = group("APPADDR", ("ADDR", "http://a/dm"))
AUTH = group("APPAUTH", ("AAUTHLEVEL", "APPSRV"), ("AAUTHTYPE", "DIGEST"), ("AAUTHSECRET", "p"))
PLAIN = DmBootstrap(server_id="srv", addr="http://a/dm")
MD5_ONLY = DmCredentials(auth_type=AuthType.MD5, secret="p")

TOLERATED = {
    "the least there can be": ([group("APPLICATION", APPID, PROVIDER, ADDR)], PLAIN),
    "unknown characteristics and parms": (
        [
            group("VENDORCONFIG", ("NAME", "x"), ("NAME", "y")),
            group("?"),
            group("APPLICATION", APPID, PROVIDER, ("ROLE", "1"), ("?", None), group("RESOURCE"), ADDR),
        ],
        replace(PLAIN, extras=(Parm("ROLE", "1"), Parm("?"))),
    ),
    "another application beside": (
        [group("APPLICATION", ("APPID", "w2")), group("APPLICATION", APPID, PROVIDER, ADDR)],
        PLAIN,
    ),
    "ADDR directly in APPLICATION": ([group("APPLICATION", APPID, PROVIDER, ("ADDR", "http://a/dm"))], PLAIN),
    "ADDRTYPE": (
        [group("APPLICATION", APPID, PROVIDER, group("APPADDR", ("ADDR", "http://a/dm"), ("ADDRTYPE", "URI")))],
        PLAIN,
    ),
    "the first of two addresses": (
        [group("APPLICATION", APPID, PROVIDER, ADDR, group("APPADDR", ("ADDR", "http://b/")))],
        replace(PLAIN, addresses=(AppAddress(addr="http://a/dm"), AppAddress(addr="http://b/"))),
    ),
    "the first of two ports": (
        [
            group(
                "APPLICATION",
                APPID,
                PROVIDER,
                group(
                    "APPADDR",
                    ("ADDR", "http://a/dm"),
                    group("PORT", ("PORTNBR", "80"), ("SERVICE", "x"), ("SERVICE", "y")),
                    group("PORT", ("PORTNBR", "81")),
                ),
            )
        ],
        replace(
            PLAIN,
            port=80,
            addresses=(AppAddress(addr="http://a/dm", ports=(Port(number=80, services=("x", "y")), Port(number=81))),),
        ),
    ),
    "a port without number": (
        [group("APPLICATION", APPID, PROVIDER, group("APPADDR", ("ADDR", "http://a/dm"), group("PORT")))],
        PLAIN,
    ),
    "no AAUTHTYPE means MD5": (
        [group("APPLICATION", APPID, PROVIDER, ADDR, group("APPAUTH", ("AAUTHLEVEL", "APPSRV"), ("AAUTHSECRET", "p")))],
        replace(PLAIN, client=MD5_ONLY),
    ),
    "credentials of the transport": (
        [group("APPLICATION", APPID, PROVIDER, ADDR, AUTH, group("APPAUTH", ("AAUTHLEVEL", "OBEX")))],
        replace(PLAIN, client=MD5_ONLY, obex=TransportCredentials()),
    ),
    "a URI behind an IP address": (
        [
            group(
                "APPLICATION",
                APPID,
                PROVIDER,
                group("APPADDR", ("ADDR", "192.0.2.1"), ("ADDRTYPE", "IPV4")),
                ADDR,
            )
        ],
        replace(PLAIN, addresses=(AppAddress(addr="192.0.2.1", addr_type="IPV4"), AppAddress(addr="http://a/dm"))),
    ),
    "proxies the device has already": (
        [group("APPLICATION", APPID, PROVIDER, ("TO-PROXY", "p1"), ("TO-PROXY", "p2"), ADDR)],
        replace(PLAIN, to_proxies=("p1", "p2")),
    ),
    "INIT with a value": (
        [group("APPLICATION", APPID, PROVIDER, ("INIT", "1"), ADDR)],
        replace(PLAIN, connect_now=True),
    ),
    "an access point the device has already": (
        [group("APPLICATION", APPID, PROVIDER, ("TO-NAPID", "here"), ADDR)],
        replace(PLAIN, to_napids=("here",)),
    ),
}


@pytest.mark.parametrize(("groups", "account"), TOLERATED.values(), ids=TOLERATED)
def test_tolerated(groups: list[Characteristic], account: DmBootstrap) -> None:
    assert from_document(CpDocument(characteristics=tuple(groups))) == account


def w7(*inside: Characteristic | tuple[str, str | None]) -> list[Characteristic]:
    return [group("APPLICATION", APPID, PROVIDER, *inside)]


def at_port(number: str) -> Characteristic:
    return group("APPADDR", ("ADDR", "http://a/"), group("PORT", ("PORTNBR", number)))


REFUSED = {
    "no characteristics": ([], BootstrapReason.MISSING),
    "no w7": ([group("APPLICATION", ("APPID", "w2"), PROVIDER, ADDR)], BootstrapReason.MISSING),
    "no PROVIDER-ID": ([group("APPLICATION", APPID, ADDR)], BootstrapReason.MISSING),
    "empty PROVIDER-ID": ([group("APPLICATION", APPID, ("PROVIDER-ID", ""), ADDR)], BootstrapReason.MISSING),
    "no address": (w7(), BootstrapReason.MISSING),
    "APPADDR without ADDR": (w7(group("APPADDR")), BootstrapReason.MISSING),
    "two accounts": (w7(ADDR) + w7(ADDR), BootstrapReason.DUPLICATE),
    "APPID twice": ([group("APPLICATION", APPID, APPID, PROVIDER, ADDR)], BootstrapReason.DUPLICATE),
    "PROVIDER-ID twice": (w7(PROVIDER, ADDR), BootstrapReason.DUPLICATE),
    "NAME twice": (w7(("NAME", "a"), ("NAME", "a"), ADDR), BootstrapReason.DUPLICATE),
    "ADDR twice": (w7(group("APPADDR", ("ADDR", "http://a/"), ("ADDR", "http://b/"))), BootstrapReason.DUPLICATE),
    "credentials twice": (w7(ADDR, AUTH, AUTH), BootstrapReason.DUPLICATE),
    "NAPID twice": ([*w7(ADDR), *[group("NAPDEF", ("NAPID", "n"))] * 2], BootstrapReason.DUPLICATE),
    "no NAPID": ([*w7(ADDR), group("NAPDEF", ("NAME", "n"))], BootstrapReason.MISSING),
    "TO-NAPID of nowhere": ([*w7(("TO-NAPID", "m"), ADDR), group("NAPDEF", ("NAPID", "n"))], BootstrapReason.INVALID),
    "no AAUTHLEVEL": (w7(ADDR, group("APPAUTH", ("AAUTHSECRET", "p"))), BootstrapReason.MISSING),
    "no secret": (w7(ADDR, group("APPAUTH", ("AAUTHLEVEL", "CLIENT"))), BootstrapReason.MISSING),
    "authentication we do not have": (
        w7(ADDR, group("APPAUTH", ("AAUTHLEVEL", "APPSRV"), ("AAUTHTYPE", "X509"), ("AAUTHSECRET", "p"))),
        BootstrapReason.INVALID,
    ),
    "nonce that is not Base64": (
        w7(ADDR, group("APPAUTH", ("AAUTHLEVEL", "APPSRV"), ("AAUTHSECRET", "p"), ("AAUTHDATA", "no!"))),
        BootstrapReason.INVALID,
    ),
    "nonce that is not ASCII": (
        w7(ADDR, group("APPAUTH", ("AAUTHLEVEL", "APPSRV"), ("AAUTHSECRET", "p"), ("AAUTHDATA", "ä"))),
        BootstrapReason.INVALID,
    ),
    "server id that would change ACLs": (
        [group("APPLICATION", APPID, ("PROVIDER-ID", "srv&Add=*"), ADDR)],
        BootstrapReason.INVALID,
    ),
    "port that is no number": (w7(at_port("+80")), BootstrapReason.INVALID),
    "port 0": (w7(at_port("0")), BootstrapReason.INVALID),
    "port 65536": (w7(at_port("65536")), BootstrapReason.INVALID),
    "long value": (w7(("NAME", "a" * (MAX_VALUE + 1)), ADDR), BootstrapReason.OVERSIZED),
    "long value in what we do not use": (w7(ADDR, group("X", ("Y", "a" * (MAX_VALUE + 1)))), BootstrapReason.OVERSIZED),
    "accounts without end": (
        [group("APPLICATION", APPID, ("PROVIDER-ID", f"s{number}"), ADDR) for number in range(MAX_ACCOUNTS + 1)],
        BootstrapReason.OVERSIZED,
    ),
    "addresses without end": (w7(*[ADDR] * (MAX_ADDRESSES + 1)), BootstrapReason.OVERSIZED),
    "only an IP address": (
        w7(group("APPADDR", ("ADDR", "192.0.2.1"), ("ADDRTYPE", "IPV4"))), BootstrapReason.INVALID),
    "PROXY-ID twice": ([*w7(ADDR), *[group("PXLOGICAL", ("PROXY-ID", "n"))] * 2], BootstrapReason.DUPLICATE),
    "no PROXY-ID": ([*w7(ADDR), group("PXLOGICAL", ("NAME", "n"))], BootstrapReason.MISSING),
    "TO-PROXY of nowhere": (
        [*w7(("TO-PROXY", "m"), ADDR), group("PXLOGICAL", ("PROXY-ID", "n"))], BootstrapReason.INVALID),
    "OBEX credentials twice": (w7(ADDR, *[group("APPAUTH", ("AAUTHLEVEL", "OBEX"))] * 2), BootstrapReason.DUPLICATE),
    "many connections": (w7(*[("TO-NAPID", "n")] * (MAX_CONNECTIONS + 1), ADDR), BootstrapReason.OVERSIZED),
}  # fmt: skip


@pytest.mark.parametrize(("groups", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused(groups: list[Characteristic], reason: BootstrapReason) -> None:
    """REQ-07: incomplete, ambiguous and oversized documents are refused, with the reason for the log."""
    with pytest.raises(BootstrapRefused) as caught:
        from_document(CpDocument(characteristics=tuple(groups)))
    assert caught.value.reason is reason


BAD_URLS = ["a", "ftp://a/", "http:///dm", "http://", "http://a:99999/", "http://a:0/", "http://u:p@a/", "http://a/ b",
            "http://a/\n", "http://[::1/", "javascript:alert(1)", "http://a\\b/", "file:///etc/passwd"]  # fmt: skip


@pytest.mark.parametrize("addr", BAD_URLS)
def test_addresses_that_are_no_web_url(addr: str) -> None:
    with pytest.raises(BootstrapRefused) as caught:
        from_document(CpDocument(characteristics=tuple(w7(group("APPADDR", ("ADDR", addr))))))
    assert caught.value.reason is BootstrapReason.INVALID


HEAD = "030b6a0045"
BAD_OCTETS = {
    "nothing": ("", BootstrapReason.MALFORMED),
    "another document type": ("02a4016a0005", BootstrapReason.MALFORMED),
    "characteristic without type": (HEAD + "0601", BootstrapReason.MALFORMED),
    "parm without name": (HEAD + "c6500378000107" + "0101", BootstrapReason.MALFORMED),
    "type twice": (HEAD + "86515101" + "01", BootstrapReason.DUPLICATE),
    "value twice": (HEAD + "c65101" + "87070603610006036200" + "01" + "0101", BootstrapReason.DUPLICATE),
}


@pytest.mark.parametrize(("octets", "reason"), BAD_OCTETS.values(), ids=BAD_OCTETS)
def test_octets_that_are_no_provisioning_document(octets: str, reason: BootstrapReason) -> None:
    with pytest.raises(BootstrapRefused) as caught:
        decode_cp(bytes.fromhex(octets))
    assert caught.value.reason is reason


def test_an_oversized_document_is_refused_unread() -> None:
    """REQ-07."""
    with pytest.raises(BootstrapRefused) as caught:
        decode_cp(bytes(MAX_DOCUMENT_SIZE + 1))
    assert caught.value.reason is BootstrapReason.OVERSIZED


def test_elements_that_are_neither_are_passed_over() -> None:
    assert decode_cp(bytes.fromhex(HEAD + "3f" + "c65101" + "3f" + "01" + "01")) == CpDocument(
        characteristics=(Characteristic(type="PXLOGICAL"),), version="1.0"
    )


OUR_MISTAKES = {
    "no web address": lambda: DmBootstrap(server_id="s", addr="a"),
    "identifier": lambda: DmBootstrap(server_id="a b", addr="http://a/"),
    "credentials without secret": lambda: DmCredentials(auth_type=AuthType.MD5, secret=""),
    "access point without identifier": lambda: DmBootstrap(
        server_id="s", addr="http://a/", napdefs=(NapDef(napid=""),)
    ),
    "value too long": lambda: to_document(replace(PLAIN, name="a" * (MAX_VALUE + 1))),
    "document too large": lambda: encode_cp(
        CpDocument(characteristics=(group("X", *[("N", "a" * 1000)] * (MAX_DOCUMENT_SIZE // 1000 + 1)),))
    ),
    "NUL": lambda: encode_cp(to_document(replace(PLAIN, name="\0"))),
}


@pytest.mark.parametrize("make", OUR_MISTAKES.values(), ids=OUR_MISTAKES)
def test_what_we_do_not_send(make) -> None:
    with pytest.raises(LocalProtocolError):
        make()


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
CREDENTIALS = st.none() | st.builds(
    DmCredentials,
    auth_type=st.sampled_from(AuthType),
    name=st.none() | TEXT,
    secret=TEXT.filter(bool) | st.sampled_from(["MD5", "HTTP-", "MAN"]),  # words that have tokens
    nonce=st.none() | st.binary(max_size=20),
)


@given(
    st.builds(
        DmBootstrap,
        server_id=st.from_regex(r"[!-%',-<>-~]{1,20}", fullmatch=True),
        addr=st.sampled_from(["http://a/dm", "https://b.example:8443/x?y=z"]),
        name=st.none() | TEXT,
        port=st.none() | st.integers(1, 65535),
        client=CREDENTIALS,
        server=CREDENTIALS,
        connect_now=st.booleans(),
        napdefs=st.lists(
            st.builds(
                NapDef, napid=TEXT.filter(bool), bearers=st.lists(TEXT, max_size=2).map(tuple), name=st.none() | TEXT
            ),
            max_size=3,
            unique_by=lambda each: each.napid,
        ).map(tuple),
    )
)
def test_any_account_there_and_back(account: DmBootstrap) -> None:
    assert from_document(decode_cp(encode_cp(to_document(account)))) == account


@given(st.integers(0, len(SAMPLE) - 1), st.binary(max_size=3), st.integers(0, 3))
def test_damaged_octets_give_an_account_or_a_typed_error(at: int, patch: bytes, removed: int) -> None:
    octets = SAMPLE[:at] + patch + SAMPLE[at + removed :]
    try:
        account = from_document(decode_cp(octets))
    except BootstrapRefused:
        return
    assert account.server_id
