"""From the supplier's certificate to a TRE that obeys: `m2m-ca supplier-command` and what a TRE makes of its file."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dmclient.tre.environment import Tre
from dmclient.tre.software import SoftwareKeyStore
from m2m_ca import cli
from m2m_ca.directory import CaDirectory
from mcim.certificates import load_pem_chain
from mcim.vocabulary import ResultCode
from tests.support_tre import M2ME_ID, SEAL_KEY, TRE_ID


def now() -> datetime:
    """The command line issues by the clock of the machine, so the TRE is asked by that clock, too, at that moment."""
    return datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Tre, Path]:
    """A TRE that the manufacturer certified, and the directory of the CAs; the supplier's key is in `supplier`."""
    pki = tmp_path / "pki"
    ca = CaDirectory(pki)
    ca.init(now())
    tre = Tre.manufacture(
        tmp_path / "tre",
        seal_key=SEAL_KEY,
        key_store=SoftwareKeyStore(tmp_path / "tre"),
        m2me_id=M2ME_ID,
        tre_id=TRE_ID,
        key_type="ec",
        token=b"label-2026",
    )
    issued = ca.issue_tre(tre.certification_request(), now())
    sho, supplier = (load_pem_chain((pki / "anchors" / f"{each}.pem").read_bytes()) for each in ("sho", "manufacturer"))
    tre.install_certificates(issued.platform, issued.attest, issued.chain, sho, supplier_anchors=supplier)
    run("issue", "supplier", pki, "--identity", "urn:m2m:supplier:1", "--out", tmp_path / "supplier")
    return tre, tmp_path


def run(*arguments: object, status: int = 0) -> None:
    done = CliRunner().invoke(cli.app, [str(each) for each in arguments])
    assert done.exit_code == status, done.output


def command(directory: Path, counter: int, *options: object, tre_id: str = TRE_ID) -> bytes:
    out = directory / f"command-{counter}"
    run("supplier-command", directory / "supplier", "--tre-id", tre_id, "--counter", counter, "--out", out, *options)
    return out.read_bytes()


def test_other_roots(made: tuple[Tre, Path]) -> None:
    """REQ-44: the TRE trusts the roots of the file from then on, and takes the command once."""
    tre, directory = made
    octets = command(directory, 1, "--sho-anchors", directory / "pki" / "anchors" / "pva.pem")
    before = tre.facts().trust_anchor_ids
    assert tre.supplier_command(octets, now()) is ResultCode.SUCCESS
    assert tre.facts().trust_anchor_ids != before
    assert tre.supplier_command(octets, now()) is ResultCode.REPLAY


def test_token_unlocked(made: tuple[Tre, Path]) -> None:
    """REQ-61: for this TRE, and for no other."""
    tre, directory = made
    assert tre.supplier_command(command(directory, 1, "--unlock-token", tre_id="urn:m2m:tre:2"), now()) is (
        ResultCode.WRONG_RECIPIENT
    )
    assert tre.supplier_command(command(directory, 2, "--unlock-token"), now()) is ResultCode.SUCCESS


def test_a_command_asks_for_something(made: tuple[Tre, Path]) -> None:
    """REQ-44: nothing is signed that says nothing."""
    _, directory = made
    out = directory / "nothing"
    run("supplier-command", directory / "supplier", "--tre-id", TRE_ID, "--counter", 1, "--out", out, status=1)
    assert not out.exists()
