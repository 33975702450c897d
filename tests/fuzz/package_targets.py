"""Fuzz targets for what home operators and suppliers send to a TRE, with the packages of the vectors as seeds.

Signatures are not forged by a fuzzer, so opening is fuzzed by itself: with an EnvelopedData that counts as verified.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.utils import CryptographyDeprecationWarning

from mcim.certificates import TrustAnchors
from mcim.cms_package import CmsSealed, envelope
from mcim.cms_structure import parse_enveloped
from mcim.errors import PackageRefused
from mcim.package import open_package, verify_package
from mcim.package_header import PackageHeader, peek_header
from mcim.platform_key import SoftwarePlatformKey
from mcim.statements import raw_signature
from mcim.supplier_command import SupplierCommand, issue_supplier_command, verify_supplier_command
from mcim.vocabulary import Container

VECTORS: Final = Path(__file__).parents[1] / "vectors" / "packages"
NOW: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)
ROOTS: Final = tuple(x509.load_pem_x509_certificates((VECTORS / "root.pem").read_bytes()))
TRE_ID: Final = "urn:m2m:tre:0001"


@functools.cache
def _key() -> SoftwarePlatformKey:
    return SoftwarePlatformKey(ec.derive_private_key(7, ec.SECP256R1()))


def package(data: bytes) -> None:
    """A package in any container: a header or a refusal; and what verifies is one of the vectors, but for hints."""
    header: PackageHeader | None = None
    with suppress(PackageRefused):
        header = peek_header(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)  # certificates with odd serial numbers
        try:
            verified = verify_package(
                data,
                anchors=TrustAnchors(ROOTS, "sho"),
                now=NOW,
                expected_sho_id="sho1.example",
                containers=frozenset(Container),
            )
        except PackageRefused:
            return
    assert verified.header == header
    with suppress(PackageRefused):
        open_package(verified, _key())


def cms_envelope(data: bytes) -> None:
    """EnvelopedData, taken apart and opened: the object or a refusal."""
    with suppress(PackageRefused):
        CmsSealed(parse_enveloped(data)).open(_key())


def supplier_command(data: bytes) -> None:
    """A supplier's command: refused, for no fuzzer has the supplier's key."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        try:
            verify_supplier_command(
                data, anchors=TrustAnchors(ROOTS, "manufacturer"), now=NOW, tre_id=TRE_ID, last_counter=0
            )
        except PackageRefused:
            return
    raise AssertionError("a command that nobody signed")


def _command() -> bytes:
    key = ec.derive_private_key(9, ec.SECP256R1())
    command = SupplierCommand(
        tre_id=TRE_ID,
        counter=1,
        not_before=NOW,
        not_after=NOW.replace(year=2027),
        reset_token_counter=True,
    )
    return issue_supplier_command(command, lambda octets: raw_signature(key, octets), ROOTS)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "package": package,
    "cms-envelope": cms_envelope,
    "supplier-command": supplier_command,
}
SEEDS: Final[dict[str, list[bytes]]] = {
    "package": [path.read_bytes() for path in sorted(VECTORS.iterdir()) if path.suffix in (".xml", ".der")],
    "cms-envelope": [
        envelope(b"object", _key().public_key),
        envelope(bytes(64), ec.derive_private_key(8, ec.SECP256R1()).public_key()),
    ],
    "supplier-command": [_command()],
}
