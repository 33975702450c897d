"""REQ-28: the DPF runs no code that could open an MCIM, and a new module of `mcim` is decided on, not let through."""

from __future__ import annotations

import tomllib
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
CONTRACT = "the DPF cannot open an MCIM: no code that could is reachable from dmserver (REQ-28)"

OPEN_TO_THE_DPF = {
    "mcim.certificates",  # platform and attestation certificates, and those of tickets
    "mcim.cms_header",  # what a CMS package says in clear
    "mcim.cms_structure",  # its outer form: no key goes in
    "mcim.cms_syntax",
    "mcim.errors",
    "mcim.header_fields",
    "mcim.key_id",
    "mcim.measurement_log",  # passed on to the PVA
    "mcim.package_header",
    "mcim.receipt",
    "mcim.statements",
    "mcim.ticket",
    "mcim.tlv",
    "mcim.vocabulary",
    "mcim.xml_header",  # what an XML package says in clear
}
"""What the DPF may reach, by whatever way. All else of `mcim` makes or opens something secret, or signs."""


@pytest.fixture(scope="module")
def modules() -> set[str]:
    return {f"mcim.{path.stem}" for path in (ROOT / "mcim").glob("*.py") if path.stem != "__init__"}


def test_every_module_of_mcim_is_decided_on(modules: set[str]) -> None:
    """REQ-28: forbidden by the contract or open to the DPF; `lint-imports` holds the DPF to it."""
    assert not [path for path in (ROOT / "mcim").iterdir() if (path / "__init__.py").exists()]  # no packages inside
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = [each for each in settings["tool"]["importlinter"]["contracts"] if each["name"] == CONTRACT]
    assert contract["source_modules"] == ["dmserver"]
    assert not contract.get("allow_indirect_imports")
    assert not contract.get("ignore_imports")
    assert set(contract["forbidden_modules"]) == modules - OPEN_TO_THE_DPF
    assert modules >= OPEN_TO_THE_DPF


def test_nothing_is_open_that_the_dpf_does_not_use(modules: set[str]) -> None:
    """REQ-28: what it stops using is closed again."""
    graph = grimp.build_graph("dmserver", "mcim", "actor_runtime", "syncml", "mo_definitions", cache_dir=None)
    reached = {
        found
        for module in graph.modules
        if module.split(".")[0] == "dmserver"
        for found in graph.find_upstream_modules(module)
    }
    assert reached & modules == OPEN_TO_THE_DPF
