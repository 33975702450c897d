"""What the device measures at its start, and what it means for a verifier."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import dmclient
import mcim
from dmclient.config import TreSection
from dmclient.tre import measured_start
from dmclient.tre.keys import KeyStoreError
from dmclient.tre.measured_start import REGISTER, measure_start, reference_values
from mcim.measurement_log import REGISTERS, decode_log, encode_log, replay

NAMES = ["mcim", "tre", "tre-settings", "dm-client", "dm-client-version"]
RESETTABLE = (16, 23)  # PCRs that any program may set back (TCG PC Client, table of PCR attributes)


def test_every_start_of_an_installation_measures_the_same() -> None:
    """REQ-18: also for every device, every key store and every kind of TRE, or reference values would not exist."""
    measured = measure_start(TreSection())
    assert [each.name for each in measured] == NAMES
    assert len({each.digest for each in measured}) == len(NAMES)
    for settings in (
        TreSection(),
        TreSection(backend="tpm", type="uicc", tre_id="urn:m2m:tre:9", key_type="ec", max_mcim=1),
        TreSection(backend="pkcs11", device_token_file=Path("token")),
    ):
        assert measure_start(settings) == measured
    assert reference_values(TreSection()) == {each.name: each.digest.hex() for each in measured}


def test_measurements_make_a_log() -> None:
    """REQ-18: one register, which only a reset of the TPM sets back."""
    measured = measure_start(TreSection())
    assert decode_log(encode_log(measured)) == measured
    assert set(replay(measured)) == {REGISTER} <= set(REGISTERS)
    assert REGISTER not in RESETTABLE


@pytest.mark.parametrize("change", [{"version": "1.1"}, {"vendor": "another"}, {"legacy_suite": True}], ids=str)
def test_settings_that_decide_are_measured(change: dict[str, object]) -> None:
    """REQ-18, T16: a TRE that accepts the legacy suite does not look like one that refuses it."""
    before, after = reference_values(TreSection()), reference_values(TreSection.model_validate(change))
    assert [name for name in NAMES if before[name] != after[name]] == ["tre-settings"]


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


@pytest.mark.parametrize(
    ("change", "component"),
    [
        (lambda root: _append(root / "dmclient" / "tre" / "provisioning.py"), "tre"),
        (lambda root: (root / "dmclient" / "tre" / "more.py").write_text("x = 1\n"), "tre"),
        (lambda root: (root / "dmclient" / "tre" / "token.py").unlink(), "tre"),
        (lambda root: (root / "dmclient" / "tre" / "token.py").rename(root / "dmclient/tre/tokens.py"), "tre"),
        (lambda root: _append(root / "mcim" / "suites.py"), "mcim"),
        (lambda root: _append(root / "dmclient" / "agent.py"), "dm-client"),
    ],
    ids=["TRE changed", "TRE more", "TRE less", "TRE renamed", "MCIM library changed", "device changed"],
)
def test_changed_code_is_found(change: object, component: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """REQ-18, T17: one octet of one file; and where the files are makes no difference."""
    before = reference_values(TreSection())
    for package in (dmclient, mcim):
        root = Path(package.__file__).parent
        shutil.copytree(root, tmp_path / package.__name__, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(dmclient, "__file__", str(tmp_path / "dmclient" / "__init__.py"))
    monkeypatch.setattr(mcim, "__file__", str(tmp_path / "mcim" / "__init__.py"))
    assert reference_values(TreSection()) == before
    assert callable(change)
    change(tmp_path)
    after = reference_values(TreSection())
    assert [name for name in NAMES if before[name] != after[name]] == [component]


def test_what_cannot_be_read_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """REQ-18: a typed one, and no measurement of nothing."""

    def fail(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        with pytest.raises(KeyStoreError, match="cannot be measured"):
            measure_start(TreSection())
    monkeypatch.setattr(measured_start.mcim, "__file__", None)
    with pytest.raises(KeyStoreError):
        measure_start(TreSection())
