"""What the M2ME measures at its start (TR 33.812 §5.1.2.2, integrity check; RFC 9334 §4.2): its own code and settings.

The same for every key store and for every device of an installation, so one set of reference values serves all devices
of a TRE type and version. A program that measures itself shows the protocol, not a root of trust: in a product the boot
chain measures the TRE before the TRE runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Final, Protocol

import actor_runtime
import dmclient
import mcim
import mo_definitions
import syncml
from dmclient.tre.keys import KeyStoreError
from mcim.measurement_log import Measurement

REGISTER: Final = 11
"""Of a TPM: one that only its reset sets back, and that firmware and boot loaders of PCs leave alone (0 to 9, 14)."""

DISTRIBUTION: Final = "m2m-dm"
_SUFFIXES: Final = frozenset({".py", ".xml"})  # code, and the descriptions of the management objects


class MeasuredSettings(Protocol):
    """Settings of the TRE that decide what it accepts and what it says of itself; nothing that one device has alone."""

    @property
    def version(self) -> str:
        """As the TRE facts say it."""

    @property
    def vendor(self) -> str:
        """As the TRE facts say it."""

    @property
    def legacy_suite(self) -> bool:
        """Whether suite 1 is accepted."""


def measure_start(settings: MeasuredSettings) -> tuple[Measurement, ...]:
    """Measure all components, in the order in which they are loaded.

    Raises:
        KeyStoreError: a component cannot be read, and what cannot be measured must not run.
    """
    tre = _root(dmclient) / "tre"
    text = {"version": settings.version, "vendor": settings.vendor, "legacySuite": settings.legacy_suite}
    return (
        Measurement(REGISTER, "mcim", _digest_of([_root(mcim)])),
        Measurement(REGISTER, "tre", _digest_of([tre])),
        Measurement(REGISTER, "tre-settings", _digest(json.dumps(text, sort_keys=True).encode())),
        Measurement(
            REGISTER,
            "dm-client",
            _digest_of([_root(each) for each in (actor_runtime, syncml, mo_definitions, dmclient)], without=tre),
        ),
        Measurement(REGISTER, "dm-client-version", _digest(_version().encode())),
    )


def reference_values(settings: MeasuredSettings) -> dict[str, str]:
    """What a verifier must know of a good installation: SHA-256 in hex, by name.

    Raises:
        KeyStoreError: as `measure_start`.
    """
    return {each.name: each.digest.hex() for each in measure_start(settings)}


def _version() -> str:
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:  # run from its sources
        return "unknown"


def _root(package: object) -> Path:
    location = getattr(package, "__file__", None)
    if not isinstance(location, str):
        raise KeyStoreError("the device's code is not in files that can be measured")
    return Path(location).parent


def _digest_of(roots: Iterable[Path], *, without: Path | None = None) -> bytes:
    """Over names and digests of all files, in the order of their names; where they are installed does not matter."""
    whole = hashlib.sha256()
    for root in roots:
        for path in sorted(each for each in root.rglob("*") if each.suffix in _SUFFIXES):
            if without is not None and path.is_relative_to(without):
                continue
            try:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError as exc:
                raise KeyStoreError(f"{path} cannot be measured: {exc.strerror}") from exc
            whole.update(f"{root.name}/{path.relative_to(root).as_posix()} {digest}\n".encode())
    return whole.digest()


def _digest(octets: bytes) -> bytes:
    return hashlib.sha256(octets).digest()
