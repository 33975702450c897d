"""Logs: structlog to standard error, one line per event, with a last net against secrets."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, Literal

import structlog

REDACTED: Final = "[redacted]"

SECRET_KEYS: Final = frozenset(
    {
        "k", "ki", "op", "opc", "top", "topc", "imsi", "pcid", "msisdn", "res", "xres", "ck", "ik", "pik", "pck",
        "secret", "client_secret", "server_secret", "bootstrap_secret", "password", "passphrase", "pin", "token",
        "auth_token", "device_token", "cred", "private_key", "seal_key", "authorization", "nonce",
    }
)  # fmt: skip
"""Names whose values never reach a log line, however they got into the event."""


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog processor: blank the values of `SECRET_KEYS`, also one level down in a mapping."""
    for key, value in event.items():
        if key.lower() in SECRET_KEYS:
            event[key] = REDACTED
        elif isinstance(value, dict):
            event[key] = {k: REDACTED if str(k).lower() in SECRET_KEYS else v for k, v in value.items()}
    return event


_UNPRINTABLE: Final = {
    number: f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
    for number in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


def printable(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog processor for the console: what peers wrote begins no line, moves no cursor and hides no text.

    A traceback keeps its line ends.
    """
    for key, value in event.items():
        if key in ("exception", "stack"):
            event[key] = "\n".join(line.translate(_UNPRINTABLE) for line in str(value).split("\n"))
        elif isinstance(value, str):
            event[key] = value.translate(_UNPRINTABLE)
        elif isinstance(value, dict | list | tuple):
            event[key] = repr(value).translate(_UNPRINTABLE)
    return event


def configure_logs(*, log_format: Literal["console", "json"] = "console", level: str = "info") -> None:
    """Send structlog's events and those of the libraries (stdlib logging) to standard error in one form."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact,
        structlog.processors.format_exc_info,
    ]
    renderers: list[structlog.typing.Processor] = (
        [structlog.processors.JSONRenderer()]
        if log_format == "json"
        else [
            printable,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("alembic").setLevel(logging.WARNING)
