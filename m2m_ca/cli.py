"""Command line of the certification authority. Exit status 0 done, 1 error, 2 wrong usage."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509

from actor_runtime.cli import run, show, show_rows
from actor_runtime.pem_files import read_chain
from m2m_ca.directory import CaDirectory, CaError, read_request, write_tre_certificates
from m2m_ca.files import write_public
from m2m_ca.publisher import publish as publish_lists
from m2m_ca.records import RevocationReason
from m2m_ca.revocation_lists import make_lists
from m2m_ca.supplier import make_supplier_command
from mcim.certificates import Role, load_pem_chain
from mcim.errors import CertificateRefused

app = typer.Typer(
    no_args_is_help=True,
    help="Certification authority: roots by purpose, certificates of all actors and TREs, revocation lists.",
    epilog="Example: `m2m-ca init ca`, then `m2m-ca issue tls ca --host localhost --out tls`",
)
issue = typer.Typer(no_args_is_help=True, help="Issue certificates.")
app.add_typer(issue, name="issue")

Directory = Annotated[Path, typer.Argument(help="Directory of the CAs.")]
Out = Annotated[Path, typer.Option("--out", help="Directory to write to; made when it is missing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
CrlUrl = Annotated[
    str | None, typer.Option("--crl-url", help="Where revocation lists will be: certificates name URL/NAME.crl.")
]
Days = Annotated[float, typer.Option(min=0.01, max=366, help="Life of a list, in days.")]
ShoIdentity = Annotated[str, typer.Option("--identity", help="FQDN of the SHO, as in its sho_id.")]
DpfIdentity = Annotated[str, typer.Option("--identity", help="FQDN of the DPF, as in its server_id.")]
PvaIdentity = Annotated[str, typer.Option("--identity", help="URI of the PVA, as in its pva_id.")]
SupplierIdentity = Annotated[str, typer.Option("--identity", help="URI of the equipment supplier.")]
DEFAULT_HOSTS = ("localhost", "127.0.0.1")


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _show_issued(leaf: x509.Certificate, files: dict[str, Path], *, as_json: bool) -> None:
    told = {"serial": f"{leaf.serial_number:x}", "notAfter": leaf.not_valid_after_utc.isoformat()}
    show({name: str(path) for name, path in files.items()} | told, as_json=as_json)


def _show_directory(directory: Path, *, as_json: bool) -> None:
    show({"directory": str(directory), "anchors": str(directory / "anchors")}, as_json=as_json)


@app.command()
def init(directory: Directory, crl_url: CrlUrl = None, as_json: AsJson = False) -> None:
    """Make the roots by purpose and the operator and manufacturer CAs."""
    CaDirectory(directory).init(_now(), crl_url=crl_url)
    _show_directory(directory, as_json=as_json)


@app.command("demo-pki")
def demo_pki(
    directory: Directory,
    host: Annotated[
        list[str] | None, typer.Option(help="Further host name or IP address of the TLS certificates.")
    ] = None,
    sho_id: Annotated[str, typer.Option(help="FQDN of the SHO.")] = "sho1.mnc001.mcc001.example",
    dpf_id: Annotated[str, typer.Option(help="FQDN of the DPF.")] = "dpf.example",
    pva_id: Annotated[str, typer.Option(help="URI of the PVA.")] = "urn:m2m:pva:1",
    crl_url: CrlUrl = None,
    ro_id: Annotated[str, typer.Option(help="FQDN of the registration operator.")] = "ro.example",
    as_json: AsJson = False,
) -> None:
    """Make all CAs and the keys and certificates of one DPF, SHO, PVA and RO."""
    hosts = list(dict.fromkeys((*DEFAULT_HOSTS, *(host or ()))))
    ca = CaDirectory(directory)
    ca.demo_pki(hosts=hosts, sho_id=sho_id, dpf_id=dpf_id, pva_id=pva_id, ro_id=ro_id, now=_now(), crl_url=crl_url)
    _show_directory(directory, as_json=as_json)


@issue.command("tls")
def issue_tls(
    directory: Directory,
    out: Out,
    host: Annotated[list[str], typer.Option(help="Host name or IP address; repeatable. The first names the subject.")],
    as_json: AsJson = False,
) -> None:
    """A TLS key and certificate, server and client."""
    leaf = CaDirectory(directory).issue_tls(host, out, _now())
    _show_issued(leaf, {"key": out / "tls.key", "certificate": out / "tls.crt"}, as_json=as_json)


def _issue_signing(role: Role, directory: Path, identity: str, out: Path, as_json: bool) -> None:
    leaf = CaDirectory(directory).issue_signing(role, identity, out, _now())
    _show_issued(leaf, {"key": out / "signing.key", "certificate": out / "signing.crt"}, as_json=as_json)


@issue.command("sho", epilog="Example: `m2m-ca issue sho ca --identity sho.example --out sho`")
def issue_sho(directory: Directory, out: Out, identity: ShoIdentity, as_json: AsJson = False) -> None:
    """A signing key and certificate of a home operator."""
    _issue_signing(Role.SHO, directory, identity, out, as_json)


@issue.command("pva")
def issue_pva(directory: Directory, out: Out, identity: PvaIdentity, as_json: AsJson = False) -> None:
    """A signing key and certificate of a platform validation authority."""
    _issue_signing(Role.PVA, directory, identity, out, as_json)


@issue.command("dpf")
def issue_dpf(directory: Directory, out: Out, identity: DpfIdentity, as_json: AsJson = False) -> None:
    """A signing key and certificate of a DPF."""
    _issue_signing(Role.DPF, directory, identity, out, as_json)


@issue.command("supplier")
def issue_supplier(directory: Directory, out: Out, identity: SupplierIdentity, as_json: AsJson = False) -> None:
    """A signing key and certificate of an equipment supplier, for its commands to TREs."""
    _issue_signing(Role.SUPPLIER, directory, identity, out, as_json)


@app.command(
    "supplier-command",
    epilog="Example: `m2m-ca supplier-command supplier --tre-id URN --counter 1 --unlock-token --out unlock.bin`",
)
def supplier_command(
    signer: Annotated[Path, typer.Argument(help="Directory of `issue supplier`: signing.key and signing.crt.")],
    tre_id: Annotated[str, typer.Option(help="The TRE it is for.")],
    counter: Annotated[int, typer.Option(min=1, help="Higher than that of the last command to this TRE.")],
    out: Annotated[Path, typer.Option("--out", help="File to write, for `dmclient tre supplier-command`.")],
    sho_anchors: Annotated[
        Path | None, typer.Option(help="PEM: the roots for home operators that the TRE is to have from now on.")
    ] = None,
    unlock_token: Annotated[
        bool, typer.Option("--unlock-token", help="Tries with the device token begin again.")
    ] = False,
    days: Annotated[float, typer.Option(min=0.01, max=366, help="How long the TRE may take it, in days.")] = 7,
    as_json: AsJson = False,
) -> None:
    """A command of the equipment supplier to one TRE (REQ-44, REQ-61)."""
    roots = () if sho_anchors is None else read_chain(sho_anchors, "roots for home operators")
    now, life = _now(), timedelta(days=days)
    octets = make_supplier_command(
        signer,
        tre_id=tre_id,
        counter=counter,
        sho_roots=roots,
        unlock_token=unlock_token,
        now=now,
        life=life,
    )
    write_public(out, octets)
    show({"command": str(out), "counter": counter, "notAfter": (now + life).isoformat()}, as_json=as_json)


@issue.command("tre")
def issue_tre(
    directory: Directory,
    request: Annotated[Path, typer.Argument(help="Request of `dmclient manufacture`, or one for new keys.")],
    out: Out,
    keep_old: Annotated[
        bool, typer.Option("--keep-old", help="On new keys: do not revoke the certificates before.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Certificates of PK_D and the attestation key of one TRE; on new keys those before are revoked as superseded."""
    ca, members, now = CaDirectory(directory), read_request(request), _now()
    issued = ca.issue_tre(members, now)
    write_tre_certificates(issued, out)
    revoked = ca.supersede(issued, now) if "oldProof" in members and not keep_old else []
    files = {"platform": "platform.crt", "attest": "attest.crt", "chain": "chain.pem"}
    told: dict[str, object] = {name: str(out / file) for name, file in files.items()}
    serials = [f"{serial:x}" for serial in revoked]
    show(told | {"revoked": serials if as_json else ", ".join(serials) or "none"}, as_json=as_json)


