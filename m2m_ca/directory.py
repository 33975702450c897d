"""A certification authority in a directory: roots by purpose, subordinate CAs, and what they issue.

Layout::

    ca/{tls,operator,manufacturer,pva}.{crt,key}   the CAs; the manufacturer and operator CAs hang below a root each
    anchors/{tls,manufacturer,sho,pva}.pem         roots by purpose, for the actors
    issued.jsonl                                   one line for each certificate issued

Private keys are written with mode 0600, everything atomically.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from actor_runtime.errors import ActorError
from mcim.authority import Authority
from mcim.certificates import MAX_RSA_BITS, MIN_RSA_BITS, MIN_RSA_EXPONENT, Role

PURPOSES: Final = {"tls": "tls", "manufacturer": "manufacturer", "sho": "operator", "pva": "pva"}
"""Anchor file → CA whose root it holds."""

MAX_REQUEST: Final = 16_384  # octets
MAX_SERIAL_BITS: Final = 159  # 20 octets and positive (RFC 5280 §4.1.2.2)


class CaError(ActorError):
    """The directory or a request is not as it must be."""


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

    def init(self, now: datetime) -> None:
        """Make all CAs.

        Raises:
            CaError: there are CAs already.
        """
        if (self.path / "ca").exists():
            raise CaError(f"{self.path} has CAs already", hint="take another directory")
        for purpose, name in PURPOSES.items():
            root = Authority.create_root(f"M2M {purpose} root", now)
            authority = root
            if name in ("operator", "manufacturer"):
                authority = root.create_subordinate(f"M2M {name} CA", now)
            write_secret(self.path / "ca" / f"{name}.key", _pem_key(authority.key))
            write_public(self.path / "ca" / f"{name}.crt", _pem(authority.certificate))
            write_public(self.path / "anchors" / f"{purpose}.pem", _pem(root.certificate))
            if authority is not root:
                # The root of this demo-sized CA issues one subordinate and is kept for its renewal.
                write_secret(self.path / "ca" / f"{name}-root.key", _pem_key(root.key))

    def authority(self, name: str) -> Authority:
        """One of the CAs: tls, operator, manufacturer or pva.

        Raises:
            CaError: it is not there.
        """
        try:
            certificate = x509.load_pem_x509_certificate((self.path / "ca" / f"{name}.crt").read_bytes())
            key = load_pem_private_key((self.path / "ca" / f"{name}.key").read_bytes(), None)
        except (OSError, ValueError) as exc:
            raise CaError(f"no {name} CA in {self.path}", hint="`m2m-ca init` makes one") from exc
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise CaError(f"the key of the {name} CA is not EC")
        below_root = certificate.issuer != certificate.subject
        return Authority(certificate=certificate, key=key, intermediates=(certificate,) if below_root else ())

    def issue_signing(self, role: Role, identity: str, out: Path, now: datetime) -> None:
        """A new key and its certificate chain for an SHO, a PVA or a DPF: `signing.key` and `signing.crt` in `out`."""
        authority = self.authority("pva" if role is Role.PVA else "operator")
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            leaf = authority.issue_role(role, key.public_key(), identity=identity, now=now)
        except ValueError as exc:
            raise CaError(f"a certificate cannot carry the identity {identity!r}: {exc}") from exc
        self._deliver(out, "signing", key, (leaf, *authority.intermediates), role.name.lower())

    def issue_tls(self, hosts: Sequence[str], out: Path, now: datetime) -> None:
        """A new key and certificate for TLS, server and client: `tls.key` and `tls.crt` in `out`."""
        authority = self.authority("tls")
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            leaf = authority.issue_tls(key.public_key(), hosts=hosts, now=now)
        except ValueError as exc:
            raise CaError(f"a certificate cannot carry these hosts: {exc}") from exc
        self._deliver(out, "tls", key, (leaf, *authority.intermediates), "tls")

    def issue_tre(self, request: Mapping[str, object], now: datetime) -> TreCertificates:
        """Certificates for PK_D and the attestation key of one TRE, by its own request (REQ-21).

        The request is proved by the attestation key, so that nobody has a key certified that he does not hold.

        Raises:
            CaError: members are missing, the proof is wrong, or a key is too weak.
        """
        names = ("m2meId", "treId", "platformKey", "attestKey")
        try:
            members = {name: str(request[name]) for name in names}
            proof = base64.b64decode(str(request["proof"]), validate=True)
            platform_key = load_pem_public_key(members["platformKey"].encode())
            attest_key = load_pem_public_key(members["attestKey"].encode())
        except (KeyError, ValueError, binascii.Error, UnsupportedAlgorithm) as exc:
            raise CaError("the certification request is incomplete or has no keys") from exc
        if not isinstance(attest_key, ec.EllipticCurvePublicKey) or not isinstance(attest_key.curve, ec.SECP256R1):
            raise CaError("the attestation key must be on P-256")
        body = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
        r, s = int.from_bytes(proof[:32], "big"), int.from_bytes(proof[32:], "big")
        try:
            attest_key.verify(encode_dss_signature(r, s), body, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature as exc:
            raise CaError("the request is not proved by its attestation key") from exc
        if isinstance(platform_key, rsa.RSAPublicKey):
            if not MIN_RSA_BITS <= platform_key.key_size <= MAX_RSA_BITS:
                raise CaError(f"an RSA platform key has {MIN_RSA_BITS} to {MAX_RSA_BITS} bits")
            if platform_key.public_numbers().e < MIN_RSA_EXPONENT:
                raise CaError(f"the public exponent of an RSA platform key is {MIN_RSA_EXPONENT} or more")
        elif not isinstance(platform_key, ec.EllipticCurvePublicKey) or platform_key.curve.name != "secp256r1":
            raise CaError("the platform key must be RSA or on P-256")
        if platform_key == attest_key:
            raise CaError("the platform key and the attestation key must differ")
        if not members["treId"] or not members["m2meId"]:
            raise CaError("the request names no TRE or no M2ME")
        authority = self.authority("manufacturer")
        tre_id, m2me_id = members["treId"], members["m2meId"]
        try:
            issued = TreCertificates(
                platform=authority.issue_platform(Role.PLATFORM, platform_key, tre_id=tre_id, m2me_id=m2me_id, now=now),
                attest=authority.issue_platform(Role.ATTEST, attest_key, tre_id=tre_id, m2me_id=m2me_id, now=now),
                chain=authority.intermediates,
            )
        except ValueError as exc:
            raise CaError(f"a certificate cannot carry these identities: {exc}") from exc
        self._note(issued.platform, "platform")
        self._note(issued.attest, "attest")
        return issued

    def make_crl(self, name: str, serials: Sequence[int], now: datetime) -> bytes:
        """A CRL of one CA, PEM.

        Raises:
            CaError: no such CA, or a serial number that none has.
        """
        if any(not 0 < serial < 1 << MAX_SERIAL_BITS for serial in serials):
            raise CaError(f"a serial number is positive and has at most {MAX_SERIAL_BITS} bits")
        return self.authority(name).make_crl(serials, now).public_bytes(Encoding.PEM)

    def demo_pki(
        self,
        *,
        hosts: Sequence[str],
        sho_id: str,
        dpf_id: str,
        pva_id: str,
        now: datetime,
        ro_id: str = "ro.example",
    ) -> None:
        """Everything the actors of one demo need: CAs, and `dpf`, `sho`, `pva`, `ro` with keys and chains."""
        self.init(now)
        identities = {"dpf": dpf_id, "sho": sho_id, "pva": "pva", "ro": ro_id}
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
    ) -> None:
        write_secret(out / f"{name}.key", _pem_key(key))
        write_public(out / f"{name}.crt", b"".join(_pem(certificate) for certificate in chain))
        self._note(chain[0], kind)

    def _note(self, certificate: x509.Certificate, kind: str) -> None:
        line = {
            "serial": f"{certificate.serial_number:x}",
            "kind": kind,
            "subject": certificate.subject.rfc4514_string(),
            "notAfter": certificate.not_valid_after_utc.isoformat(),
        }
        with (self.path / "issued.jsonl").open("a") as stream:
            stream.write(json.dumps(line) + "\n")


def write_tre_certificates(certificates: TreCertificates, out: Path) -> None:
    """`platform.crt`, `attest.crt` and `chain.pem` in `out`, for `dmclient install-certificates`."""
    write_public(out / "platform.crt", _pem(certificates.platform))
    write_public(out / "attest.crt", _pem(certificates.attest))
    write_public(out / "chain.pem", b"".join(_pem(certificate) for certificate in certificates.chain))


def read_request(path: Path) -> Mapping[str, object]:
    """A certification request file.

    Raises:
        CaError: unreadable, too large, or not a JSON object.
    """
    try:
        octets = path.read_bytes()
        request = json.loads(octets) if len(octets) <= MAX_REQUEST else None
    except (OSError, ValueError, RecursionError) as exc:
        raise CaError(f"{path} is no certification request") from exc
    if not isinstance(request, dict):
        raise CaError(f"{path} is no certification request")
    return request


def write_secret(path: Path, octets: bytes) -> None:
    """Write for the owner alone, atomically."""
    _write(path, octets, 0o600)


def write_public(path: Path, octets: bytes) -> None:
    """Write for everybody to read, atomically."""
    _write(path, octets, 0o644)


def _write(path: Path, octets: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # made with mode 0600
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(octets)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
