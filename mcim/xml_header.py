"""The header of an M2MSIMPackage in XML, and the parser before it. Nothing here opens anything."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from lxml import etree

from mcim.errors import PackageRefused
from mcim.header_fields import NAME, PackageHeader, matched
from mcim.vocabulary import MAX_PACKAGE_SIZE, MCIM_NAMESPACE, Operation, ResultCode, Suite

ROOT: Final = f"{{{MCIM_NAMESPACE}}}M2MSIMPackage"
HEADER: Final = f"{{{MCIM_NAMESPACE}}}Header"
FIELDS: Final = (
    "TransactionId", "SequenceNumber", "RegistrationNonce", "M2MEId", "TREId", "PlatformKeyId", "SHOId", "DPFId",
    "Operation", "MCIMId", "Suite", "NotBefore", "NotAfter", "TicketDigest", "AuthMode",
)  # fmt: skip
EPHEMERAL: Final = "EphemeralKey"  # last, with EC recipients only
NEW_SHO: Final = "NewSHOId"  # last, in a release token only
NSMAP: Final[Any] = {None: MCIM_NAMESPACE}  # the stubs know no default namespace
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
_OPERATIONS: Final = {operation.label: operation for operation in Operation}


def safe_parser() -> etree.XMLParser:
    """The one XML parser of this library: no DTD, no entities, no network, no huge trees; comments stay visible."""
    return etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)


def parse_package(package: bytes) -> etree._Element:
    """Parse the octets of a package and refuse what no package may contain (REQ-59).

    Raises:
        PackageRefused: UNSUPPORTED_SUITE is never raised here; MALFORMED for size, XML that is not well-formed, or
            another root; SIGNATURE_INVALID for a DOCTYPE, entity, comment or processing instruction, since none of
            them is covered by the signature.
    """
    if len(package) > MAX_PACKAGE_SIZE:
        raise PackageRefused(ResultCode.MALFORMED, f"more than {MAX_PACKAGE_SIZE} octets")
    try:
        root = etree.fromstring(package, safe_parser())
    except (etree.XMLSyntaxError, ValueError) as exc:
        raise PackageRefused(ResultCode.MALFORMED, "not well-formed XML") from exc
    tree = root.getroottree()
    beside = root.getprevious() is not None or root.getnext() is not None
    if tree.docinfo.internalDTD is not None or tree.docinfo.doctype or beside:
        raise PackageRefused(ResultCode.SIGNATURE_INVALID, "a DOCTYPE, comment or instruction beside the root")
    if any(not isinstance(element.tag, str) for element in root.iter()):
        raise PackageRefused(ResultCode.SIGNATURE_INVALID, "a comment, instruction or entity")
    if root.tag != ROOT or dict(root.attrib) != {"version": "1"}:
        raise PackageRefused(ResultCode.MALFORMED, "not an M2MSIMPackage of version 1")
    return root


def header_element(header: PackageHeader) -> etree._Element:
    """The header as an XML element."""
    values = (
        header.transaction_id.hex,
        str(header.sequence),
        base64.b64encode(header.registration_nonce).decode(),
        header.m2me_id,
        header.tre_id,
        header.platform_key_id.hex(),
        header.sho_id,
        header.dpf_id,
        header.operation.label,
        str(header.mcim_id),
        header.suite.label,
        header.not_before.astimezone(UTC).strftime(_TIME),
        header.not_after.astimezone(UTC).strftime(_TIME),
        header.ticket_digest,
        header.auth_mode,
    )
    element = etree.Element(HEADER, nsmap=NSMAP)
    for name, value in zip(FIELDS, values, strict=True):
        etree.SubElement(element, f"{{{MCIM_NAMESPACE}}}{name}").text = value
    if header.ephemeral_key is not None:
        point = base64.b64encode(header.ephemeral_key).decode()
        etree.SubElement(element, f"{{{MCIM_NAMESPACE}}}{EPHEMERAL}").text = point
    if header.new_sho_id is not None:
        etree.SubElement(element, f"{{{MCIM_NAMESPACE}}}{NEW_SHO}").text = header.new_sho_id
    return element


def read_header(root: etree._Element) -> PackageHeader:
    """The header out of a parsed package; exactly these elements in this order.

    Raises:
        PackageRefused: MALFORMED, or UNSUPPORTED_SUITE for a suite nobody defined.
    """
    element = next(iter(root), None)
    if element is None or element.tag != HEADER or element.attrib:
        raise PackageRefused(ResultCode.MALFORMED, "no Header")
    names = tuple(etree.QName(child).localname for child in element)
    spaces = {etree.QName(child).namespace for child in element}
    if names not in (FIELDS, (*FIELDS, EPHEMERAL), (*FIELDS, NEW_SHO)) or spaces != {MCIM_NAMESPACE}:
        raise PackageRefused(ResultCode.MALFORMED, "the Header has other elements or another order")
    if any(len(child) or child.attrib for child in element):
        raise PackageRefused(ResultCode.MALFORMED, "the Header has structure where text belongs")
    values = {name: child.text or "" for name, child in zip(names, element, strict=True)}
    suite = Suite.from_label(values["Suite"])
    if suite is None:
        raise PackageRefused(ResultCode.UNSUPPORTED_SUITE, "the suite is unknown")
    if (NEW_SHO in values) is not (values["Operation"] == Operation.RELEASE.label):
        raise PackageRefused(ResultCode.MALFORMED, "a release token names the new home operator, and nothing else does")
    try:
        return PackageHeader(
            transaction_id=UUID(hex=matched("[0-9a-f]{32}", values["TransactionId"])),
            sequence=int(matched("[0-9]{1,19}", values["SequenceNumber"])),
            registration_nonce=base64.b64decode(values["RegistrationNonce"], validate=True),
            m2me_id=matched(NAME, values["M2MEId"]),
            tre_id=matched(NAME, values["TREId"]),
            platform_key_id=bytes.fromhex(matched("[0-9a-f]{32}", values["PlatformKeyId"])),
            sho_id=matched(NAME, values["SHOId"]),
            dpf_id=matched(NAME, values["DPFId"]),
            operation=_OPERATIONS[values["Operation"]],
            mcim_id=UUID(matched("[0-9a-f-]{36}", values["MCIMId"])),
            suite=suite,
            not_before=_time(values["NotBefore"]),
            not_after=_time(values["NotAfter"]),
            ticket_digest=matched("[0-9a-f]{64}", values["TicketDigest"]),
            auth_mode=matched("none|token", values["AuthMode"]),
            new_sho_id=matched(NAME, values[NEW_SHO]) if NEW_SHO in values else None,
            ephemeral_key=base64.b64decode(values[EPHEMERAL], validate=True) if EPHEMERAL in values else None,
        )
    except (ValueError, KeyError, binascii.Error) as exc:
        raise PackageRefused(ResultCode.MALFORMED, "a Header value is out of its range") from exc


def peek(package: bytes) -> PackageHeader:
    """The header of a package in XML of which nothing is verified.

    Raises:
        PackageRefused: as `parse_package` and `read_header`.
    """
    return read_header(parse_package(package))


def _time(value: str) -> datetime:
    return datetime.strptime(value, _TIME).replace(tzinfo=UTC)
