"""`--json` of `dmserver`: before the command and after it, for every command that prints data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from dmserver import cli

SETTINGS = 'server_id = "dms.example"\ndatabase_url = "sqlite:///{dir}/d.sqlite"\nseal_key = "{dir}/seal.key"\n'
DEVICE = "urn:imei:004999010640000"


def _commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(_commands(get_command(cli.app)))


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "serve"])
def test_every_command_takes_it(name: str) -> None:
    assert "--json" in [option for each in COMMANDS[name].params for option in each.opts]


@pytest.mark.parametrize(
    "arguments", [("--json", "devices", "show", DEVICE), ("devices", "show", DEVICE, "--json")], ids=["before", "after"]
)
def test_both_places(tmp_path, arguments: tuple[str, ...]) -> None:
    config = tmp_path / "dmserver.toml"
    config.write_text(SETTINGS.format(dir=tmp_path))
    runner = CliRunner()
    add = ("devices", "add", "--m2me-id", DEVICE, "--managed", "--json")
    assert json.loads(runner.invoke(cli.app, ["-c", str(config), *add]).output) == {"m2meId": DEVICE}
    shown = runner.invoke(cli.app, ["-c", str(config), *arguments])
    assert (shown.exit_code, json.loads(shown.output)["managed"]) == (0, True)


def test_a_request_of_a_device_after_the_command(tmp_path) -> None:
    """The name of the device stands between the two."""
    config = tmp_path / "dmserver.toml"
    config.write_text(SETTINGS.format(dir=tmp_path))
    runner = CliRunner()
    runner.invoke(cli.app, ["-c", str(config), "devices", "add", "--m2me-id", DEVICE, "--managed"])
    queued = runner.invoke(cli.app, ["-c", str(config), "device", DEVICE, "get", "./DevInfo/Man", "--json"])
    assert json.loads(queued.output)["state"] == "queued"
