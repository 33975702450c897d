"""Choosing a key store by the settings: what is missing is said, with what helps."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from actor_runtime.errors import ConfigError
from dmclient.config import Pkcs11Section, TpmSection, TreSection
from dmclient.tre.key_stores import open_key_store
from dmclient.tre.software import SoftwareKeyStore

PKCS11_MODULES = ("dmclient.tre.pkcs11", "dmclient.tre.pkcs11_session", "dmclient.tre.pkcs11_counter")
TPM_MODULES = ("dmclient.tre.tpm", "dmclient.tre.tpm_device", "dmclient.tre.tpm_counter")


def test_software_needs_nothing(tmp_path: Path) -> None:
    """REQ-48: the default."""
    assert isinstance(open_key_store(TreSection(), tmp_path), SoftwareKeyStore)


@pytest.mark.parametrize(
    ("backend", "library", "modules", "hint"),
    [
        ("pkcs11", "pkcs11", PKCS11_MODULES, r"m2m-dm\[pkcs11\]"),
        ("tpm", "tpm2_pytss", TPM_MODULES, r"libtss2-dev.*m2m-dm\[tpm\]"),
    ],
)
def test_an_extra_that_is_not_installed(
    backend: str, library: str, modules: tuple[str, ...], hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REQ-48: a device without tokens needs no library for them, and who asks for one is told what to install."""
    for name in modules:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=backend) as caught:
        open_key_store(TreSection(backend=backend), tmp_path)
    assert caught.value.hint is not None
    assert re.search(hint, caught.value.hint)


def test_the_libraries_are_not_imported_without_need() -> None:
    """REQ-48: in a process of its own, which has imported nothing yet."""
    code = (
        "import sys; import dmclient.cli, dmclient.app; from dmclient.tre.key_stores import open_key_store; "
        "print([name for name in ('pkcs11', 'tpm2_pytss') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("missing", ["module", "token_label", "pin_file"])
def test_settings_of_a_token_that_are_missing(missing: str, tmp_path: Path) -> None:
    """REQ-48: named."""
    pytest.importorskip("pkcs11", reason="the extra pkcs11 is not installed")
    values = {"module": tmp_path / "m.so", "token_label": "t", "pin_file": tmp_path / "pin"}
    table = Pkcs11Section.model_validate({name: value for name, value in values.items() if name != missing})
    with pytest.raises(ConfigError, match=f"tre.pkcs11.{missing}"):
        open_key_store(TreSection(backend="pkcs11", pkcs11=table), tmp_path)


@pytest.mark.parametrize(("content", "reason"), [(None, "No such file"), (b"\n", "no PIN"), (b"\xff\xfe", "no text")])
def test_pin_files_that_are_none(content: bytes | None, reason: str, tmp_path: Path) -> None:
    """REQ-48: the file is named, its content is not shown."""
    pytest.importorskip("pkcs11", reason="the extra pkcs11 is not installed")
    pin = tmp_path / "pin"
    if content is not None:
        pin.write_bytes(content)
    table = Pkcs11Section(module=tmp_path / "m.so", token_label="t", pin_file=pin)
    with pytest.raises(ConfigError, match=f"pin_file .*{reason}"):
        open_key_store(TreSection(backend="pkcs11", pkcs11=table), tmp_path)


@pytest.mark.parametrize("index", [0x01000000, 0x017FFFFF, 0x01BFFFFF, 0x81000001])
def test_the_counter_has_its_place_among_the_owners_indices(index: int) -> None:
    """T3: TCG registry of reserved TPM 2.0 handles: 0x01800000 to 0x01BFFFFF are the owner's; 64 of them are tried."""
    with pytest.raises(ValueError, match="counter_index"):
        TpmSection(counter_index=index)
