"""The documents say what is so: every requirement has a row, every test named exists, every link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from actor_runtime.config import ActorSettings
from dmclient.config import ClientSettings
from dmclient.tre.profiles import PROFILES as TRE_PROFILES
from dmserver.config import DmServerSettings
from mcim.vocabulary import ContainerState, ResultCode
from mo_definitions import AlertType
from pva.config import PvaSettings
from ro.config import RoSettings
from sho.config import ShoSettings
from syncml.peer_profile import PROFILES

ROOT = Path(__file__).parents[2]
CONFORMANCE = (ROOT / "docs/conformance.md").read_text()
INTEROP = (ROOT / "docs/interop.md").read_text()
SCHEME_PAGE = (ROOT / "docs/scheme.md").read_text()
TITLES = re.findall(r"^## (.*)$", SCHEME_PAGE, re.MULTILINE)
SCHEME = dict(re.findall(r"^\| REQ-(\d\d) \|(.*)\|$", CONFORMANCE, re.MULTILINE))
PROTOCOL = dict(re.findall(r"^\| ((?:RP|SL|XC|XS|XI)-\d+) \|(.*)\|$", CONFORMANCE, re.MULTILINE))
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]

DEVICE_ROWS = [
    *range(1, 14), *range(20, 32), *range(40, 67), *range(70, 77), *range(80, 85), *range(90, 98), 100,
]  # fmt: skip


def _named_tests(cell: str) -> list[str]:
    named = re.findall(r"`(tests/[^`]+)`", cell)
    for test in named:
        path, _, function = test.partition("::")
        assert (ROOT / path).is_file(), test
        assert not function or re.search(rf"def {function}\b", (ROOT / path).read_text()), test
    return named


def _check_code(cell: str) -> None:
    for module in re.findall(r"`([a-z0-9_/]+\.py|[a-z0-9_/]+/)`", cell):
        assert (ROOT / module).exists(), module


def test_every_requirement_of_the_scheme_has_a_row() -> None:
    assert list(SCHEME) == [f"{number:02}" for number in range(1, 73)]


@pytest.mark.parametrize("number", SCHEME)
def test_done_means_a_test_that_exists_and_a_later_one_says_when(number: str) -> None:
    _, status, code, tests = (cell.strip() for cell in SCHEME[number].split(" | "))
    if status != "done":
        assert status.startswith("later:")
        assert len(status) > len("later: ")
        return
    named = _named_tests(tests)
    _check_code(code)
    modules = {test.partition("::")[0] for test in named}
    ids = rf"REQ-{number}\b|test_req{number}_|_req{number}_"
    assert any(re.search(ids, (ROOT / module).read_text()) for module in modules), (
        "no test named says that it is about it"
    )


@pytest.mark.parametrize("document", ["conformance.md", "security.md"])
def test_every_threat_has_an_attack(document: str) -> None:
    rows = [
        line for line in (ROOT / "docs" / document).read_text().splitlines() if re.match(r"\|[^|]*\|? ?T\d+\b", line)
    ]
    found = {int(number): line for line in rows for number in re.findall(r"\| T(\d+)\b", line)}
    assert sorted(found) == list(range(1, 18))
    for line in found.values():
        cells = line.strip("|").split(" | ")
        assert _named_tests(cells[-1]), line
        _check_code(line)


def test_every_row_of_the_protocol_is_there() -> None:
    assert list(PROTOCOL) == [
        *(f"RP-{number:02}" for number in range(1, 23)),
        *(f"SL-{number:02}" for number in range(1, 17)),
        *(f"XC-{number:03}" for number in DEVICE_ROWS),
        *(f"XS-{number:03}" for number in range(1, 40)),
        *(f"XI-{number}" for number in range(1, 13)),
    ]


@pytest.mark.parametrize("row", PROTOCOL)
def test_a_row_of_the_protocol_is_done_and_a_test_has_its_id(row: str) -> None:
    _, _, status, code, tests = (cell.strip() for cell in PROTOCOL[row].split(" | "))
    assert status == "done"
    assert code
    _check_code(code)
    named = _named_tests(tests)
    assert named
    if row.startswith("X"):
        assert any(row in _ids((ROOT / test.partition("::")[0]).read_text()) for test in named)


def _ids(text: str) -> set[str]:
    """Ids in a test module; `XC-071 to XC-076` and `XC-071, 075` stand for several."""
    found = set()
    for kind, first, last, others in re.findall(
        r"\b(X[CSI])-(\d+)(?: to (?:X[CSI]-)?(\d+))?((?:(?:, | and )\d{3}\b)*)", text
    ):
        numbers = [*range(int(first), int(last or first) + 1), *map(int, re.findall(r"\d{3}", others))]
        found |= {f"{kind}-{number:0{len(first)}}" for number in numbers}
    return found


def test_every_tolerance_has_a_test() -> None:
    rows = [line for line in INTEROP.splitlines() if line.startswith("| ") and line.count("|") == 4]
    tolerances = [line for line in rows if not line.startswith(("| What ", "| Name ", "| `", "| Tool "))]
    assert len(tolerances) > 50
    for line in tolerances:
        assert _named_tests(line.split("|")[3]), line


def test_every_peer_profile_is_described() -> None:
    assert re.findall(r"^\| `([a-z-]+)` \|", INTEROP, re.MULTILINE) == list(PROFILES)


def _keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Keys of a settings class as the file has them, those of all actors left out."""
    found = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found += _keys(kind, f"{prefix}{name}.")
        elif prefix or model is ActorSettings or name not in ActorSettings.model_fields:
            found.append(prefix + name)
    return found


