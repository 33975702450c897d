"""What comes back through the DPF and is checked there: the home operator's package and the TRE's receipt."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import datetime

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from dmserver.asks import PackageGiven
from dmserver.audit import Entry, check, note
from dmserver.orders import Order
from dmserver.snapshot import Snapshot
from mcim.certificates import load_der
from mcim.errors import CertificateRefused, PackageRefused, StatementInvalid
from mcim.key_id import key_id_of
from mcim.package_header import peek_header
from mcim.receipt import Receipt, verify_receipt
from mcim.ticket import ticket_digest
from mcim.vocabulary import MAX_PACKAGE_SIZE, Container, ResultCode


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageFacts:
    """What a package is held against beside its order: facts of the TRE as it was validated."""

    tre_id: str
    m2me_id: str
    platform_key_id: bytes
    containers: tuple[str, ...]
    next_sequence: int
    max_package: int | None  # octets

    @classmethod
    def of(cls, snapshot: Snapshot) -> PackageFacts:
        """Out of what was just read.

        Raises:
            CertificateRefused: the platform certificate is none.
        """
        return cls(
            tre_id=snapshot.tre_id,
            m2me_id=snapshot.m2me_id,
            platform_key_id=_key_id(snapshot.platform_cert),
            containers=snapshot.containers,
            next_sequence=snapshot.next_sequence,
            max_package=snapshot.max_package,
        )

    @classmethod
    def of_record(cls, document: str) -> PackageFacts:
        """Out of the record of what was read (`Snapshot.to_json`), for a package that comes between two sessions.

        Raises:
            ValueError: it is no such record.
        """
        try:
            record = json.loads(document)
            tre, registration = record["tre"], record["registration"]
            return cls(
                tre_id=tre["id"],
                m2me_id=record["m2meId"],
                platform_key_id=_key_id(base64.b64decode(tre["platformCert"])),
                containers=tuple(tre["containers"]),
                next_sequence=int(registration["nextSequence"]),
                max_package=tre.get("maxPackage"),
            )
        except (KeyError, TypeError, CertificateRefused) as exc:
            raise ValueError("no record of an M2MMobj") from exc


def _key_id(certificate: bytes) -> bytes:
    try:
        return key_id_of(load_der(certificate).public_key())
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise CertificateRefused("key", "not a key that can be a platform key") from exc


def check_package(given: PackageGiven, order: Order, facts: PackageFacts, *, dpf_id: str, now: datetime) -> list[Entry]:
    """Consistency of a package with the order, from its clear header; the blob itself stays closed (REQ-28).

    Nothing here authenticates the package: its signature is for the TRE. A package that could only be refused by the
    TRE is not worth the device's nonce, so it is refused here.
    """
    step = "12"
    limit = min(MAX_PACKAGE_SIZE, facts.max_package or MAX_PACKAGE_SIZE)
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
            hmac.compare_digest(
                hashlib.sha256(given.package).hexdigest().encode(), given.package_hash.lower().encode()
            ),
            req=("REQ-32",),
            step=step,
        ),
        check(
            "package-container",
            given.container in facts.containers and given.container in tuple(Container),
            req=("REQ-31",),
            step=step,
            detail=given.container[:32],
        ),
    ]
    try:
        header = peek_header(given.package)
    except PackageRefused as exc:
        return [*entries, check("package-header", False, req=("REQ-24",), step=step, detail=str(exc)[:200])]
    expected = {
        "TREId": header.tre_id == facts.tre_id,
        "M2MEId": header.m2me_id == facts.m2me_id == order.device_id,
        "SHOId": header.sho_id == order.sho_id,
        "DPFId": header.dpf_id == dpf_id,
        "PlatformKeyId": header.platform_key_id == facts.platform_key_id,
        "RegistrationNonce": hmac.compare_digest(header.registration_nonce, order.nonce or b""),
        "MCIMId": str(header.mcim_id) == given.mcim_id.lower(),
        "target MCIM": not order.has_target or str(header.mcim_id) == order.mcim_id,
        "Operation": header.operation is order.operation and given.operation == order.operation.label,
        "SequenceNumber": header.sequence == given.sequence >= facts.next_sequence,
        "NotAfter": now < header.not_after,
    }
    wrong = [name for name, right in expected.items() if not right]
    entries.append(
        check("package-header", not wrong, req=("REQ-24", "REQ-25", "REQ-70"), step=step, detail=", ".join(wrong))
    )
    if order.ticket is not None and header.ticket_digest != ticket_digest(order.ticket):
        # A home operator that repeats an earlier answer has seen an earlier ticket of the same registration.
        entries.append(note("the package names another ticket of this registration", step=step))
    return entries


def keep_package(order: Order, given: PackageGiven) -> Order:
    """The order with a package that passed `check_package`; the octets are kept beside it."""
    return dataclasses.replace(
        order,
        mcim_id=given.mcim_id.lower(),
        sequence=given.sequence,
        package_hash=hashlib.sha256(given.package).hexdigest(),
        packaging=Container(given.container),
        token_ref=given.token_ref,
        pushes=0,
        job=None,
        job_at=None,
    )


def kept_package(order: Order, package: bytes) -> PackageGiven | None:
    """A package that was kept with its order, as it was given; None when the order has none."""
    if order.mcim_id is None or order.sequence is None or order.package_hash is None:
        return None
    return PackageGiven(
        package=package,
        mcim_id=order.mcim_id,
        sequence=order.sequence,
        package_hash=order.package_hash,
        container=order.packaging.value,
        operation=order.operation.label,
        token_ref=order.token_ref,
    )


def read_receipt(octets: bytes, order: Order) -> Receipt | None:
    """A receipt of the TRE of this order, whatever it is about; None when it is none."""
    return _verified(octets, order)[0]


def _verified(octets: bytes, order: Order) -> tuple[Receipt | None, str]:
    try:
        public_key = load_der(order.attest_cert or b"").public_key()
        if not isinstance(public_key, EllipticCurvePublicKey):
            raise StatementInvalid("the attestation key is no EC key")
        return verify_receipt(octets, public_key), ""
    except (StatementInvalid, CertificateRefused) as exc:
        return None, str(exc)[:200]


def check_receipt(
    octets: bytes, order: Order, *, leaf_result: int | None, about: Order | None = None
) -> tuple[list[Entry], Receipt | None]:
    """Verify the TRE's receipt with the key of its attestation certificate, and its binding to what was delivered.

    `about` is the order whose package the receipt is to speak of, if that is another one (a fall-back).
    Returns the entries for the trail and the receipt, None when it is not acceptable (REQ-67).
    """
    step, req, about = "14", ("REQ-67",), about or order
    verified, why = _verified(octets, order)
    if verified is None:
        return [check("receipt-signature", False, req=req, step=step, detail=why)], None
    entries = [check("receipt-signature", True, req=req, step=step, detail=f"result {int(verified.result)}")]
    bound = {
        "TRE id": verified.tre_id == order.tre_id,
        "package hash": hmac.compare_digest(verified.package_hash.hex(), about.package_hash or ""),
        "result leaf": leaf_result is None or leaf_result == verified.result,
    }
    if verified.result in (ResultCode.SUCCESS, ResultCode.ALREADY_DONE, ResultCode.FELL_BACK):
        # A TRE that refused early may not have read these; what it installed it has.
        bound |= {
            "operation": verified.operation is about.operation,
            "MCIM id": str(verified.mcim_id) == about.mcim_id,
            "SHO id": verified.sho_id == about.sho_id,
            "sequence": verified.sequence == about.sequence,
            "nonce": hmac.compare_digest(verified.nonce or b"", about.nonce or b""),
        }
    wrong = [name for name, right in bound.items() if not right]
    entries.append(check("receipt-binding", not wrong, req=req, step=step, detail=", ".join(wrong)))
    return entries, None if wrong else verified
