"""Finding management objects by their identifier, never by a fixed path (REQ-02)."""

from __future__ import annotations

from typing import Final

from dmserver.answers import Answers
from dmserver.commands import get_nodes
from syncml.model import Command

MAX_DEPTH: Final = 3  # levels below the root that are searched
MAX_NODES: Final = 64  # nodes asked for in one round: a device cannot make us ask without end


class Discovery:
    """Breadth-first search for the root nodes of `wanted` MO identifiers.

    One round lists the children of the frontier, the next reads their Type; nodes that are interior and carry no
    identifier are the next frontier.
    """

    def __init__(self, wanted: frozenset[str]) -> None:
        self.found: dict[str, str] = {}  # MO identifier → node URI
        self._wanted = wanted
        self._frontier: tuple[str, ...] = (".",)
        self._candidates: tuple[str, ...] = ()
        self._depth = 0

    def next(self, answers: Answers | None) -> tuple[Command, ...]:
        """Commands of the next round, given the answers to the last; empty when the search is over."""
        if answers is None:
            return get_nodes(self._frontier)
        if self._candidates:
            return self._take_types(answers)
        return self._take_children(answers)

    @property
    def complete(self) -> bool:
        """Whether every wanted object has been found."""
        return self._wanted <= self.found.keys()

    def _take_children(self, answers: Answers) -> tuple[Command, ...]:
        candidates = [
            f"{parent}/{name}"
            for parent in self._frontier
            for name in answers.children(parent) or ()
            if "?" not in name
        ]
        self._candidates = tuple(candidates[:MAX_NODES])
        self._depth += 1
        return get_nodes(tuple(f"{uri}?prop=Type" for uri in self._candidates))

    def _take_types(self, answers: Answers) -> tuple[Command, ...]:
        untyped = []
        for uri in self._candidates:
            identifier = answers.text(f"{uri}?prop=Type")
            if identifier in self._wanted:
                self.found.setdefault(identifier, uri)
            elif not identifier:
                untyped.append(uri)
        self._frontier, self._candidates = tuple(untyped), ()
        if self.complete or self._depth >= MAX_DEPTH or not self._frontier:
            return ()
        return get_nodes(self._frontier)
