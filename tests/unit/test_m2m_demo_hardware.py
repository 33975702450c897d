"""What the demo says when it cannot give a TRE the place for its keys that it was asked for."""

from __future__ import annotations

import pytest

from m2m_demo import hardware, tokens
from m2m_demo.cast import Backend, Cast
from m2m_demo.errors import DemoFailed
from m2m_demo.hardware import check
from mcim.vocabulary import Suite


def test_a_tool_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """REQ-48."""
    monkeypatch.setattr(tokens.shutil, "which", lambda _: None)
    for backend, package in (("pkcs11", "softhsm2"), ("tpm", "swtpm")):
        with pytest.raises(DemoFailed, match=f"--tre {backend}: .*Debian: {package}"):
            check(Cast(tre=backend))
    check(Cast())


@pytest.mark.parametrize("backend", ["pkcs11", "tpm"])
def test_an_extra_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, backend: Backend) -> None:
    """REQ-48."""
    for tool in ("softhsm_missing", "swtpm_missing"):
        monkeypatch.setattr(hardware, tool, lambda: "")
    monkeypatch.setattr(hardware.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DemoFailed, match=rf"pip install 'm2m-dm\[{backend}\]'"):
        check(Cast(tre=backend))


@pytest.mark.parametrize("suite", Suite, ids=lambda suite: suite.label)
def test_what_the_token_has_nothing_for_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, suite: Suite
) -> None:
    """REQ-39: SoftHSM2 has OAEP with SHA-1 alone, and an RSA key in it is good for suite 1."""
    monkeypatch.setattr(hardware, "missing", lambda _: "")
    if suite in (Suite.RSA_CBC_256, Suite.RSA_GCM_256):
        with pytest.raises(DemoFailed, match="SHA-256"):
            check(Cast(tre="pkcs11", suite=suite))
    else:
        check(Cast(tre="pkcs11", suite=suite))
    for backend in ("software", "tpm"):
        check(Cast(tre=backend, suite=suite))
