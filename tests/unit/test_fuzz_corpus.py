"""What fuzzing found worth keeping stays without a finding: every input goes through its target once more."""

from __future__ import annotations

import pytest

from tests.fuzz.__main__ import CORPUS
from tests.fuzz.targets import SEEDS, TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_corpus(name: str) -> None:
    kept = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
    assert kept, f"no corpus for {name}: python -m tests.fuzz {name}"
    for octets in [*SEEDS[name], *kept]:
        TARGETS[name](octets)


def test_every_corpus_has_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS) == set(SEEDS)
