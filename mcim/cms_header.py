"""The package header as a signed attribute of CMS, in DER. Nothing here opens anything."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final
from uuid import UUID

from cryptography.hazmat import asn1

from mcim.cms_structure import CmsPackage, parse_cms
from mcim.errors import InvalidArgument, PackageRefused
from mcim.header_fields import MAX_NONCE, MAX_SEQUENCE, NAME, PackageHeader, matched
from mcim.vocabulary import Operation, ResultCode, Suite

VERSION: Final = 1


@asn1.sequence
class HeaderValue:
    """Value of the attribute; the names are those of `PackageHeader`, numbers and octets in the place of their text."""

    version: int
    transaction_id: Annotated[bytes, asn1.Size.exact(16)]
    sequence: int
    registration_nonce: Annotated[bytes, asn1.Size(0, MAX_NONCE)]
    m2me_id: asn1.IA5String
    tre_id: asn1.IA5String
    platform_key_id: Annotated[bytes, asn1.Size.exact(16)]
    sho_id: asn1.IA5String
    dpf_id: asn1.IA5String
    operation: int
    mcim_id: Annotated[bytes, asn1.Size.exact(16)]
    suite: int
    not_before: asn1.GeneralizedTime
    not_after: asn1.GeneralizedTime
    ticket_digest: Annotated[bytes, asn1.Size.exact(32)]
    with_token: bool
    new_sho_id: Annotated[asn1.IA5String | None, asn1.Implicit(0)]


def encode_header(header: PackageHeader) -> bytes:
    """DER of the attribute's value.

    Raises:
        InvalidArgument: a value does not fit, or the header has an ephemeral key, which CMS carries elsewhere.
    """
    if header.ephemeral_key is not None:
        raise InvalidArgument("the ephemeral key has its own place in CMS")
    try:
        return asn1.encode_der(
            HeaderValue(
                version=VERSION,
                transaction_id=header.transaction_id.bytes,
                sequence=header.sequence,
                registration_nonce=header.registration_nonce,
                m2me_id=asn1.IA5String(header.m2me_id),
                tre_id=asn1.IA5String(header.tre_id),
                platform_key_id=header.platform_key_id,
                sho_id=asn1.IA5String(header.sho_id),
                dpf_id=asn1.IA5String(header.dpf_id),
                operation=int(header.operation),
                mcim_id=header.mcim_id.bytes,
                suite=int(header.suite),
                not_before=_whole_seconds(header.not_before),
                not_after=_whole_seconds(header.not_after),
                ticket_digest=bytes.fromhex(header.ticket_digest),
                with_token=matched("none|token", header.auth_mode) == "token",
                new_sho_id=None if header.new_sho_id is None else asn1.IA5String(header.new_sho_id),
            )
        )
    except ValueError as exc:
        raise InvalidArgument("a value of the header does not fit") from exc


def read_header(package: CmsPackage) -> PackageHeader:
    """The header out of a package taken apart.

    Raises:
        PackageRefused: MALFORMED; UNSUPPORTED_SUITE for a suite nobody defined; SIGNATURE_INVALID when something is
            encrypted though the operation carries nothing, or the reverse.
    """
    try:
        value = asn1.decode_der(HeaderValue, package.header)
        if value.version != VERSION or not 0 <= value.sequence <= MAX_SEQUENCE:
            raise ValueError("version or sequence")
        operation = Operation(value.operation)
        header = PackageHeader(
            transaction_id=UUID(bytes=value.transaction_id),
            sequence=value.sequence,
            registration_nonce=value.registration_nonce,
            m2me_id=matched(NAME, value.m2me_id.as_str()),
            tre_id=matched(NAME, value.tre_id.as_str()),
            platform_key_id=value.platform_key_id,
            sho_id=matched(NAME, value.sho_id.as_str()),
            dpf_id=matched(NAME, value.dpf_id.as_str()),
            operation=operation,
            mcim_id=UUID(bytes=value.mcim_id),
            suite=_suite(value.suite),
            not_before=_time(value.not_before),
            not_after=_time(value.not_after),
            ticket_digest=value.ticket_digest.hex(),
            auth_mode="token" if value.with_token else "none",
            new_sho_id=None if value.new_sho_id is None else matched(NAME, value.new_sho_id.as_str()),
        )
    except ValueError as exc:
        raise PackageRefused(ResultCode.MALFORMED, "the header is broken, or a value is out of its range") from exc
    if (header.new_sho_id is not None) is not (operation is Operation.RELEASE):
        raise PackageRefused(ResultCode.MALFORMED, "a release token names the new home operator, and nothing else does")
    if operation.carries_object is (package.enveloped is None):
        raise PackageRefused(ResultCode.SIGNATURE_INVALID, "encrypted content does not fit the operation")
    return header


def peek(package: bytes) -> PackageHeader:
    """The header of a package in CMS of which nothing is verified.

    Raises:
        PackageRefused: as `parse_cms` and `read_header`.
    """
    return read_header(parse_cms(package))


def _suite(number: int) -> Suite:
    try:
        return Suite(number)
    except ValueError as exc:
        raise PackageRefused(ResultCode.UNSUPPORTED_SUITE, "the suite is unknown") from exc


def _whole_seconds(moment: datetime) -> asn1.GeneralizedTime:
    return asn1.GeneralizedTime(moment.astimezone(UTC).replace(microsecond=0))


def _time(value: asn1.GeneralizedTime) -> datetime:
    moment = value.as_datetime()
    if moment.microsecond:
        raise ValueError("a fraction of a second")
    return moment.replace(tzinfo=UTC)
