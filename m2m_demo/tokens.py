"""Trusted hardware where there is none: a software TPM (swtpm) and a PKCS #11 token in files (SoftHSM2).

Both keep everything in a directory of the caller's. Debian: swtpm, softhsm2.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from m2m_demo.errors import DemoFailed
from m2m_demo.processes import POLL_S, Process, Supervisor, tail

SWTPM: Final = "swtpm"
SOFTHSM_UTIL: Final = "softhsm2-util"
SOFTHSM_MODULES: Final = (
    Path("/usr/lib/softhsm/libsofthsm2.so"),  # Debian and Ubuntu
    Path("/usr/lib64/softhsm/libsofthsm2.so"),
    Path("/usr/lib64/pkcs11/libsofthsm2.so"),  # Fedora
    Path("/usr/local/lib/softhsm/libsofthsm2.so"),
    Path("/opt/homebrew/lib/softhsm/libsofthsm2.so"),
)
START_TIMEOUT_S: Final = 10.0  # seconds until a software TPM must listen
_SOCKET: Final = "tpm.sock"
_PIN_OCTETS: Final = 8


def swtpm_missing() -> str:
    """Why a software TPM cannot be started; empty: it can."""
    return "" if shutil.which(SWTPM) else "swtpm is not installed (Debian: swtpm)"


def softhsm_missing() -> str:
    """Why a SoftHSM2 token cannot be made; empty: it can."""
    there = shutil.which(SOFTHSM_UTIL) and softhsm_module() is not None
    return "" if there else "SoftHSM2 is not installed (Debian: softhsm2)"


def softhsm_module() -> Path | None:
    """The module of SoftHSM2, None when it is not installed where distributions put it."""
    return next((path for path in SOFTHSM_MODULES if path.exists()), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareTpm:
    """A TPM that runs as a process."""

    process: Process
    tcti: str  # for `tre.tpm.tcti` and TPM2TOOLS_TCTI


@contextmanager
def socket_directory() -> Iterator[Path]:
    """A directory for the sockets of a TPM. Not in the work directory: the kernel takes names of 107 octets at most."""
    with tempfile.TemporaryDirectory(prefix="m2m-tpm-") as directory:
        yield Path(directory)


def start_swtpm(supervisor: Supervisor, state: Path, sockets: Path, *, name: str = "swtpm") -> SoftwareTpm:
    """Start a software TPM and wait until it listens.

    It starts as after a reset: registers are zero, NV indices and the owner seed are those of `state`.

    Args:
        supervisor: gets and ends the process.
        state: directory of its memory.
        sockets: see `socket_directory`.
        name: of process and log.

    Raises:
        DemoFailed: it is not installed, or does not start.
    """
    if missing := swtpm_missing():
        raise DemoFailed(missing)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    data, control = sockets / _SOCKET, sockets / f"{_SOCKET}.ctrl"
    for each in (data, control):
        each.unlink(missing_ok=True)
    process = supervisor.start(
        name,
        [
            SWTPM, "socket", "--tpm2",
            "--tpmstate", f"dir={state}",
            "--server", f"type=unixio,path={data}",
            "--ctrl", f"type=unixio,path={control}",
            "--flags", "not-need-init,startup-clear",
        ],
    )  # fmt: skip
    deadline = time.monotonic() + START_TIMEOUT_S
    while not (_answers(data) and _answers(control)):
        if process.exit_code() is not None or time.monotonic() > deadline:
            raise DemoFailed(f"{SWTPM} does not start{tail(process.log)}")
        time.sleep(POLL_S)
    return SoftwareTpm(process=process, tcti=f"swtpm:path={data}")


def _answers(path: Path) -> bool:
    """Whether somebody listens; that the socket is there does not mean that yet."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareToken:
    """A token in a directory."""

    module: Path  # for `tre.pkcs11.module`
    label: str
    pin_file: Path
    config: Path
    pin: str = field(repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to find the token."""
        return {"SOFTHSM2_CONF": str(self.config)}


def make_softhsm_token(directory: Path, label: str = "m2m-tre") -> SoftwareToken:
    """Make a SoftHSM2 token with random PINs; in one directory there may be several.

    Raises:
        DemoFailed: it is not installed, or refuses.
    """
    module = softhsm_module()
    if (missing := softhsm_missing()) or module is None:
        raise DemoFailed(missing)
    tokens = directory / "tokens"
    tokens.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = directory / "softhsm2.conf"
    config.write_text(
        f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n", encoding="utf-8"
    )
    pin = secrets.token_hex(_PIN_OCTETS)
    token = SoftwareToken(module=module, label=label, pin_file=directory / f"{label}.pin", config=config, pin=pin)
    descriptor = os.open(token.pin_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(pin + "\n")
    # The tool takes PINs as arguments alone; these protect nothing but files that the same user can read.
    done = subprocess.run(  # noqa: S603 (no shell)
        [
            SOFTHSM_UTIL, "--init-token", "--free", "--label", label,
            "--pin", pin, "--so-pin", secrets.token_hex(_PIN_OCTETS),
        ],
        env={**os.environ, **token.environment},
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT_S,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise DemoFailed(f"{SOFTHSM_UTIL}: {done.stderr.strip()}")
    return token
