"""DM accounts: from a bootstrap document into `./DMAcc`, and from there into sessions (OMA-TS-DM_StdObj-V1_2 §5.3.3).

The tree is the truth: what an authorised server writes to its account counts from the next session on. Secrets are
nodes without Get, so they can be replaced and never read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from dmclient.management_tree import WILDCARD, Hooks, ManagementTree
from dmclient.nodes import NodeMap, Path, Value
from dmclient.objects import description
from dmclient.objects.m2m import objects_in
from dmclient.objects.m2msim import M2MSIM
from mo_definitions import DM_ACCOUNT, DM_ACCOUNT_BEFORE
from mo_definitions.standard import CLCRED, SRVCRED, AccountNode, AddressNode, CredentialNode
from syncml.accounts import ClientAccount
from syncml.bootstrap.profile import AUTH_NAMES, AUTH_TYPES, W7, AppAddress, DmBootstrap, DmCredentials, with_port
from syncml.codes import AuthType
from syncml.tree import AccessType, Acl

DM_ACC: Final[Path] = ("DMAcc",)
_ADDRESS_TYPES: Final = {"IPV4": "IPv4", "IPV6": "IPv6"}  # w7 → DMAcc


@dataclass(frozen=True, slots=True, kw_only=True)
class _Credentials:
    auth_type: AuthType
    name: str
    secret: str = field(repr=False)
    nonce: bytes = field(repr=False)  # raw octets


def mount_accounts(tree: ManagementTree) -> None:
    """Make `./DMAcc`, without any account."""
    tree.mount(DM_ACC, description("DMAcc"))
    tree.built_in(DM_ACC)
    for object_type in (DM_ACCOUNT, DM_ACCOUNT_BEFORE):
        tree.keep_objects(object_type, DM_ACC)

    def forget(nodes: NodeMap, account: Path) -> None:
        tree.forget_server(_text(nodes, account, AccountNode.SERVER_ID), nodes)

    tree.hook((*DM_ACC, WILDCARD), Hooks(deleting=forget))


def write_account(tree: ManagementTree, bootstrap: DmBootstrap, *, acl: Acl | None = None) -> Path:
    """Make or renew the account of a server; returns its address.

    In the CP profile (`acl` None) the server gets Get, Replace and Delete on everything that came from its document
    (OMA-TS-DM_Bootstrap-V1_2 §5.3.3); in the DM profile the document says it (§5.4.2). The first server owns the M2M
    objects (REQ-05).
    """
    nodes = tree.nodes
    account = account_path(nodes, bootstrap.server_id)
    if account is None:
        account = (*DM_ACC, _free_name(nodes))
        if not nodes.children(DM_ACC):
            grant_objects(tree, bootstrap.server_id)
    else:
        nodes.remove(account)
    _put(tree, account, "")
    own = Acl.granting(bootstrap.server_id, {AccessType.GET, AccessType.REPLACE, AccessType.DELETE})
    nodes.change(account, acl=own if acl is None else acl or None)  # an empty list inherits, like no list
    _put(tree, (*account, *AccountNode.APP_ID.segments), W7)
    _put(tree, (*account, *AccountNode.SERVER_ID.segments), bootstrap.server_id)
    if bootstrap.name is not None:
        _put(tree, (*account, *AccountNode.NAME.segments), bootstrap.name)
    _put_connections(tree, account, bootstrap.connections)
    _put_addresses(tree, (*account, *AccountNode.APP_ADDR.segments), bootstrap.all_addresses)
    if bootstrap.auth_pref is not None:
        _put(tree, (*account, *AccountNode.A_AUTH_PREF.segments), bootstrap.auth_pref)
    base = (*account, *AccountNode.APP_AUTH.segments)
    levels = [(CLCRED, bootstrap.client), (SRVCRED, bootstrap.server)]
    if any(credentials is not None for _, credentials in levels) or bootstrap.obex is not None:
        _put(tree, base, "")
    for index, (level, credentials) in enumerate(levels, start=1):
        if credentials is not None:
            _put_credentials(tree, (*base, str(index)), level, credentials)
    if bootstrap.obex is not None:
        obex = bootstrap.obex
        _put_credential_nodes(
            tree, (*base, "3"), "OBEX", (obex.auth_type or "", obex.name or "", obex.secret or "", obex.data or b"")
        )
    return account


def _put_connections(tree: ManagementTree, account: Path, connections: tuple[str, ...]) -> None:
    """One reference is the preferred one, several are a list (OMA-TS-DM_Bootstrap-V1_2 §5.3.2)."""
    if len(connections) == 1:
        _put(tree, (*account, *AccountNode.PREF_CON_REF.segments), connections[0])
        return
    for index, connection in enumerate(connections, start=1):
        reference = (*account, *AccountNode.TO_CON_REF.segments, str(index))
        _put(tree, reference[:-1], "")
        _put(tree, reference, "")
        _put(tree, (*reference, "ConRef"), connection)


def _put_addresses(tree: ManagementTree, base: Path, addresses: tuple[AppAddress, ...]) -> None:
    """Numbered in the order of their priority. One that a session can go to comes first."""
    _put(tree, base, "")
    ordered = sorted(addresses, key=lambda each: each.addr_type != "URI")
    for index, address in enumerate(ordered, start=1):
        path = (*base, str(index))
        _put(tree, path, "")
        _put(tree, (*path, *AddressNode.ADDR.segments), address.addr)
        _put(tree, (*path, *AddressNode.ADDR_TYPE.segments), _ADDRESS_TYPES.get(address.addr_type, address.addr_type))
        for number, port in enumerate(address.ports, start=1):
            place = (*path, *AddressNode.PORT.segments, str(number))
            _put(tree, place[:-1], "")
            _put(tree, place, "")
            _put(tree, (*place, "PortNbr"), str(port.number))


def grant_objects(tree: ManagementTree, server_id: str) -> None:
    """Make one server the owner of the M2M objects: others may read M2MMobj and see nothing of M2MSIMMobj."""
    everybody_reads = f"Get=*&Replace={server_id}&Exec={server_id}"
    objects = objects_in(tree.nodes)
    if not objects:
        return  # a DM device without trusted environment has no such objects
    for path in objects:
        tree.nodes.change(path, acl=Acl.parse(everybody_reads))
    all_rights = {AccessType.ADD, AccessType.DELETE, AccessType.GET, AccessType.REPLACE, AccessType.EXEC}
    tree.nodes.change(M2MSIM, acl=Acl.granting(server_id, all_rights))


def account_path(nodes: NodeMap, server_id: str) -> Path | None:
    """Where the account of that server is."""
    return next((path for path in _accounts(nodes) if _text(nodes, path, AccountNode.SERVER_ID) == server_id), None)


def server_ids(nodes: NodeMap) -> tuple[str, ...]:
    """Servers with an account, oldest first."""
    return tuple(_text(nodes, path, AccountNode.SERVER_ID) for path in _accounts(nodes))


def client_account(nodes: NodeMap, server_id: str, *, tls: bool) -> ClientAccount | None:
    """What a session needs of the account; None when it is gone, or lacks an address or client credentials.

    Without server credentials in the account, TLS has to be what authenticates the server: when there is none
    (`tls` False), MD5 is demanded of a server that has nothing to prove itself with, and no session can succeed.
    """
    path = account_path(nodes, server_id)
    if path is None:
        return None
    address = next(iter(nodes.children((*path, *AccountNode.APP_ADDR.segments))), None)
    client = _credentials(nodes, path, CLCRED)
    if address is None or client is None:
        return None
    server = _credentials(nodes, path, SRVCRED)
    return ClientAccount(
        server_id=server_id,
        server_uri=_server_uri(nodes, (*path, *AccountNode.APP_ADDR.segments, address)),
        client_auth=client.auth_type,
        client_name=client.name,
        client_secret=client.secret,
        client_nonce=client.nonce,
        server_auth=server.auth_type if server is not None else (None if tls else AuthType.MD5),
        server_name=server.name or server_id if server is not None else server_id,
        server_secret=server.secret if server is not None else "",
        server_nonce=server.nonce if server is not None else b"",
    )


def _server_uri(nodes: NodeMap, address: Path) -> str:
    """The URL of an address, with its first port put in unless it has one already."""
    uri = nodes.text((*address, *AddressNode.ADDR.segments))
    port = (*address, *AddressNode.PORT.segments)
    number = next((nodes.text((*port, each, "PortNbr")) for each in nodes.children(port)), "")
    if not number.isascii() or not number.isdecimal() or not 1 <= int(number[:6]) <= 0xFFFF:
        return uri
    try:
        return with_port(uri, int(number))
    except ValueError:  # a server wrote something else there; the session will say that it is no address
        return uri


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSecret:
    """What a server proves itself with in a notification, whatever type it uses in sessions."""

    secret: str = field(repr=False)
    nonce: bytes = field(repr=False)  # raw octets


def server_secret(nodes: NodeMap, server_id: str) -> ServerSecret | None:
    """The SRVCRED secret of a server's account; None when there is no account, or none with such credentials."""
    account = account_path(nodes, server_id)
    path = None if account is None else _level_path(nodes, account, SRVCRED)
    if path is None:
        return None
    nonce = nodes.value((*path, *CredentialNode.DATA.segments))
    secret = nodes.text((*path, *CredentialNode.SECRET.segments))
    return ServerSecret(secret=secret, nonce=nonce if isinstance(nonce, bytes) else b"") if secret else None


