"""Certification requests of TREs: the first of a device, and those by which it changes its keys (REQ-21)."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from m2m_ca.files import CaError
from mcim.certificates import MAX_RSA_BITS, MIN_RSA_BITS, MIN_RSA_EXPONENT
from mcim.platform_key import PlatformPublicKey

MAX_REQUEST: Final = 16_384  # octets
_MEMBERS: Final = ("m2meId", "treId", "platformKey", "attestKey")


@dataclass(frozen=True, slots=True, kw_only=True)
class TreRequest:
    """A request proved by its own attestation key."""

    m2me_id: str
    tre_id: str
    platform_key: PlatformPublicKey
    attest_key: ec.EllipticCurvePublicKey
    body: bytes = field(repr=False)  # what is proved
    old_proof: bytes | None = field(default=None, repr=False)  # by the key in use: the request is for new keys
    old_attest_key: ec.EllipticCurvePublicKey | None = None  # that key, where the request tells it


def read_request(path: Path) -> Mapping[str, object]:
    """A certification request file.

    Raises:
        CaError: unreadable, too large, or not a JSON object.
    """
    try:
        with path.open("rb") as file:
            octets = file.read(MAX_REQUEST + 1)
        request = json.loads(octets) if len(octets) <= MAX_REQUEST else None
    except (OSError, ValueError, RecursionError) as exc:
        raise CaError(f"{path} is no certification request") from exc
    if not isinstance(request, dict):
        raise CaError(f"{path} is no certification request")
    return request


def check_request(request: Mapping[str, object]) -> TreRequest:
    """Verify that who asks holds the attestation key. Whether `oldProof` holds is for him to say who knows the old key.

    Proofs are r and s in Base64, over the four members of every request as JSON with sorted keys and no spaces.

    Raises:
        CaError: members are missing, the proof is wrong, or a key is too weak.
    """
    try:
        members = {name: str(request[name]) for name in _MEMBERS}
        platform_key, attest_key = (load_pem_public_key(members[name].encode()) for name in _MEMBERS[2:])
        proof = base64.b64decode(str(request["proof"]), validate=True)
        old_proof = base64.b64decode(str(request["oldProof"]), validate=True) if "oldProof" in request else None
        old_key = load_pem_public_key(str(request["oldAttestKey"]).encode()) if "oldAttestKey" in request else None
    except (KeyError, ValueError, binascii.Error, UnsupportedAlgorithm) as exc:
        raise CaError("the certification request is incomplete or has no keys") from exc
    if not members["treId"] or not members["m2meId"]:
        raise CaError("the request names no TRE or no M2ME")
    if old_key is not None and old_proof is None:
        raise CaError("the request names an old key and is not proved by it")
    attest = _p256(attest_key)
    body = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
    if not proves(attest, proof, body):
        raise CaError("the request is not proved by its attestation key")
    if platform_key == attest_key:
        raise CaError("the platform key and the attestation key must differ")
    return TreRequest(
        m2me_id=members["m2meId"],
        tre_id=members["treId"],
        platform_key=_check_platform_key(platform_key),
        attest_key=attest,
        body=body,
        old_proof=old_proof,
        old_attest_key=None if old_key is None else _p256(old_key),
    )


def proves(key: ec.EllipticCurvePublicKey, proof: bytes, body: bytes) -> bool:
    """Whether `proof` is a signature of the key."""
    r, s = int.from_bytes(proof[:32], "big"), int.from_bytes(proof[32:], "big")
    try:
        key.verify(encode_dss_signature(r, s), body, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _p256(key: object) -> ec.EllipticCurvePublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CaError("an attestation key must be on P-256")
    return key


def _check_platform_key(key: object) -> PlatformPublicKey:
    if isinstance(key, rsa.RSAPublicKey):
        if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            raise CaError(f"an RSA platform key has {MIN_RSA_BITS} to {MAX_RSA_BITS} bits")
        if key.public_numbers().e < MIN_RSA_EXPONENT:
            raise CaError(f"the public exponent of an RSA platform key is {MIN_RSA_EXPONENT} or more")
        return key
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise CaError("the platform key must be RSA or on P-256")
    return key
