"""The story: what each trace record means in the words of TR 33.812, in lines of 80 columns.

Lines are printed once and stay, so that a CI log reads like a terminal.
"""

from __future__ import annotations

import sys
from typing import Final

from lxml import etree
from rich.console import Console
from rich.text import Text

from m2m_demo.trace import Exchange, Record

WIDTH: Final = 80  # columns
MAX_BODY_LINES: Final = 120  # of one message shown with --verbose

STEPS: Final[dict[str, str]] = {
    "1": "The M2ME attaches with its provisional identity, the PCID",
    "2": "The visited network asks the registration operator",
    "3": "The registration operator has the platform validated first",
    "4": "The registration operator gives an authentication vector",
    "5": "M2ME and network authenticate each other",
    "6": "The M2ME can reach the registration operator, and nobody else",
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
"""Steps of the provisioning procedure, TR 33.812 §5.1.3.7.1 (1 to 6, the first attach, where a play has one)."""

_ORDER: Final = {step: 8 if step == "7" else int(step) for step in STEPS}
"""Either the operators agree before the device is called (8, 7), or the device registers first (7, 8). Steps overlap (a
device does not know what the DPF asks the PVA just now), so the story never goes back to an earlier heading."""

_LAST: Final = 1 + max(_ORDER.values())  # place of a step that is not known here
_GATE: Final = frozenset({"1", "2", "3"})
"""What the PVA does while these are told, it does for the registration operator."""

_SUBJECTS: Final = {"order": "order", "container": "MCIM container", "registration": "registration"}


class Story:
    """Prints records as they come."""

    def __init__(self, console: Console, *, verbose: bool = False) -> None:
        self._console = console
        self._verbose = verbose
        self._step = ""
        self._told: set[str] = set()  # steps with a heading
        self._exchange = Exchange()
        plain = not (console.encoding or "").lower().startswith("utf")
        self._pass, self._fail, self._arrow = ("ok", "FAILED", "->") if plain else ("✓", "✗", "→")

    def tell(self, record: Record) -> None:
        """One record; a heading first when its step is another one."""
        if record.kind == "message" and not self._exchange.is_new(record):
            return
        if record.step != "-" and self._is_next(record):
            self._step = record.step
            self._told.add(record.step)
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

    def _is_next(self, record: Record) -> bool:
        """Whether this record begins another step."""
        if record.step in self._told or (record.actor == "PVA" and self._step in _GATE):
            return False
        return _ORDER.get(record.step, _LAST) >= _ORDER.get(self._step, -1)

    def say(self, text: str, *, style: str = "") -> None:
        """A line of the demo's own."""
        self._line(text, style=style)

    def _heading(self, step: str) -> None:
        title = STEPS.get(step, "")
        self._console.print()
        self._line(f"Step {step}  {title}".rstrip(), style="bold cyan")

    def _message(self, record: Record) -> None:
        direction = f"{record.sender} {self._arrow} {record.receiver}".ljust(13)
        left = Text.assemble((f"  {direction} ", "bold"), compact(record.summary))
        self._two_columns(left, f"{record.octets} octets")
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

    def _two_columns(self, left: Text, right: str) -> None:
        """`right` stands at the right edge of the first line; `left` is folded beside it."""
        if len(right) > self._console.width // 2:
            self._print_all(self._folded(left, self._console.width))
            self._print_all(self._folded(Text(f"      {right}", style="dim"), self._console.width))
            return
        first, *others = self._folded(left, self._console.width - len(right) - 2)
        gap = self._console.width - first.cell_len - len(right)
        self._print(Text.assemble(first, " " * gap, (right, "dim")))
        self._print_all(others)

    def _line(self, text: str, *, style: str = "") -> None:
        """A line, folded with its own indentation when it is too long."""
        self._print_all(self._folded(Text(text, style=style), self._console.width))

    def _folded(self, text: Text, width: int) -> list[Text]:
        indent = len(text.plain) - len(text.plain.lstrip())
        lines = list(text[indent:].wrap(self._console, max(width - indent, 20)))
        for line in lines:
            line.rstrip()
        return [Text(" " * indent).append_text(line) for line in lines or [Text()]]

    def _print_all(self, lines: list[Text]) -> None:
        for line in lines:
            self._print(line)

    def _print(self, line: Text) -> None:
        self._console.print(line, highlight=False, no_wrap=True, overflow="ignore", crop=False)


def compact(summary: str) -> str:
    """A summary with neighbouring commands of one kind counted: "Status 200 ×24; Results ×23 ./M2MMobj/M2MEId …"."""
    parts: list[tuple[str, str]] = []  # kind, and the text of its first command
    counts: list[int] = []
    for part in summary.split("; "):
        verb, _, rest = part.partition(" ")
        kind = f"{verb} {rest.partition(' ')[0]}" if verb == "Status" else verb
        if parts and parts[-1][0] == kind:
            counts[-1] += 1
        else:
            parts.append((kind, part))
            counts.append(1)
    return "; ".join(
        text if count == 1 else f"{kind} ×{count}" for (kind, text), count in zip(parts, counts, strict=True)
    )


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
