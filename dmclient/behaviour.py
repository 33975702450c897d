"""Scripted behaviour: how the device treats single commands at single nodes, for testers (a TOML file).

    user = "scripted"                  # or "none" (the default), "console"

    [[rule]]
    uri = "./FUMO/*/Update"            # `*` one name, `**` any number of them; `?prop=ACL` and `?*` count too
    command = "Exec"                   # or a list; absent: every command
    exec = "async"                     # 202 now, and a generic alert in this session or a later one
    alert = { when = "later", type = "org.openmobilealliance.dm.firmwareupdate.update", format = "int", data = "200" }

    [[rule]]
    uri = "./DevDetail/**"
    command = "Get"
    value = "wrong on purpose"

    [[answer]]                         # of the scripted user, used in their order
    alert = 1101
    reply = "no"

The first rule that fits counts. What no rule says is done as usual.
"""

from __future__ import annotations

import tomllib
from enum import StrEnum
from pathlib import Path as FilePath
from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from actor_runtime.config import Section
from actor_runtime.errors import ConfigError
from dmclient.user_interaction import (
    Accepted,
    Cancelled,
    Chosen,
    Entered,
    NoAnswer,
    Question,
    Rejected,
    Reply,
)
from syncml.codes import AlertCode, Format
from syncml.errors import MalformedUri
from syncml.tree import NodeUri

ANY_NAME: Final = "*"
ANY_NAMES: Final = "**"
ANY_QUERY: Final = "*"

CommandName = Literal["Add", "Replace", "Delete", "Copy", "Get", "Exec", "Alert", "Sequence", "Atomic"]
Mark = Literal["fatal", "critical", "minor", "warning", "informational", "harmless", "indeterminate"]


class ResultsForm(StrEnum):
    """What a Get that succeeds answers with."""

    ONCE = "once"
    NONE = "none"
    TWICE = "twice"


class AlertRule(Section):
    """The generic alert that ends an asynchronous Exec."""

    when: Literal["now", "later"] = "now"  # in this session, or in the next one
    type: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    format: Format = Format.CHR
    data: str = ""
    mark: Mark = "informational"
    source: str | None = None  # URI; None: that of the Exec