@app.command(
    epilog="Example: `m2m-ca revoke ca --certificate platform.crt --reason keyCompromise`, then `m2m-ca crl ca`"
)
def revoke(
    directory: Directory,
    ca: Annotated[str | None, typer.Option(help="CA that issued it.")] = None,
    serial: Annotated[str | None, typer.Option(help="Serial number, hex; with --ca.")] = None,
    certificate: Annotated[Path | None, typer.Option(help="PEM file; the first certificate in it.")] = None,
    reason: Annotated[RevocationReason, typer.Option(help="As in RFC 5280 §5.3.1.")] = RevocationReason.UNSPECIFIED,
    as_json: AsJson = False,
) -> None:
    """Note that a certificate is revoked, for good. `crl` or a running `publish` makes it known."""
    authority = CaDirectory(directory)
    if certificate is not None and serial is None and ca is None:
        leaf = _read_certificate(certificate)
        new, number = authority.revoke_certificate(leaf, reason, _now()), leaf.serial_number
    elif certificate is None and serial is not None and ca is not None:
        try:
            number = int(serial, 16)
        except ValueError as exc:
            raise CaError("a serial number is hexadecimal") from exc
        new = authority.revoke(ca, number, reason, _now())
    else:
        raise CaError("name the certificate once", hint="--certificate FILE, or --ca NAME and --serial HEX")
    state = "revoked" if new else "was revoked already"
    if as_json:
        show({"serial": f"{number:x}", "state": state}, as_json=True)
    else:
        typer.echo(f"{number:x}: {state}")


