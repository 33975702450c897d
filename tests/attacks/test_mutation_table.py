"""The table of checks that can be taken out: complete, and true to the code. `tests/attacks/mutations.py` runs it."""

from __future__ import annotations

import ast
from functools import cache

import pytest

from tests.attacks.mutations import MUTATIONS, ROOT, Mutation

THREATS = [f"T{number}" for number in range(1, 18)]


@cache
def functions_of(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("threat", THREATS)
def test_every_threat_has_a_check_that_is_missed(threat: str) -> None:
    """T1 to T17."""
    assert any(mutation.threat == threat for mutation in MUTATIONS)


def test_no_row_is_about_something_else() -> None:
    assert {mutation.threat for mutation in MUTATIONS} <= set(THREATS)
    assert len(set(MUTATIONS)) == len(MUTATIONS)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: f"{mutation.threat}-{mutation.file}")
def test_the_check_stands_once_and_its_test_exists(mutation: Mutation) -> None:
    assert (ROOT / mutation.file).read_text(encoding="utf-8").count(mutation.check) == 1
    assert mutation.without != mutation.check
    assert mutation.tests
    for node in mutation.tests:
        file, _, name = node.partition("::")
        assert (ROOT / file).is_file()
        assert not name or name in functions_of(file), node
