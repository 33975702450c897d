"""What comes back through the DPF and is checked there: the home operator's package and the TRE's receipt."""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from dmserver.asks import PackageGiven
from dmserver.audit import Entry, check, note
from dmserver.orders import Order
from dmserver.snapshot import Snapshot
from mcim.certificates import load_der
from mcim.errors import CertificateRefused, PackageRefused, StatementInvalid
from mcim.package_header import peek_header
from mcim.receipt import Receipt, verify_receipt
from mcim.ticket import ticket_digest
from mcim.vocabulary import MAX_PACKAGE_SIZE, ResultCode


def check_package(
    given: PackageGiven, order: Order, snapshot: Snapshot, *, platform_key_id: bytes, dpf_id: str, now: datetime
) -> list[Entry]:
    """Consistency of a package with the order, from its clear header; the blob itself stays closed (REQ-28).

    Nothing here authenticates the package: its signature is for the TRE. A package that could only be refused by the
    TRE is not worth the device's nonce, so it is refused here.
    """
    step = "12"
    limit = min(MAX_PACKAGE_SIZE, snapshot.max_package or MAX_PACKAGE_SIZE)
    entries = [
        check(
            "package-size",
            0 < len(given.package) <= limit,
            req=("REQ-32",),
            step=step,
            detail=f"{len(given.package)} octets",
        ),
        check(
            "package-hash",
            hmac.compare_digest(hashlib.sha256(given.package).hexdigest(), given.package_hash.lower()),
            req=("REQ-32",),
            step=step,
        ),
    ]
    try:
        header = peek_header(given.package)
    except PackageRefused as exc:
        return [*entries, check("package-header", False, req=("REQ-24",), step=step, detail=str(exc)[:200])]
    expected = {
        "TREId": header.tre_id == snapshot.tre_id,
        "M2MEId": header.m2me_id == snapshot.m2me_id,
        "SHOId": header.sho_id == order.sho_id,
        "DPFId": header.dpf_id == dpf_id,
        "PlatformKeyId": header.platform_key_id == platform_key_id,
        "RegistrationNonce": hmac.compare_digest(header.registration_nonce, snapshot.nonce),
        "MCIMId": str(header.mcim_id) == given.mcim_id.lower(),
        "SequenceNumber": header.sequence == given.sequence >= snapshot.next_sequence,
        "NotAfter": now < header.not_after,
    }
    wrong = [name for name, right in expected.items() if not right]
    entries.append(check("package-header", not wrong, req=("REQ-24", "REQ-25"), step=step, detail=", ".join(wrong)))
    if order.ticket is not None and header.ticket_digest != ticket_digest(order.ticket):
        # A home operator that repeats an earlier answer has seen an earlier ticket of the same registration.
        entries.append(note("the package names another ticket of this registration", step=step))
    return entries


def check_receipt(receipt: bytes, order: Order, *, leaf_result: int | None) -> tuple[list[Entry], Receipt | None]:
    """Verify the TRE's receipt with the key of its attestation certificate, and its binding to what was delivered.

    Returns the entries for the trail and the receipt, None when it is not acceptable (REQ-67).
    """
    step, req = "14", ("REQ-67",)
    try:
        public_key = load_der(order.attest_cert or b"").public_key()
        if not isinstance(public_key, EllipticCurvePublicKey):
            raise StatementInvalid("the attestation key is no EC key")
        verified = verify_receipt(receipt, public_key)
    except (StatementInvalid, CertificateRefused) as exc:
        return [check("receipt-signature", False, req=req, step=step, detail=str(exc)[:200])], None
    entries = [check("receipt-signature", True, req=req, step=step, detail=f"result {int(verified.result)}")]
    bound = {
        "TRE id": verified.tre_id == order.tre_id,
        "package hash": hmac.compare_digest(verified.package_hash.hex(), order.package_hash or ""),
        "result leaf": leaf_result is None or leaf_result == verified.result,
    }
    if verified.result in (ResultCode.SUCCESS, ResultCode.ALREADY_DONE):
        # A TRE that refused early may not have read these; what it installed it has.
        bound |= {
            "MCIM id": str(verified.mcim_id) == order.mcim_id,
            "SHO id": verified.sho_id == order.sho_id,
            "sequence": verified.sequence == order.sequence,
            "nonce": hmac.compare_digest(verified.nonce or b"", order.nonce or b""),
        }
    wrong = [name for name, right in bound.items() if not right]
    entries.append(check("receipt-binding", not wrong, req=req, step=step, detail=", ".join(wrong)))
    return entries, None if wrong else verified
