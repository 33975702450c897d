"""Commands and options that the pages name are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import dmclient.cli
import dmserver.cli
import m2m_ca.cli
import m2m_demo.cli
import pva.cli
import ro.cli
import sho.cli

ROOT = Path(__file__).parents[2]
PROGRAMS = {
    "dmclient": dmclient.cli.app,
    "dmserver": dmserver.cli.app,
    "dms": dmserver.cli.app,  # of docs/testing-peers.md: dmserver with its settings
    "m2m-ca": m2m_ca.cli.app,
    "m2m-demo": m2m_demo.cli.app,
    "pva": pva.cli.app,
    "ro": ro.cli.app,
    "sho": sho.cli.app,
}


def _named(text: str) -> list[str]:
    """Command lines in code spans and `sh` blocks."""
    text = text.replace("\\\n", " ")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", prose)
    starts = re.compile(rf"(?:.*\$\()?((?:{'|'.join(PROGRAMS)}) .+)")
    return [found[1] for each in (*lines, *spans) if (found := starts.match(each)) and "()" not in each]


CASES = [
    pytest.param(line, id=f"{page.name}: {line[:60]}")
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    for line in _named(page.read_text())
]


def test_there_are_some() -> None:
    assert len(CASES) > 20


@pytest.mark.parametrize("line", CASES)
def test_named_commands_exist(line: str) -> None:
    program, *words = shlex.split(re.split(r" \| |\)$|; ", line)[0], comments=True)
    command: Any = get_command(PROGRAMS[program])
    arguments = 0  # of a group, before its command: `device DEVICE get`
    left = iter(words)
    for word in left:
        if word.startswith("-"):
            option = _options(command).get(word.partition("=")[0])
            assert option is not None, word
            if not option.is_flag and "=" not in word:
                next(left, None)
        elif arguments:
            arguments -= 1
        elif hasattr(command, "commands"):
            assert set(word.split("|")) <= command.commands.keys(), word
            command = command.commands[word.split("|")[0]]
            arguments = sum(each.param_type_name == "argument" for each in command.params)


def _options(command: Any) -> dict[str, Any]:
    options = [each for each in command.params if each.param_type_name == "option"]
    return {name: each for each in options for name in (*each.opts, *each.secondary_opts)}


@pytest.mark.parametrize("program", ["dmclient", "dmserver", "sho", "pva", "ro"])
def test_the_help_of_a_program_states_its_exit_statuses(program: str) -> None:
    """What they are is tested with the commands: an error a person can mend is 1, and click's wrong usage 2."""
    told = str(get_command(PROGRAMS[program]).help)
    meanings = "1 failed or nobody answered, 2 somebody refused, or wrong usage."
    if program != "dmclient":
        meanings = "1 refused or failed, 2 wrong usage."
    assert f"Exit status: 0 done, {meanings}" in told
    runner = CliRunner()
    assert runner.invoke(PROGRAMS[program], ["--help"]).exit_code == 0
    assert runner.invoke(PROGRAMS[program], ["no-such-command"]).exit_code == 2
