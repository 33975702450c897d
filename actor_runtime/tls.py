"""TLS contexts: 1.2 or later, our own trust anchors only, host names checked, client certificates where asked for."""

from __future__ import annotations

import ssl
from pathlib import Path

from actor_runtime.errors import ConfigError
from actor_runtime.sealing import warn_if_exposed


def server_context(cert: Path, key: Path, *, client_ca: Path | None = None) -> ssl.SSLContext:
    """Context of a listener. With `client_ca`, a client without a certificate from there gets no connection.

    Raises:
        ConfigError: a file is missing or no PEM, or key and certificate do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_own(context, cert, key)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        _load_anchors(context, client_ca)
    return context


def client_context(ca: Path, *, cert: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """Context of a client that trusts the anchors in `ca` and nothing else of the system.

    Raises:
        ConfigError: a file is missing or no PEM, or only one of `cert` and `key` is given.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies chain and host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False  # a name in the subject is no identity (RFC 9525 §2)
    _load_anchors(context, ca)
    if (cert is None) != (key is None):
        raise ConfigError("a client certificate needs its key, and a key its certificate")
    if cert is not None and key is not None:
        _load_own(context, cert, key)
    return context


def _no_password() -> str:
    """An encrypted key is an error; OpenSSL would ask at the terminal, and a service would hang at its start."""
    return ""


def _load_own(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    try:
        warn_if_exposed(key)
        context.load_cert_chain(cert, key, password=_no_password)
    except ssl.SSLError as exc:
        raise ConfigError(f"{cert}, {key}: not a PEM certificate chain with its key") from exc
    except OSError as exc:
        raise ConfigError(f"{cert}, {key}: {exc.strerror}") from exc


def _load_anchors(context: ssl.SSLContext, ca: Path) -> None:
    try:
        context.load_verify_locations(cafile=ca)
    except ssl.SSLError as exc:
        raise ConfigError(f"{ca}: no PEM certificates") from exc
    except OSError as exc:
        raise ConfigError(f"{ca}: {exc.strerror}") from exc
