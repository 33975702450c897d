"""DM accounts: from a bootstrap document into `./DMAcc`, and from there into sessions (OMA-TS-DM_StdObj-V1_2 §5.3.3).

The tree is the truth: what an authorised server writes to its account counts from the next session on. Secrets are
nodes without Get, so they can be replaced and never read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from dmclient.management_tree import ManagementTree
from dmclient.nodes import NodeMap, Path, Value
from dmclient.objects import description
from dmclient.objects.m2m import M2M
from dmclient.objects.m2msim import M2MSIM
from mo_definitions import DM_ACCOUNT, DM_ACCOUNT_BEFORE
from mo_definitions.standard import CLCRED, SRVCRED, AccountNode, AddressNode, CredentialNode
from syncml.accounts import ClientAccount
from syncml.bootstrap.profile import DmBootstrap, DmCredentials
from syncml.codes import AuthType
from syncml.tree import AccessType, Acl

DM_ACC: Final[Path] = ("DMAcc",)
_AUTH_NAMES: Final = {AuthType.BASIC: "BASIC", AuthType.MD5: "DIGEST", AuthType.MAC: "HMAC"}
_AUTH_TYPES: Final = {name: auth_type for auth_type, name in _AUTH_NAMES.items()}


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


def write_account(tree: ManagementTree, bootstrap: DmBootstrap) -> Path:
    """Make or renew the account of a server; returns its address.

    The server gets Get, Replace and Delete on everything that came from its document (OMA-TS-DM_Bootstrap-V1_2 §5.3),
    and the first server owns the M2M objects (REQ-05).
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
    nodes.change(account, acl=own)
    _put(tree, (*account, *AccountNode.APP_ID.segments), "w7")
    _put(tree, (*account, *AccountNode.SERVER_ID.segments), bootstrap.server_id)
    if bootstrap.name is not None:
        _put(tree, (*account, *AccountNode.NAME.segments), bootstrap.name)
    if len(bootstrap.to_napids) == 1:
        _put(tree, (*account, *AccountNode.PREF_CON_REF.segments), bootstrap.to_napids[0])
    for index, napid in enumerate(bootstrap.to_napids if len(bootstrap.to_napids) > 1 else (), start=1):
        reference = (*account, *AccountNode.TO_CON_REF.segments, str(index))
        _put(tree, reference[:-1], "")
        _put(tree, reference, "")
        _put(tree, (*reference, "ConRef"), napid)
    address = (*account, *AccountNode.APP_ADDR.segments, "1")
    _put(tree, address[:-1], "")
    _put(tree, address, "")
    _put(tree, (*address, *AddressNode.ADDR.segments), bootstrap.server_url)
    _put(tree, (*address, *AddressNode.ADDR_TYPE.segments), "URI")
    levels = [(CLCRED, bootstrap.client), (SRVCRED, bootstrap.server)]
    if any(credentials is not None for _, credentials in levels):
        _put(tree, (*account, *AccountNode.APP_AUTH.segments), "")
    for index, (level, credentials) in enumerate(levels, start=1):
        if credentials is not None:
            _put_credentials(tree, (*account, *AccountNode.APP_AUTH.segments, str(index)), level, credentials)
    return account


def grant_objects(tree: ManagementTree, server_id: str) -> None:
    """Make one server the owner of the M2M objects: others may read M2MMobj and see nothing of M2MSIMMobj."""
    everybody_reads = f"Get=*&Replace={server_id}&Exec={server_id}"
    if M2M not in tree.nodes:
        return  # a DM device without trusted environment has no such objects
    tree.nodes.change(M2M, acl=Acl.parse(everybody_reads))
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
        server_uri=nodes.text((*path, *AccountNode.APP_ADDR.segments, address, *AddressNode.ADDR.segments)),
        client_auth=client.auth_type,
        client_name=client.name,
        client_secret=client.secret,
        client_nonce=client.nonce,
        server_auth=server.auth_type if server is not None else (None if tls else AuthType.MD5),
        server_name=server.name or server_id if server is not None else server_id,
        server_secret=server.secret if server is not None else "",
        server_nonce=server.nonce if server is not None else b"",
    )


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
    base = (*account, *AccountNode.APP_AUTH.segments)
    paths = ((*base, name) for name in nodes.children(base))
    return next((path for path in paths if nodes.text((*path, *CredentialNode.LEVEL.segments)) == level), None)


def _credentials(nodes: NodeMap, account: Path, level: str) -> _Credentials | None:
    path = _level_path(nodes, account, level)
    if path is None:
        return None
    auth_type = _AUTH_TYPES.get(nodes.text((*path, *CredentialNode.TYPE.segments)))
    if auth_type not in (AuthType.BASIC, AuthType.MD5):  # auth-MAC is not built yet
        return None
    nonce = nodes.value((*path, *CredentialNode.DATA.segments))
    return _Credentials(
        auth_type=auth_type,
        name=nodes.text((*path, *CredentialNode.NAME.segments)),
        secret=nodes.text((*path, *CredentialNode.SECRET.segments)),
        nonce=nonce if isinstance(nonce, bytes) else b"",
    )


def _put_credentials(tree: ManagementTree, path: Path, level: str, credentials: DmCredentials) -> None:
    _put(tree, path, "")
    _put(tree, (*path, *CredentialNode.LEVEL.segments), level)
    _put(tree, (*path, *CredentialNode.TYPE.segments), _AUTH_NAMES[credentials.auth_type])
    _put(tree, (*path, *CredentialNode.NAME.segments), credentials.name or "")
    _put(tree, (*path, *CredentialNode.SECRET.segments), credentials.secret)
    _put(tree, (*path, *CredentialNode.DATA.segments), credentials.nonce or b"")


def _put(tree: ManagementTree, path: Path, value: Value) -> None:
    tree.nodes.put(path, value, like=tree.described(path))


def _free_name(nodes: NodeMap) -> str:
    taken = set(nodes.children(DM_ACC))
    return next(str(number) for number in range(1, len(taken) + 2) if str(number) not in taken)
