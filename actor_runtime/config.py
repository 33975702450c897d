"""Settings of an actor: a TOML file, then the environment on top of it.

Environment names are PREFIX, the key in capitals and `__` between levels: `SHO_PARTNER__PORT=8443`. Names with the
prefix that fit no key are passed over, because orchestrators put names of their own there (`SHO_SERVICE_HOST`); an
unknown key in the file is an error. Relative paths are relative to the working directory.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from actor_runtime.errors import ConfigError


class Section(BaseModel):
    """A table of the settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ListenAddress(Section):
    """Where a listener binds. Port 0 lets the system choose; the ready file tells which it was."""

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)


class ActorSettings(BaseSettings):
    """Settings every actor has. Subclasses set `env_prefix` in their `model_config`."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_nested_delimiter="__")

    ready_file: Path | None = None  # written when all listeners are up: {"ports": {name: port}, "pid": n}
    trace_file: Path | None = None  # audit trail as JSON lines, beside the one in the database
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over what `load_settings` read from the file."""
        return env_settings, init_settings


SettingsT = TypeVar("SettingsT", bound=ActorSettings)


def load_settings(cls: type[SettingsT], path: Path | None) -> SettingsT:
    """Read `path` (None: environment and defaults alone) and the environment.

    Raises:
        ConfigError: unreadable file, broken TOML, unknown or missing key, or a value that does not fit. Values are
            not repeated in the text.
    """
    values: dict[str, object] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as exc:
            raise ConfigError(f"{path}: {exc.strerror}") from exc
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
            raise ConfigError(f"{path}: not TOML: {exc}") from exc
    try:
        return cls(**values)  # type: ignore[arg-type]  # the file's values are what is being validated
    except ValidationError as exc:
        faults = "; ".join(
            f"{'.'.join(map(str, error['loc']))}: "
            + ("unknown key" if error["type"] == "extra_forbidden" else error["msg"])
            for error in exc.errors(include_input=False, include_url=False)
        )
        prefix = cls.model_config.get("env_prefix", "")
        raise ConfigError(
            f"{path or 'environment'}: {faults}", hint=f"keys can also be set in the environment, prefix {prefix}"
        ) from exc
    except SettingsError as exc:  # the text names field and place; the cause, which quotes the value, is left out
        raise ConfigError(f"environment: {exc}", hint="tables and lists are JSON there") from None
