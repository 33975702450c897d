"""Reference values (RFC 9334 §8.3): what the PVA knows to be good of a TRE type and version, and how it is shown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from actor_runtime.errors import ActorError
from mcim.measurement_log import DIGEST, MAX_ENTRIES
from mcim.vocabulary import ValidationMode

MAX_FILE: Final = 256 * 1024  # octets
MAX_NAME: Final = 255  # characters
MAX_FACT: Final = 64  # characters of a type or version

_STRENGTH: Final = {
    ValidationMode.AUTONOMOUS: 0,
    ValidationMode.SEMI_AUTONOMOUS: 1,
    ValidationMode.REMOTE: 2,
}


@dataclass(frozen=True, slots=True)
class ReferenceMeasurement:
    """One component that may be in the log."""

    name: str
    digest: bytes  # SHA-256
    required: bool = True  # must be in every log


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A TRE type and version known to be good."""

    tre_type: str
    version: str
    minimum_mode: ValidationMode = ValidationMode.SEMI_AUTONOMOUS
    requires_quote: bool = False  # its evidence is a TPM's quote, and nothing less
    measurements: tuple[ReferenceMeasurement, ...] = ()

    def allows(self, mode: ValidationMode) -> bool:
        """Whether validation in that mode says enough: nobody talks the PVA down (T16)."""
        return _STRENGTH[mode] >= _STRENGTH[self.minimum_mode]


def make_reference(
    *,
    tre_type: str,
    version: str,
    minimum_mode: ValidationMode,
    requires_quote: bool,
    required: Mapping[str, str],
    optional: Mapping[str, str],
) -> Reference:
    """A reference of what an operator typed or has in a file: names and hexadecimal digests.

    Raises:
        ActorError: a name or digest is unusable, or the parts do not go together.
    """
    if not (0 < len(tre_type) <= MAX_FACT and 0 < len(version) <= MAX_FACT):
        raise ActorError(f"type and version have 1 to {MAX_FACT} characters")
    if requires_quote and minimum_mode is ValidationMode.AUTONOMOUS:
        raise ActorError("autonomous validation has no quote", hint="--minimum-mode semi-autonomous or remote")
    twice = sorted(set(required) & set(optional))
    if twice:
        raise ActorError(f"both required and optional: {', '.join(twice)}")
    if minimum_mode is ValidationMode.REMOTE and not required:
        raise ActorError(
            "remote validation compares measurements, and there is none", hint="--measurement NAME=HEX, --measurements"
        )
    if len(required) + len(optional) > MAX_ENTRIES:
        raise ActorError(f"more than {MAX_ENTRIES} measurements")
    measurements = [
        ReferenceMeasurement(_name(name), _digest(name, text), must)
        for values, must in ((required, True), (optional, False))
        for name, text in values.items()
    ]
    return Reference(
        tre_type=tre_type,
        version=version,
        minimum_mode=minimum_mode,
        requires_quote=requires_quote,
        measurements=tuple(sorted(measurements, key=lambda each: each.name)),
    )


def parse_pairs(pairs: Iterable[str]) -> dict[str, str]:
    """`NAME=HEX`, each name once.

    Raises:
        ActorError: another form, or a name twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, separator, digest = pair.rpartition("=")
        if not separator or name in found:
            raise ActorError(f"{pair}: not NAME=HEX, or the name is there twice")
        found[name] = digest
    return found


def read_measurements(path: Path) -> dict[str, str]:
    """A JSON file: an object of names and hexadecimal digests.

    Raises:
        ActorError: unreadable, too large, or another form.
    """
    try:
        octets = path.read_bytes()
        values = json.loads(octets, object_pairs_hook=_once) if len(octets) <= MAX_FILE else None
    except (OSError, ValueError, RecursionError) as exc:
        raise ActorError(f"{path}: not a JSON file of measurements") from exc
    if not isinstance(values, dict) or not all(isinstance(each, str) for each in values.values()):
        raise ActorError(f"{path}: not an object of names and digests")
    return values


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name is there twice")
    return dict(pairs)


def _name(name: str) -> str:
    if not (0 < len(name) <= MAX_NAME and name.isascii() and name.isprintable()):
        raise ActorError(f"the name of a measurement is printable ASCII, 1 to {MAX_NAME} characters: {name!r}")
    return name


def _digest(name: str, text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != DIGEST:
        raise ActorError(f"{name}: a SHA-256 digest is {2 * DIGEST} hexadecimal digits")
    return digest
