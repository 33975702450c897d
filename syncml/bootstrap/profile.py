"""The account that a bootstrap document describes: w7 APPLICATION and NAPDEF (OMA-TS-DM_Bootstrap-V1_2 §5.3, AC w7).

`APPSRV` credentials authenticate the client at the server, `CLIENT` credentials the server at the client; in the
management tree they are CLCRED and SRVCRED. Some implementations have them the other way round, which is their mistake.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

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
MAX_CONNECTIONS: Final = 16  # NAPDEFs, and TO-NAPIDs of the account

_AUTH_NAMES: Final = {AuthType.BASIC: "BASIC", AuthType.MD5: "DIGEST", AuthType.MAC: "HMAC"}
_AUTH_TYPES: Final = {name: auth_type for auth_type, name in _AUTH_NAMES.items()}
_HOST: Final = re.compile(r"[A-Za-z0-9_.:-]+")
_BLANK: Final = re.compile(r"[\s\x00-\x1f\x7f]")


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
class NapDef:
    """A network access point."""

    napid: str  # unique within the document
    bearers: tuple[str, ...] = ()  # e.g. GSM-GPRS
    name: str | None = None
    address: str | None = None
    address_type: str | None = None  # e.g. APN


@dataclass(frozen=True, slots=True, kw_only=True)
class DmBootstrap:
    """A DM account and the connections it comes with (REQ-07)."""

    server_id: str
    addr: str  # http or https URL
    name: str | None = None
    port: int | None = None  # beside the URL; a port inside the URL wins
    client: DmCredentials | None = None  # APPSRV: the client proves itself with them
    server: DmCredentials | None = None  # CLIENT: the server proves itself with them
    to_napids: tuple[str, ...] = ()
    napdefs: tuple[NapDef, ...] = ()
    connect_now: bool = False  # INIT: start a session as soon as the account is there

    def __post_init__(self) -> None:
        try:
            _check(self)
        except BootstrapRefused as error:
            raise LocalProtocolError(str(error)) from error

    @property
    def server_url(self) -> str:
        """The URL to connect to, with `port` put in unless the URL has one already."""
        url = urlsplit(self.addr)
        if self.port is None or url.port is not None:
            return self.addr
        return url._replace(netloc=f"{url.netloc.removesuffix(':')}:{self.port}").geturl()


def _check(bootstrap: DmBootstrap) -> None:
    """Rules on values, the same for both directions."""
    if not is_acl_identifier(bootstrap.server_id):
        raise BootstrapRefused(BootstrapReason.INVALID, "PROVIDER-ID cannot stand in an ACL")
    _check_url(bootstrap.addr)
    if bootstrap.port is not None and not 1 <= bootstrap.port <= 0xFFFF:
        raise BootstrapRefused(BootstrapReason.INVALID, "PORTNBR out of range")
    napids = [each.napid for each in bootstrap.napdefs]
    if not all(napids):
        raise BootstrapRefused(BootstrapReason.MISSING, "NAPID in NAPDEF")
    if len(set(napids)) != len(napids):
        raise BootstrapRefused(BootstrapReason.DUPLICATE, "NAPID")
    if max(len(napids), len(bootstrap.to_napids)) > MAX_CONNECTIONS:
        raise BootstrapRefused(BootstrapReason.OVERSIZED, "number of connections")
    dangling = set(bootstrap.to_napids) - set(napids) - {INTERNET}
    if dangling and napids:  # without any NAPDEF the reference is to an access point the device has already
        raise BootstrapRefused(BootstrapReason.INVALID, "TO-NAPID names no NAPDEF")


def _check_url(addr: str) -> None:
    try:
        url = urlsplit(addr)
        named = url.hostname is not None and _HOST.fullmatch(url.hostname) is not None
        usable = url.scheme in ("http", "https") and named and url.port != 0 and url.username is None
    except ValueError:  # bad port or bad IPv6 literal
        usable = False
    if not usable or _BLANK.search(addr):
        raise BootstrapRefused(BootstrapReason.INVALID, "ADDR is no http or https URL")


# -- value → document -------------------------------------------------------------------------------------------------


def to_document(bootstrap: DmBootstrap) -> CpDocument:
    """The provisioning document for an account.

    Raises:
        LocalProtocolError: a value longer than a receiver has to accept.
    """
    parms = [Parm("APPID", W7), Parm("PROVIDER-ID", bootstrap.server_id)]
    if bootstrap.name is not None:
        parms.append(Parm("NAME", bootstrap.name))
    parms += [Parm("TO-NAPID", each) for each in bootstrap.to_napids]
    if bootstrap.connect_now:
        parms.append(Parm("INIT"))
    ports = () if bootstrap.port is None else (_group("PORT", Parm("PORTNBR", str(bootstrap.port))),)
    address = Characteristic(type="APPADDR", parms=(Parm("ADDR", bootstrap.addr),), characteristics=ports)
    credentials = [
        _credentials_group(level, each)
        for level, each in (("APPSRV", bootstrap.client), ("CLIENT", bootstrap.server))
        if each is not None
    ]
    account = Characteristic(type="APPLICATION", parms=tuple(parms), characteristics=(address, *credentials))
    document = CpDocument(characteristics=(*map(_napdef_group, bootstrap.napdefs), account))
    try:
        for group in document.characteristics:
            _check_sizes(group)
    except BootstrapRefused as error:
        raise LocalProtocolError(str(error)) from error
    return document


def _group(group_type: str, *parms: Parm | None) -> Characteristic:
    return Characteristic(type=group_type, parms=tuple(each for each in parms if each is not None))


def _optional(name: str, value: str | None) -> Parm | None:
    return None if value is None else Parm(name, value)


def _credentials_group(level: str, credentials: DmCredentials) -> Characteristic:
    nonce = None if credentials.nonce is None else base64.b64encode(credentials.nonce).decode()
    return _group(
        "APPAUTH",
        Parm("AAUTHLEVEL", level),
        Parm("AAUTHTYPE", _AUTH_NAMES[credentials.auth_type]),
        _optional("AAUTHNAME", credentials.name),
        Parm("AAUTHSECRET", credentials.secret),
        _optional("AAUTHDATA", nonce),
    )


def _napdef_group(napdef: NapDef) -> Characteristic:
    return _group(
        "NAPDEF",
        Parm("NAPID", napdef.napid),
        *(Parm("BEARER", each) for each in napdef.bearers),
        _optional("NAME", napdef.name),
        _optional("NAP-ADDRESS", napdef.address),
        _optional("NAP-ADDRTYPE", napdef.address_type),
    )


# -- document → value -------------------------------------------------------------------------------------------------


def from_document(document: CpDocument) -> DmBootstrap:
    """The account a provisioning document describes.

    Tolerated: characteristics and parms that we do not use, applications other than w7, an ADDR directly in
    APPLICATION when there is no APPADDR, an APPAUTH without AAUTHTYPE (MD5, which DM makes mandatory), credentials
    of level OBEX. Of several APPADDR or PORT the first counts, since their order is their priority.

    Raises:
        BootstrapRefused: MISSING for PROVIDER-ID, address, AAUTHLEVEL or NAPID; DUPLICATE for a second w7 account,
            NAPID, credentials of one level, or parm that occurs once; INVALID, OVERSIZED for values.
    """
    for group in document.characteristics:
        _check_sizes(group)
    accounts = [each for each in document.all("APPLICATION") if each.value("APPID") == W7]
    if not accounts:
        raise BootstrapRefused(BootstrapReason.MISSING, "no w7 APPLICATION")
    if len(accounts) > 1:
        raise BootstrapRefused(BootstrapReason.DUPLICATE, "two w7 APPLICATIONs")
    account = accounts[0]
    credentials = _read_credentials(account)
    addr, port = _read_address(account)
    try:
        return DmBootstrap(
            server_id=_required(account, "PROVIDER-ID"),
            addr=addr,
            name=account.value("NAME"),
            port=port,
            client=credentials.get("APPSRV"),
            server=credentials.get("CLIENT"),
            to_napids=account.values("TO-NAPID"),
            napdefs=tuple(_read_napdef(each) for each in document.all("NAPDEF")),
            connect_now=account.value("INIT") is not None,
        )
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


def _read_address(account: Characteristic) -> tuple[str, int | None]:
    addresses = account.all("APPADDR")
    if not addresses:
        if account.values("ADDR"):
            return account.values("ADDR")[0], None
        raise BootstrapRefused(BootstrapReason.MISSING, "APPADDR in APPLICATION")
    addr = _required(addresses[0], "ADDR")
    ports = addresses[0].all("PORT")
    number = ports[0].value("PORTNBR") if ports else None
    if number is None:
        return addr, None
    if not re.fullmatch(r"[0-9]{1,5}", number):
        raise BootstrapRefused(BootstrapReason.INVALID, "PORTNBR is no number")
    return addr, int(number)


def _read_credentials(account: Characteristic) -> dict[str, DmCredentials]:
    found: dict[str, DmCredentials] = {}
    for group in account.all("APPAUTH"):
        level = _required(group, "AAUTHLEVEL")
        if level not in ("APPSRV", "CLIENT"):
            continue
        if level in found:
            raise BootstrapRefused(BootstrapReason.DUPLICATE, f"credentials of level {level}")
        auth_type = _AUTH_TYPES.get(group.value("AAUTHTYPE") or "DIGEST")
        if auth_type is None:  # an account without the credentials it is meant to have would be worse than none
            raise BootstrapRefused(BootstrapReason.INVALID, "AAUTHTYPE is not one of BASIC, DIGEST, HMAC")
        found[level] = DmCredentials(
            auth_type=auth_type,
            name=group.value("AAUTHNAME"),
            secret=_required(group, "AAUTHSECRET"),
            nonce=_read_nonce(group.value("AAUTHDATA")),
        )
    return found


def _read_nonce(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BootstrapRefused(BootstrapReason.INVALID, "AAUTHDATA is not Base64") from error


def _read_napdef(group: Characteristic) -> NapDef:
    return NapDef(
        napid=_required(group, "NAPID"),
        bearers=group.values("BEARER"),
        name=group.value("NAME"),
        address=group.value("NAP-ADDRESS"),
        address_type=group.value("NAP-ADDRTYPE"),
    )
