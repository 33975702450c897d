"""Protection of a bootstrap, and the push that carries it (REQ-07, REQ-08)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncml.bootstrap import (
    APPLICATION_SYNCML_DM,
    BootstrapReason,
    BootstrapRefused,
    BootstrapSecrets,
    DmBootstrap,
    DmCredentials,
    DmSec,
    MalformedPush,
    Sec,
    WapPush,
    accept,
    build_push,
    compute_mac,
    imsi_semi_octets,
    parse_push,
    protect,
    typed_number,
    verify_mac,
)
from syncml.bootstrap.cp import MAX_DOCUMENT_SIZE
from syncml.bootstrap.security import at_least
from syncml.codes import AuthType, MediaType
from syncml.errors import LocalProtocolError
from syncml.wap_push import MAX_DATAGRAM

IMSI = "493005100592800"
DOCUMENT = bytes.fromhex("030b6a004501")
CP = MediaType.CONNECTIVITY_WBXML

SEMI_OCTETS = {IMSI: "4939001500958200", "49300510059280": "41390015009582f0", "001010123456789": "0910101032547698"}


@pytest.mark.parametrize("imsi", SEMI_OCTETS)
def test_imsi_as_a_sim_holds_it(imsi: str) -> None:
    """TS 31.102 §4.2.2 without the length octet; the octets are written out by hand."""
    assert imsi_semi_octets(imsi).hex() == SEMI_OCTETS[imsi]


@pytest.mark.parametrize("imsi", ["", "12345", "1234567890123456", "12345a", "１２３４５６", "123456\n"])
def test_what_is_no_imsi(imsi: str) -> None:
    with pytest.raises(LocalProtocolError):
        imsi_semi_octets(imsi)


@pytest.mark.parametrize("pin", ["", "12 34", "ä", "1" * 129])
def test_what_is_no_pin(pin: str) -> None:
    with pytest.raises(LocalProtocolError):
        BootstrapSecrets(pin=pin).key(Sec.USERPIN)


# Computed with `openssl dgst -sha1 -mac HMAC -macopt hexkey:…`.
MACS = {
    Sec.NETWPIN: "C3B9752B5E34CF2681A5B3EA6BF045847C921CAF",
    Sec.USERPIN: "6CD48BFD7FFC33183154734DF4434DA694E25E6A",
    Sec.USERNETWPIN: "1C0598E2A7DBA89FE34D53A305D2E60086FF1AB7",
}


@pytest.mark.parametrize("sec", MACS)
def test_mac_of_each_kind(sec: Sec) -> None:
    key = BootstrapSecrets(imsi=IMSI, pin="1234").key(sec)
    assert key is not None
    assert compute_mac(key, DOCUMENT) == MACS[sec]
    assert verify_mac(key, DOCUMENT, MACS[sec])
    assert verify_mac(key, DOCUMENT, MACS[sec].lower())


NO_KEY = [
    (BootstrapSecrets(), Sec.NETWPIN),
    (BootstrapSecrets(imsi=IMSI), Sec.USERPIN),
    (BootstrapSecrets(pin="1234"), Sec.NETWPIN),
    (BootstrapSecrets(pin="1234"), Sec.USERNETWPIN),
    (BootstrapSecrets(imsi=IMSI), Sec.USERNETWPIN),
    (BootstrapSecrets(imsi=IMSI), Sec.USERPINMAC),
    (BootstrapSecrets(), DmSec.NETWORKID),
    (BootstrapSecrets(imsi=IMSI), DmSec.USERPIN),
    (BootstrapSecrets(pin="1234"), DmSec.USERPIN_NETWORKID),
    (BootstrapSecrets(imsi=IMSI), DmSec.USERPIN_NETWORKID),
]


@pytest.mark.parametrize(("secrets", "sec"), NO_KEY)
def test_no_key_without_its_secret(secrets: BootstrapSecrets, sec: Sec | DmSec) -> None:
    assert secrets.key(sec) is None


@pytest.mark.parametrize("mac", ["", "0" * 40, MACS[Sec.USERPIN][:-1], MACS[Sec.USERPIN] + "0", "ß" * 20, "\ud800"])
def test_a_wrong_mac_is_wrong(mac: str) -> None:
    """REQ-08."""
    assert not verify_mac(b"1234", DOCUMENT, mac)


def test_mac_of_the_dm_profile() -> None:
    """XS-034: PIN, colon and the digits of the IMSI; NETWORKID is the IMSI as the SIM holds it."""
    secrets = BootstrapSecrets(imsi="493005100592800", pin="1234")
    key = secrets.key(DmSec.USERPIN_NETWORKID)
    assert key == b"1234:493005100592800"
    assert compute_mac(key, DOCUMENT) == "026DA63C796B52E642045F064241BBD6448B5A2A"
    assert secrets.key(DmSec.USERPIN) == b"1234"
    assert secrets.key(DmSec.NETWORKID) == imsi_semi_octets(IMSI)


def test_imsi_as_text_is_a_choice_in_cp_and_always_tried_in_dm() -> None:
    """Interop: some senders make the key of the IMSI's ASCII digits; the DM profile does not say which it is."""
    mac = compute_mac(IMSI.encode(), DOCUMENT)
    assert not BootstrapSecrets(imsi=IMSI).verify(Sec.NETWPIN, DOCUMENT, mac)
    assert BootstrapSecrets(imsi=IMSI, imsi_text=True).verify(Sec.NETWPIN, DOCUMENT, mac)
    assert BootstrapSecrets(imsi=IMSI, imsi_text=True).verify(Sec.NETWPIN, DOCUMENT, MACS[Sec.NETWPIN])
    assert BootstrapSecrets(imsi=IMSI).verify(DmSec.NETWORKID, DOCUMENT, mac)
    assert BootstrapSecrets(imsi=IMSI).verify(DmSec.NETWORKID, DOCUMENT, MACS[Sec.NETWPIN])
    both = compute_mac(IMSI.encode() + b"1234", DOCUMENT)
    assert BootstrapSecrets(imsi=IMSI, pin="1234", imsi_text=True).verify(Sec.USERNETWPIN, DOCUMENT, both)


