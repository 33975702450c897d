"""Commands of the equipment supplier to a TRE it made: other roots for home operators, tries with the device token."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from actor_runtime.pem_files import read_chain, read_signing_key
from m2m_ca.directory import CaError
from mcim.errors import InvalidArgument
from mcim.statements import raw_signature
from mcim.supplier_command import SupplierCommand, issue_supplier_command


def make_supplier_command(
    signer: Path,
    *,
    tre_id: str,
    counter: int,
    sho_roots: Sequence[x509.Certificate],
    unlock_token: bool,
    now: datetime,
    life: timedelta,
) -> bytes:
    """A command signed with `signing.key` and `signing.crt` of the directory `signer` (`m2m-ca issue supplier`).

    Args:
        counter: higher than that of the last command to this TRE, which takes none twice.
        sho_roots: the roots that the TRE is to have from now on, and no others; empty: as they are (REQ-44).
        unlock_token: tries with the device token begin again (REQ-61).

    Raises:
        CaError: it asks for nothing, or a value is out of its range.
        ConfigError: there is no key, or it does not belong to the certificate.
    """
    if not sho_roots and not unlock_token:
        raise CaError("a command that asks for nothing", hint="--unlock-token, --sho-anchors FILE, or both")
    chain = read_chain(signer / "signing.crt", "supplier certificate")
    key = read_signing_key(signer / "signing.key", chain[0])
    start = now.replace(microsecond=0)
    try:
        command = SupplierCommand(
            tre_id=tre_id,
            counter=counter,
            not_before=start - timedelta(minutes=5),  # clocks differ
            not_after=start + life,
            sho_roots=tuple(root.public_bytes(Encoding.DER) for root in sho_roots),
            reset_token_counter=unlock_token,
        )
        return issue_supplier_command(command, lambda octets: raw_signature(key, octets), chain)
    except InvalidArgument as exc:
        raise CaError(f"no command: {exc}") from exc
