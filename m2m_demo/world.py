"""The demo's world: one directory with a throw-away PKI, the actors' settings, and everything they write.

`pki/` is as `m2m-ca` makes it; `pva/`, `sho/`, `dpf/`, `ro/` and `m2me/` hold an actor's settings, ready file, trace,
data; `logs/` has the output of every process.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HOST: Final = "127.0.0.1"
DPF_ID: Final = "dpf.m2m.example"
SHO_ID: Final = "sho.m2m.example"
SHO2_ID: Final = "sho2.m2m.example"
PVA_ID: Final = "urn:m2m:pva:m2m.example"
RO_ID: Final = "ro.m2m.example"
VNO: Final = "26201"  # network that a device visits for its first attach
TRE_VERSION: Final = "1.0"
ACTORS: Final = ("pva", "sho", "sho2", "dpf", "ro", "m2me")
MODULES: Final = {"pva": "pva", "sho": "sho", "sho2": "sho", "dpf": "dmserver", "ro": "ro", "m2me": "dmclient"}
PREFIXES: Final = ("PVA_", "SHO_", "RO_", "DMSERVER_", "DMCLIENT_")  # settings in our environment are not the demo's

TomlValue = str | int | float | bool | Path | list[str] | Mapping[str, "TomlValue"]


@dataclass(frozen=True, slots=True)
class World:
    """Paths of one run."""

    root: Path

    def home(self, actor: str) -> Path:
        """Directory of an actor."""
        return self.root / actor

    def settings(self, actor: str) -> Path:
        """Its settings."""
        return self.home(actor) / "settings.toml"

    def ready(self, actor: str) -> Path:
        """Its ready file."""
        return self.home(actor) / "ready.json"

    def trace(self, actor: str) -> Path:
        """Its trace file."""
        return self.home(actor) / "trace.jsonl"

    @property
    def traces(self) -> tuple[Path, ...]:
        """All trace files."""
        return tuple(self.trace(actor) for actor in ACTORS)

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.root / "pki"

    @property
    def logs(self) -> Path:
        """Output of the processes."""
        return self.root / "logs"

    def anchors(self, purpose: str) -> Path:
        """Trust anchors of one purpose: tls, manufacturer, sho, pva."""
        return self.pki / "anchors" / f"{purpose}.pem"

    def make_directories(self) -> None:
        """Directories for the actors, for the owner alone."""
        for actor in ACTORS:
            self.home(actor).mkdir(parents=True, mode=0o700)

    def command(self, actor: str, *arguments: str) -> list[str]:
        """Command line of an actor with its settings."""
        return [sys.executable, "-m", MODULES[actor], "--config", str(self.settings(actor)), *arguments]

    def write_settings(self, actor: str, values: Mapping[str, TomlValue]) -> None:
        """Write an actor's settings; ready file, trace file and log format are the same for all."""
        common: dict[str, TomlValue] = {
            "ready_file": self.ready(actor),
            "trace_file": self.trace(actor),
            "log_format": "json",
        }
        self.settings(actor).write_text(toml(common | dict(values)), encoding="utf-8")

    def json_command(self, actor: str, *arguments: str) -> list[str]:
        """The same, with JSON as output (for actors with a global option for it)."""
        return self.command(actor, "--json", *arguments)

    def shared_secret(self, name: str, *actors: str) -> None:
        """Write a fresh secret, in hex, for the owner alone, into the directories of those who share it."""
        secret = secrets.token_hex(16)
        for actor in actors:
            descriptor = os.open(self.home(actor) / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secret + "\n")


def environment() -> dict[str, str]:
    """Environment of the processes: ours, without settings of actors, and with readable output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIXES)}
    return kept | {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", "NO_COLOR": "1"}


def toml(values: Mapping[str, TomlValue], table: str = "") -> str:
    """TOML text of a mapping: plain keys first, then tables."""
    plain = [f"{_key(key)} = {_value(value)}\n" for key, value in values.items() if not isinstance(value, Mapping)]
    tables = [
        f"\n[{table}{_key(key)}]\n{toml(value, f'{table}{_key(key)}.')}"
        for key, value in values.items()
        if isinstance(value, Mapping)
    ]
    return "".join(plain + tables)


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() else _value(key)


def _value(value: TomlValue) -> str:
    # JSON's strings, numbers, booleans and arrays of strings are TOML's, if DEL is escaped too.
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False).replace("\x7f", "\\u007f")
