"""Where a TRE's keys live: PK_D and the attestation key, in software, a PKCS #11 token or a TPM (REQ-42, REQ-48).

A back-end is these few operations and nothing else; what a TRE does with them is the same for all (`environment`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from cryptography.hazmat.primitives.asymmetric import ec

from mcim.evidence import Evidence
from mcim.measurement_log import Measurement
from mcim.platform_key import PlatformKey
from mcim.vocabulary import Container, Suite

KeyType = Literal["rsa", "ec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyBlobs:
    """What the TRE's sealed state keeps of its keys; only the back-end that made them can read it.

    PKCS #8 in software, a reference to an object in a token, a blob wrapped by the storage key in a TPM.
    """

    platform: bytes = field(repr=False)
    attest: bytes = field(repr=False)


class MonotonicCounter(Protocol):
    """A number that only rises, kept apart from the sealed store: who puts an old store back is found out (T3).

    It starts anywhere: a new TRE takes what `read` gives for its beginning. Hardware does not let it be chosen.
    """

    def read(self) -> int:
        """The value now; makes the counter when there is none.

        Raises:
            OSError: it cannot be read.
        """

    def increment(self) -> int:
        """Raise it by one and return the new value, durably.

        Raises:
            OSError: it was not raised.
        """


class TreKeys(Protocol):
    """Both keys of a TRE, ready for use."""

    @property
    def platform(self) -> PlatformKey:
        """PK_D's private half, as operations."""

    @property
    def attest_public_key(self) -> ec.EllipticCurvePublicKey:
        """Public half of the attestation key, P-256."""

    def sign(self, octets: bytes) -> bytes:
        """Receipts and requests: ECDSA P-256 with SHA-256, r and s in 64 octets.

        Raises:
            KeyStoreError: the back-end does not answer.
        """

    def attest(self, evidence: Evidence) -> bytes:
        """Evidence: a signed statement, or a TPM's quote with the statement's digest as qualifying data.

        Raises:
            KeyStoreError: the back-end does not answer.
        """


class KeyStore(Protocol):
    """A back-end."""

    @property
    def name(self) -> str:
        """Name in settings: software, pkcs11 or tpm."""

    @property
    def counter(self) -> MonotonicCounter:
        """Its counter."""

    def suites(self, key_type: KeyType, *, legacy: bool) -> tuple[Suite, ...]:
        """Suites it can serve with a key of that type, in order of preference; `legacy` adds suite 1 if it can."""

    def containers(self, key_type: KeyType) -> tuple[Container, ...]:
        """Outer containers it can open with a key of that type, in order of preference."""

    def generate(self, key_type: KeyType) -> KeyBlobs:
        """New keys; the private halves never leave the back-end.

        Raises:
            KeyStoreError: it cannot make them.
        """

    def load(self, blobs: KeyBlobs) -> TreKeys:
        """Keys made by `generate`.

        Raises:
            KeyStoreError: they are gone, or another store made them.
        """

    def keep_only(self, kept: tuple[KeyBlobs, ...]) -> None:
        """Destroy what this TRE has in the back-end beside these keys: replaced ones, and those never taken into use.

        Other TREs' keys stay. Doing it again does no harm.

        Raises:
            KeyStoreError: the back-end does not do it; some may be gone.
        """

    def measure(self, measurements: tuple[Measurement, ...]) -> None:
        """Extend what was loaded into the back-end's registers, once at a start; without registers nothing happens."""

    def close(self) -> None:
        """Let go of the device."""


class KeyStoreError(Exception):
    """A key store does not do what it was asked; the text never contains key material."""


class KeyStoreGone(KeyStoreError):
    """The device is not there, or not any more: what was asked was not refused, and may be asked again."""
