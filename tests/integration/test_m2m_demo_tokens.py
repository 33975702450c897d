"""Starting a software TPM and making SoftHSM2 tokens: what is left behind, and what is said when it does not work."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from m2m_demo import tokens
from m2m_demo.errors import DemoFailed
from m2m_demo.processes import Supervisor
from m2m_demo.tokens import make_softhsm_token, socket_directory, softhsm_missing, start_swtpm, swtpm_missing

needs_softhsm = pytest.mark.skipif(bool(softhsm_missing()), reason=softhsm_missing() or "-")
needs_swtpm = pytest.mark.skipif(bool(swtpm_missing()), reason=swtpm_missing() or "-")


def listing(token: tokens.SoftwareToken) -> str:
    done = subprocess.run(
        [tokens.SOFTHSM_UTIL, "--show-slots"],
        env={**os.environ, **token.environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@needs_softhsm
def test_several_tokens_in_one_directory(tmp_path: Path) -> None:
    """REQ-42: PINs are random, in files for the user alone, and not in representations."""
    first, second = make_softhsm_token(tmp_path, "one"), make_softhsm_token(tmp_path, "two")
    found = listing(second)
    assert "one" in found
    assert "two" in found
    assert first.pin != second.pin
    for token in (first, second):
        assert token.pin_file.read_text().strip() == token.pin
        assert stat.S_IMODE(token.pin_file.stat().st_mode) == 0o600
        assert token.pin not in repr(token)


@needs_softhsm
def test_a_token_that_cannot_be_made(tmp_path: Path) -> None:
    """REQ-48: what the tool says is told; its arguments, which have the PIN, are not."""
    with pytest.raises(DemoFailed, match="softhsm2-util") as caught:
        make_softhsm_token(tmp_path, "x" * 40)  # labels have 32 octets
    assert (tmp_path / f"{'x' * 40}.pin").read_text().strip() not in str(caught.value)


def test_what_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """REQ-48: named, with the package that brings it."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(DemoFailed, match="softhsm2"):
        make_softhsm_token(tmp_path)
    with Supervisor(tmp_path, environment={}) as supervisor, pytest.raises(DemoFailed, match="swtpm"):
        start_swtpm(supervisor, tmp_path / "tpm", tmp_path)


@needs_swtpm
def test_a_tpm_starts_again_with_its_memory_and_ends_with_its_supervisor(tmp_path: Path) -> None:
    """REQ-48: sockets left by one that was killed are in nobody's way."""
    with socket_directory() as sockets:
        with Supervisor(tmp_path / "logs", environment=dict(os.environ)) as supervisor:
            first = start_swtpm(supervisor, tmp_path / "tpm", sockets)
            first.process.popen.kill()
            first.process.popen.wait()
            second = start_swtpm(supervisor, tmp_path / "tpm", sockets)
            assert second.tcti == first.tcti
            assert second.process.exit_code() is None
        assert second.process.exit_code() is not None


@needs_swtpm
def test_a_tpm_that_does_not_start(tmp_path: Path) -> None:
    """REQ-48: at once, with the end of its log."""
    (tmp_path / "tpm").mkdir()
    (tmp_path / "tpm" / "tpm2-00.permall").write_bytes(b"no state of a TPM")
    with (
        socket_directory() as sockets,
        Supervisor(tmp_path / "logs", environment=dict(os.environ)) as supervisor,
        pytest.raises(DemoFailed, match="does not start"),
    ):
        start_swtpm(supervisor, tmp_path / "tpm", sockets)
