"""Package 0: layout, digest, the push around it (OMA-TS-DM_Notification-V1_2)."""

from __future__ import annotations

import base64
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncml.auth import SPECIAL_NONCES
from syncml.codes import MediaType
from syncml.errors import LocalProtocolError
from syncml.http_push import build_nested, parse_nested
from syncml.notification import (
    MAX_NOTIFICATION,
    MAX_PUSH_HEADERS,
    WDP_HEADER,
    Initiator,
    MalformedNotification,
    Notification,
    UiMode,
    build_notification,
    build_trigger,
    notification_digest,
    notification_push,
    parse_notification,
)
from syncml.wap_push import MalformedPush, WapPush, http_content_type, parse_push, push_over_http

SAMPLE = Notification(
    session_id=0x1234, server_id="com.mgmtsrv.manage", ui_mode=UiMode.BACKGROUND, initiator=Initiator.CLIENT
)
SCTS = Notification(session_id=12345, server_id="Scts", initiator=Initiator.CLIENT)
SCTS_NONCE = base64.b64decode("AOVuAA==")

# Triggers and digests computed apart from this code; the first trigger is the picture of the specification.
VECTORS = {
    "the picture": (
        SAMPLE, "srvpwd", b"Nonce",
        "02d00000001234" + "12" + "636f6d2e6d676d747372762e6d616e616765", "10369e83e3fc7103a4a21acce6e242ae",
    ),
    "special nonce": (
        SAMPLE, "srvpwd", bytes(4),
        "02d00000001234" + "12" + "636f6d2e6d676d747372762e6d616e616765", "e37fdc0f8e9070fc31b0967910b921af",
    ),
    "SCTS, client": (SCTS, "SimpleClient", SCTS_NONCE, "02c0000000303904" + "53637473",
                     "4f2a7681ebd0f7d7f674fc4a3548bea9"),
    "SCTS, server": (
        dataclasses.replace(SCTS, initiator=Initiator.SERVER), "SimpleClient", SCTS_NONCE,
        "02c8000000303904" + "53637473", "89083f28a0887031b9025b6934c6700d",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("notification", "secret", "nonce", "trigger", "digest"), VECTORS.values(), ids=VECTORS)
def test_vectors(notification, secret, nonce, trigger, digest):
    """XS-032: byte-exact, and read back as what it was."""
    octets = build_notification(notification, secret=secret, nonce=nonce)
    assert octets.hex() == digest + trigger
    received = parse_notification(octets)
    assert received.notification == notification
    assert received.trigger.hex() == trigger
    assert received.is_from(secret, nonce)
    assert not received.is_from(secret, nonce + b"\0")
    assert not received.is_from(secret + "x", nonce)


SECOND_OCTET = {
    (UiMode.NOT_SPECIFIED, Initiator.CLIENT): 0xC0,
    (UiMode.NOT_SPECIFIED, Initiator.SERVER): 0xC8,
    (UiMode.BACKGROUND, Initiator.CLIENT): 0xD0,
    (UiMode.BACKGROUND, Initiator.SERVER): 0xD8,
    (UiMode.INFORMATIVE, Initiator.CLIENT): 0xE0,
    (UiMode.INFORMATIVE, Initiator.SERVER): 0xE8,
    (UiMode.USER_INTERACTION, Initiator.CLIENT): 0xF0,
    (UiMode.USER_INTERACTION, Initiator.SERVER): 0xF8,
}


@pytest.mark.parametrize(("mode", "initiator"), SECOND_OCTET)
def test_layout(mode, initiator):
    """XS-032: version 11, ui-mode and initiator in their bits, 27 bits for future use 0, numbers big-endian."""
    trigger = build_trigger(Notification(session_id=0x00AF, server_id="srv", ui_mode=mode, initiator=initiator))
    assert trigger == bytes((0x02, SECOND_OCTET[mode, initiator], 0, 0, 0, 0x00, 0xAF, 3)) + b"srv"


SESSION_IDS = {0x0001: "1", 0x0012: "12", 0x00AF: "AF", 0x1234: "1234", 0xFFFF: "FFFF"}


@pytest.mark.parametrize("number", SESSION_IDS)
def test_session_id_as_text(number):
    """XC-002: upper-case hexadecimal, one to four digits, no leading zeros."""
    assert Notification(session_id=number, server_id="s").session_id_text == SESSION_IDS[number]


def _octets(trigger: bytes) -> bytes:
    return notification_digest("srv", "secret", b"n", trigger) + trigger


def test_bits_for_future_use_are_passed_over():
    """XC-090: a later release may set them; they are under the digest all the same."""
    trigger = bytes((0x02, 0xCF, 0xFF, 0xFF, 0xFF, 0x12, 0x34, 3)) + b"srv"
    received = parse_notification(_octets(trigger))
    assert received.notification == Notification(session_id=0x1234, server_id="srv")
    assert received.is_from("secret", b"n")


def test_vendor_octets_are_under_the_digest():
    """XC-091: of any content, behind the identifier."""
    made = Notification(session_id=1, server_id="srv", vendor=b"\0\xffvendor")
    octets = build_notification(made, secret="secret", nonce=b"n")
    assert parse_notification(octets).notification == made
    changed = parse_notification(octets[:-1] + b"R")
    assert changed.notification.vendor == b"\0\xffvendoR"
    assert not changed.is_from("secret", b"n")


def test_special_nonces():
    """XC-092: four zero octets first, then the ten characters that libdmclient takes."""
    assert SPECIAL_NONCES == (b"\0\0\0\0", b"0x00000000")
    for nonce in SPECIAL_NONCES:
        received = parse_notification(build_notification(SAMPLE, secret="s", nonce=nonce))
        assert received.is_from_any("s", SPECIAL_NONCES)
    assert not parse_notification(build_notification(SAMPLE, secret="s", nonce=b"n")).is_from_any("s", SPECIAL_NONCES)


def test_no_secret_shows():
    """Interop: digest, trigger and vendor octets are not for a log."""
    received = parse_notification(build_notification(SAMPLE, secret="s", nonce=b"n"))
    assert "digest" not in repr(received)
    assert "trigger" not in repr(received)


HEADER = bytes.fromhex("02c8000000000103")
MALFORMED = {
    "nothing": b"",
    "a digest": bytes(16),
    "header cut": bytes(16) + HEADER[:-1],
    "identifier cut": bytes(16) + HEADER + b"sr",
    "version 1.0": bytes(16) + bytes.fromhex("0288000000000103") + b"srv",
    "version 1.2": bytes(16) + bytes.fromhex("0308000000000103") + b"srv",
    "version of DM 2.0": bytes(16) + bytes.fromhex("5008000000000103") + b"srv",
    "session id 0": bytes(16) + bytes.fromhex("02c8000000000003") + b"srv",
    "no identifier": bytes(16) + bytes.fromhex("02c8000000000100"),
    "identifier not UTF-8": bytes(16) + HEADER + b"s\xffv",
    "identifier with a NUL": bytes(16) + HEADER + b"s\0v",
    "too long": bytes(16) + HEADER + b"srv" + bytes(MAX_NOTIFICATION),
}


@pytest.mark.parametrize("octets", MALFORMED.values(), ids=MALFORMED)
def test_malformed(octets):
    """XC-091: a typed error, whatever it is."""
    with pytest.raises(MalformedNotification):
        parse_notification(octets)


OUR_MISTAKES = {
    "session id 0": lambda: Notification(session_id=0, server_id="s"),
    "session id of 17 bits": lambda: Notification(session_id=0x10000, server_id="s"),
    "no identifier": lambda: Notification(session_id=1, server_id=""),
    "long identifier": lambda: Notification(session_id=1, server_id="s" * 256),
    "long in octets": lambda: Notification(session_id=1, server_id="ä" * 128),
    "NUL": lambda: Notification(session_id=1, server_id="a\0"),
    "surrogate": lambda: Notification(session_id=1, server_id="\ud800"),
    "version": lambda: Notification(session_id=1, server_id="s", version=1024),
    "vendor octets": lambda: build_notification(
        Notification(session_id=1, server_id="s", vendor=bytes(MAX_NOTIFICATION)), secret="s", nonce=b""
    ),
}


@pytest.mark.parametrize("make", OUR_MISTAKES.values(), ids=OUR_MISTAKES)
def test_what_we_do_not_send(make):
    """XS-032: what does not fit its field is our mistake."""
    with pytest.raises(LocalProtocolError):
        make()


NOTIFICATIONS = st.builds(
    Notification,
    session_id=st.integers(1, 0xFFFF),
    server_id=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=60),
    ui_mode=st.sampled_from(UiMode),
    initiator=st.sampled_from(Initiator),
    vendor=st.binary(max_size=40),
)


