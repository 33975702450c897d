"""The accounts that a bootstrap document describes: w7 APPLICATION (OMA-TS-DM_Bootstrap-V1_2 §5.3, AC w7).

`APPSRV` credentials authenticate the client at the server, `CLIENT` credentials the server at the client; in the
management tree they are CLCRED and SRVCRED. Some implementations have them the other way round, which is their mistake.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import urlsplit

from syncml.bootstrap.connectivity import (
    MAX_CONNECTIONS,
    Connectivity,
    NapDef,
    Port,
    PxLogical,
    check_connectivity,
    connectivity_groups,
    port_group,
    read_connectivity,
    read_ports,
)
from syncml.bootstrap.cp import Characteristic, CpDocument, Parm
from syncml.bootstrap.errors import BootstrapReason, BootstrapRefused
from syncml.codes import AuthType
from syncml.errors import LocalProtocolError
from syncml.tree import is_acl_identifier

W7: Final = "w7"
"""Application identifier of device management (OMNA)."""
INTERNET: Final = "INTERNET"
"""`TO-NAPID` for whatever connection the device has."""
MAX_VALUE: Final = 1024  # characters of any single value that becomes a node
MAX_ACCOUNTS: Final = 8  # in one document; ours
MAX_ADDRESSES: Final = 8  # of one account; ours

AUTH_NAMES: Final = {AuthType.BASIC: "BASIC", AuthType.MD5: "DIGEST", AuthType.MAC: "HMAC"}
"""`AAuthType` of the types a DM session can use."""
AUTH_TYPES: Final = {name: auth_type for auth_type, name in AUTH_NAMES.items()}
_HOST: Final = re.compile(r"[A-Za-z0-9_.:-]+")
_BLANK: Final = re.compile(r"[\s\x00-\x1f\x7f]")
_ACCOUNT_PARMS: Final = frozenset(
    {"APPID", "PROVIDER-ID", "NAME", "TO-NAPID", "TO-PROXY", "INIT", "ADDR", "AACCEPT", "APROTOCOL"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DmCredentials:
    """One direction's credentials."""

    auth_type: AuthType
    name: str | None = None
    secret: str = field(repr=False)
    nonce: bytes | None = field(default=None, repr=False)  # raw octets, not base64

    def __post_init__(self) -> None:
        if not self.secret:
            raise LocalProtocolError("credentials without a secret")


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportCredentials:
    """Credentials of level OBEX, which DM itself does not use; the type is a word such as HTTP-DIGEST."""

    auth_type: str | None = None
    name: str | None = None
    secret: str | None = field(default=None, repr=False)
    data: bytes | None = field(default=None, repr=False)  # raw octets, not base64


