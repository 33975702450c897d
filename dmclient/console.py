"""Questions on the terminal: user-interaction alerts, and Statuses that a tester gives by hand.

Input is read in a thread of its own, so the event loop goes on, a question can run out of time, and a process that is
done does not wait for a key. What a server sends is shown without control characters: a terminal obeys them.
"""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol, TextIO

from dmclient.user_interaction import (
    Accepted,
    Cancelled,
    Chosen,
    Entered,
    Question,
    Rejected,
    Reply,
    numbers_of,
)
from syncml.codes import AlertCode

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Lines(Protocol):
    """Where typed lines come from."""

    async def read(self, *, hidden: bool = False) -> str | None:
        """The next line without its end, None when there will be no more; `hidden` asks for no echo."""


class TerminalLines:
    """Lines of a stream, standard input as a rule."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stdin
        self._queue: asyncio.Queue[str | None] | None = None
        self._ended = False

    async def read(self, *, hidden: bool = False) -> str | None:
        """See `Lines.read`; what was typed before the question does not answer it."""
        if self._ended:
            return None
        if self._queue is None:
            self._queue = asyncio.Queue()
            loop = asyncio.get_running_loop()
            threading.Thread(target=self._pump, args=(loop, self._queue), daemon=True).start()
        elif self._stream.isatty():
            while not self._queue.empty():
                self._ended = self._queue.get_nowait() is None
            if self._ended:
                return None
        with _no_echo(self._stream) if hidden else _as_it_is():
            line = await self._queue.get()
        self._ended = line is None
        return line

    def _pump(self, loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[str | None]) -> None:
        try:
            for line in self._stream:
                loop.call_soon_threadsafe(queue.put_nowait, line.rstrip("\r\n"))
            loop.call_soon_threadsafe(queue.put_nowait, None)
        except (RuntimeError, ValueError):
            return  # the loop or the stream is closed: nobody listens any more


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


@contextmanager
def _no_echo(stream: TextIO) -> Iterator[None]:
    if not stream.isatty():
        yield
        return
    import termios

    descriptor = stream.fileno()
    before = termios.tcgetattr(descriptor)
    silent = list(before)
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(descriptor, termios.TCSADRAIN, silent)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Console:
    """Asks whoever sits at the terminal."""

    def __init__(self, lines: Lines | None = None, write: Callable[[str], None] = _print) -> None:
        self._lines = lines if lines is not None else TerminalLines()
        self._write = write

    async def ask(self, question: Question) -> Reply:
        """Show a question of the server. A line `!` cancels, and so does the end of the input."""
        self._write(f"[server] {shown(question.text)}")
        for number, choice in enumerate(question.choices, start=1):
            self._write(f"  {number}  {shown(choice)}")
        if question.code is AlertCode.DISPLAY:
            return Accepted()  # a terminal keeps what it showed, so MINDT is met
        while True:
            self._write(_HELP[question.code])
            line = await self._lines.read(hidden=question.options.hidden)
            if line is None or line.strip() == "!":
                return Cancelled()
            reply = self._reply(question, line)
            if reply is not None:
                return reply

    def _reply(self, question: Question, line: str) -> Reply | None:
        if question.code is AlertCode.CONFIRM_OR_REJECT:
            return {True: Accepted(), False: Rejected(), None: None}[_yes_or_no(line)]
        if question.code is AlertCode.TEXT_INPUT:
            text = line or question.options.default or ""
            fault = question.fault(text)
            if fault is None:
                return Entered(text)
            self._write(fault)
            return None
        parts = line.replace(",", " ").split()
        numbers = numbers_of(question, parts)
        single = question.code is AlertCode.SINGLE_CHOICE
        return None if numbers is None or (single and len(numbers) != 1) else Chosen(numbers)

    async def confirm(self, text: str) -> bool | None:
        """A question of the device itself, yes or no (`dmclient.calls.Confirm`); None at the end of the input."""
        self._write(f"[device] {shown(text)}")
        while True:
            self._write("yes or no")
            line = await self._lines.read()
            if line is None:
                return None
            answer = _yes_or_no(line)
            if answer is not None:
                return answer

    async def status_for(self, command: str, uri: str) -> int | None:
        """Let the tester decide on a command: a Status code, or None to do it as usual."""
        while True:
            self._write(f"[device] {command} {shown(uri)}: Status to answer, or nothing to do it")
            line = await self._lines.read()
            if line is None or not line.strip():
                return None
            if re.fullmatch(r"[2-5][0-9]{2}", line.strip()):
                return int(line)


_HELP: Final = {
    AlertCode.CONFIRM_OR_REJECT: "yes, no, or ! to cancel",
    AlertCode.TEXT_INPUT: "your answer, or ! to cancel",
    AlertCode.SINGLE_CHOICE: "a number, or ! to cancel",
    AlertCode.MULTIPLE_CHOICE: "numbers, or ! to cancel",
}


def _yes_or_no(line: str) -> bool | None:
    answer = line.strip().lower()
    if answer in ("y", "yes"):
        return True
    return False if answer in ("n", "no") else None


def shown(text: str) -> str:
    """A server's text, safe for a terminal."""
    return _CONTROL.sub("�", text)
