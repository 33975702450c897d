"""Alerts 1100 to 1104: what a server wants to show to a user, or to know from one (OMA-TS-DM_RepPro-V1_2 §8.2).

The rules of the protocol stand here; who asks is a `UserInterface`. A device without one answers 406.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias
from urllib.parse import unquote_plus

from dmclient.nodes import TreeRefusal
from syncml.codes import AlertCode, StatusCode
from syncml.model import Alert, Item
from syncml.xml_document import is_xml_text

UI_ALERTS: Final = frozenset(
    {
        AlertCode.DISPLAY,
        AlertCode.CONFIRM_OR_REJECT,
        AlertCode.TEXT_INPUT,
        AlertCode.SINGLE_CHOICE,
        AlertCode.MULTIPLE_CHOICE,
    }
)
CHOICE_ALERTS: Final = frozenset({AlertCode.SINGLE_CHOICE, AlertCode.MULTIPLE_CHOICE})
MAX_OPTIONS: Final = 1024  # characters of the option string
MAX_CHOICES: Final = 32  # what this device shows at a time; more is 416
MAX_TEXT: Final = 1024  # characters of a text, 416 beyond
MAX_INPUT: Final = 1024  # characters a user may enter; a larger MAXLEN changes nothing
MAX_SECONDS: Final = 3600  # a longer MAXDT waits no longer

_INPUT_FORMS: Final = {
    "N": re.compile(r"[+-]?[0-9]*[.,]?[0-9]+"),
    "D": re.compile(r"(0[1-9]|[12][0-9]|3[01])(0[1-9]|1[0-2])[0-9]{4}"),  # DDMMYYYY
    "T": re.compile(r"([01][0-9]|2[0-3])[0-5][0-9][0-5][0-9]"),  # hhmmss
    "P": re.compile(r"\+?[0-9pws]+"),
    "I": re.compile(r"((25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])(\.(?!$)|$)){4}"),
}  # "A" takes any text


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the first Item asks for. Options nobody knows, or with values that make no sense, count as absent."""

    min_display_s: int | None = None  # seconds
    max_display_s: int | None = None  # seconds
    default: str | None = None  # DR as received
    max_length: int = MAX_INPUT  # characters
    input_type: str = "A"
    hidden: bool = False  # ET=P: the input is not to be seen

    @classmethod
    def parse(cls, text: str) -> Options:
        """Read the URL-encoded string `KEY=value&…`; nothing in it is an error."""
        found: dict[str, str] = {}
        for part in text[:MAX_OPTIONS].strip().split("&"):
            key, mark, value = part.partition("=")
            if mark:
                found.setdefault(unquote_plus(key).strip().upper(), unquote_plus(value))
        input_type = found.get("IT", "A").strip().upper()
        return cls(
            min_display_s=_positive(found.get("MINDT")),
            max_display_s=_positive(found.get("MAXDT")),
            default=found.get("DR"),
            max_length=min(_positive(found.get("MAXLEN")) or MAX_INPUT, MAX_INPUT),
            input_type=input_type if input_type in _INPUT_FORMS else "A",
            hidden=found.get("ET", "T").strip().upper() == "P",
        )


def _positive(text: str | None) -> int | None:
    if text is None or re.fullmatch(r"[0-9]{1,9}", text.strip()) is None:
        return None
    return int(text) or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One alert, ready to be shown."""

    code: AlertCode
    text: str
    choices: tuple[str, ...] = ()  # in the order received; numbers count from 1
    options: Options = Options()

    def fault(self, entered: str) -> str | None:
        """What keeps a text from being an answer to a text input, None when nothing does."""
        if len(entered) > self.options.max_length:
            return f"at most {self.options.max_length} characters"
        if not is_xml_text(entered):  # DR is URL-encoded, so even a server's default may have them
            return "a character that no message can carry"
        form = _INPUT_FORMS.get(self.options.input_type)
        if form is not None and form.fullmatch(entered) is None:
            return f"not of input type {self.options.input_type}"
        return None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The user saw it, or said yes."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The user said no."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The user wants nothing of all this."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Nobody answered in time."""


@dataclass(frozen=True, slots=True)
class Entered:
    """The text the user gave."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Numbers of the choices, from 1, in the order the user made them."""

    numbers: tuple[int, ...]


Reply: TypeAlias = Accepted | Rejected | Cancelled | NoAnswer | Entered | Chosen


class UserInterface(Protocol):
    """Somebody who can be asked."""

    async def ask(self, question: Question) -> Reply:
        """Show the question and wait for the reply. MAXDT is the caller's business, who cancels this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interaction:
    """What became of an alert."""

    code: int
    items: tuple[Item, ...] = ()  # for the Status

    @property
    def stops_sequence(self) -> bool:
        """Whether the user's answer, or silence, keeps the rest of a Sequence from being executed (§8.2)."""
        return self.code in (StatusCode.NOT_MODIFIED, StatusCode.OPERATION_CANCELLED, StatusCode.REQUEST_TIMEOUT)


