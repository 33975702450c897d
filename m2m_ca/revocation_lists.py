"""Revocation lists of all CAs, as files: made anew on demand, and in time before they run out (RFC 5280 §5)."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from m2m_ca.directory import CAS, CaDirectory
from m2m_ca.files import CaError, locked, write_public
from mcim.authority import CRL_LIFE


def list_path(directory: CaDirectory, ca: str) -> Path:
    """Where the list of a CA is."""
    return directory.path / "crl" / f"{ca}.crl"


def make_lists(directory: CaDirectory, now: datetime, *, life: timedelta = CRL_LIFE) -> dict[str, int | None]:
    """New lists of all CAs; CA → number. None: its key is not here, and its list stays as it is.

    Raises:
        CaError: there are no CAs, or a key or list is broken.
    """
    for ca in CAS:
        directory.certificate(ca)
    return {ca: make_list(directory, ca, now, life=life) if directory.has_key(ca) else None for ca in CAS}


def make_list(directory: CaDirectory, ca: str, now: datetime, *, life: timedelta = CRL_LIFE) -> int:
    """A new list of one CA; its number.

    Raises:
        CaError: the CA or its key is not here.
    """
    authority = directory.authority(ca)
    with locked(directory.path):
        before = read_list(directory, ca)
        number = directory.records.next_number(ca, 1 if before is None else _number(before) + 1)
        entries = [each.entry() for each in directory.records.revoked(ca)]
        made = authority.make_crl(entries, now, number=number, life=life)
        write_public(list_path(directory, ca), made.public_bytes(Encoding.DER))
    return number


def refresh_list(directory: CaDirectory, ca: str, now: datetime, *, life: timedelta = CRL_LIFE) -> bool:
    """Make the list of a CA anew if it is missing, lacks a revocation, or has used up half its life; whether it was.

    Raises:
        CaError: the CA, its key or its list is broken.
    """
    if not directory.has_key(ca) or not _is_due(directory, ca, now):
        return False
    make_list(directory, ca, now, life=life)
    return True


def read_list(directory: CaDirectory, ca: str) -> x509.CertificateRevocationList | None:
    """The list of a CA as it is published; None when there is none.

    Raises:
        CaError: the file holds no list.
    """
    path = list_path(directory, ca)
    if not path.exists():
        return None
    try:
        return x509.load_der_x509_crl(path.read_bytes())
    except (ValueError, x509.InvalidVersion) as exc:
        raise CaError(f"{path} is no revocation list", hint="remove it, then `m2m-ca crl`") from exc


def _is_due(directory: CaDirectory, ca: str, now: datetime) -> bool:
    published = read_list(directory, ca)
    if published is None or published.next_update_utc is None:
        return True
    used_up = now - published.last_update_utc >= (published.next_update_utc - published.last_update_utc) / 2
    return used_up or any(
        published.get_revoked_certificate_by_serial_number(each.serial) is None
        for each in directory.records.revoked(ca)
    )


def _number(crl: x509.CertificateRevocationList) -> int:
    try:
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return 0
