"""The executor for tests that are no coroutines themselves."""

from __future__ import annotations

import asyncio

from dmclient.executor import Executor, Surroundings
from dmclient.management_tree import ManagementTree
from syncml.client_session import CommandResult
from syncml.model import Command


class Commands:
    """Runs the commands of one server, each to its end."""

    def __init__(self, tree: ManagementTree, server_id: str, around: Surroundings | None = None) -> None:
        self._executor = Executor(tree, server_id, around)

    def begin_message(self) -> None:
        self._executor.begin_message()

    def execute(self, command: Command) -> list[CommandResult]:
        return asyncio.run(self._executor.execute(command))


def codes(results: list[CommandResult]) -> list[tuple[str, int]]:
    """CmdID and Status of results, in their order."""
    return [(result.cmd_id, result.code) for result in results]