def test_number_the_user_types() -> None:
    """XS-034: PIN, then as many digits, each an octet of the HMAC modulo 10."""
    assert typed_number("1234", DOCUMENT) == "12348293"
    assert BootstrapSecrets(typed="12348293").verify(Sec.USERPINMAC, DOCUMENT, None)
    for wrong in ("12348294", "12358293", "1234829", "", "1234829a", "1" * 42):
        assert not BootstrapSecrets(typed=wrong).verify(Sec.USERPINMAC, DOCUMENT, None)
    for pin in ("", "12a4", "1" * 21):
        with pytest.raises(LocalProtocolError):
            typed_number(pin, DOCUMENT)


def test_a_typed_number_opens_its_push() -> None:
    """XC-094: SEC 3 goes without a MAC in the header."""
    push = protect(ACCOUNT, BootstrapSecrets(pin="1234"), Sec.USERPINMAC)
    assert (push.sec, push.mac) == (Sec.USERPINMAC, None)
    assert accept(parse_push(build_push(push)), BootstrapSecrets(typed=typed_number("1234", push.body))) == ACCOUNT
    with pytest.raises(BootstrapRefused) as caught:
        accept(push, BootstrapSecrets(typed="12340000"))
    assert caught.value.reason is BootstrapReason.WRONG_MAC


KINDS = [*Sec, *DmSec]
STRONGER = {
    Sec.NETWPIN: {Sec.NETWPIN, Sec.USERNETWPIN, DmSec.NETWORKID, DmSec.USERPIN_NETWORKID},
    Sec.USERPIN: {Sec.USERPIN, Sec.USERNETWPIN, DmSec.USERPIN, DmSec.USERPIN_NETWORKID},
    Sec.USERNETWPIN: {Sec.USERNETWPIN, DmSec.USERPIN_NETWORKID},
    Sec.USERPINMAC: set(KINDS) - {Sec.NETWPIN, DmSec.NETWORKID},
}


@pytest.mark.parametrize("held", STRONGER)
def test_what_may_replace_an_account(held: Sec) -> None:
    """XC-094: who replaces it proves at least what the first sender proved."""
    assert {kind for kind in KINDS if at_least(kind, held)} == STRONGER[held]


# -- account to push and back -----------------------------------------------------------------------------------------

SECRETS = BootstrapSecrets(imsi=IMSI, pin="1234")
ACCOUNT = DmBootstrap(
    server_id="dpf.example.test",
    addr="https://dpf.example.test/dm",
    client=DmCredentials(auth_type=AuthType.MD5, name="c", secret="s", nonce=b"n"),
)


@pytest.mark.parametrize("sec", MACS)
def test_an_account_arrives_over_a_datagram(sec: Sec) -> None:
    """REQ-07, REQ-08."""
    datagram = build_push(protect(ACCOUNT, SECRETS, sec, transaction_id=7))
    assert accept(parse_push(datagram), SECRETS) == ACCOUNT


def test_no_push_without_the_secret() -> None:
    with pytest.raises(LocalProtocolError):
        protect(ACCOUNT, BootstrapSecrets(), Sec.USERPIN)


