"""A small PKI made by hand, a device's keys, and a client's TLS: what tests of PVA and SHO need around them."""

from __future__ import annotations

import ipaddress
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from actor_runtime.http import PartnerClient, to_base64
from actor_runtime.tls import client_context, server_context
from mcim.certificates import Role
from mcim.evidence import Evidence, sign_evidence
from mcim.key_id import key_id_of
from mcim.receipt import Receipt, sign_receipt
from mcim.statements import raw_signature
from mcim.vocabulary import Operation, ResultCode, ValidationMode

M2ME_ID, TRE_ID = "urn:imei:004999010640000", "urn:m2m:tre:0001"
DPF_ID, SHO_ID, PVA_ID = "dpf.example", "sho.example", "urn:m2m:pva:example"
TRE_TYPE, TRE_VERSION = "software", "1.0"
YEAR = timedelta(days=365)


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """One RSA key for all tests of a process: making one is slow."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def pem_key(key: Any) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True)
class Ca:
    """A root with what it issues."""

    name: x509.Name
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls, name: str) -> Ca:
        subject, key = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), ec_key()
        builder = _builder(subject, subject, key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        builder = builder.add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        return cls(subject, key, builder.sign(key, hashes.SHA256()))

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_id(self) -> str:
        return x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()).digest.hex()

    def issue(
        self,
        public_key: Any,
        *,
        usage: x509.KeyUsage,
        eku: list[x509.ObjectIdentifier],
        san: list[x509.GeneralName],
        serial: str | None = None,
        until: datetime | None = None,
    ) -> x509.Certificate:
        names = [x509.NameAttribute(NameOID.COMMON_NAME, "test")]
        if serial is not None:
            names.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, serial))
        builder = _builder(x509.Name(names), self.name, public_key, until)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(usage, critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(eku), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(san), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
        )
        return builder.sign(self.key, hashes.SHA256())

    def issue_role(self, key: Any, role: Role, identity: str, **more: Any) -> x509.Certificate:
        public_key = key.public_key()
        usage = _usage(digital_signature=True)
        if role is Role.PLATFORM:
            is_rsa = isinstance(public_key, rsa.RSAPublicKey)
            usage = _usage(key_encipherment=True) if is_rsa else _usage(key_agreement=True)
        is_dns = role in (Role.SHO, Role.DPF)
        san = x509.DNSName(identity) if is_dns else x509.UniformResourceIdentifier(identity)
        return self.issue(public_key, usage=usage, eku=[role.eku], san=[san], **more)

    def issue_tls(self, key: Any, name: str) -> x509.Certificate:
        return self.issue(
            key.public_key(),
            usage=_usage(digital_signature=True),
            eku=[ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
            san=[x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))],
        )

    def crl(self, *revoked: x509.Certificate) -> bytes:
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name)
        builder = builder.last_update(now - timedelta(days=1)).next_update(now + YEAR)
        for certificate in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(certificate.serial_number).revocation_date(now).build()
            )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)


class Pki:
    """Separate roots for every purpose, and files as the settings want them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tls, self.manufacturer, self.sho, self.pva = map(Ca.make, ("TLS", "Manufacturer", "SHO", "PVA"))
        for name in ("tls", "manufacturer", "sho", "pva"):
            self.file(f"{name}-anchors.pem", getattr(self, name).pem)
        for name in (DPF_ID, SHO_ID, "pva.example", "stranger.example"):
            key = ec_key()
            self.file(f"{name}.tls.crt", self.tls.issue_tls(key, name).public_bytes(Encoding.PEM))
            self.file(f"{name}.tls.key", pem_key(key))
        self.pva_key, self.sho_key = ec_key(), ec_key()
        self.pva_cert = self.pva.issue_role(self.pva_key, Role.PVA, PVA_ID)
        self.sho_cert = self.sho.issue_role(self.sho_key, Role.SHO, SHO_ID)
        for name in ("pva", "sho"):
            certificate, key = getattr(self, f"{name}_cert"), getattr(self, f"{name}_key")
            self.file(f"{name}-signing.crt", certificate.public_bytes(Encoding.PEM))
            self.file(f"{name}-signing.key", pem_key(key))

    def path(self, name: str) -> Path:
        return self.directory / name

    def file(self, name: str, octets: bytes) -> Path:
        path = self.path(name)
        path.touch(mode=0o600)
        path.write_bytes(octets)
        return path

    def server(self, name: str, *, mutual: bool = True) -> ssl.SSLContext:
        ca = self.path("tls-anchors.pem") if mutual else None
        return server_context(self.path(f"{name}.tls.crt"), self.path(f"{name}.tls.key"), client_ca=ca)

    def client(self, name: str | None) -> ssl.SSLContext:
        anchors = self.path("tls-anchors.pem")
        if name is None:
            return client_context(anchors)
        return client_context(anchors, cert=self.path(f"{name}.tls.crt"), key=self.path(f"{name}.tls.key"))