class Rule(Section):
    """One rule. Without any of the keys below `alert_code` it keeps other rules away from its nodes."""

    uri: str = "**"
    command: tuple[CommandName, ...] = ()
    alert_code: int | None = None  # of an Alert
    status: Annotated[int, Field(ge=200, le=599)] | None = None
    execute: bool = False  # with `status`: do it all the same
    answer: Literal["automatic", "manual"] = "automatic"  # manual: the tester says which Status
    value: str | None = None  # what a Get finds
    results: ResultsForm = ResultsForm.ONCE
    exec: Literal["sync", "async"] = "sync"
    alert: AlertRule | None = None
    undo: Literal["works", "fails"] = "works"  # fails: an Atomic cannot roll this back (516)

    @field_validator("command", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("uri")
    @classmethod
    def _pattern(cls, value: str) -> str:
        _parse_pattern(value)
        return value

    @model_validator(mode="after")
    def _sense(self) -> Self:
        if (self.exec == "async") != (self.alert is not None):
            raise ValueError('exec = "async" and alert belong together')
        if self.execute and self.status is None:
            raise ValueError("execute without status")
        if self.status is not None and (self.answer == "manual" or self.value is not None or self.exec == "async"):
            raise ValueError("status excludes answer, value and exec")
        return self

    def fits(self, command: str, uri: str | None, alert_code: int | None = None) -> bool:
        """Whether this rule is about that command there."""
        if self.command and command not in self.command:
            return False
        if self.alert_code is not None and self.alert_code != alert_code:
            return False
        wanted, wanted_query = _parse_pattern(self.uri)
        if uri is None:
            return wanted == (ANY_NAMES,)
        address, _, query = uri.partition("?")
        if wanted_query not in (query, ANY_QUERY):
            return False
        try:
            segments = NodeUri.parse(address).segments
        except MalformedUri:
            return False
        return _matches(wanted, segments)


class UserAnswer(Section):
    """What the scripted user replies to one alert."""

    alert: Literal[1100, 1101, 1102, 1103, 1104] | None = None  # None: to any
    reply: Literal["yes", "no", "cancel", "none"] | None = None
    text: str | None = Field(default=None, repr=False)
    choice: tuple[int, ...] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(each is not None for each in (self.reply, self.text, self.choice)) != 1:
            raise ValueError("exactly one of reply, text and choice")
        return self

    def to_reply(self) -> Reply:
        """The reply as a value."""
        if self.text is not None:
            return Entered(self.text)
        if self.choice is not None:
            return Chosen(self.choice)
        return _REPLIES[self.reply or "none"]


_REPLIES: Final[dict[str, Reply]] = {
    "yes": Accepted(),
    "no": Rejected(),
    "cancel": Cancelled(),
    "none": NoAnswer(),
}


class Behaviour(Section):
    """All rules of a device."""

    user: Literal["none", "scripted", "console"] = "none"
    rule: tuple[Rule, ...] = ()
    answer: tuple[UserAnswer, ...] = ()

    @model_validator(mode="after")
    def _answers_need_a_user(self) -> Self:
        if self.answer and self.user != "scripted":
            raise ValueError('answer without user = "scripted"')
        return self

    def rule_for(self, command: str, uri: str | None = None, *, alert_code: int | None = None) -> Rule:
        """The rule that counts."""
        return next((each for each in self.rule if each.fits(command, uri, alert_code)), NO_RULE)

    @property
    def asks_operator(self) -> bool:
        """Whether somebody has to sit at the terminal."""
        return self.user == "console" or any(each.answer == "manual" for each in self.rule)


NO_RULE: Final = Rule()
USUAL: Final = Behaviour()


class ScriptedUser:
    """Replies as the behaviour file says; each answer serves once, and without one left nobody answers."""

    def __init__(self, answers: tuple[UserAnswer, ...]) -> None:
        self._answers = list(answers)

    async def ask(self, question: Question) -> Reply:
        """The first answer meant for this alert."""
        for index, each in enumerate(self._answers):
            if each.alert in (None, question.code):
                del self._answers[index]
                return each.to_reply()
        return Accepted() if question.code is AlertCode.DISPLAY else NoAnswer()


def load_behaviour(path: FilePath) -> Behaviour:
    """Read a behaviour file.

    Raises:
        ConfigError: unreadable, no TOML, or a key or value that does not belong there; the text names the place.
    """
    try:
        return Behaviour(**tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"behaviour_file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"behaviour_file {path}: not TOML: {error}") from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, each['loc'])) or 'file'}: "
            + ("unknown key" if each["type"] == "extra_forbidden" else each["msg"])
            for each in error.errors(include_input=False, include_url=False)
        )
        raise ConfigError(f"behaviour_file {path}: {faults}") from error


def _parse_pattern(text: str) -> tuple[tuple[str, ...], str]:
    """Segments and query of a pattern.

    Raises:
        ValueError: no address could ever fit it.
    """
    address, _, query = text.partition("?")
    if address in (".", ANY_NAMES):
        return ((), query) if address == "." else ((ANY_NAMES,), query)
    parts = address.removeprefix("./").split("/")
    try:
        names = [part if part in (ANY_NAME, ANY_NAMES) else NodeUri.parse(f"./{part}").segments[0] for part in parts]
    except (MalformedUri, IndexError):
        raise ValueError(f"{text!r} is no address") from None
    return tuple(names), query


def _matches(pattern: tuple[str, ...], segments: tuple[str, ...]) -> bool:
    """Row by row, so that the time is bounded by the product of the lengths whatever a server sends."""
    reachable = [True] + [False] * len(segments)
    for want in pattern:
        if want == ANY_NAMES:
            for index in range(1, len(reachable)):
                reachable[index] = reachable[index] or reachable[index - 1]
            continue
        reachable = [False] + [
            before and want in (ANY_NAME, got) for before, got in zip(reachable[:-1], segments, strict=True)
        ]
    return reachable[-1]
