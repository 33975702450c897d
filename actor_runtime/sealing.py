"""Secrets at rest: AES-256-GCM under a key that lives in a file beside the database, never inside it."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from pathlib import Path
from typing import Final

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from actor_runtime.errors import ConfigError, UnsealError

KEY_LENGTH: Final = 32  # octets
NONCE_LENGTH: Final = 12  # octets
_log = structlog.get_logger(__name__)

VERSION: Final = b"\x01"  # first octet of everything sealed


def warn_if_exposed(path: Path) -> None:
    """Say it in the log when others on this machine may read or change a private key.

    A warning, not an error: secrets mounted into containers often cannot have another mode.

    Raises:
        OSError: there is no such file.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        _log.warning("key.exposed", file=str(path), mode=f"{mode:04o}", hint="chmod 600")


class SealingKey:
    """A key that seals octets to a place: `aad` names row and column, so that sealed values cannot be swapped."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_LENGTH:
            raise ConfigError(f"a sealing key is {KEY_LENGTH} octets")
        self._key = key
        self._aead = AESGCM(self.derive(b"seal"))

    def __repr__(self) -> str:
        return "SealingKey(…)"

    @classmethod
    def load(cls, path: Path) -> SealingKey:
        """Read the key from a file that holds it in Base64.

        Raises:
            ConfigError: missing or broken file.
        """
        try:
            warn_if_exposed(path)
            key = base64.b64decode(path.read_bytes().strip(), validate=True)
        except OSError as exc:
            raise ConfigError(f"sealing key {path}: {exc.strerror}") from exc
        except binascii.Error as exc:
            raise ConfigError(f"sealing key {path}: not Base64") from exc
        if len(key) != KEY_LENGTH:
            raise ConfigError(f"sealing key {path}: not {KEY_LENGTH} octets")
        return cls(key)

    @classmethod
    def generate(cls, path: Path) -> SealingKey:
        """Make a new key and write it, readable by the owner only; whole and on disk with its name, or not at all.

        Raises:
            ConfigError: the file exists (a new key would make everything sealed before unreadable) or cannot be made.
        """
        key = os.urandom(KEY_LENGTH)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(base64.b64encode(key) + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
            except BaseException:
                path.unlink()  # half a key would stand in the way of a whole one
                raise
            _sync_directory(path.parent)  # what is sealed from now on must not outlive the name of its key
        except OSError as exc:
            raise ConfigError(f"sealing key {path}: {exc.strerror}") from exc
        return cls(key)

    def derive(self, label: bytes) -> bytes:
        """A key for one other purpose (such as a keyed index), 32 octets."""
        return HKDF(algorithm=hashes.SHA256(), length=KEY_LENGTH, salt=None, info=b"m2m|" + label).derive(self._key)

    def seal(self, plaintext: bytes, aad: bytes) -> bytes:
        """Seal; the result is version(1) | nonce(12) | ciphertext | tag(16)."""
        nonce = os.urandom(NONCE_LENGTH)
        return VERSION + nonce + self._aead.encrypt(nonce, plaintext, VERSION + aad)

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        """Open what `seal` made with the same `aad`.

        Raises:
            UnsealError: in every other case; it does not tell which.
        """
        nonce, ciphertext = sealed[1 : 1 + NONCE_LENGTH], sealed[1 + NONCE_LENGTH :]
        if sealed[:1] != VERSION or len(nonce) != NONCE_LENGTH or len(ciphertext) < 16:
            raise UnsealError("sealed octets do not open", hint="is this the sealing key they were sealed with?")
        try:
            return self._aead.decrypt(nonce, ciphertext, VERSION + aad)
        except InvalidTag as exc:
            raise UnsealError(
                "sealed octets do not open", hint="is this the sealing key they were sealed with?"
            ) from exc


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
