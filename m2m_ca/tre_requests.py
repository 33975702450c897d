"""Certification requests of TREs: the first of a device, and those by which it changes its keys (REQ-21)."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
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
_OLD_KEY: Final = "oldAttestKey"


@dataclass(frozen=True, slots=True, kw_only=True)
class TreRequest:
    """A request whose proofs hold."""

    m2me_id: str
    tre_id: str
    platform_key: PlatformPublicKey
    attest_key: ec.EllipticCurvePublicKey
    old_attest_key: ec.EllipticCurvePublicKey | None = None  # the request is to take its certificates' place


def read_request(path: Path) -> Mapping[str, object]:
    """A certification request file.

    Raises:
        CaError: unreadable, too large, or not a JSON object.
    """
    try:
        octets = path.read_bytes()
        request = json.loads(octets) if len(octets) <= MAX_REQUEST else None
    except (OSError, ValueError, RecursionError) as exc:
        raise CaError(f"{path} is no certification request") from exc
    if not isinstance(request, dict):
        raise CaError(f"{path} is no certification request")
    return request


def check_request(request: Mapping[str, object]) -> TreRequest:
    """Verify that who asks holds the attestation key, and on re-keying the old one too.

    The proofs are r and s in Base64 over the members but the proofs, as JSON with sorted keys and no spaces.

    Raises:
        CaError: members are missing, a proof is wrong, or a key is too weak.
    """
    rekeying = _OLD_KEY in request
    names = (*_MEMBERS, _OLD_KEY) if rekeying else _MEMBERS
    try:
        members = {name: str(request[name]) for name in names}
        keys = {name: load_pem_public_key(members[name].encode()) for name in names if name.endswith("Key")}
        proofs = {"attestKey": base64.b64decode(str(request["proof"]), validate=True)}
        if rekeying:
            proofs[_OLD_KEY] = base64.b64decode(str(request["oldProof"]), validate=True)
    except (KeyError, ValueError, binascii.Error, UnsupportedAlgorithm) as exc:
        raise CaError("the certification request is incomplete or has no keys") from exc
    if not members["treId"] or not members["m2meId"]:
        raise CaError("the request names no TRE or no M2ME")
    body = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
    proved = {name: _check_proof(name, keys[name], proof, body) for name, proof in proofs.items()}
    platform_key = _check_platform_key(keys["platformKey"])
    if platform_key in proved.values():
        raise CaError("the platform key and the attestation key must differ")
    return TreRequest(
        m2me_id=members["m2meId"],
        tre_id=members["treId"],
        platform_key=platform_key,
        attest_key=proved["attestKey"],
        old_attest_key=proved.get(_OLD_KEY),
    )


def _check_proof(name: str, key: object, proof: bytes, body: bytes) -> ec.EllipticCurvePublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CaError(f"{name}: an attestation key must be on P-256")
    r, s = int.from_bytes(proof[:32], "big"), int.from_bytes(proof[32:], "big")
    try:
        key.verify(encode_dss_signature(r, s), body, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as exc:
        raise CaError(f"{name}: the request is not proved by its attestation key") from exc
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