@given(NOTIFICATIONS, st.text(st.characters(exclude_categories=["Cs"]), max_size=10), st.binary(max_size=20))
def test_there_and_back(notification, secret, nonce):
    """XS-032, XC-090."""
    octets = build_notification(notification, secret=secret, nonce=nonce)
    received = parse_notification(octets)
    assert received.notification == notification
    assert received.is_from(secret, nonce)
    assert parse_push(notification_push(octets)).body == octets


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda each: bytes(16) + b"\x02\xc8\0\0\0" + each))
def test_any_octets(octets):
    """XC-091: a notification or a typed error, and never one that proves itself."""
    try:
        received = parse_notification(octets)
    except MalformedNotification:
        return
    assert not received.is_from("secret nobody knows", b"nonce")


# -- the push around it -----------------------------------------------------------------------------------------------


def test_push_of_the_specification():
    """XS-032, XC-093: codes, not text; UDH and WSP headers within 48 octets."""
    octets = build_notification(SAMPLE, secret="srvpwd", nonce=b"Nonce")
    datagram = notification_push(octets, transaction_id=1)
    assert datagram == bytes.fromhex("010603c4af87") + octets
    assert len(WDP_HEADER) + len(datagram) - len(octets) == 13 <= MAX_PUSH_HEADERS


