"""Keys of a TRE and their certificates: the request for a first pair, and its renewal (REQ-21).

New keys wait beside the old ones until their certificates are there; one write then puts them in their place, so a
power cut leaves a TRE whole with either pair. MCIMs are sealed apart from these keys and stay.
"""

from __future__ import annotations

import base64
import json
from dataclasses import replace

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dmclient.tre.base import TreError
from dmclient.tre.keys import KeyBlobs, KeyType, TreKeys
from dmclient.tre.state import TreState
from mcim.platform_key import PlatformPublicKey
from mcim.vocabulary import ResultCode


def certification_request(state: TreState, keys: TreKeys, *, old: TreKeys | None = None) -> dict[str, str]:
    """What the manufacturer's CA needs to certify both keys.

    The keys are PEM SubjectPublicKeyInfo; `proof` is the Base64 signature (r and s, 32 octets each) of the
    attestation key over the JSON of the members before it, names sorted and without spaces. `oldProof` is that of the
    attestation key in use over the same: the TRE that is certified already asks for the new pair, and nobody else.
    """
    request = {
        "m2meId": state.m2me_id,
        "treId": state.tre_id,
        "platformKey": _pem(keys.platform.public_key),
        "attestKey": _pem(keys.attest_public_key),
    }
    body = json.dumps(request, sort_keys=True, separators=(",", ":")).encode()
    proofs = {"proof": _proof(keys, body)}
    if old is not None:
        proofs["oldProof"] = _proof(old, body)
    return request | proofs


def key_type_of(keys: TreKeys) -> KeyType:
    """Type of PK_D; new keys are of the same, since suites and containers of the TRE depend on it."""
    return "rsa" if isinstance(keys.platform.public_key, rsa.RSAPublicKey) else "ec"


def require_certificates_of(keys: TreKeys, platform: x509.Certificate, attest: x509.Certificate) -> None:
    """See that certificates are of these keys.

    Raises:
        TreError: they are not.
    """
    wanted = (keys.platform.public_key, keys.attest_public_key)
    try:
        found = (platform.public_key(), attest.public_key())
    except (ValueError, UnsupportedAlgorithm):  # of a type or curve that the library does not know
        found = None
    if found != wanted:
        raise TreError(ResultCode.WRONG_RECIPIENT, "these certificates are of other keys")


def with_new_keys(
    state: TreState,
    blobs: KeyBlobs,
    platform: x509.Certificate,
    attest: x509.Certificate,
    chain: tuple[x509.Certificate, ...],
) -> TreState:
    """The state with the new keys in use and the old ones gone."""
    return replace(
        state,
        platform_key=blobs.platform,
        attest_key=blobs.attest,
        next_keys=None,
        platform_cert=der(platform),
        attest_cert=der(attest),
        cert_chain=tuple(der(each) for each in chain),
    )


def der(certificate: x509.Certificate) -> bytes:
    """A certificate as the state keeps it."""
    return certificate.public_bytes(Encoding.DER)


def _pem(key: PlatformPublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def _proof(keys: TreKeys, body: bytes) -> str:
    return base64.b64encode(keys.sign(body)).decode("ascii")
