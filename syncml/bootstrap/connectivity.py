"""Connectivity in a provisioning document: access points, proxies and what belongs to them (ProvCont 1.1 §5.2, §5.3).

Each class is a view of one characteristic. Parameters that have no field of their own stay in `parms`, in their order,
so that reading and writing loses nothing: quality of service, line speeds, what vendors add.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from syncml.bootstrap.cp import Characteristic, CpDocument, Parm
from syncml.bootstrap.errors import BootstrapReason, BootstrapRefused

MAX_CONNECTIONS: Final = 16  # access points, proxies, and references to them; ours
MAX_PORTS: Final = 16  # of one address; ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A port and the services on it, e.g. CO-WSP."""

    number: int
    services: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NapAuthInfo:
    """How a device authenticates at an access point."""

    auth_type: str | None = None  # e.g. PAP, CHAP
    name: str | None = None
    secret: str | None = field(default=None, repr=False)
    entities: tuple[str, ...] = ()  # e.g. AAA, HA
    spi: str | None = None
    parms: tuple[Parm, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """Where and until when an access point can be used."""

    country: str | None = None  # mobile country code
    network: str | None = None
    sid: str | None = None
    soc: str | None = None
    valid_until: str | None = None
    parms: tuple[Parm, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NapDef:
    """A network access point."""

    napid: str  # unique within the document
    bearers: tuple[str, ...] = ()  # e.g. GSM-GPRS
    name: str | None = None
    internet: bool = False
    address: str | None = None
    address_type: str | None = None  # e.g. APN
    auth: tuple[NapAuthInfo, ...] = ()
    validity: tuple[Validity, ...] = ()
    parms: tuple[Parm, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PxAuthInfo:
    """How a device authenticates at a proxy."""

    auth_type: str | None = None
    id: str | None = None
    password: str | None = field(default=None, repr=False)
    parms: tuple[Parm, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PxPhysical:
    """One machine of a proxy."""

    physical_proxy_id: str | None = None
    address: str | None = None
    address_type: str | None = None  # e.g. IPV4
    to_napids: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    parms: tuple[Parm, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PxLogical:
    """A proxy."""

    proxy_id: str  # unique within the document
    password: str | None = field(default=None, repr=False)
    name: str | None = None
    startpage: str | None = None
    domains: tuple[str, ...] = ()
    auth: tuple[PxAuthInfo, ...] = ()
    ports: tuple[Port, ...] = ()
    physical: tuple[PxPhysical, ...] = ()
    parms: tuple[Parm, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapContext:
    """Characteristic BOOTSTRAP: for which network the document is, and where more comes from."""

    name: str | None = None
    networks: tuple[str, ...] = ()
    country: str | None = None
    proxy_ids: tuple[str, ...] = ()
    prov_url: str | None = None
    context_allow: str | None = None
    parms: tuple[Parm, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Characteristic ACCESS: which application goes which way."""

    rules: tuple[str, ...] = ()
    app_ids: tuple[str, ...] = ()
    port_numbers: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    to_napids: tuple[str, ...] = ()
    to_proxies: tuple[str, ...] = ()
    parms: tuple[Parm, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorConfig:
    """Characteristic VENDORCONFIG: what only the vendor knows, in order; even NAME may be there often."""

    parms: tuple[Parm, ...] = ()

    @property
    def name(self) -> str | None:
        """The first NAME."""
        return next((each.value for each in self.parms if each.name == "NAME"), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientIdentity:
    """Characteristic CLIENTIDENTITY."""

    client_id: str | None = None
    parms: tuple[Parm, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Connectivity:
    """Everything in a document that is no application."""

    napdefs: tuple[NapDef, ...] = ()
    proxies: tuple[PxLogical, ...] = ()
    contexts: tuple[BootstrapContext, ...] = ()
    identities: tuple[ClientIdentity, ...] = ()
    accesses: tuple[Access, ...] = ()
    vendor_configs: tuple[VendorConfig, ...] = ()


@dataclass(frozen=True, slots=True)
class _Shape:
    """How a characteristic maps to a class: parameters there once, parameters there often, switches, groups."""

    view: type[Any]
    single: dict[str, str] = field(default_factory=dict)
    several: dict[str, str] = field(default_factory=dict)
    switches: dict[str, str] = field(default_factory=dict)  # without a value
    groups: dict[str, str] = field(default_factory=dict)


_SHAPES: Final[dict[str, _Shape]] = {
    "NAPDEF": _Shape(
        NapDef,
        single={"NAPID": "napid", "NAME": "name", "NAP-ADDRESS": "address", "NAP-ADDRTYPE": "address_type"},
        several={"BEARER": "bearers"},
        switches={"INTERNET": "internet"},
        groups={"NAPAUTHINFO": "auth", "VALIDITY": "validity"},
    ),
    "NAPAUTHINFO": _Shape(
        NapAuthInfo,
        single={"AUTHTYPE": "auth_type", "AUTHNAME": "name", "AUTHSECRET": "secret", "SPI": "spi"},
        several={"AUTH-ENTITY": "entities"},
    ),
    "VALIDITY": _Shape(
        Validity,
        single={
            "COUNTRY": "country",
            "NETWORK": "network",
            "SID": "sid",
            "SOC": "soc",
            "VALIDUNTIL": "valid_until",
        },
    ),
    "PXLOGICAL": _Shape(
        PxLogical,
        single={"PROXY-ID": "proxy_id", "PROXY-PW": "password", "NAME": "name", "STARTPAGE": "startpage"},
        several={"DOMAIN": "domains"},
        groups={"PXAUTHINFO": "auth", "PORT": "ports", "PXPHYSICAL": "physical"},
    ),
    "PXAUTHINFO": _Shape(PxAuthInfo, single={"PXAUTH-TYPE": "auth_type", "PXAUTH-ID": "id", "PXAUTH-PW": "password"}),
    "PXPHYSICAL": _Shape(
        PxPhysical,
        single={"PHYSICAL-PROXY-ID": "physical_proxy_id", "PXADDR": "address", "PXADDRTYPE": "address_type"},
        several={"TO-NAPID": "to_napids", "DOMAIN": "domains"},
        groups={"PORT": "ports"},
    ),
    "BOOTSTRAP": _Shape(
        BootstrapContext,
        single={"NAME": "name", "COUNTRY": "country", "PROVURL": "prov_url", "CONTEXT-ALLOW": "context_allow"},
        several={"NETWORK": "networks", "PROXY-ID": "proxy_ids"},
    ),
    "CLIENTIDENTITY": _Shape(ClientIdentity, single={"CLIENT-ID": "client_id"}),
    "ACCESS": _Shape(
        Access,
        several={
            "RULE": "rules",
            "APPID": "app_ids",
            "PORTNBR": "port_numbers",
            "DOMAIN": "domains",
            "TO-NAPID": "to_napids",
            "TO-PROXY": "to_proxies",
        },
    ),
    "VENDORCONFIG": _Shape(VendorConfig),
}
_TOP: Final = {
    "PXLOGICAL": "proxies",
    "NAPDEF": "napdefs",
    "BOOTSTRAP": "contexts",
    "CLIENTIDENTITY": "identities",
    "ACCESS": "accesses",
    "VENDORCONFIG": "vendor_configs",
}


def read_connectivity(document: CpDocument) -> Connectivity:
    """All connectivity of a document; characteristics that are not known are passed over.

    Raises:
        BootstrapRefused: MISSING for NAPID and PROXY-ID; DUPLICATE for one of them that is there twice, and for a
            parameter that may occur once; OVERSIZED; INVALID for a port.
    """
    found = Connectivity(**{name: tuple(_read(each) for each in document.all(group)) for group, name in _TOP.items()})
    check_connectivity(found.napdefs, found.proxies)
    return found


def connectivity_groups(connectivity: Connectivity) -> tuple[Characteristic, ...]:
    """The characteristics of a document for it."""
    return tuple(_write(group, each) for group, name in _TOP.items() for each in getattr(connectivity, name))


def check_connectivity(napdefs: tuple[NapDef, ...], proxies: tuple[PxLogical, ...]) -> None:
    """Identifiers are there, and each once."""
    for name, identifiers in (
        ("NAPID", [each.napid for each in napdefs]),
        ("PROXY-ID", [each.proxy_id for each in proxies]),
    ):
        if not all(identifiers):
            raise BootstrapRefused(BootstrapReason.MISSING, name)
        if len(set(identifiers)) != len(identifiers):
            raise BootstrapRefused(BootstrapReason.DUPLICATE, name)
        if len(identifiers) > MAX_CONNECTIONS:
            raise BootstrapRefused(BootstrapReason.OVERSIZED, "number of connections")


def _read(group: Characteristic) -> Any:  # noqa: ANN401 (the class is what the table says)
    shape = _SHAPES[group.type]
    values: dict[str, Any] = {name: group.value(parm) for parm, name in shape.single.items()}
    values |= {name: group.values(parm) for parm, name in shape.several.items()}
    values |= {name: bool(group.values(parm)) for parm, name in shape.switches.items()}
    values |= {
        name: read_ports(group) if each == "PORT" else tuple(_read(inner) for inner in group.all(each))
        for each, name in shape.groups.items()
    }
    known = shape.single.keys() | shape.several.keys() | shape.switches.keys()
    values["parms"] = tuple(each for each in group.parms if each.name not in known)
    for name in ("napid", "proxy_id"):
        if name in values and not values[name]:
            raise BootstrapRefused(BootstrapReason.MISSING, f"identifier in {group.type}")
    return shape.view(**values)


def _write(group: str, view: Any) -> Characteristic:  # noqa: ANN401 (the class is what the table says)
    shape = _SHAPES[group]
    parms = [Parm(parm, value) for parm, name in shape.single.items() if (value := getattr(view, name)) is not None]
    parms += [Parm(parm, value) for parm, name in shape.several.items() for value in getattr(view, name)]
    parms += [Parm(parm) for parm, name in shape.switches.items() if getattr(view, name)]
    inner = [
        port_group(each) if name == "PORT" else _write(name, each)
        for name, attribute in shape.groups.items()
        for each in getattr(view, attribute)
    ]
    return Characteristic(type=group, parms=(*parms, *view.parms), characteristics=tuple(inner))


def read_ports(group: Characteristic) -> tuple[Port, ...]:
    """PORT groups inside; one without a number says nothing and is passed over.

    Raises:
        BootstrapRefused: INVALID, DUPLICATE, OVERSIZED.
    """
    ports = []
    for each in group.all("PORT"):
        number = each.value("PORTNBR")
        if number is None:
            continue
        if not re.fullmatch(r"[0-9]{1,5}", number):
            raise BootstrapRefused(BootstrapReason.INVALID, "PORTNBR is no number")
        if not 1 <= int(number) <= 0xFFFF:
            raise BootstrapRefused(BootstrapReason.INVALID, "PORTNBR out of range")
        ports.append(Port(number=int(number), services=each.values("SERVICE")))
    if len(ports) > MAX_PORTS:
        raise BootstrapRefused(BootstrapReason.OVERSIZED, "number of ports")
    return tuple(ports)


def port_group(port: Port) -> Characteristic:
    """The characteristic for a port."""
    services = tuple(Parm("SERVICE", each) for each in port.services)
    return Characteristic(type="PORT", parms=(Parm("PORTNBR", str(port.number)), *services))