def store_nonce(nodes: NodeMap, server_id: str, level: str, nonce: bytes) -> None:
    """Keep the nonce for the next session; `level` is CLCRED or SRVCRED."""
    path = account_path(nodes, server_id)
    found = None if path is None else _level_path(nodes, path, level)
    if found is not None:
        nodes.change((*found, *CredentialNode.DATA.segments), value=nonce)


def is_secure(url: str) -> bool:
    """Whether an address is reached over TLS."""
    return urlsplit(url).scheme.lower() == "https"


def _accounts(nodes: NodeMap) -> Iterator[Path]:
    return ((*DM_ACC, name) for name in nodes.children(DM_ACC))


def _text(nodes: NodeMap, path: Path, node: AccountNode) -> str:
    return nodes.text((*path, *node.segments))


def _level_path(nodes: NodeMap, account: Path, level: str) -> Path | None:
    """The credentials of that level that sessions use: of the type in AAuthPref if there are any, else the first."""
    base = (*account, *AccountNode.APP_AUTH.segments)
    paths = [(*base, name) for name in nodes.children(base)]
    usable = [
        path
        for path in paths
        if nodes.text((*path, *CredentialNode.LEVEL.segments)) == level and _auth_type(nodes, path) is not None
    ]
    preferred = AUTH_TYPES.get(_text(nodes, account, AccountNode.A_AUTH_PREF))
    return min(usable, key=lambda path: _auth_type(nodes, path) is not preferred, default=None)


