"""The key store that the settings name. The optional ones are imported only when they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from actor_runtime.errors import ConfigError
from dmclient.tre.keys import KeyStore
from dmclient.tre.software import SoftwareKeyStore


class Pkcs11Choice(Protocol):
    """Table `[tre.pkcs11]`."""

    @property
    def module(self) -> Path | None:
        """The token's library."""

    @property
    def token_label(self) -> str:
        """Which of its tokens."""

    @property
    def pin_file(self) -> Path | None:
        """One line."""

    @property
    def label_prefix(self) -> str:
        """First part of the labels of the objects made."""


class TpmChoice(Protocol):
    """Table `[tre.tpm]`."""

    @property
    def tcti(self) -> str:
        """How the TPM is reached, as tpm2-tools write it."""

    @property
    def counter_index(self) -> int:
        """First NV index to try for the counter."""


class KeyStoreChoice(Protocol):
    """What the settings say of it (table `[tre]`)."""

    @property
    def backend(self) -> str:
        """software, pkcs11 or tpm."""

    @property
    def pkcs11(self) -> Pkcs11Choice:
        """The token."""

    @property
    def tpm(self) -> TpmChoice:
        """The TPM."""


def open_key_store(choice: KeyStoreChoice, directory: Path) -> KeyStore:
    """The key store for the TRE in `directory`.

    Raises:
        ConfigError: its extra is not installed, or a setting that it needs is missing.
        KeyStoreError: it does not answer.
    """
    if choice.backend == "pkcs11":
        return _open_pkcs11(choice.pkcs11, directory)
    if choice.backend == "tpm":
        return _open_tpm(choice.tpm, directory)
    return SoftwareKeyStore(directory)


def _open_pkcs11(choice: Pkcs11Choice, directory: Path) -> KeyStore:
    try:
        from dmclient.tre.pkcs11 import Pkcs11KeyStore
        from dmclient.tre.pkcs11_session import TokenSession
    except ImportError as exc:
        raise ConfigError("tre.backend pkcs11 needs python-pkcs11", hint="pip install 'm2m-dm[pkcs11]'") from exc
    if choice.module is None or choice.pin_file is None or not choice.token_label:
        raise ConfigError("tre.backend pkcs11 needs tre.pkcs11.module, tre.pkcs11.token_label and tre.pkcs11.pin_file")
    try:
        pin = choice.pin_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "no text"
        raise ConfigError(f"tre.pkcs11.pin_file {choice.pin_file}: {reason}") from exc
    if not pin:
        raise ConfigError(f"tre.pkcs11.pin_file {choice.pin_file}: there is no PIN in it")
    _make(directory)
    session = TokenSession.of(choice.module, choice.token_label, pin)
    return Pkcs11KeyStore(session, directory, label_prefix=choice.label_prefix)


def _open_tpm(choice: TpmChoice, directory: Path) -> KeyStore:
    try:
        from dmclient.tre.tpm import TpmKeyStore
    except ImportError as exc:
        raise ConfigError(
            "tre.backend tpm needs tpm2-pytss",
            hint="apt install libtss2-dev gcc python3-dev, then pip install 'm2m-dm[tpm]'",
        ) from exc
    _make(directory)
    return TpmKeyStore(choice, directory)


def _make(directory: Path) -> None:
    """The counter is made, or at least named, before there is a TRE."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError(f"{directory}: {exc.strerror}") from exc