def test_longest_identifier_still_fits_a_short_message_header():
    """XS-032: the identifier is in the body and does not count."""
    octets = build_notification(Notification(session_id=1, server_id="s" * 255), secret="s", nonce=b"")
    assert parse_notification(parse_push(notification_push(octets)).body).notification.server_id == "s" * 255


PUSH = WapPush(
    content_type=MediaType.NOTIFICATION, body=b"\0\r\n\r\nbody", application_id="x-wap-application:syncml.dm"
)
BODY = PUSH.body
NESTED = {
    "as we send it": build_nested(PUSH),
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Type: application/vnd.syncml.notification\n"
    b"X-WAP-Application-ID: x-wap-application:syncml.dm\n\n" + BODY,
    "other headers": b"HTTP/1.0 200\r\nServer: x\r\nCONTENT-TYPE:application/vnd.syncml.notification\r\n"
    b"x-wap-application-id: x-wap-application:syncml.dm\r\n\r\n" + BODY,
    "something behind": build_nested(PUSH) + b"\r\n",
}


@pytest.mark.parametrize("octets", NESTED.values(), ids=NESTED)
def test_nested_response(octets):
    """XC-093: the form of SCTS and Funambol, an HTTP response inside the request."""
    assert parse_nested(octets) == PUSH


BROKEN = {
    "nothing": b"",
    "no end of the headers": b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n",
    "end of the headers too far": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 5000 + b"\r\nContent-Type: a/b\r\n\r\n",
    "a request": b"POST / HTTP/1.1\r\nContent-Type: a/b\r\n\r\n",
    "a refusal": b"HTTP/1.1 404 Not Found\r\nContent-Type: a/b\r\n\r\n",
    "no Content-Type": b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n",
    "Content-Type twice": b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Type: a/b\r\n\r\n",
    "no header": b"HTTP/1.1 200 OK\r\nContent Type\r\n\r\n",
    "Content-Length too long": b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 2\r\n\r\nx",
    "Content-Length no number": b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: -1\r\n\r\nx",
    "huge": b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\r\n" + bytes(80_000),
}


@pytest.mark.parametrize("octets", BROKEN.values(), ids=BROKEN)
def test_broken_nested_response(octets):
    """XC-093: a typed error."""
    with pytest.raises(MalformedPush):
        parse_nested(octets)


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda each: b"HTTP/1.1 200 OK\r\nContent-Type: " + each))
def test_any_nested_octets(octets):
    """XC-093: a push or a typed error."""
    try:
        parse_nested(octets)
    except MalformedPush:
        return
    assert b"\n" in octets


def test_parameters_over_http():
    """XS-034: SEC and MAC of a bootstrap as parameters of the Content-Type."""
    push = WapPush(content_type=MediaType.DM_WBXML, sec="USERPIN", mac="AB", body=b"x")
    assert http_content_type(push) == "application/vnd.syncml.dm+wbxml; SEC=USERPIN; MAC=AB"
    assert push_over_http(http_content_type(push), b"x") == push
    assert push_over_http(' Application/Vnd.SyncML.DM+WBXML ;mac="AB";sec=userpin', b"x") == push
    with pytest.raises(MalformedPush):
        push_over_http("a/b; MAC=1; MAC=2", b"")
    with pytest.raises(MalformedPush):
        push_over_http("a/b" * 2000, b"")
