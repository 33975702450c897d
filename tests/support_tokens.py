"""Key stores of all kinds for tests: a SoftHSM2 token and a software TPM are made for the process that runs them."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dmclient.config import Pkcs11Section, TpmSection, TreSection
from m2m_demo.hardware import missing as missing
from m2m_demo.processes import Supervisor
from m2m_demo.tokens import (
    SoftwareToken,
    SoftwareTpm,
    make_softhsm_token,
    socket_directory,
    start_swtpm,
)


@functools.cache
def token() -> SoftwareToken:
    """The SoftHSM2 token of this process: its library reads where the tokens are once, when it is first used."""
    directory = Path(tempfile.mkdtemp(prefix="m2m-token-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    made = make_softhsm_token(directory)
    os.environ.update(made.environment)
    return made


class RunningTpm:
    """A software TPM that can be reset, and be gone for a while."""

    def __init__(self, supervisor: Supervisor, state: Path, sockets: Path) -> None:
        self._supervisor = supervisor
        self._state = state
        self._sockets = sockets
        self._tpm: SoftwareTpm | None = None
        self.tcti = self.start()

    def start(self) -> str:
        """Start it with the memory it had; its registers are zero then."""
        self._tpm = start_swtpm(self._supervisor, self._state, self._sockets)
        return self._tpm.tcti

    def stop(self) -> None:
        if self._tpm is not None:
            self._supervisor.stop(self._tpm.process)

    def reset(self) -> None:
        self.stop()
        self.start()


@contextmanager
def running_tpm(directory: Path) -> Iterator[RunningTpm]:
    """A software TPM with its memory in `directory`."""
    with socket_directory() as sockets, Supervisor(directory / "logs", environment=dict(os.environ)) as supervisor:
        yield RunningTpm(supervisor, directory / "tpm", sockets)


def settings_for(backend: str, *, tcti: str = "", **tre: object) -> TreSection:
    """Table `[tre]` for a key store on this machine."""
    tables: dict[str, object] = {}
    if backend == "pkcs11":
        made = token()
        tables["pkcs11"] = Pkcs11Section(module=made.module, token_label=made.label, pin_file=made.pin_file)
    elif backend == "tpm":
        tables["tpm"] = TpmSection(tcti=tcti)
    return TreSection.model_validate({"backend": backend, **tables, **tre})
