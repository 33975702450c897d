"""Command line of the certification authority."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from actor_runtime.cli import run
from m2m_ca.directory import CaDirectory, CaError, read_request, write_public, write_tre_certificates
from mcim.certificates import Role

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
issue = typer.Typer(no_args_is_help=True, help="Issue certificates.")
app.add_typer(issue, name="issue")

Directory = Annotated[Path, typer.Argument(help="Directory of the CAs.")]
Out = Annotated[Path, typer.Option("--out", help="Directory to write to.")]
DEFAULT_HOSTS = ("localhost", "127.0.0.1")


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@app.command()
def init(directory: Directory) -> None:
    """Make the roots by purpose and the operator and manufacturer CAs."""
    CaDirectory(directory).init(_now())


@app.command("demo-pki")
def demo_pki(
    directory: Directory,
    host: Annotated[
        list[str] | None, typer.Option(help="Further host name or IP address of the TLS certificates.")
    ] = None,
    sho_id: Annotated[str, typer.Option(help="FQDN of the SHO.")] = "sho1.mnc001.mcc001.example",
    dpf_id: Annotated[str, typer.Option(help="FQDN of the DPF.")] = "dpf.example",
    pva_id: Annotated[str, typer.Option(help="URI of the PVA.")] = "urn:m2m:pva:1",
    ro_id: Annotated[str, typer.Option(help="FQDN of the registration operator.")] = "ro.example",
) -> None:
    """Make all CAs and the keys and certificates of one DPF, SHO, PVA and RO."""
    hosts = list(dict.fromkeys((*DEFAULT_HOSTS, *(host or ()))))
    CaDirectory(directory).demo_pki(hosts=hosts, sho_id=sho_id, dpf_id=dpf_id, pva_id=pva_id, ro_id=ro_id, now=_now())


@issue.command("tls")
def issue_tls(
    directory: Directory, out: Out, host: Annotated[list[str], typer.Option(help="Name or address.")]
) -> None:
    """A TLS key and certificate, server and client."""
    CaDirectory(directory).issue_tls(host, out, _now())


@issue.command("sho")
def issue_sho(directory: Directory, out: Out, identity: Annotated[str, typer.Option(help="FQDN of the SHO.")]) -> None:
    """A signing key and certificate of a home operator."""
    CaDirectory(directory).issue_signing(Role.SHO, identity, out, _now())


@issue.command("pva")
def issue_pva(directory: Directory, out: Out, identity: Annotated[str, typer.Option(help="URI of the PVA.")]) -> None:
    """A signing key and certificate of a platform validation authority."""
    CaDirectory(directory).issue_signing(Role.PVA, identity, out, _now())


@issue.command("dpf")
def issue_dpf(directory: Directory, out: Out, identity: Annotated[str, typer.Option(help="FQDN of the DPF.")]) -> None:
    """A signing key and certificate of a DPF."""
    CaDirectory(directory).issue_signing(Role.DPF, identity, out, _now())


@issue.command("tre")
def issue_tre(
    directory: Directory, request: Annotated[Path, typer.Argument(help="Request of `dmclient manufacture`.")], out: Out
) -> None:
    """Certificates of PK_D and the attestation key of one TRE."""
    write_tre_certificates(CaDirectory(directory).issue_tre(read_request(request), _now()), out)


@app.command()
def crl(
    directory: Directory,
    out: Annotated[Path, typer.Option("--out", help="File to write.")],
    ca: Annotated[str, typer.Option(help="tls, operator, manufacturer or pva.")] = "manufacturer",
    serial: Annotated[list[str] | None, typer.Option(help="Revoked serial number, hex.")] = None,
) -> None:
    """Make a certificate revocation list."""
    try:
        serials = [int(each, 16) for each in serial or ()]
    except ValueError as exc:
        raise CaError("a serial number is hexadecimal") from exc
    write_public(out, CaDirectory(directory).make_crl(ca, serials, _now()))


def main() -> None:
    """Entry point of the console script."""
    run(app)