Wait: TypeAlias = Callable[[Awaitable[Any], float], Awaitable[Any]]


async def interact(interface: UserInterface | None, alert: Alert, *, wait: Wait = asyncio.wait_for) -> Interaction:
    """Ask the user what an alert asks; `wait` bounds the time (seconds) and raises `TimeoutError` after it.

    Raises:
        TreeRefusal: 406 no user to ask, 412 too few or too many Items, 415 no text, 416 more than can be shown.
    """
    if interface is None:
        raise TreeRefusal(StatusCode.OPTIONAL_FEATURE_NOT_SUPPORTED, "nobody to ask")
    question = question_of(alert)
    limit = question.options.max_display_s
    try:
        if limit is None:
            reply = await interface.ask(question)
        else:
            reply = await wait(interface.ask(question), min(limit, MAX_SECONDS))
    except TimeoutError:
        reply = NoAnswer()
    if isinstance(reply, NoAnswer):
        reply = _default_of(question)
    return _answer(question, reply)


def question_of(alert: Alert) -> Question:
    """The question in a user-interaction alert. Item 1 has the options, Item 2 the text, the others are choices.

    Raises:
        TreeRefusal: see `interact`.
    """
    if alert.code not in UI_ALERTS:
        raise TreeRefusal(StatusCode.OPTIONAL_FEATURE_NOT_SUPPORTED, f"alert {alert.code}")
    code = AlertCode(alert.code)
    many = code in CHOICE_ALERTS
    if len(alert.items) < (3 if many else 2) or (not many and len(alert.items) > 2):
        raise TreeRefusal(StatusCode.INCOMPLETE_COMMAND, "wrong number of Items")
    options, text, *choices = (_text(item) for item in alert.items)
    if not text:
        raise TreeRefusal(StatusCode.INCOMPLETE_COMMAND, "no text to show")
    if len(choices) > MAX_CHOICES or any(len(each) > MAX_TEXT for each in (text, *choices)):
        raise TreeRefusal(StatusCode.REQUESTED_RANGE_NOT_SATISFIABLE, "more than this device can show")
    return Question(code=code, text=text, choices=tuple(choices), options=Options.parse(options))


def _text(item: Item) -> str:
    if isinstance(item.data, bytes):
        try:
            return item.data.decode()
        except UnicodeDecodeError:
            raise TreeRefusal(StatusCode.UNSUPPORTED_MEDIA_TYPE_OR_FORMAT, "a text that is none") from None
    return item.data or ""


def _default_of(question: Question) -> Reply:
    """What counts when nobody answered: DR if it means something here."""
    default = question.options.default
    match question.code:
        case AlertCode.DISPLAY:
            return Accepted()  # it was shown as long as the server wanted
        case AlertCode.CONFIRM_OR_REJECT if default in ("0", "1"):
            return Accepted() if default == "1" else Rejected()
        case AlertCode.TEXT_INPUT if default is not None and question.fault(default) is None:
            return Entered(default)
        case AlertCode.SINGLE_CHOICE | AlertCode.MULTIPLE_CHOICE if default is not None:
            parts = default.split("-") if question.code is AlertCode.MULTIPLE_CHOICE else [default]
            numbers = numbers_of(question, parts)
            return NoAnswer() if numbers is None else Chosen(numbers)
    return NoAnswer()


def numbers_of(question: Question, parts: list[str]) -> tuple[int, ...] | None:
    """Numbers of choices, each once; None when one of them is no choice."""
    if not all(re.fullmatch(r"[0-9]{1,4}", each) for each in parts):
        return None
    numbers = tuple(dict.fromkeys(int(each) for each in parts))
    return numbers if all(1 <= each <= len(question.choices) for each in numbers) else None


def _answer(question: Question, reply: Reply) -> Interaction:
    match reply:
        case Rejected():
            return Interaction(code=StatusCode.NOT_MODIFIED)
        case Cancelled():
            return Interaction(code=StatusCode.OPERATION_CANCELLED)
        case NoAnswer():
            return Interaction(code=StatusCode.REQUEST_TIMEOUT)
        case Entered(text) if question.code is AlertCode.TEXT_INPUT:
            return Interaction(code=StatusCode.OK, items=(Item(data=text),))
        case Chosen(numbers) if question.code in CHOICE_ALERTS:
            return Interaction(code=StatusCode.OK, items=tuple(Item(data=str(each)) for each in numbers))
        case Accepted() if question.code in (AlertCode.DISPLAY, AlertCode.CONFIRM_OR_REJECT):
            return Interaction(code=StatusCode.OK)
    # A user interface that replies with something else, a script for instance.
    raise TreeRefusal(StatusCode.COMMAND_FAILED, "the reply is of another kind than the question")