PUSH = protect(ACCOUNT, SECRETS, Sec.USERPIN)
REFUSED = {
    "no SEC": (replace(PUSH, sec=None), SECRETS, BootstrapReason.UNPROTECTED),
    "no MAC": (replace(PUSH, mac=None), SECRETS, BootstrapReason.UNPROTECTED),
    "unknown SEC": (replace(PUSH, sec=4), SECRETS, BootstrapReason.UNPROTECTED),
    "SEC that needs a user": (replace(PUSH, sec=Sec.USERPINMAC), SECRETS, BootstrapReason.UNPROTECTED),
    "SEC of the other profile": (replace(PUSH, sec="USERPIN"), SECRETS, BootstrapReason.UNPROTECTED),
    "secret we do not have": (PUSH, BootstrapSecrets(imsi=IMSI), BootstrapReason.UNPROTECTED),
    "secret of another device": (PUSH, BootstrapSecrets(pin="1235"), BootstrapReason.WRONG_MAC),
    "changed SEC": (replace(PUSH, sec=Sec.NETWPIN), SECRETS, BootstrapReason.WRONG_MAC),
    "changed body": (replace(PUSH, body=PUSH.body[:-1]), SECRETS, BootstrapReason.WRONG_MAC),
    "nonsense whose MAC is wrong too": (replace(PUSH, body=b"<xml/>"), SECRETS, BootstrapReason.WRONG_MAC),
    "body too large": (replace(PUSH, body=bytes(MAX_DOCUMENT_SIZE + 1)), SECRETS, BootstrapReason.OVERSIZED),
    "another content type": (
        replace(PUSH, content_type=MediaType.NOTIFICATION),
        SECRETS,
        BootstrapReason.MALFORMED,
    ),
    "nonsense under a good MAC": (
        replace(PUSH, body=b"<xml/>", mac=compute_mac(b"1234", b"<xml/>")),
        SECRETS,
        BootstrapReason.MALFORMED,
    ),
    "no account under a good MAC": (
        replace(PUSH, body=DOCUMENT, mac=MACS[Sec.USERPIN]),
        SECRETS,
        BootstrapReason.MISSING,
    ),
}


