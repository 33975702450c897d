"""Fuzz targets for everything that reaches the device outside of a session, with seeds made by our own encoders.

A target takes any octets and returns; what it lets through besides its typed errors is a finding.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from syncml.auth import SPECIAL_NONCES
from syncml.bootstrap import (
    BootstrapRefused,
    BootstrapSecrets,
    DmBootstrap,
    DmCredentials,
    DmSec,
    NapAuthInfo,
    NapDef,
    Port,
    PxLogical,
    PxPhysical,
    Sec,
    Validity,
    authenticated,
    build_push,
    decode_cp,
    decode_cp_xml,
    encode_cp,
    encode_cp_xml,
    parse_push,
    protect,
    read_accounts,
    read_connectivity,
    to_document,
)
from syncml.bootstrap.cp import CpDocument
from syncml.bootstrap.dm_profile import bootstrap_message, protect_message, read_message
from syncml.codes import AuthType
from syncml.errors import LocalProtocolError
from syncml.http_push import build_nested, parse_nested
from syncml.notification import (
    MalformedNotification,
    Notification,
    UiMode,
    build_notification,
    notification_push,
    parse_notification,
)
from syncml.wap_push import MalformedPush, http_content_type, push_over_http

SECRETS: Final = BootstrapSecrets(pin="1234", imsi="001010123456789", typed="12348293", imsi_text=True)


def _read(document: CpDocument) -> None:
    """A decoded document gives accounts and connectivity or a typed error, and can be written again."""
    with suppress(BootstrapRefused):
        read_accounts(document)
        read_connectivity(document)
    for encode in (encode_cp, encode_cp_xml):
        with suppress(LocalProtocolError):  # a value that the other form cannot carry
            encode(document)


def fuzz_cp(data: bytes) -> None:
    """Provisioning document in WBXML."""
    try:
        document = decode_cp(data)
    except BootstrapRefused:
        return
    _read(document)


def fuzz_cp_xml(data: bytes) -> None:
    """Provisioning document in XML."""
    try:
        document = decode_cp_xml(data)
    except BootstrapRefused:
        return
    assert decode_cp_xml(encode_cp_xml(document)) == document
    _read(document)


def fuzz_package0(data: bytes) -> None:
    """Notification."""
    try:
        received = parse_notification(data)
    except MalformedNotification:
        return
    received.is_from_any("secret", SPECIAL_NONCES)
    again = build_notification(received.notification, secret="secret", nonce=b"nonce")
    assert parse_notification(again).notification == received.notification


def fuzz_wap_push(data: bytes) -> None:
    """WAP push datagram, HTTP response inside an HTTP request, and Content-Type of a plain HTTP push."""
    for parse in (parse_push, parse_nested, lambda octets: push_over_http(octets.decode("latin-1"), b"body")):
        try:
            push = parse(data)
        except MalformedPush:
            continue
        with suppress(BootstrapRefused):
            authenticated(push, SECRETS)
        with suppress(LocalProtocolError):  # a header that we would not send
            assert parse_push(build_push(push)).body == push.body
        http_content_type(push)


def fuzz_dm_bootstrap(data: bytes) -> None:
    """Bootstrap message of the DM profile."""
    try:
        content = read_message(data)
    except BootstrapRefused:
        return
    accounts = [each.account for each in content.offers]
    again = read_message(bootstrap_message(*accounts, device_id="urn:imei:1"))
    assert [each.account.server_id for each in again.offers] == [each.server_id for each in accounts]


_PLAIN: Final = DmBootstrap(server_id="srv", addr="http://a/dm")
_FULL: Final = DmBootstrap(
    server_id="dpf.example",
    addr="https://dpf.example/dm",
    name="Registration operator",
    port=8443,
    client=DmCredentials(auth_type=AuthType.MD5, name="c", secret="s", nonce=b"\0\xff"),
    server=DmCredentials(auth_type=AuthType.MAC, name="d", secret="t", nonce=b"n"),
    to_proxies=("PX1",),
    to_napids=("NAP1", "INTERNET"),
    napdefs=(
        NapDef(
            napid="NAP1",
            bearers=("GSM-GPRS",),
            address="apn.example",
            address_type="APN",
            auth=(NapAuthInfo(auth_type="PAP", name="u", secret="p"),),
            validity=(Validity(country="262", network="01"),),
        ),
    ),
    proxies=(PxLogical(proxy_id="PX1", physical=(PxPhysical(address="192.0.2.1", ports=(Port(number=8080),)),)),),
    connect_now=True,
)
_DOCUMENTS: Final = [to_document(_PLAIN), to_document(_FULL), to_document(_PLAIN, _FULL)]
_NOTIFICATIONS: Final = [
    build_notification(
        Notification(session_id=number, server_id="dpf.example", ui_mode=mode, vendor=vendor), secret="s", nonce=b"n"
    )
    for number, mode, vendor in ((1, UiMode.NOT_SPECIFIED, b""), (0xFFFF, UiMode.USER_INTERACTION, b"vendor"))
]
_PROTECTED: Final = [
    *(protect(_FULL, SECRETS, sec) for sec in Sec),
    *(protect_message(_PLAIN, device_id="d", secrets=SECRETS, sec=sec) for sec in DmSec),
]

PUSH_SEEDS: Final[dict[str, list[bytes]]] = {
    "fuzz_cp": [encode_cp(each) for each in _DOCUMENTS],
    "fuzz_cp_xml": [encode_cp_xml(each) for each in _DOCUMENTS],
    "fuzz_package0": _NOTIFICATIONS,
    "fuzz_wap_push": [
        *(build_push(each) for each in _PROTECTED),
        *(notification_push(each) for each in _NOTIFICATIONS),
        *(build_nested(each) for each in _PROTECTED),
        *(http_content_type(each).encode() for each in _PROTECTED),
    ],
    "fuzz_dm_bootstrap": [bootstrap_message(*each, device_id="d") for each in ((_PLAIN,), (_FULL,), (_PLAIN, _FULL))],
}
"""Seeds of each target, by its name."""
