"""The actors as processes: start, wait until ready, notice deaths, and leave none behind.

Every process gets a process group of its own, so that Ctrl-C at the terminal reaches this program alone, which then
ends the others in order. Should this program be killed, the kernel ends them (Linux, PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from m2m_demo.errors import DemoFailed, Interrupted

READY_TIMEOUT_S: Final = 60.0  # seconds until a started actor must listen, on a machine that is busy with other things
COMMAND_TIMEOUT_S: Final = 60.0  # seconds for a command that does one thing and ends, on the same
STOP_TIMEOUT_S: Final = 6.0  # seconds from SIGTERM to SIGKILL
POLL_S: Final = 0.02  # seconds between looks at files and processes

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into `Interrupted`, so that everything is cleaned up on the way out."""

    def on_signal(number: int, _frame: FrameType | None) -> None:
        for each in previous:  # a second signal must not break off the cleaning up
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(signal.Signals(number).name)

    previous = dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    for number in previous:
        previous[number] = signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process we started."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path  # standard error, and standard output of a server
    output: Path | None = None  # standard output of a command

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.popen.pid

    def exit_code(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self.popen.poll()


class Supervisor:
    """Starts processes and ends all that it started. Use as a context manager, from the main thread.

    The kernel ties PR_SET_PDEATHSIG to the thread that forked: starting from another thread would end the
    process together with that thread.
    """

    def __init__(self, log_directory: Path, *, environment: Mapping[str, str]) -> None:
        self._logs = log_directory
        self._environment = dict(environment)
        self._processes: dict[str, Process] = {}
        self.after_the_end = ExitStack()  # what is to be cleaned away when no process needs it any more

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        with self.after_the_end:
            self.stop_all()

    def add_environment(self, more: Mapping[str, str]) -> None:
        """Something that all processes started from now on find in their environment."""
        self._environment |= more

    def processes(self) -> tuple[Process, ...]:
        """What was started and neither finished nor stopped, in order of start."""
        return tuple(self._processes.values())

    def start(self, name: str, argv: Sequence[str]) -> Process:
        """Start a server; its output goes to LOGS/name.log."""
        return self._start(name, argv, output=None)

    def begin(self, name: str, argv: Sequence[str]) -> Process:
        """Start a command; standard output is kept for `finish`, standard error goes to LOGS/name.log."""
        return self._start(name, argv, output=self._logs / f"{name}.out")

    def finish(self, command: Process, *, expect: int | None = 0, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Wait for a command to end and return its standard output.

        Raises:
            DemoFailed: it ends with another status than `expect` (None: any), or takes too long.
        """
        code = self.wait_exit(command, timeout_s=timeout_s)
        self._processes.pop(command.name, None)
        if expect is not None and code != expect:
            raise DemoFailed(f"{command.name} ended with status {code}{tail(command.log)}")
        return command.output.read_text(encoding="utf-8", errors="replace") if command.output is not None else ""

    def command(
        self, name: str, argv: Sequence[str], *, expect: int | None = 0, timeout_s: float = COMMAND_TIMEOUT_S
    ) -> str:
        """`begin` and `finish`."""
        return self.finish(self.begin(name, argv), expect=expect, timeout_s=timeout_s)

    def _start(self, name: str, argv: Sequence[str], *, output: Path | None) -> Process:
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{name}.log"
        with ExitStack() as files:
            errors = files.enter_context(log.open("ab"))
            popen = subprocess.Popen(  # noqa: S603 (our own programs, no shell)
                argv,
                stdin=subprocess.DEVNULL,
                stdout=errors if output is None else files.enter_context(output.open("wb")),
                stderr=errors,
                env=self._environment,
                process_group=0,
                preexec_fn=_end_with_parent(),  # one system call, nothing else runs in the child
            )
        process = Process(name=name, popen=popen, log=log, output=output)
        self._processes[name] = process
        return process

    def wait_ready(self, process: Process, ready_file: Path, *, timeout_s: float = READY_TIMEOUT_S) -> dict[str, int]:
        """Ports of a server, by listener, from the ready file it writes when all its listeners are up.

        Raises:
            DemoFailed: it ended instead, or takes too long.
        """

        def ports() -> dict[str, int] | None:
            if not ready_file.exists():
                return None
            return {str(name): int(port) for name, port in json.loads(ready_file.read_text())["ports"].items()}

        found = self._wait(process, ports, timeout_s)
        if found is None:
            raise DemoFailed(f"{process.name} is not ready after {timeout_s:.0f} s{tail(process.log)}")
        return found

    def wait_exit(self, process: Process, *, timeout_s: float = COMMAND_TIMEOUT_S) -> int:
        """Exit status of a process that ends by itself.

        Raises:
            DemoFailed: it takes too long.
        """
        try:
            return process.popen.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise DemoFailed(f"{process.name} does not end within {timeout_s:.0f} s{tail(process.log)}") from None

    def _wait(
        self, process: Process, look: Callable[[], dict[str, int] | None], timeout_s: float
    ) -> dict[str, int] | None:
        deadline = time.monotonic() + timeout_s
        while (found := look()) is None and time.monotonic() < deadline:
            code = process.exit_code()
            if code is not None:
                raise DemoFailed(f"{process.name} ended with status {code} at its start{tail(process.log)}")
            time.sleep(POLL_S)
        return found

    def stop(self, process: Process) -> None:
        """End one process: SIGTERM, and SIGKILL when that does not help in time."""
        self._end([process])
        self._processes.pop(process.name, None)

    def stop_all(self) -> None:
        """End all processes, the latest first."""
        self._end(list(reversed(self._processes.values())))
        self._processes.clear()

    @staticmethod
    def _end(processes: Sequence[Process]) -> None:
        for process in processes:
            if process.exit_code() is None:
                process.popen.terminate()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for process in processes:
            try:
                process.popen.wait(timeout=max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.popen.kill()
                process.popen.wait()


def _end_with_parent() -> Callable[[], None] | None:
    """What the child does between fork and exec: ask the kernel for SIGKILL when its parent is gone."""
    if _LIBC is None:
        return None
    libc, parent = _LIBC, os.getpid()

    def child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # gone before the call
            os._exit(1)

    return child


def tail(log: Path, lines: int = 5) -> str:
    """Last lines of a log, to stand below a reason."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
    return "".join(f"\n  {line}" for line in text.splitlines()[-lines:])