class Device:
    """Keys and certificates of one M2ME, and the statements its TRE signs."""

    def __init__(self, pki: Pki, *, platform_key: Any = None, m2me_id: str = M2ME_ID, tre_id: str = TRE_ID) -> None:
        self.m2me_id, self.tre_id = m2me_id, tre_id
        self.platform_key = platform_key if platform_key is not None else rsa_key()
        self.attest_key = ec_key()
        issue = pki.manufacturer.issue_role
        self.platform_cert = issue(self.platform_key, Role.PLATFORM, tre_id, serial=m2me_id)
        self.attest_cert = issue(self.attest_key, Role.ATTEST, tre_id, serial=m2me_id)

    @property
    def platform_key_id(self) -> bytes:
        return key_id_of(self.platform_key.public_key())

    def sign(self, octets: bytes) -> bytes:
        return raw_signature(self.attest_key, octets)

    def evidence(self, *, req_id: UUID, nonce: bytes, challenge: bytes, **changes: Any) -> bytes:
        values: dict[str, Any] = {
            "mode": ValidationMode.SEMI_AUTONOMOUS,
            "m2me_id": self.m2me_id,
            "tre_id": self.tre_id,
            "tre_type": TRE_TYPE,
            "tre_version": TRE_VERSION,
            "tre_state": "ok",
            "platform_key_id": self.platform_key_id,
            "challenge": challenge,
            "nonce": nonce,
            "req_id": req_id,
            "counter": 1,
        }
        return sign_evidence(Evidence(**values | changes), self.sign)

    def receipt(self, **changes: Any) -> bytes:
        values: dict[str, Any] = {
            "tre_id": self.tre_id,
            "operation": Operation.INSTALL,
            "sho_id": SHO_ID,
            "revision": 1,
            "result": ResultCode.SUCCESS,
            "counter": 2,
            "time": datetime(2026, 1, 1, tzinfo=UTC),
        }
        return sign_receipt(Receipt(**values | changes), self.sign)


def der(certificate: x509.Certificate) -> str:
    """A certificate as a JSON body has it."""
    return to_base64(certificate.public_bytes(Encoding.DER))


@asynccontextmanager
async def running(app: Any, context: ssl.SSLContext) -> Any:
    """The application behind real TLS on a port of the system's choice; gives its URL."""
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=context)
    try:
        yield str(server.make_url("/"))
    finally:
        await server.close()


@asynccontextmanager
async def calling(url: str, context: ssl.SSLContext) -> Any:
    """A partner client, closed at the end."""
    client = PartnerClient(url, context, timeout_s=20)
    try:
        yield client
    finally:
        await client.close()


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: Any, until: datetime | None = None
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - YEAR)
        .not_valid_after(until or now + YEAR)
    )


def _usage(**bits: bool) -> x509.KeyUsage:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: bits.get(name, False) for name in names})