@pytest.mark.parametrize(
    ("title", "model"),
    [
        ("All actors", ActorSettings),
        ("`dmserver`", DmServerSettings),
        ("`dmclient`", ClientSettings),
        ("`sho`", ShoSettings),
        ("`pva`", PvaSettings),
        ("`ro`", RoSettings),
    ],
)
def test_every_setting_is_described(title: str, model: type[BaseModel]) -> None:
    section = re.split(r"^## ", (ROOT / "docs/settings.md").read_text(), flags=re.MULTILINE)
    (page,) = [each for each in section if each.startswith(title)]
    described = dict(re.findall(r"^\| `([a-z0-9_.]+)` \| [^|]+ \| ([^|]+) \|$", page, re.MULTILINE))
    assert list(described) == _keys(model)
    assert all(described.values())


def _section(title: str) -> str:
    return re.split(r"^## ", SCHEME_PAGE, flags=re.MULTILINE)[TITLES.index(title) + 1].partition("\n")[2]


def test_every_result_code_is_in_the_scheme() -> None:
    cells = re.findall(r"\| ([0-9 /]+) \| [^|]+ (?=\|)", _section("Result codes"))
    assert sorted(int(code) for cell in cells for code in cell.split("/")) == sorted(ResultCode)


def test_states_and_alerts_are_those_of_the_objects() -> None:
    states = re.search(r"^Container states: (.*)\.$", SCHEME_PAGE, re.MULTILINE)
    assert states is not None
    assert dict(re.findall(r"(\d+) (\w+)", states[1])) == {str(int(s)): s.name.lower() for s in ContainerState}
    alerts = SCHEME_PAGE[SCHEME_PAGE.index("Generic alerts (1226)") :].partition(";")[0]
    assert set(re.findall(r"`(\w+)`", alerts)) == {kind.rpartition(":")[2] for kind in AlertType}


def test_kinds_of_tre_are_those_of_the_profiles() -> None:
    rows = re.findall(r"^\| ([a-z0-9, ]+) \| ([^|]+) \| (\d+) KiB \| ([^|]+) \| ([^|]+) \|$", SCHEME_PAGE, re.MULTILINE)
    told = {
        kind: (containers, int(size) * 1024, kind if "java" in codes else codes, algorithms)
        for kinds, containers, size, codes, algorithms in rows
        for kind in kinds.split(", ")
    }
    assert told == {
        name: (
            ", ".join(profile.containers),
            profile.max_package,
            ", ".join(profile.code_formats) or "–",
            ", ".join(profile.algorithms),
        )
        for name, profile in TRE_PROFILES.items()
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target
