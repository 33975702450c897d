"""The documents say what is so: every requirement has a row, every test named exists, every link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFORMANCE = (ROOT / "docs/conformance.md").read_text()
ROWS = dict(re.findall(r"^\| REQ-(\d\d) \|(.*)\|$", CONFORMANCE, re.MULTILINE))
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_every_requirement_has_a_row() -> None:
    assert list(ROWS) == [f"{number:02}" for number in range(1, 73)]


@pytest.mark.parametrize("number", ROWS)
def test_done_means_a_test_that_exists_and_a_later_one_says_when(number: str) -> None:
    _, status, code, tests = (cell.strip() for cell in ROWS[number].split(" | "))
    if status != "done":
        assert status.startswith("later:")
        assert len(status) > len("later: ")
        return
    named = re.findall(r"`(tests/[^`]+)`", tests)
    assert named
    for test in named:
        path, _, function = test.partition("::")
        assert (ROOT / path).is_file(), test
        assert not function or re.search(rf"def {function}\b", (ROOT / path).read_text()), test
    for module in re.findall(r"`([a-z0-9_/]+\.py|[a-z0-9_/]+/)`", code):
        assert (ROOT / module).exists(), module


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target
