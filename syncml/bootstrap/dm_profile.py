"""DM profile: accounts as management objects in one DM message, WBXML only (OMA-TS-DM_Bootstrap-V1_2 §5.4).

The message adds serialised trees to `./Inbox`, where the client finds the place of each object from its identifier, or
adds to `./DMAcc/<name>` directly. Session elements are there for form's sake, and nothing of it is ever answered.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from syncml.bootstrap.connectivity import MAX_PORTS, Port
from syncml.bootstrap.errors import BootstrapReason, BootstrapRefused
from syncml.bootstrap.profile import (
    AUTH_NAMES,
    AUTH_TYPES,
    MAX_ACCOUNTS,
    MAX_VALUE,
    W7,
    AppAddress,
    DmBootstrap,
    DmCredentials,
    TransportCredentials,
)
from syncml.bootstrap.security import BootstrapSecrets, DmSec, compute_mac
from syncml.codec import decode, encode
from syncml.codes import Format, MediaType
from syncml.encoding import Encoding
from syncml.errors import LocalProtocolError, MalformedMessage, MalformedUri, RemoteProtocolError
from syncml.model import Add, Item, Message, Meta, SyncHdr, walk
from syncml.tnds import MalformedTnds, Tnds, TndsNode, decode_tnds, encode_tnds
from syncml.tree import AccessType, Acl, NodeUri
from syncml.values import item_value
from syncml.wap_push import WapPush

INBOX: Final = "./Inbox"
ACCOUNT_OBJECTS: Final = (
    "urn:oma:mo:oma-dm-dmacc:1.1",
    "urn:oma:mo:oma-dm-dmacc:1.0",
    "org.openmobilealliance/1.0/w7",
)
"""Identifiers of DMAcc, newest first; the last one stands in the examples of the specification."""
MAX_MESSAGE: Final = 64 * 1024  # octets
MAX_NODES: Final = 1000  # in all objects of a message; ours

_ACCOUNT_PLACES: Final = (("DMAcc",), ("SyncML", "DMAcc"))  # the second is that of DM 1.1 and of Windows
_NAME: Final = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class DmOffer:
    """An account with the rights its document gives; an empty ACL gives none."""

    account: DmBootstrap
    acl: Acl


@dataclass(frozen=True, slots=True, kw_only=True)
class DmProfileContent:
    """What a bootstrap message brings."""

    offers: tuple[DmOffer, ...]
    skipped: tuple[str, ...] = ()  # identifiers of objects that are no accounts; empty text for one without


# -- value → message --------------------------------------------------------------------------------------------------


def bootstrap_message(*accounts: DmBootstrap, device_id: str) -> bytes:
    """The message with those accounts, one Add for each. The server gets Get, Replace and Delete on its account.

    Raises:
        LocalProtocolError: no account, or a text that WBXML cannot carry.
    """
    if not accounts:
        raise LocalProtocolError("a bootstrap without an account")
    commands = tuple(
        Add(cmd_id=str(number), items=(_tnds_item(account),)) for number, account in enumerate(accounts, start=1)
    )
    header = SyncHdr(session_id="0", msg_id="0", target=device_id, source=accounts[0].server_url)
    return encode(Message(header=header, commands=commands, final=True), Encoding.WBXML)


def protect_message(
    *accounts: DmBootstrap,
    device_id: str,
    secrets: BootstrapSecrets,
    sec: DmSec,
    imsi_text: bool = False,
    transaction_id: int = 0,
) -> WapPush:
    """The push that carries those accounts under a MAC of that kind.

    Raises:
        LocalProtocolError: the secrets do not include what the kind needs, or as `bootstrap_message`.
    """
    key = secrets.key(sec, as_text=imsi_text)
    if key is None:
        raise LocalProtocolError(f"no secret for {sec.name}")
    body = bootstrap_message(*accounts, device_id=device_id)
    return WapPush(
        transaction_id=transaction_id,
        content_type=MediaType.DM_WBXML,
        sec=sec,
        mac=compute_mac(key, body),
        body=body,
    )


def _tnds_item(account: DmBootstrap) -> Item:
    document = encode_tnds(Tnds((account_node(account),)), Encoding.WBXML)
    return Item(target=INBOX, meta=Meta(format=Format.XML, type=MediaType.TNDS_WBXML), data=document)


def account_node(account: DmBootstrap) -> TndsNode:
    """DMAcc of an account (OMA-TS-DM_StdObj-V1_2 §5.3.3), with rights for its server."""
    children = [_leaf("AppID", W7), _leaf("ServerID", account.server_id)]
    if account.name is not None:
        children.append(_leaf("Name", account.name))
    references = account.connections
    if len(references) == 1:
        children.append(_leaf("PrefConRef", references[0]))
    elif references:
        children.append(_list("ToConRef", [(_leaf("ConRef", each),) for each in references]))
    children.append(_list("AppAddr", [_address_nodes(each) for each in account.all_addresses]))
    if account.auth_pref is not None:
        children.append(_leaf("AAuthPref", account.auth_pref))
    credentials = [
        _credential_nodes(level, AUTH_NAMES[each.auth_type], each.name, each.secret, each.nonce)
        for level, each in (("CLCRED", account.client), ("SRVCRED", account.server))
        if each is not None
    ]
    if account.obex is not None:
        obex = account.obex
        credentials.append(_credential_nodes("OBEX", obex.auth_type, obex.name, obex.secret, obex.data))
    if credentials:
        children.append(_list("AppAuth", credentials))
    return TndsNode(
        name=_NAME.sub("_", account.server_id)[:32],
        format=Format.NODE,
        object_type=ACCOUNT_OBJECTS[1],
        acl=Acl.granting(account.server_id, {AccessType.GET, AccessType.REPLACE, AccessType.DELETE}),
        children=tuple(children),
    )


def _leaf(name: str, value: str | bytes) -> TndsNode:
    octets = isinstance(value, bytes)
    return TndsNode(
        name=name,
        format=Format.BIN if octets else Format.CHR,
        type="application/octet-stream" if octets else MediaType.TEXT,
        value=value,
    )


def _list(name: str, members: list[tuple[TndsNode, ...]]) -> TndsNode:
    children = tuple(
        TndsNode(name=str(number), format=Format.NODE, children=each) for number, each in enumerate(members, start=1)
    )
    return TndsNode(name=name, format=Format.NODE, children=children)


def _address_nodes(address: AppAddress) -> tuple[TndsNode, ...]:
    kind = address.addr_type.replace("IPV", "IPv")
    nodes = [_leaf("Addr", address.addr), _leaf("AddrType", kind)]
    if address.ports:
        nodes.append(_list("Port", [(_leaf("PortNbr", str(each.number)),) for each in address.ports]))
    return tuple(nodes)


def _credential_nodes(
    level: str, auth_type: str | None, name: str | None, secret: str | None, data: bytes | None
) -> tuple[TndsNode, ...]:
    texts = (("AAuthType", auth_type), ("AAuthName", name), ("AAuthSecret", secret))
    nodes = [_leaf("AAuthLevel", level), *(_leaf(each, text) for each, text in texts if text is not None)]
    return (*nodes, _leaf("AAuthData", data)) if data is not None else tuple(nodes)


# -- message → value --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Branch:
    """A node while the objects of a message are put together."""

    value: str | bytes | None = field(default=None, repr=False)
    object_type: str = ""
    acl: Acl | None = None
    children: dict[str, _Branch] = field(default_factory=dict)

    def below(self, path: tuple[str, ...]) -> _Branch:
        """The node at a path, made when it is not there."""
        branch = self
        for name in path:
            branch = branch.children.setdefault(name, _Branch())
        return branch

    def leaf(self, name: str) -> str | bytes | None:
        """Value of a child; None when there is no such child."""
        child = self.children.get(name)
        return None if child is None else child.value

    def text(self, name: str) -> str | None:
        """Value of a child as text."""
        value = self.leaf(name)
        if value is None and name in self.children:
            return ""
        if isinstance(value, bytes):
            try:
                value = value.decode()
            except UnicodeDecodeError as error:
                raise BootstrapRefused(BootstrapReason.INVALID, f"{name} is no text") from error
        if value is not None and len(value) > MAX_VALUE:
            raise BootstrapRefused(BootstrapReason.OVERSIZED, f"value of {len(value)} characters")
        return value

    def members(self, name: str) -> list[_Branch]:
        """The nodes of a list, in document order."""
        return list(self.children[name].children.values()) if name in self.children else []


@dataclass(slots=True)
class _Collected:
    """Everything that the Adds of a message bring."""

    inbox: list[_Branch] = field(default_factory=list)
    root: _Branch = field(default_factory=_Branch)
    nodes: int = 0

    def count(self, number: int = 1) -> None:
        self.nodes += number
        if self.nodes > MAX_NODES:
            raise BootstrapRefused(BootstrapReason.OVERSIZED, "number of nodes")


def read_message(body: bytes) -> DmProfileContent:
    """The accounts in a bootstrap message; its MAC has been verified before.

    Tolerated: any SessionID and MsgID, no Final, commands other than Add, Adds inside Atomic or Sequence, serialised
    trees in XML, `Path` instead of nesting, objects that are no accounts, an account in several versions (the newest
    counts), a nonce as Base64 text.

    Raises:
        BootstrapRefused: OVERSIZED; MALFORMED for octets that are no message or a tree that is none; MISSING without
            an account, and for what an account cannot do without; DUPLICATE, INVALID as in the CP profile.
    """
    if len(body) > MAX_MESSAGE:
        raise BootstrapRefused(BootstrapReason.OVERSIZED, f"message of {len(body)} octets")
    try:
        message = decode(body, Encoding.WBXML, max_size=MAX_MESSAGE)
        collected = _Collected()
        for command in walk(message.commands):
            if isinstance(command, Add):
                for item in command.items:
                    _collect(collected, item, command.meta)
    except BootstrapRefused:
        raise
    except MalformedMessage as error:
        raise BootstrapRefused(BootstrapReason.MALFORMED, f"no DM message: {error}") from error
    except MalformedTnds as error:
        raise BootstrapRefused(BootstrapReason.MALFORMED, f"no serialised tree: {error}") from error
    except RemoteProtocolError as error:
        raise BootstrapRefused(BootstrapReason.MALFORMED, str(error)) from error
    return _content(collected)


def _collect(collected: _Collected, item: Item, command_meta: Meta | None) -> None:
    meta = command_meta.inherited_by(item.meta) if command_meta is not None else item.meta or Meta()
    target = _segments(item.target or "")
    inbox = target[:1] == ("Inbox",)
    kind = (meta.type or "").partition(";")[0].strip().lower()
    serialised = kind in (MediaType.TNDS_WBXML, MediaType.TNDS_XML) or (inbox and not kind)
    if not serialised:
        if not inbox:
            _collect_node(collected, target, item, meta)
        return
    if item.data is None:
        raise BootstrapRefused(BootstrapReason.MALFORMED, "Add of a tree without a tree")
    if meta.format == Format.B64 and isinstance(item.data, str):
        document: str | bytes = item_value(item, command_meta)
    else:
        document = item.data
    place = _Branch()
    tnds = decode_tnds(document)
    collected.count(sum(1 for _ in tnds.walk()))
    own_name = target[-1] if target else ""
    for node in tnds.nodes:
        _place(place, node, (), own_name)
    if inbox:
        collected.inbox.append(place)
        return
    for name, branch in place.children.items():
        # An Add to ./DMAcc/x that names its node x means that node, and not one below it.
        there = collected.root.below(target if name == own_name else (*target, name))
        if there.children or there.value is not None:
            raise BootstrapRefused(BootstrapReason.DUPLICATE, "two Adds of one node")
        there.value, there.object_type, there.acl, there.children = (
            branch.value,
            branch.object_type,
            branch.acl,
            branch.children,
        )


def _collect_node(collected: _Collected, target: tuple[str, ...], item: Item, meta: Meta) -> None:
    """An Add of a single node to a fixed place."""
    collected.count()
    branch = collected.root.below(target)
    if meta.format == Format.NODE:
        branch.object_type = meta.type or ""
        return
    branch.value = item_value(replace(item, meta=meta))


def _segments(uri: str) -> tuple[str, ...]:
    try:
        return NodeUri.parse(uri).segments
    except MalformedUri as error:
        raise BootstrapRefused(BootstrapReason.MALFORMED, "Add to no address") from error


def _place(place: _Branch, node: TndsNode, parent: tuple[str, ...], own_name: str) -> None:
    base = parent if node.path is None else (*parent, *_segments(node.path))
    path = (*base, node.name or own_name or "?")
    branch = place.below(path)
    branch.value, branch.object_type, branch.acl = node.value, node.object_type, node.acl
    for child in node.children:
        _place(place, child, path, own_name)


def _content(collected: _Collected) -> DmProfileContent:
    accounts: list[tuple[int, _Branch]] = []  # rank of the identifier, the newest first
    skipped: list[str] = []
    for place in collected.inbox:
        for branch in place.children.values():
            found = list(_accounts_in(branch))
            accounts += found
            if not found:
                skipped.append(branch.object_type)
    for prefix in _ACCOUNT_PLACES:
        for branch in collected.root.below(prefix).children.values():
            rank = ACCOUNT_OBJECTS.index(branch.object_type) if branch.object_type in ACCOUNT_OBJECTS else 1
            accounts.append((rank, branch))
    if not accounts:
        raise BootstrapRefused(BootstrapReason.MISSING, "no DM account")
    if len(accounts) > MAX_ACCOUNTS:
        raise BootstrapRefused(BootstrapReason.OVERSIZED, "number of accounts")
    offers: dict[str, tuple[int, DmOffer]] = {}
    for rank, branch in accounts:
        offer = _offer(branch)
        server_id = offer.account.server_id
        if server_id in offers and offers[server_id][0] == rank:
            raise BootstrapRefused(BootstrapReason.DUPLICATE, "two accounts of one server")
        if server_id not in offers or rank < offers[server_id][0]:
            offers[server_id] = (rank, offer)
    return DmProfileContent(offers=tuple(offer for _, offer in offers.values()), skipped=tuple(skipped))


def _accounts_in(branch: _Branch) -> Iterator[tuple[int, _Branch]]:
    """Accounts at a node or, when it is only their parent, directly below."""
    for each in (branch, *branch.children.values()):
        if each.object_type in ACCOUNT_OBJECTS:
            yield ACCOUNT_OBJECTS.index(each.object_type), each


def _offer(branch: _Branch) -> DmOffer:
    if branch.text("AppID") not in (None, W7):
        raise BootstrapRefused(BootstrapReason.INVALID, "AppID of an account is not w7")
    addresses = _addresses(branch)
    usable = next((each for each in addresses if each.addr_type == "URI"), addresses[0])
    credentials = _credentials(branch)
    client, server, obex = (credentials.get(level) for level in ("CLCRED", "SRVCRED", "OBEX"))
    try:
        account = DmBootstrap(
            server_id=_required(branch, "ServerID"),
            addr=usable.addr,
            name=branch.text("Name"),
            port=usable.ports[0].number if usable.ports else None,
            client=_dm_credentials(client),
            server=_dm_credentials(server),
            obex=obex,
            auth_pref=branch.text("AAuthPref"),
            to_napids=_references(branch),
        )
        account = account if account.all_addresses == addresses else replace(account, addresses=addresses)
    except LocalProtocolError as error:
        raise error.__cause__ or error from None  # of a message, the rule it breaks is the peer's fault
    return DmOffer(account=account, acl=branch.acl if branch.acl is not None else Acl())


def _required(branch: _Branch, name: str) -> str:
    value = branch.text(name)
    if not value:
        raise BootstrapRefused(BootstrapReason.MISSING, name)
    return value


def _references(branch: _Branch) -> tuple[str, ...]:
    """Connections of the account. One that is in `./Inbox` was in this message, in an object we do not have."""
    found = [branch.text("PrefConRef"), *(each.text("ConRef") for each in branch.members("ToConRef"))]
    return tuple(dict.fromkeys(each for each in found if each and not each.startswith(INBOX)))


def _addresses(branch: _Branch) -> tuple[AppAddress, ...]:
    found = []
    for each in branch.members("AppAddr"):
        kind = (each.text("AddrType") or "URI").upper()
        found.append(AppAddress(addr=_required(each, "Addr"), addr_type=kind, ports=_ports(each)))
    if not found:
        raise BootstrapRefused(BootstrapReason.MISSING, "AppAddr")
    return tuple(found)


def _ports(branch: _Branch) -> tuple[Port, ...]:
    numbers = [each.text("PortNbr") or "" for each in branch.members("Port")]
    if len(numbers) > MAX_PORTS:
        raise BootstrapRefused(BootstrapReason.OVERSIZED, "number of ports")
    if not all(re.fullmatch(r"[0-9]{1,5}", each) and 1 <= int(each) <= 0xFFFF for each in numbers):
        raise BootstrapRefused(BootstrapReason.INVALID, "PortNbr")
    return tuple(Port(number=int(each)) for each in numbers)


def _credentials(branch: _Branch) -> dict[str, TransportCredentials]:
    found: dict[str, TransportCredentials] = {}
    for each in branch.members("AppAuth"):
        level = _required(each, "AAuthLevel")
        if level in found:
            raise BootstrapRefused(BootstrapReason.DUPLICATE, "credentials of one level")
        found[level] = TransportCredentials(
            auth_type=each.text("AAuthType"),
            name=each.text("AAuthName"),
            secret=each.text("AAuthSecret"),
            data=_nonce(each.leaf("AAuthData")),
        )
    return found


def _nonce(value: str | bytes | None) -> bytes | None:
    """`bin` octets, or text that is Base64 of them as in the CP profile."""
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        raise BootstrapRefused(BootstrapReason.INVALID, "AAuthData is no Base64") from None


def _dm_credentials(received: TransportCredentials | None) -> DmCredentials | None:
    if received is None:
        return None
    auth_type = AUTH_TYPES.get(received.auth_type or "DIGEST")
    if auth_type is None:
        raise BootstrapRefused(BootstrapReason.INVALID, "AAuthType is not one of BASIC, DIGEST, HMAC")
    if not received.secret:
        raise BootstrapRefused(BootstrapReason.MISSING, "AAuthSecret")
    return DmCredentials(auth_type=auth_type, name=received.name, secret=received.secret, nonce=received.data)
