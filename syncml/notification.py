"""Package 0, the general notification (OMA-TS-DM_Notification-V1_2 §5, §6): octets with which a server calls a device.

`digest (16) | trigger`, where the trigger is `version (10 bits) | ui-mode (2) | initiator (1) | future use (27) |
session id (16) | length (8) | server identifier | vendor octets`, most significant bit first. The digest proves that
the trigger comes from the server of an account; it covers the vendor octets too.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from syncml.auth import inner_digest
from syncml.codes import MediaType
from syncml.errors import LocalProtocolError, RemoteProtocolError
from syncml.wap_push import APPLICATION_SYNCML_DM, WapPush, build_push

VERSION: Final = 11
"""Version 1.1 times ten: what every message of the DM 1.2 notification specification carries (§5.2.2)."""
DIGEST_LENGTH: Final = 16  # octets
MAX_SESSION_ID: Final = 0xFFFF
MAX_SERVER_ID: Final = 255  # octets
MAX_NOTIFICATION: Final = 4096  # octets we look at; ours, the specification leaves the vendor part open
MAX_PUSH_HEADERS: Final = 48  # octets of WDP and WSP headers together, so that one short message suffices (§6.2)
WDP_HEADER: Final = bytes.fromhex("0605040b84c002")
"""User data header of a short message: port 2948 from 49154; over UDP the datagram has the ports instead."""
_HEADER: Final = 8  # octets of the trigger in front of the server identifier


class UiMode(IntEnum):
    """How the user is to be involved; a recommendation (§5.2.3)."""

    NOT_SPECIFIED = 0
    BACKGROUND = 1
    INFORMATIVE = 2  # show or sound something
    USER_INTERACTION = 3  # ask before the session


class Initiator(IntEnum):
    """Whose wish the session is (§5.2.4)."""

    CLIENT = 0
    SERVER = 1


class MalformedNotification(RemoteProtocolError):
    """Octets that are no notification of version 1.1; nobody answers them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """What a notification says.

    Raises:
        LocalProtocolError: a session id, server identifier or version that does not fit its field.
    """

    session_id: int  # 1 to FFFF; other triggers of the server have other ids
    server_id: str  # ServerID of the account, PROVIDER-ID of w7
    ui_mode: UiMode = UiMode.NOT_SPECIFIED
    initiator: Initiator = Initiator.SERVER
    vendor: bytes = field(default=b"", repr=False)
    version: int = VERSION  # number times ten

    def __post_init__(self) -> None:
        if not 1 <= self.session_id <= MAX_SESSION_ID:
            raise LocalProtocolError("session id of a notification is 1 to FFFF")
        if not 1 <= len(_identifier_octets(self.server_id)) <= MAX_SERVER_ID:
            raise LocalProtocolError("server identifier of a notification has 1 to 255 octets")
        if not 0 <= self.version < 1 << 10:
            raise LocalProtocolError("version of a notification has ten bits")

    @property
    def session_id_text(self) -> str:
        """`SessionID` of the session that follows: upper-case hexadecimal without leading zeros (§5.2.6)."""
        return f"{self.session_id:X}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedNotification:
    """A notification as it came, nothing of it believed yet."""

    notification: Notification
    digest: bytes = field(repr=False)
    trigger: bytes = field(repr=False)  # exactly the octets that the digest covers

    def is_from(self, secret: str, nonce: bytes) -> bool:
        """Whether the digest is right for the server's secret and that nonce, in constant time."""
        expected = notification_digest(self.notification.server_id, secret, nonce, self.trigger)
        return hmac.compare_digest(self.digest, expected)

    def is_from_any(self, secret: str, nonces: Iterable[bytes]) -> bool:
        """Whether the digest is right for one of the nonces."""
        return any(self.is_from(secret, nonce) for nonce in nonces)


def notification_digest(server_id: str, secret: str, nonce: bytes, trigger: bytes) -> bytes:
    """`H(B64(H(server id ":" secret)) ":" nonce ":" B64(H(trigger)))` with MD5, as 16 raw octets (§5.2.1)."""
    over = base64.b64encode(_h(trigger))
    return _h(b":".join((inner_digest(server_id, secret).encode(), nonce, over)))


def _h(octets: bytes) -> bytes:
    return hashlib.md5(octets, usedforsecurity=False).digest()


def _identifier_octets(server_id: str) -> bytes:
    try:
        octets = server_id.encode()
    except UnicodeEncodeError as error:
        raise LocalProtocolError("server identifier with a lone surrogate") from error
    if b"\0" in octets:
        raise LocalProtocolError("server identifier with a NUL")
    return octets


def build_trigger(notification: Notification) -> bytes:
    """The octets behind the digest; bits for future use are 0."""
    identifier = _identifier_octets(notification.server_id)
    header = (
        notification.version << 54
        | notification.ui_mode << 52
        | notification.initiator << 51
        | notification.session_id << 8
        | len(identifier)
    )
    return header.to_bytes(_HEADER) + identifier + notification.vendor


def build_notification(notification: Notification, *, secret: str, nonce: bytes) -> bytes:
    """Digest and trigger. `secret` is the server's (SRVCRED), `nonce` the raw octets of the server's nonce.

    Raises:
        LocalProtocolError: larger than receivers look at.
    """
    trigger = build_trigger(notification)
    if len(trigger) + DIGEST_LENGTH > MAX_NOTIFICATION:
        raise LocalProtocolError(f"notification of {len(trigger) + DIGEST_LENGTH} octets")
    return notification_digest(notification.server_id, secret, nonce, trigger) + trigger


def parse_notification(octets: bytes) -> ReceivedNotification:
    """Read a notification. Bits for future use are passed over.

    Raises:
        MalformedNotification: too short, too long, another version, session id 0, an empty identifier or one that is
            no text.
    """
    if len(octets) > MAX_NOTIFICATION:
        raise MalformedNotification(f"notification of {len(octets)} octets")
    digest, trigger = octets[:DIGEST_LENGTH], octets[DIGEST_LENGTH:]
    if len(trigger) < _HEADER:
        raise MalformedNotification("notification ends within its header")
    header = int.from_bytes(trigger[:_HEADER])
    version, length = header >> 54, header & 0xFF
    if version != VERSION:
        raise MalformedNotification(f"notification of version {version / 10}")
    identifier = trigger[_HEADER : _HEADER + length]
    if len(identifier) < length:
        raise MalformedNotification("notification ends within the server identifier")
    try:
        notification = Notification(
            version=version,
            ui_mode=UiMode(header >> 52 & 0b11),
            initiator=Initiator(header >> 51 & 1),
            session_id=header >> 8 & 0xFFFF,
            server_id=identifier.decode(),
            vendor=trigger[_HEADER + length :],
        )
    except UnicodeDecodeError as error:
        raise MalformedNotification("server identifier is not UTF-8") from error
    except LocalProtocolError as error:
        raise MalformedNotification(str(error)) from error
    return ReceivedNotification(notification=notification, digest=digest, trigger=trigger)


def notification_push(octets: bytes, *, transaction_id: int = 0) -> bytes:
    """The WAP push datagram for a notification: content type 44 and application id 07, as codes (§6.2)."""
    datagram = build_push(
        WapPush(
            transaction_id=transaction_id,
            content_type=MediaType.NOTIFICATION,
            application_id=APPLICATION_SYNCML_DM,
            body=octets,
        )
    )
    if len(WDP_HEADER) + len(datagram) - len(octets) > MAX_PUSH_HEADERS:
        raise LocalProtocolError("headers of a notification are too long for one short message")
    return datagram
