"""The story: what each trace record means in the words of TR 33.812, in lines of 80 columns.

Lines are printed once and stay, so that a CI log reads like a terminal.
"""

from __future__ import annotations

import sys
from typing import Final

from lxml import etree
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from m2m_demo.trace import Record

WIDTH: Final = 80  # columns
MAX_BODY_LINES: Final = 120  # of one message shown with --verbose

STEPS: Final[dict[str, str]] = {
    "7": "The M2ME contacts the registration operator",
    "8": "The registration operator finds and asks the home operator",
    "9": "The platform credential is read; who vouches for it?",
    "10": "The PVA validates the trusted environment",
    "11": "The PVA's answer",
    "12": "The home operator makes the MCIM for this TRE alone",
    "13": "The DPF downloads the MCIM package to the M2ME",
    "14": "The TRE provisions the MCIM",
    "15": "The home operator hears of it and arms its AuC",
    "16": "The M2ME attaches with its new identity",
}
"""Steps of the provisioning procedure, TR 33.812 §5.1.3.7.1 (1 to 6, the first attach, are not simulated)."""

_SUBJECTS: Final = {"order": "order", "container": "MCIM container", "registration": "registration"}


class Story:
    """Prints records as they come."""

    def __init__(self, console: Console, *, verbose: bool = False) -> None:
        self._console = console
        self._verbose = verbose
        self._step = ""
        plain = not (console.encoding or "").lower().startswith("utf")
        self._pass, self._fail, self._arrow = ("ok", "FAILED", "->") if plain else ("✓", "✗", "→")

    def tell(self, record: Record) -> None:
        """One record; a heading first when its step is another one."""
        if record.kind == "message" and not _told_by_its_sender(record):
            return
        if record.step != self._step:
            self._step = record.step
            self._heading(record.step)
        match record.kind:
            case "message":
                self._message(record)
            case "check":
                self._check(record)
            case "state":
                self._state(record)
            case _:
                self._line(f"  · {record.actor}: {record.text}", style="dim")

    def say(self, text: str, *, style: str = "") -> None:
        """A line of the demo's own."""
        self._line(text, style=style)

    def _heading(self, step: str) -> None:
        title = STEPS.get(step, "")
        self._console.print()
        self._line(f"Step {step}  {title}".rstrip(), style="bold cyan")

    def _message(self, record: Record) -> None:
        direction = f"{record.sender} {self._arrow} {record.receiver}".ljust(13)
        self._two_columns(f"  {direction} {record.summary}", f"{record.octets} octets", style="bold")
        if self._verbose and record.body:
            for line in pretty_body(record.body):
                self._line(f"      {line}", style="dim")

    def _check(self, record: Record) -> None:
        mark, style = (self._pass, "green") if record.passed else (self._fail, "bold red")
        left = Text.assemble((f"  {mark} ", style), f"{record.actor}: {record.name.replace('-', ' ')}")
        self._two_columns(left, " ".join(record.req))
        if record.detail:
            self._line(f"      {record.detail}", style="dim" if record.passed else "red")

    def _state(self, record: Record) -> None:
        subject = _SUBJECTS.get(record.subject, record.subject)
        text = f"  = {record.actor}: {subject} {record.old or '(none)'} {self._arrow} {record.new}"
        self._line(text, style="blue")
        if record.detail and self._verbose:
            self._line(f"      {record.detail}", style="dim")

    def _two_columns(self, left: str | Text, right: str, *, style: str = "") -> None:
        text = Text(left, style=style) if isinstance(left, str) else left
        room = self._console.width - len(right) - 2
        if text.cell_len <= room:
            text.append(" " * (room - text.cell_len + 2))
            text.append(right, style="dim")
            self._console.print(text, soft_wrap=False, highlight=False)
        else:
            self._line(text)
            self._line(right.rjust(self._console.width), style="dim")

    def _line(self, text: str | Text, *, style: str = "") -> None:
        """A line, folded with its own indentation when it is too long."""
        content = Text(text, style=style) if isinstance(text, str) else text
        indent = len(content.plain) - len(content.plain.lstrip())
        if content.cell_len <= self._console.width:
            self._console.print(content, highlight=False)
            return
        content = content[indent:]
        self._console.print(Padding(content, (0, 0, 0, indent), expand=False), highlight=False)


def _told_by_its_sender(record: Record) -> bool:
    """Both ends record a message; it is told once."""
    return record.actor == record.sender


def pretty_body(body: str) -> list[str]:
    """Lines of a message body: XML indented, anything else as it is; long ones are cut."""
    try:
        parser = etree.XMLParser(remove_blank_text=True, resolve_entities=False, no_network=True, huge_tree=False)
        root = etree.fromstring(body.encode("utf-8"), parser)
        text = etree.tostring(root, pretty_print=True, encoding="unicode")
    except etree.XMLSyntaxError:
        text = body
    lines = text.rstrip().splitlines()
    if len(lines) > MAX_BODY_LINES:
        lines = [*lines[:MAX_BODY_LINES], f"({len(lines) - MAX_BODY_LINES} more lines)"]
    return lines


def story_console(*, quiet: bool = False) -> Console:
    """Standard output, at most 80 columns wide, coloured on terminals only (rich honours NO_COLOR and TERM=dumb)."""
    console = Console(quiet=quiet, highlight=False, soft_wrap=False, emoji=False, markup=False)
    if not console.is_terminal or console.width > WIDTH:
        console = Console(quiet=quiet, highlight=False, soft_wrap=False, emoji=False, markup=False, width=WIDTH)
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")  # a detail from a peer never ends the demo
    return console
