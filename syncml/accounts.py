"""DM accounts as the two sides see them (OMA-TS-DM_StdObj-V1_2 §5.3.3, OMA-TS-DM_Security-V1_2 §5.3).

Nonces are raw octets. The authenticator issues a nonce and the other side proves itself with it, so each direction has
a chain of its own. An answer may get lost on the way: the authenticator keeps the nonce before the last one, and
accepts it once more.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from syncml.codes import AuthType
from syncml.peer_profile import DEFAULT_PROFILE, PeerProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class DmAccount:
    """The server's view of one device's DM account."""

    device_id: str  # Source/LocURI of the device
    server_id: str  # our ServerID (PROVIDER-ID)
    client_auth: AuthType = AuthType.MD5  # what we demand of the client
    client_name: str
    client_secret: str = field(repr=False)
    client_nonce: bytes = field(default=b"", repr=False)  # the one we issued last
    client_nonce_before: bytes = field(default=b"", repr=False)  # the one we issued before that; empty: none
    per_message: bool = False  # basic and md5: every message is to carry credentials (200 instead of 212)
    server_auth: AuthType = AuthType.MD5  # what we prove ourselves with
    server_name: str
    server_secret: str = field(repr=False)
    server_nonce: bytes = field(default=b"", repr=False)  # the one the device issued last
    preemptive: bool = True  # False: no credentials of ours before the device asks for them
    resync: bool = False  # a notification with the special nonce is out: 0x00000000 is good for one session
    peer: PeerProfile = DEFAULT_PROFILE


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAccount:
    """The device's view of one DM account. `server_auth` None: TLS alone suffices."""

    server_id: str
    server_uri: str
    client_auth: AuthType = AuthType.MD5
    client_name: str
    client_secret: str = field(repr=False)
    client_nonce: bytes = field(default=b"", repr=False)  # the one the server issued last
    preemptive: bool = True  # False: no credentials of ours before the server asks for them
    server_auth: AuthType | None = AuthType.MD5
    server_name: str = ""
    server_secret: str = field(default="", repr=False)
    server_nonce: bytes = field(default=b"", repr=False)  # the one we issued last
    server_nonce_before: bytes = field(default=b"", repr=False)  # the one we issued before that; empty: none
    resync: bool = False  # the session answers a notification with the special nonce
