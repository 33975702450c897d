"""Client provisioning documents and their WBXML form (OMA-WAP-TS-ProvCont-V1_1 §5).

Names are upper case and compare case by case. What a reader does not know it passes over, as §5.1 demands: this layer
keeps unknown characteristics and parms, and drops elements that are neither.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from syncml.bootstrap.errors import BootstrapReason, BootstrapRefused
from syncml.errors import LocalProtocolError
from syncml.wbxml import Element, Limits, MalformedWbxml, read_document, write_document
from syncml.wbxml.prov_pages import PROV_1_1

MAX_DOCUMENT_SIZE: Final = 32 * 1024  # octets; 255 concatenated short messages carry about as much
MAX_DEPTH: Final = 8  # elements inside each other; a document needs four
MAX_ITEMS: Final = 4000
_LIMITS: Final = Limits(
    max_size=MAX_DOCUMENT_SIZE, max_depth=MAX_DEPTH, max_items=MAX_ITEMS, max_text=2 * MAX_DOCUMENT_SIZE
)


@dataclass(frozen=True, slots=True)
class Parm:
    """A parameter; `value` None means that the attribute is absent, as for switches like INIT."""

    name: str
    value: str | None = field(default=None, repr=False)  # may be a secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Characteristic:
    """A group of parameters."""

    type: str
    parms: tuple[Parm, ...] = ()
    characteristics: tuple[Characteristic, ...] = ()

    def all(self, characteristic_type: str) -> tuple[Characteristic, ...]:
        """Groups of that type directly inside."""
        return tuple(each for each in self.characteristics if each.type == characteristic_type)

    def values(self, name: str) -> tuple[str, ...]:
        """Values of all parameters of that name; one without a value counts as empty."""
        return tuple(each.value or "" for each in self.parms if each.name == name)

    def value(self, name: str) -> str | None:
        """Value of a parameter that may occur once, None when it does not.

        Raises:
            BootstrapRefused: it occurs twice.
        """
        values = self.values(name)
        if len(values) > 1:
            raise BootstrapRefused(BootstrapReason.DUPLICATE, f"{name} in {self.type}")
        return values[0] if values else None


@dataclass(frozen=True, slots=True, kw_only=True)
class CpDocument:
    """A `wap-provisioningdoc`."""

    characteristics: tuple[Characteristic, ...]
    version: str = "1.1"

    def all(self, characteristic_type: str) -> tuple[Characteristic, ...]:
        """Top-level groups of that type."""
        return tuple(each for each in self.characteristics if each.type == characteristic_type)


def encode_cp(document: CpDocument) -> bytes:
    """The document in WBXML 1.3 with public identifier 0B.

    Raises:
        LocalProtocolError: it is too large, or a value contains NUL.
    """
    root = Element(
        name="wap-provisioningdoc",
        attributes=(("version", document.version),),
        content=tuple(_characteristic_element(each) for each in document.characteristics),
    )
    octets = write_document(root, PROV_1_1)
    if len(octets) > MAX_DOCUMENT_SIZE:
        raise LocalProtocolError(f"provisioning document of {len(octets)} octets")
    return octets


def _characteristic_element(characteristic: Characteristic) -> Element:
    parms = tuple(
        Element(
            name="parm",
            attributes=(("name", each.name),) if each.value is None else (("name", each.name), ("value", each.value)),
        )
        for each in characteristic.parms
    )
    groups = tuple(_characteristic_element(each) for each in characteristic.characteristics)
    return Element(name="characteristic", attributes=(("type", characteristic.type),), content=parms + groups)


def decode_cp(octets: bytes) -> CpDocument:
    """Read a WBXML provisioning document.

    Raises:
        BootstrapRefused: OVERSIZED; MALFORMED for octets that are no such document, a characteristic without type or a
            parm without name; DUPLICATE for an attribute that is there twice.
    """
    if len(octets) > MAX_DOCUMENT_SIZE:
        raise BootstrapRefused(BootstrapReason.OVERSIZED, f"document of {len(octets)} octets")
    try:
        root = read_document(octets, PROV_1_1, _LIMITS)
    except MalformedWbxml as error:
        raise BootstrapRefused(BootstrapReason.MALFORMED, str(error)) from error
    characteristics = tuple(_read_characteristic(each) for each in root.elements if each.name == "characteristic")
    return CpDocument(version=_attribute(root, "version") or "1.0", characteristics=characteristics)


def _read_characteristic(element: Element) -> Characteristic:
    characteristic_type = _attribute(element, "type")
    if characteristic_type is None:
        raise BootstrapRefused(BootstrapReason.MALFORMED, "characteristic without type")
    return Characteristic(
        type=characteristic_type,
        parms=tuple(_read_parm(each) for each in element.elements if each.name == "parm"),
        characteristics=tuple(_read_characteristic(each) for each in element.elements if each.name == "characteristic"),
    )


def _read_parm(element: Element) -> Parm:
    name = _attribute(element, "name")
    if name is None:
        raise BootstrapRefused(BootstrapReason.MALFORMED, "parm without name")
    return Parm(name, _attribute(element, "value"))


def _attribute(element: Element, name: str) -> str | None:
    values = [value for each, value in element.attributes if each == name]
    if len(values) > 1:
        raise BootstrapRefused(BootstrapReason.DUPLICATE, f"attribute {name} of {element.name}")
    return values[0] if values else None