@pytest.mark.parametrize(("push", "secrets", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused(push: WapPush, secrets: BootstrapSecrets, reason: BootstrapReason) -> None:
    """REQ-08: what is not authentic is discarded before it is parsed."""
    with pytest.raises(BootstrapRefused) as caught:
        accept(push, secrets)
    assert caught.value.reason is reason


# -- octets of a push -------------------------------------------------------------------------------------------------


def test_the_octets_of_a_bootstrap_push() -> None:
    """Layout of WAP-230-WSP §8.2.4.1 with the content type parameters of ProvBoot §5.2."""
    push = WapPush(transaction_id=1, content_type=CP, sec=0, mac=MACS[Sec.NETWPIN], body=DOCUMENT)
    mac = MACS[Sec.NETWPIN].encode().hex()
    assert build_push(push).hex() == f"01062f1f2db6918092{mac}00030b6a004501"


def test_the_octets_of_a_notification() -> None:
    """OMA-TS-DM_Notification-V1_2 §6.1: content type 44, then the application identifier."""
    push = WapPush(
        transaction_id=1, content_type=MediaType.NOTIFICATION, application_id=APPLICATION_SYNCML_DM, body=b"\x01"
    )
    assert build_push(push).hex() == "010603c4af8701"
    assert parse_push(build_push(push)) == push


def text(value: str) -> str:
    return value.encode().hex() + "00"


def headers(octets: str, body: str = "ff") -> bytes:
    return bytes.fromhex(f"0006{len(octets) // 2:02x}{octets}{body}")


PUSHED = WapPush(content_type=CP, body=b"\xff")
PARSED = {
    "constrained form": (headers("b6"), PUSHED),
    "empty body": (headers("b6", ""), replace(PUSHED, body=b"")),
    "general form": (headers("01b6"), PUSHED),
    "length as uintvar with leading zeros": (bytes.fromhex("0006808001b6ff"), PUSHED),
    "code as long integer": (headers("020136"), PUSHED),
    "unknown code": (headers("ff"), replace(PUSHED, content_type="wsp/0x7f")),
    "text": (headers(text(CP)), PUSHED),
    "text in capitals": (headers(text(CP.upper())), PUSHED),
    "text with parameters": (headers(text(f'{CP}; SEC=1; MAC="AB"; x')), replace(PUSHED, sec=1, mac="AB")),
    "text in the general form": (headers(f"1f{len(CP) + 3:02x}{text(CP)}9181"), replace(PUSHED, sec=1)),
    "charset parameter": (headers("03b681ea"), PUSHED),
    "SEC as long integer": (headers("04b6910101"), replace(PUSHED, sec=1)),
    "SEC as text": (headers("04b6913100"), replace(PUSHED, sec=1)),
    "SEC as a word": (headers("0ab691" + text("userpin")), replace(PUSHED, sec="USERPIN")),
    "parameter names as text": (
        headers("0cb6" + text("SEC") + "81" + text("MAC") + text("F")),
        replace(PUSHED, sec=1, mac="F"),
    ),
    "quoted MAC": (headers("05b692224600"), replace(PUSHED, mac="F")),
    "other headers": (headers("b6" + "8d86" + text("X-Y") + text("z") + "af87"), replace(PUSHED, application_id=7)),
    "application id as text": (
        headers("b6" + "af" + text("x-wap-application:syncml.dm")),
        replace(PUSHED, application_id="x-wap-application:syncml.dm"),
    ),
    "application id, everything as text": (
        headers("b6" + text("X-Wap-Application-Id") + text("x-wap-application:syncml.dm")),
        replace(PUSHED, application_id="x-wap-application:syncml.dm"),
    ),
    "application id as long integer": (headers("b6af0107"), replace(PUSHED, application_id=7)),
    "headers on another code page": (headers("b67f02af87"), PUSHED),
    "short cut to another code page": (headers("b602af87"), PUSHED),
}


@pytest.mark.parametrize(("datagram", "push"), PARSED.values(), ids=PARSED)
def test_parsed(datagram: bytes, push: WapPush) -> None:
    assert parse_push(datagram) == push


def test_opaque_values_are_passed_over() -> None:
    short = "0a" + "00" * 10
    quoted = "1f0a" + "00" * 10
    assert parse_push(headers(f"{2 + len(short) // 2:02x}b699{short}")) == PUSHED
    assert parse_push(headers(f"b6a0{short}a0{quoted}af87")) == replace(PUSHED, application_id=7)


BROKEN = {
    "nothing": b"",
    "transaction id only": b"\0",
    "confirmed push": b"\0\x07\x01\xb6",
    "no headers length": b"\0\x06",
    "no headers": b"\0\x06\0body",
    "headers beyond the end": b"\0\x06\x05\xb6",
    "headers length of six octets": b"\0\x06\x80\x80\x80\x80\x80\x01",
    "huge headers length": b"\0\x06\x8f\xff\xff\xff\x7f",
    "headers over the limit": b"\0\x06\xa0\x01" + bytes(4097),
    "text without an end": headers("6162"),
    "general form beyond the headers": headers("05b6"),
    "general form of nothing": headers("00"),
    "parameter without value": headers("02b691"),
    "parameter without name": headers("02b601"),
    "SEC twice": headers("05b691819180"),
    "MAC twice, as text": headers(text("a/b;MAC=1;mac=1")),
    "number of more than 64 bits": headers("0a09" + "00" * 9),
    "opaque beyond the headers": headers("b6a01fff00"),
    "header without value": headers("b6af"),
    "larger than any datagram": b"\0\x06\x01\xb6" + bytes(MAX_DATAGRAM),
}


@pytest.mark.parametrize("datagram", BROKEN.values(), ids=BROKEN)
def test_broken_pushes(datagram: bytes) -> None:
    with pytest.raises(MalformedPush):
        parse_push(datagram)


OUR_MISTAKES = {
    "transaction id": replace(PUSHED, transaction_id=256),
    "SEC": replace(PUSHED, sec=128),
    "MAC with a NUL": replace(PUSHED, mac="a\0b"),
    "content type with a space": replace(PUSHED, content_type="a b"),
    "empty content type": replace(PUSHED, content_type=""),
    "body": replace(PUSHED, body=bytes(MAX_DATAGRAM)),
    "headers": replace(PUSHED, mac="a" * 5000),
}


@pytest.mark.parametrize("push", OUR_MISTAKES.values(), ids=OUR_MISTAKES)
def test_what_we_do_not_send(push: WapPush) -> None:
    with pytest.raises(LocalProtocolError):
        build_push(push)


@given(
    st.builds(
        WapPush,
        transaction_id=st.integers(0, 255),
        content_type=st.sampled_from([CP, MediaType.NOTIFICATION, MediaType.DM_WBXML, "text/plain"]),
        sec=st.none() | st.integers(0, 127) | st.sampled_from(["NETWORKID", "USERPIN"]),
        mac=st.none() | st.from_regex(r"[0-9A-F]{1,200}", fullmatch=True),
        application_id=st.none() | st.integers(0, 127) | st.just("x-wap-application:syncml.dm"),
        body=st.binary(max_size=50),
    )
)
def test_any_push_there_and_back(push: WapPush) -> None:
    assert parse_push(build_push(push)) == push


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda each: bytes((1, 6, len(each))) + each))
def test_any_datagram_gives_a_push_or_a_typed_error(datagram: bytes) -> None:
    try:
        push = parse_push(datagram)
    except MalformedPush:
        return
    with pytest.raises(BootstrapRefused):
        accept(push, SECRETS)