@dataclass(frozen=True, slots=True, kw_only=True)
class AppAddress:
    """An address of the server."""

    addr: str
    addr_type: str = "URI"  # or IPV4, IPV6, …
    ports: tuple[Port, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DmBootstrap:
    """A DM account and the connections it comes with (REQ-07)."""

    server_id: str
    addr: str  # http or https URL
    name: str | None = None
    port: int | None = None  # beside the URL; a port inside the URL wins
    addresses: tuple[AppAddress, ...] = ()  # all of them in their order, when there is more than `addr` and `port`
    client: DmCredentials | None = None  # APPSRV: the client proves itself with them
    server: DmCredentials | None = None  # CLIENT: the server proves itself with them
    obex: TransportCredentials | None = None
    auth_pref: str | None = None  # AAuthPref of the DM profile; w7 has no parameter for it
    to_proxies: tuple[str, ...] = ()
    to_napids: tuple[str, ...] = ()
    proxies: tuple[PxLogical, ...] = ()
    napdefs: tuple[NapDef, ...] = ()
    accept: str | None = None  # AACCEPT
    protocol: str | None = None  # APROTOCOL
    connect_now: bool = False  # INIT: start a session as soon as the account is there
    extras: tuple[Parm, ...] = ()  # what others put into APPLICATION: ROLE, PROTOVER, CONNRETRYFREQ, …

    def __post_init__(self) -> None:
        try:
            _check(self)
        except BootstrapRefused as error:
            raise LocalProtocolError(str(error)) from error

    @property
    def server_url(self) -> str:
        """The URL to connect to, with `port` put in unless the URL has one already."""
        return with_port(self.addr, self.port)

    @property
    def all_addresses(self) -> tuple[AppAddress, ...]:
        """Every address, first the one that counts most."""
        if self.addresses:
            return self.addresses
        return (AppAddress(addr=self.addr, ports=() if self.port is None else (Port(number=self.port),)),)

    @property
    def connections(self) -> tuple[str, ...]:
        """References to proxies and access points, as they become `PrefConRef` or `ToConRef`."""
        return (*self.to_proxies, *self.to_napids)


def with_port(addr: str, port: int | None) -> str:
    """A URL with a port put in, unless it has one already or there is none to put in."""
    url = urlsplit(addr)
    if port is None or url.port is not None:
        return addr
    return url._replace(netloc=f"{url.netloc.removesuffix(':')}:{port}").geturl()


def _check(bootstrap: DmBootstrap) -> None:
    """Rules on values, the same for both directions and profiles."""
    if not is_acl_identifier(bootstrap.server_id):
        raise BootstrapRefused(BootstrapReason.INVALID, "PROVIDER-ID cannot stand in an ACL")
    check_url(bootstrap.addr)
    if bootstrap.port is not None and not 1 <= bootstrap.port <= 0xFFFF:
        raise BootstrapRefused(BootstrapReason.INVALID, "PORTNBR out of range")
    check_connectivity(bootstrap.napdefs, bootstrap.proxies)
    napids = {each.napid for each in bootstrap.napdefs}
    if len(bootstrap.connections) > MAX_CONNECTIONS or len(bootstrap.addresses) > MAX_ADDRESSES:
        raise BootstrapRefused(BootstrapReason.OVERSIZED, "number of connections")
    # Without any NAPDEF or PXLOGICAL a reference is to one that the device has already.
    if napids and set(bootstrap.to_napids) - napids - {INTERNET}:
        raise BootstrapRefused(BootstrapReason.INVALID, "TO-NAPID names no NAPDEF")
    if bootstrap.proxies and set(bootstrap.to_proxies) - {each.proxy_id for each in bootstrap.proxies}:
        raise BootstrapRefused(BootstrapReason.INVALID, "TO-PROXY names no PXLOGICAL")


def check_url(addr: str) -> None:
    """An address that a DM session can go to.

    Raises:
        BootstrapRefused: INVALID.
    """
    try:
        url = urlsplit(addr)
        named = url.hostname is not None and _HOST.fullmatch(url.hostname) is not None
        usable = url.scheme in ("http", "https") and named and url.port != 0 and url.username is None
    except ValueError:  # bad port or bad IPv6 literal
        usable = False
    if not usable or _BLANK.search(addr):
        raise BootstrapRefused(BootstrapReason.INVALID, "ADDR is no http or https URL")


# -- value → document -------------------------------------------------------------------------------------------------


def to_document(bootstrap: DmBootstrap, *more: DmBootstrap) -> CpDocument:
    """The provisioning document for one account or several; connectivity that they share stands in it once.

    Raises:
        LocalProtocolError: a value longer than a receiver has to accept, or accounts that contradict each other.
    """
    accounts = (bootstrap, *more)
    shared = Connectivity(
        napdefs=tuple(dict.fromkeys(each for account in accounts for each in account.napdefs)),
        proxies=tuple(dict.fromkeys(each for account in accounts for each in account.proxies)),
    )
    document = CpDocument(characteristics=(*connectivity_groups(shared), *map(_account_group, accounts)))
    try:
        for group in document.characteristics:
            _check_sizes(group)
        if more:
            read_accounts(document)
    except BootstrapRefused as error:
        raise LocalProtocolError(str(error)) from error
    return document


def _account_group(bootstrap: DmBootstrap) -> Characteristic:
    parms = [Parm("APPID", W7), Parm("PROVIDER-ID", bootstrap.server_id)]
    parms += [
        Parm(name, value)
        for name, value in (
            ("NAME", bootstrap.name),
            ("AACCEPT", bootstrap.accept),
            ("APROTOCOL", bootstrap.protocol),
        )
        if value is not None
    ]
    parms += [Parm("TO-PROXY", each) for each in bootstrap.to_proxies]
    parms += [Parm("TO-NAPID", each) for each in bootstrap.to_napids]
    if bootstrap.connect_now:
        parms.append(Parm("INIT"))
    credentials = [
        _credentials_group(level, each)
        for level, each in (("APPSRV", bootstrap.client), ("CLIENT", bootstrap.server))
        if each is not None
    ]
    if bootstrap.obex is not None:
        credentials.append(_transport_group(bootstrap.obex))
    return Characteristic(
        type="APPLICATION",
        parms=(*parms, *bootstrap.extras),
        characteristics=(*map(_address_group, bootstrap.all_addresses), *credentials),
    )


def _address_group(address: AppAddress) -> Characteristic:
    kind = () if address.addr_type == "URI" else (Parm("ADDRTYPE", address.addr_type),)
    return Characteristic(
        type="APPADDR",
        parms=(Parm("ADDR", address.addr), *kind),
        characteristics=tuple(port_group(each) for each in address.ports),
    )


def _group(group_type: str, **parms: str | None) -> Characteristic:
    return Characteristic(
        type=group_type, parms=tuple(Parm(name, value) for name, value in parms.items() if value is not None)
    )


def _base64(octets: bytes | None) -> str | None:
    return None if octets is None else base64.b64encode(octets).decode()


def _credentials_group(level: str, credentials: DmCredentials) -> Characteristic:
    return _group(
        "APPAUTH",
        AAUTHLEVEL=level,
        AAUTHTYPE=AUTH_NAMES[credentials.auth_type],
        AAUTHNAME=credentials.name,
        AAUTHSECRET=credentials.secret,
        AAUTHDATA=_base64(credentials.nonce),
    )


def _transport_group(credentials: TransportCredentials) -> Characteristic:
    return _group(
        "APPAUTH",
        AAUTHLEVEL="OBEX",
        AAUTHTYPE=credentials.auth_type,
        AAUTHNAME=credentials.name,
        AAUTHSECRET=credentials.secret,
        AAUTHDATA=_base64(credentials.data),
    )


# -- document → value -------------------------------------------------------------------------------------------------


def from_document(document: CpDocument) -> DmBootstrap:
    """The account of a document that describes one; as `read_accounts`, and DUPLICATE for a second account."""
    accounts = read_accounts(document)
    if len(accounts) > 1:
        raise BootstrapRefused(BootstrapReason.DUPLICATE, "two w7 APPLICATIONs")
    return accounts[0]


def read_accounts(document: CpDocument) -> tuple[DmBootstrap, ...]:
    """The accounts a provisioning document describes, each with all connectivity of the document.

    Tolerated: characteristics and parms that we do not use, applications other than w7, an ADDR directly in
    APPLICATION when there is no APPADDR, an APPAUTH without AAUTHTYPE (MD5, which DM makes mandatory), of credentials
    a level we do not know. Of several APPADDR the first that is a URI counts, and of its PORTs the first, since their
    order is their priority.

    Raises:
        BootstrapRefused: MISSING when there is no account, and for PROVIDER-ID, address, AAUTHLEVEL, NAPID or
            PROXY-ID; DUPLICATE for a second account of one server, NAPID, credentials of one level, or parm that
            occurs once; INVALID, OVERSIZED for values.
    """
    for group in document.characteristics:
        _check_sizes(group)
    groups = [each for each in document.all("APPLICATION") if each.value("APPID") == W7]
    if not groups:
        raise BootstrapRefused(BootstrapReason.MISSING, "no w7 APPLICATION")
    if len(groups) > MAX_ACCOUNTS:
        raise BootstrapRefused(BootstrapReason.OVERSIZED, "number of accounts")
    connectivity = read_connectivity(document)
    accounts = tuple(_read_account(each, connectivity) for each in groups)
    if len({each.server_id for each in accounts}) != len(accounts):
        raise BootstrapRefused(BootstrapReason.DUPLICATE, "two accounts of one server")
    return accounts


def _read_account(group: Characteristic, connectivity: Connectivity) -> DmBootstrap:
    credentials = _read_credentials(group)
    addresses = _read_addresses(group)
    usable = next((each for each in addresses if each.addr_type == "URI"), addresses[0])
    try:
        account = DmBootstrap(
            server_id=_required(group, "PROVIDER-ID"),
            addr=usable.addr,
            name=group.value("NAME"),
            port=usable.ports[0].number if usable.ports else None,
            client=credentials.get("APPSRV"),
            server=credentials.get("CLIENT"),
            obex=_read_transport(group),
            to_proxies=group.values("TO-PROXY"),
            to_napids=group.values("TO-NAPID"),
            proxies=connectivity.proxies,
            napdefs=connectivity.napdefs,
            accept=group.value("AACCEPT"),
            protocol=group.value("APROTOCOL"),
            connect_now=bool(group.values("INIT")),
            extras=tuple(each for each in group.parms if each.name not in _ACCOUNT_PARMS),
        )
        return account if account.all_addresses == addresses else replace(account, addresses=addresses)
    except LocalProtocolError as error:
        raise error.__cause__ or error from None  # of a document, the rule it breaks is the peer's fault


def _check_sizes(group: Characteristic) -> None:
    for parm in group.parms:
        if parm.value is not None and len(parm.value) > MAX_VALUE:
            raise BootstrapRefused(BootstrapReason.OVERSIZED, f"value of {len(parm.value)} characters")
    for each in group.characteristics:
        _check_sizes(each)


def _required(group: Characteristic, name: str) -> str:
    value = group.value(name)
    if not value:
        raise BootstrapRefused(BootstrapReason.MISSING, f"{name} in {group.type}")
    return value


def _read_addresses(account: Characteristic) -> tuple[AppAddress, ...]:
    groups = account.all("APPADDR")
    if groups:
        return tuple(
            AppAddress(addr=_required(each, "ADDR"), addr_type=each.value("ADDRTYPE") or "URI", ports=read_ports(each))
            for each in groups
        )
    if account.values("ADDR"):
        return tuple(AppAddress(addr=each) for each in account.values("ADDR"))
    raise BootstrapRefused(BootstrapReason.MISSING, "APPADDR in APPLICATION")


def _read_credentials(account: Characteristic) -> dict[str, DmCredentials]:
    found: dict[str, DmCredentials] = {}
    for group in account.all("APPAUTH"):
        level = _required(group, "AAUTHLEVEL")
        if level not in ("APPSRV", "CLIENT"):
            continue
        if level in found:
            raise BootstrapRefused(BootstrapReason.DUPLICATE, f"credentials of level {level}")
        auth_type = AUTH_TYPES.get(group.value("AAUTHTYPE") or "DIGEST")
        if auth_type is None:  # an account without the credentials it is meant to have would be worse than none
            raise BootstrapRefused(BootstrapReason.INVALID, "AAUTHTYPE is not one of BASIC, DIGEST, HMAC")
        found[level] = DmCredentials(
            auth_type=auth_type,
            name=group.value("AAUTHNAME"),
            secret=_required(group, "AAUTHSECRET"),
            nonce=_read_nonce(group.value("AAUTHDATA")),
        )
    return found


def _read_transport(account: Characteristic) -> TransportCredentials | None:
    groups = [each for each in account.all("APPAUTH") if each.value("AAUTHLEVEL") == "OBEX"]
    if not groups:
        return None
    if len(groups) > 1:
        raise BootstrapRefused(BootstrapReason.DUPLICATE, "credentials of level OBEX")
    return TransportCredentials(
        auth_type=groups[0].value("AAUTHTYPE"),
        name=groups[0].value("AAUTHNAME"),
        secret=groups[0].value("AAUTHSECRET"),
        data=_read_nonce(groups[0].value("AAUTHDATA")),
    )


def _read_nonce(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BootstrapRefused(BootstrapReason.INVALID, "AAUTHDATA is not Base64") from error
