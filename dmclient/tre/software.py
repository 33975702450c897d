"""Keys in software: made in this process, kept in the TRE's sealed file.

It shows the protocol, not hardware: who can read the sealing key and this process's memory can read everything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from dmclient.tre.counter import COUNTER_NAME, FileCounter
from dmclient.tre.keys import KeyBlobs, KeyStoreError, KeyType
from mcim.evidence import Evidence, sign_evidence
from mcim.measurement_log import Measurement
from mcim.platform_key import SoftwarePlatformKey
from mcim.statements import raw_signature
from mcim.vocabulary import Container, Suite

RSA_BITS: Final = 2048
_SUITES: Final[dict[KeyType, tuple[Suite, ...]]] = {
    "rsa": (Suite.RSA_GCM_256, Suite.RSA_CBC_256),
    "ec": (Suite.EC_GCM_256, Suite.EC_CBC_256),
}
_CONTAINERS: Final[dict[KeyType, tuple[Container, ...]]] = {
    "rsa": (Container.XML, Container.XML_MGF1P, Container.CMS),
    "ec": (Container.XML, Container.CMS),
}


class SoftwareKeys:
    """Both keys of a software TRE."""

    def __init__(
        self, platform: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, attest: ec.EllipticCurvePrivateKey
    ) -> None:
        self.platform = SoftwarePlatformKey(platform)
        self._attest = attest

    @property
    def attest_public_key(self) -> ec.EllipticCurvePublicKey:
        """See `TreKeys.attest_public_key`."""
        return self._attest.public_key()

    def sign(self, octets: bytes) -> bytes:
        """See `TreKeys.sign`."""
        return raw_signature(self._attest, octets)

    def attest(self, evidence: Evidence) -> bytes:
        """See `TreKeys.attest`."""
        return sign_evidence(evidence, self.sign)


class SoftwareKeyStore:
    """A `KeyStore` without hardware."""

    name = "software"

    def __init__(self, directory: Path) -> None:
        self.counter = FileCounter(directory / COUNTER_NAME)

    def suites(self, key_type: KeyType, *, legacy: bool) -> tuple[Suite, ...]:
        """See `KeyStore.suites`."""
        return _SUITES[key_type] + ((Suite.LEGACY_1,) if legacy and key_type == "rsa" else ())

    def containers(self, key_type: KeyType) -> tuple[Container, ...]:
        """See `KeyStore.containers`."""
        return _CONTAINERS[key_type]

    def generate(self, key_type: KeyType) -> KeyBlobs:
        """See `KeyStore.generate`."""
        platform: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = (
            rsa.generate_private_key(65537, RSA_BITS) if key_type == "rsa" else ec.generate_private_key(ec.SECP256R1())
        )
        return KeyBlobs(platform=_dump(platform), attest=_dump(ec.generate_private_key(ec.SECP256R1())))

    def load(self, blobs: KeyBlobs) -> SoftwareKeys:
        """See `KeyStore.load`."""
        try:
            platform, attest = _load(blobs.platform), _load(blobs.attest)
        except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
            raise KeyStoreError("the TRE's keys are not those of a software TRE") from exc
        if not isinstance(platform, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) or not isinstance(
            attest, ec.EllipticCurvePrivateKey
        ):
            raise KeyStoreError("the TRE store holds keys of another kind")
        return SoftwareKeys(platform, attest)

    def keep_only(self, kept: tuple[KeyBlobs, ...]) -> None:
        """See `KeyStore.keep_only`: keys are in the sealed state and nowhere else."""

    def measure(self, measurements: tuple[Measurement, ...]) -> None:
        """See `KeyStore.measure`: there are no registers."""

    def close(self) -> None:
        """See `KeyStore.close`."""


def _load(octets: bytes) -> PrivateKeyTypes:
    # The seal vouches for the octets, and the full RSA consistency check takes a tenth of a second.
    return load_der_private_key(octets, None, unsafe_skip_rsa_key_validation=True)


def _dump(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
