"""Habits that some peers need of us. The default suits the most; a named profile per device switches others on.

A profile changes the form of what we send and never what we accept, least of all credentials.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from syncml.errors import LocalProtocolError


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerProfile:
    """How to speak to one kind of device."""

    name: str
    sequences: bool = True  # False: the commands of a Sequence go out one by one, in their order
    empty_data: bool = False  # an Item without a value has an empty `Data` all the same
    item_meta: bool = False  # Meta stands in each Item instead of in the command
    resp_uri: bool = True  # False: no RespURI, for peers that lose their way with one
    announce_sizes: bool = True  # False: no MaxMsgSize and MaxObjSize, for peers that break off when they see one
    max_msg_size: int | None = None  # octets; no message of ours is larger, whatever the peer announces
    large_objects: bool = True  # False: a value that does not fit into one message is not sent at all (413)


DEFAULT_PROFILE: Final = PeerProfile(name="default")
PROFILES: Final = {
    profile.name: profile
    for profile in (
        DEFAULT_PROFILE,
        # MS-MDM: no large objects, and aborts when it sees a small MaxMsgSize.
        PeerProfile(name="windows", announce_sizes=False, large_objects=False, max_msg_size=512_000),
        # intel libdmclient: buffers of 40000 octets.
        PeerProfile(name="libdmclient", max_msg_size=38_000),
        PeerProfile(name="no-sequence", sequences=False),
        PeerProfile(name="explicit", empty_data=True, item_meta=True),
        PeerProfile(name="small", max_msg_size=2048),
        # Needs credentials in every message, as nothing else says whose it is.
        PeerProfile(name="no-resp-uri", resp_uri=False),
    )
}


def profile_named(name: str) -> PeerProfile:
    """The profile of that name.

    Raises:
        LocalProtocolError: there is none.
    """
    try:
        return PROFILES[name]
    except KeyError:
        raise LocalProtocolError(f"no peer profile {name!r}; known: {', '.join(sorted(PROFILES))}") from None
