"""A certification authority in a directory: roots by purpose, subordinate CAs, and what they issue.

Layout::

    ca/{tls,operator,manufacturer,pva}.{crt,key}   the CAs; the manufacturer and operator CAs hang below a root each
    ca/{operator,manufacturer}-root.key            those roots' keys; they may be taken away and kept elsewhere
    ca/settings.json                               what all certificates carry: where revocation lists are
    ca/crl-numbers.json                            number of each CA's last revocation list
    anchors/{tls,manufacturer,sho,pva}.pem         roots by purpose, for the actors
    anchors/crl-issuers.pem                        the CAs below roots, for the actors' `crl_issuers`
    crl/*.crl                                      revocation lists, one for each CA and root
    issued.jsonl, revoked.jsonl                    one line for each certificate issued, and revoked

Private keys are written with mode 0600, everything atomically.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_public_key,
    load_pem_private_key,
)

from m2m_ca.files import CaError, locked, write_public, write_secret
from m2m_ca.records import Issued, Records, RevocationReason
from m2m_ca.tre_requests import TreRequest, check_request, proves, read_request
from mcim.authority import Authority
from mcim.certificates import Role

__all__ = ["CaDirectory", "CaError", "TreCertificates", "read_request", "write_secret", "write_tre_certificates"]

PURPOSES: Final = {"tls": "tls", "manufacturer": "manufacturer", "sho": "operator", "pva": "pva"}
"""Anchor file → CA whose root it holds."""

ROOTS: Final = {"operator-root": "sho", "manufacturer-root": "manufacturer"}
"""Roots that are not CAs for others themselves → anchor file with their certificate."""

CAS: Final = (*PURPOSES.values(), *ROOTS)
TRE_KINDS: Final = ("platform", "attest")

_LABEL: Final = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*")  # DNS name or IPv4; IPv6
_FQDN: Final = re.compile(rf"{_LABEL}(\.{_LABEL})+")
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class TreCertificates:
    """What a manufacturer puts into a TRE."""

    platform: x509.Certificate
    attest: x509.Certificate
    chain: tuple[x509.Certificate, ...]


class CaDirectory:
    """The CAs of one directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = Records(path)

    def init(self, now: datetime, *, crl_url: str | None = None) -> None:
        """Make all CAs. Certificates will say that the list of their issuer is at `crl_url`/NAME.crl.

        Raises:
            CaError: there are CAs already, or the URL is none.
        """
        if (self.path / "ca").exists():
            raise CaError(f"{self.path} has CAs already", hint="take another directory")
        if crl_url is not None and not _is_http_url(crl_url):
            raise CaError(f"{crl_url}: not an http or https URL")
        self.path.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=self.path, prefix=".new-"))
        try:
            CaDirectory(made)._make(now, crl_url)
            shutil.rmtree(self.path / "anchors", ignore_errors=True)  # left by an `init` that was killed
            for name in ("anchors", "issued.jsonl", "ca"):  # the last one says that all of it is there
                os.replace(made / name, self.path / name)
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def _make(self, now: datetime, crl_url: str | None) -> None:
        write_public(self.path / "ca" / "settings.json", json.dumps({"crlUrl": crl_url}).encode())
        below_roots: list[x509.Certificate] = []
        for purpose, name in PURPOSES.items():
            root = Authority.create_root(f"M2M {purpose} root", now)
            authority = root
            if f"{name}-root" in ROOTS:
                root = replace(root, crl_url=self._crl_url(f"{name}-root"))
                authority = root.create_subordinate(f"M2M {name} CA", now)
                below_roots.append(authority.certificate)
                self.records.note(authority.certificate, "ca", f"{name}-root")
            write_secret(self.path / "ca" / f"{name}.key", _pem_key(authority.key))
            write_public(self.path / "ca" / f"{name}.crt", _pem(authority.certificate))
            write_public(self.path / "anchors" / f"{purpose}.pem", _pem(root.certificate))
            if authority is not root:
                # The root of this demo-sized CA issues one subordinate and is kept for its renewal.
                write_secret(self.path / "ca" / f"{name}-root.key", _pem_key(root.key))
        write_public(self.path / "anchors" / "crl-issuers.pem", b"".join(map(_pem, below_roots)))

    def certificate(self, name: str) -> x509.Certificate:
        """The certificate of one of the CAs or roots.

        Raises:
            CaError: it is not there.
        """
        path = self.path / (f"anchors/{ROOTS[name]}.pem" if name in ROOTS else f"ca/{name}.crt")
        try:
            if name not in CAS:
                raise ValueError(name)
            return x509.load_pem_x509_certificate(path.read_bytes())
        except FileNotFoundError as exc:
            raise CaError(f"no {name} CA in {self.path}", hint="`m2m-ca init` makes CAs") from exc
        except ValueError as exc:
            raise CaError(f"no {name} CA in {self.path}", hint=f"there may be: {', '.join(CAS)}") from exc

    def has_key(self, name: str) -> bool:
        """Whether the CA can sign here; the key of a root may be kept elsewhere."""
        return (self.path / "ca" / f"{name}.key").exists()

    def authority(self, name: str) -> Authority:
        """One of the CAs or roots: tls, operator, manufacturer, pva, operator-root or manufacturer-root.

        Raises:
            CaError: it is not there.
        """
        certificate = self.certificate(name)
        try:
            key = load_pem_private_key((self.path / "ca" / f"{name}.key").read_bytes(), None)
        except FileNotFoundError as exc:
            raise CaError(f"no key of the {name} CA in {self.path}", hint="it may be kept elsewhere") from exc
        except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
            raise CaError(f"the key of the {name} CA in {self.path} is broken, or under a password") from exc
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise CaError(f"the key of the {name} CA is not EC")
        below_root = certificate.issuer != certificate.subject
        return Authority(
            certificate=certificate,
            key=key,
            intermediates=(certificate,) if below_root else (),
            crl_url=self._crl_url(name),
        )

    def _crl_url(self, name: str) -> str | None:
        path = self.path / "ca" / "settings.json"
        if not path.exists():  # a directory from before
            return None
        try:
            base = json.loads(path.read_text()).get("crlUrl")
        except (ValueError, AttributeError) as exc:
            raise CaError(f"{path} is broken") from exc
        return None if base is None else f"{str(base).rstrip('/')}/{name}.crl"

    def issue_signing(self, role: Role, identity: str, out: Path, now: datetime) -> x509.Certificate:
        """A new key with its chain for an SHO, DPF, PVA or supplier: `signing.key` and `signing.crt` in `out`."""
        form, told = (_URI, "URI") if role in (Role.PVA, Role.SUPPLIER) else (_FQDN, "fully qualified domain name")
        if not form.fullmatch(identity):
            raise CaError(f"{identity!r} is no {told}", hint=f"the identity of a {role.name} is one")
        name = _ISSUER.get(role, "operator")
        authority = self.authority(name)
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            leaf = authority.issue_role(role, key.public_key(), identity=identity, now=now)
        except ValueError as exc:
            raise CaError(f"a certificate cannot carry the identity {identity!r}: {exc}") from exc
        self._deliver(out, "signing", key, (leaf, *authority.intermediates), role.name.lower(), name)
        return leaf

    def issue_tls(self, hosts: Sequence[str], out: Path, now: datetime) -> x509.Certificate:
        """A new key and certificate for TLS, server and client: `tls.key` and `tls.crt` in `out`."""
        _check_hosts(hosts)
        authority = self.authority("tls")
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            leaf = authority.issue_tls(key.public_key(), hosts=hosts, now=now)
        except ValueError as exc:
            raise CaError(f"a certificate cannot carry these hosts: {exc}") from exc
        self._deliver(out, "tls", key, (leaf, *authority.intermediates), "tls", "tls")
        return leaf

    def issue_tre(self, request: Mapping[str, object], now: datetime) -> TreCertificates:
        """Certificates for PK_D and the attestation key of one TRE, by its own request (REQ-21).

        The request is proved by the attestation key, so that nobody has a key certified that he does not hold. A
        request to change keys is proved by the old one as well, which must be certified for the same TRE and M2ME.

        Raises:
            CaError: members are missing, a proof is wrong, a key is too weak, or the old key is not the TRE's.
        """
        asked = check_request(request)
        if asked.old_proof is not None:
            self._check_old_key(asked, asked.old_proof, now)
        authority = self.authority("manufacturer")
        tre_id, m2me_id = asked.tre_id, asked.m2me_id
        platform_key, attest_key = asked.platform_key, asked.attest_key
        try:
            issued = TreCertificates(
                platform=authority.issue_platform(Role.PLATFORM, platform_key, tre_id=tre_id, m2me_id=m2me_id, now=now),
                attest=authority.issue_platform(Role.ATTEST, attest_key, tre_id=tre_id, m2me_id=m2me_id, now=now),
                chain=authority.intermediates,
            )
        except ValueError as exc:
            raise CaError(f"a certificate cannot carry these identities: {exc}") from exc
        with locked(self.path):
            self.records.note(issued.platform, "platform", "manufacturer", tre_id=tre_id, m2me_id=m2me_id)
            self.records.note(issued.attest, "attest", "manufacturer", tre_id=tre_id, m2me_id=m2me_id)
        return issued

    def supersede(self, issued: TreCertificates, now: datetime) -> list[int]:
        """Revoke what the TRE had before these certificates; the serial numbers. To be done when they are written."""
        serials = {issued.platform.serial_number, issued.attest.serial_number}
        notes = self.records.issued()
        own = next(each for each in notes if each.serial in serials)
        old = [
            each.serial
            for each in notes
            if each.kind in TRE_KINDS
            and (each.tre_id, each.m2me_id) == (own.tre_id, own.m2me_id)
            and each.serial not in serials
        ]
        with locked(self.path):
            return [s for s in old if self.records.revoke("manufacturer", s, RevocationReason.SUPERSEDED, now)]

    def _check_old_key(self, asked: TreRequest, proof: bytes, now: datetime) -> None:
        """One of the attestation keys certified for this TRE and M2ME, and still good, must have signed the request."""
        revoked = {each.serial for each in self.records.revoked("manufacturer")}
        for each in self.records.issued():
            if (each.kind, each.tre_id, each.m2me_id) != ("attest", asked.tre_id, asked.m2me_id):
                continue
            if each.serial in revoked or now >= datetime.fromisoformat(each.not_after):
                continue
            key = load_der_public_key(base64.b64decode(each.public_key))
            if asked.old_attest_key is not None and key != asked.old_attest_key:
                continue
            if isinstance(key, ec.EllipticCurvePublicKey) and proves(key, proof, asked.body):
                return
        raise CaError(
            "no old attestation key that is certified for this TRE and M2ME, and still good, proves the request",
            hint="a TRE without a good key is certified by a first request, where it is known which TRE it is",
        )

    # --- revocation ---------------------------------------------------------------------------------------------------

    def revoke(self, ca: str, serial: int, reason: RevocationReason, now: datetime) -> bool:
        """Note that a certificate is revoked; the CA's next list has it. False when it was so already.

        Raises:
            CaError: no such CA, or it has issued no such certificate.
        """
        if ca not in CAS:
            raise CaError(f"no {ca} CA", hint=f"there may be: {', '.join(CAS)}")
        if not any(each.serial == serial and each.ca in (ca, "") for each in self.records.issued()):
            raise CaError(f"the {ca} CA has issued no certificate {serial:x}", hint="`m2m-ca list` shows all")
        with locked(self.path):
            return self.records.revoke(ca, serial, reason, now)

    def revoke_certificate(self, certificate: x509.Certificate, reason: RevocationReason, now: datetime) -> bool:
        """`revoke` by the certificate itself, whoever of the CAs issued it, noted or not.

        Raises:
            CaError: none of them did, or there are no CAs.
        """
        for ca, issuer in [(ca, self.certificate(ca)) for ca in CAS]:
            try:
                certificate.verify_directly_issued_by(issuer)
            except Exception:  # noqa: S112 (another issuer; what the library raises depends on what differs)
                continue
            with locked(self.path):
                return self.records.revoke(ca, certificate.serial_number, reason, now)
        raise CaError("none of these CAs issued that certificate")

    def listing(self, *, revoked_only: bool) -> list[dict[str, object]]:
        """What was issued, with what became of it, as rows."""
        self.certificate("tls")  # no CAs: say so
        revoked = {(each.ca, each.serial): each for each in self.records.revoked()}
        rows: list[dict[str, object]] = []
        for each in self.records.issued():
            gone = revoked.pop((each.ca, each.serial), None)
            if gone is None and revoked_only:
                continue
            rows.append(_row(each, gone.at.isoformat() if gone else None, gone.reason.value if gone else None))
        for (ca, serial), gone in revoked.items():  # issued before serial numbers were noted with their CA
            unknown = Issued(serial=serial, kind="", subject="", not_after="", ca=ca)
            rows.append(_row(unknown, gone.at.isoformat(), gone.reason.value))
        return rows

    def demo_pki(
        self,
        *,
        hosts: Sequence[str],
        sho_id: str,
        dpf_id: str,
        pva_id: str,
        now: datetime,
        ro_id: str = "ro.example",
        crl_url: str | None = None,
    ) -> None:
        """Everything the actors of one demo need: CAs, and `dpf`, `sho`, `pva`, `ro` with keys and chains."""
        identities = {"dpf": dpf_id, "sho": sho_id, "pva": "pva", "ro": ro_id}
        _check_hosts([*hosts, *identities.values()])
        self.init(now, crl_url=crl_url)
        for actor, identity in identities.items():
            self.issue_tls(list(dict.fromkeys((identity, actor, *hosts))), self.path / actor, now)
        self.issue_signing(Role.SHO, sho_id, self.path / "sho", now)
        self.issue_signing(Role.PVA, pva_id, self.path / "pva", now)

    def _deliver(
        self,
        out: Path,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        chain: Sequence[x509.Certificate],
        kind: str,
        ca: str,
    ) -> None:
        write_secret(out / f"{name}.key", _pem_key(key))
        write_public(out / f"{name}.crt", b"".join(_pem(certificate) for certificate in chain))
        with locked(self.path):
            self.records.note(chain[0], kind, ca)


_ISSUER: Final = {Role.PVA: "pva", Role.SUPPLIER: "manufacturer"}


def write_tre_certificates(certificates: TreCertificates, out: Path) -> None:
    """`platform.crt`, `attest.crt` and `chain.pem` in `out`, for `dmclient install-certificates`."""
    write_public(out / "platform.crt", _pem(certificates.platform))
    write_public(out / "attest.crt", _pem(certificates.attest))
    write_public(out / "chain.pem", b"".join(_pem(certificate) for certificate in certificates.chain))


def _check_hosts(hosts: Sequence[str]) -> None:
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise CaError(f"{host!r} is no host name and no IP address")


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https") and bool(parts.hostname and parts.port != 0) and bool(_URI.fullmatch(url))
        )
    except ValueError:  # a port that is none
        return False


def _row(each: Issued, at: str | None, reason: str | None) -> dict[str, object]:
    return {
        "ca": each.ca,
        "serial": f"{each.serial:x}",
        "kind": each.kind,
        "subject": each.subject,
        "notAfter": each.not_after,
        "revoked": at,
        "reason": reason,
    }


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