@app.command("list")
def list_issued(
    directory: Directory,
    revoked: Annotated[bool, typer.Option("--revoked", help="Revoked ones alone.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the certificates issued."""
    show_rows(CaDirectory(directory).listing(revoked_only=revoked), as_json=as_json)


@app.command()
def crl(directory: Directory, days: Days = 7, as_json: AsJson = False) -> None:
    """Make new revocation lists of all CAs and roots: DIRECTORY/crl/NAME.crl."""
    numbers = make_lists(CaDirectory(directory), _now(), life=timedelta(days=days))
    if as_json:
        show(numbers, as_json=True)
        return
    for name, number in numbers.items():
        typer.echo(f"{name}: " + (f"number {number}" if number else "no key here; its list stays as it is"))


@app.command(epilog="Example: `m2m-ca publish ca --listen 127.0.0.1:8090`")
def publish(
    directory: Directory,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Port 0: the system chooses.")] = "127.0.0.1:0",
    ready_file: Annotated[Path | None, typer.Option(help="Written when it listens, with the port.")] = None,
    days: Days = 7,
) -> None:
    """Serve revocation lists and CA certificates over HTTP until SIGTERM or SIGINT, and make the lists anew in time."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise CaError(f"{listen}: not HOST:PORT", hint="such as 127.0.0.1:8090, or [::1]:8090")
    asyncio.run(
        publish_lists(
            CaDirectory(directory),
            host=host.strip("[]"),
            port=int(port),
            ready_file=ready_file,
            life=timedelta(days=days),
        )
    )


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return load_pem_chain(path.read_bytes())[0]
    except (OSError, CertificateRefused) as exc:
        raise CaError(f"{path}: no PEM certificate") from exc


def main() -> None:
    """Entry point of the console script."""
    try:
        run(app)
    except OSError as exc:
        print(f"error: {exc.filename or 'input or output'}: {exc.strerror}", file=sys.stderr)
        sys.exit(1)
