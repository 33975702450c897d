"""Protection suites of the MCIM object: one row says how PIK and PCK are wrapped, `data` is encrypted and MACed."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mcim.errors import InvalidArgument
from mcim.platform_key import OaepHash
from mcim.vocabulary import Suite

GCM_NONCE: Final = 12  # octets
GCM_TAG: Final = 16  # octets


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteParameters:
    """Lengths in octets."""

    wrap: Literal["rsa", "ec"]
    oaep_hash: OaepHash
    labelled: bool  # OAEP label L; the legacy suite has none
    mode: Literal["cbc", "gcm"]
    mac_hash: Literal["sha1", "sha256"]
    pik_length: int
    pck_length: int
    mac_covers_header: bool

    @property
    def mac_length(self) -> int:
        """Octets of the MAC."""
        return hashlib.new(self.mac_hash, usedforsecurity=False).digest_size

    @property
    def iv_length(self) -> int:
        """Octets of IV or nonce in front of the ciphertext."""
        return 16 if self.mode == "cbc" else GCM_NONCE


def _modern(wrap: Literal["rsa", "ec"], mode: Literal["cbc", "gcm"]) -> SuiteParameters:
    return SuiteParameters(
        wrap=wrap,
        oaep_hash="sha256",
        labelled=True,
        mode=mode,
        mac_hash="sha256",
        pik_length=32,
        pck_length=32,
        mac_covers_header=True,
    )


PARAMETERS: Final[dict[Suite, SuiteParameters]] = {
    Suite.LEGACY_1: SuiteParameters(
        wrap="rsa",
        oaep_hash="sha1",
        labelled=False,
        mode="cbc",
        mac_hash="sha1",
        pik_length=20,
        pck_length=16,
        mac_covers_header=False,
    ),
    Suite.RSA_CBC_256: _modern("rsa", "cbc"),
    Suite.RSA_GCM_256: _modern("rsa", "gcm"),
    Suite.EC_CBC_256: _modern("ec", "cbc"),
    Suite.EC_GCM_256: _modern("ec", "gcm"),
}


def encrypt(parameters: SuiteParameters, pck: bytes, iv: bytes, data: bytes, header: bytes) -> bytes:
    """ENC_PCK(data) with its IV or nonce in front; `header` is the associated data of GCM."""
    if len(pck) != parameters.pck_length or len(iv) != parameters.iv_length:
        raise InvalidArgument("key or IV length does not fit the suite")
    if parameters.mode == "gcm":
        return iv + AESGCM(pck).encrypt(iv, data, header)
    encryptor = Cipher(algorithms.AES(pck), modes.CBC(iv)).encryptor()
    return iv + encryptor.update(data) + encryptor.finalize()


def decrypt(parameters: SuiteParameters, pck: bytes, ciphertext: bytes, header: bytes) -> bytes:
    """Reverse of `encrypt`. Call it only after the MAC was found right.

    Raises:
        ValueError: lengths or the GCM tag do not fit.
    """
    iv, body = ciphertext[: parameters.iv_length], ciphertext[parameters.iv_length :]
    if parameters.mode == "gcm":
        try:
            return AESGCM(pck).decrypt(iv, body, header)
        except InvalidTag as exc:
            raise ValueError("GCM tag") from exc
    decryptor = Cipher(algorithms.AES(pck), modes.CBC(iv)).decryptor()
    return decryptor.update(body) + decryptor.finalize()


def mac(parameters: SuiteParameters, pik: bytes, header: bytes, ciphertext: bytes) -> bytes:
    """MAC_PIK: over the ciphertext alone in the legacy suite (S3-090792), else over header, ciphertext and the
    header's length in bits, as RFC 7518 §5.2.2 does, so that no octet can move between the two.
    """
    covered = ciphertext
    if parameters.mac_covers_header:
        covered = header + ciphertext + (len(header) * 8).to_bytes(8, "big")
    return hmac.new(pik, covered, parameters.mac_hash).digest()