def _auth_type(nodes: NodeMap, path: Path) -> AuthType | None:
    return AUTH_TYPES.get(nodes.text((*path, *CredentialNode.TYPE.segments)))


def _credentials(nodes: NodeMap, account: Path, level: str) -> _Credentials | None:
    path = _level_path(nodes, account, level)
    auth_type = None if path is None else _auth_type(nodes, path)
    if path is None or auth_type is None:
        return None
    nonce = nodes.value((*path, *CredentialNode.DATA.segments))
    return _Credentials(
        auth_type=auth_type,
        name=nodes.text((*path, *CredentialNode.NAME.segments)),
        secret=nodes.text((*path, *CredentialNode.SECRET.segments)),
        nonce=nonce if isinstance(nonce, bytes) else b"",
    )


def _put_credentials(tree: ManagementTree, path: Path, level: str, credentials: DmCredentials) -> None:
    values = (AUTH_NAMES[credentials.auth_type], credentials.name or "", credentials.secret, credentials.nonce or b"")
    _put_credential_nodes(tree, path, level, values)


def _put_credential_nodes(tree: ManagementTree, path: Path, level: str, values: tuple[str, str, str, bytes]) -> None:
    auth_type, name, secret, nonce = values
    _put(tree, path, "")
    _put(tree, (*path, *CredentialNode.LEVEL.segments), level)
    _put(tree, (*path, *CredentialNode.TYPE.segments), auth_type)
    _put(tree, (*path, *CredentialNode.NAME.segments), name)
    _put(tree, (*path, *CredentialNode.SECRET.segments), secret)
    _put(tree, (*path, *CredentialNode.DATA.segments), nonce)


def _put(tree: ManagementTree, path: Path, value: Value) -> None:
    tree.nodes.put(path, value, like=tree.described(path))


def _free_name(nodes: NodeMap) -> str:
    taken = set(nodes.children(DM_ACC))
    return next(str(number) for number in range(1, len(taken) + 2) if str(number) not in taken)
