"""A certification authority, in memory: roots, subordinate CAs, one profile for each role, CRLs.

Times are arguments. Tests make deliberately bad certificates through the same explicit arguments.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from mcim.certificates import Role
from mcim.platform_key import PlatformPublicKey

CA_LIFE = timedelta(days=3650)
PLATFORM_LIFE = timedelta(days=3650)
OPERATOR_LIFE = timedelta(days=730)
TLS_LIFE = timedelta(days=365)
CRL_LIFE = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """One CA: its certificate, its key, and the certificates above it up to, without, the root."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    intermediates: tuple[x509.Certificate, ...] = ()

    @classmethod
    def create_root(cls, name: str, now: datetime, *, path_length: int = 2) -> Authority:
        """A self-signed root on P-256."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name)
        certificate = (
            _ca_builder(subject, key.public_key(), now, path_length).issuer_name(subject).sign(key, hashes.SHA256())
        )
        return cls(certificate=certificate, key=key)

    def create_subordinate(self, name: str, now: datetime, *, path_length: int = 0) -> Authority:
        """A CA below this one."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _ca_builder(_name(name), key.public_key(), now, path_length)
            .issuer_name(self.certificate.subject)
            .add_extension(self._authority_key_id(), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return Authority(certificate=certificate, key=key, intermediates=(certificate, *self.intermediates))

    def issue_platform(
        self,
        role: Role,
        public_key: PlatformPublicKey,
        *,
        tre_id: str,
        m2me_id: str,
        now: datetime,
        life: timedelta = PLATFORM_LIFE,
    ) -> x509.Certificate:
        """A certificate for PK_D (`Role.PLATFORM`) or the attestation key (`Role.ATTEST`) of one TRE."""
        subject = x509.Name([*_name(tre_id), x509.NameAttribute(NameOID.SERIAL_NUMBER, m2me_id)])
        names = [x509.UniformResourceIdentifier(tre_id)]
        usage = _usage(role, public_key)
        return self.issue(public_key, subject=subject, names=names, usage=usage, ekus=[role.eku], now=now, life=life)

    def issue_role(
        self,
        role: Role,
        public_key: ec.EllipticCurvePublicKey,
        *,
        identity: str,
        now: datetime,
        life: timedelta = OPERATOR_LIFE,
    ) -> x509.Certificate:
        """A signing certificate for an SHO or DPF (DNS name) or for a PVA or supplier (URI)."""
        name: x509.GeneralName = (
            x509.UniformResourceIdentifier(identity) if role in (Role.PVA, Role.SUPPLIER) else x509.DNSName(identity)
        )
        usage = _usage(role, public_key)
        subject = _name(identity)
        return self.issue(public_key, subject=subject, names=[name], usage=usage, ekus=[role.eku], now=now, life=life)

    def issue_tls(
        self, public_key: ec.EllipticCurvePublicKey, *, hosts: Sequence[str], now: datetime, life: timedelta = TLS_LIFE
    ) -> x509.Certificate:
        """A TLS certificate, server and client, for host names and IP addresses; the first names the subject."""
        ekus = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        usage = _usage(Role.DPF, public_key)
        names = [_host(host) for host in hosts]
        return self.issue(public_key, subject=_name(hosts[0]), names=names, usage=usage, ekus=ekus, now=now, life=life)

    def issue(
        self,
        public_key: PlatformPublicKey,
        *,
        subject: x509.Name,
        names: Sequence[x509.GeneralName],
        usage: x509.KeyUsage,
        ekus: Iterable[ObjectIdentifier],
        now: datetime,
        life: timedelta,
    ) -> x509.Certificate:
        """An end-entity certificate with whatever is asked for; the profiles above say what is right."""
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))  # clocks differ
            .not_valid_after(now + life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage(ekus), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(self._authority_key_id(), critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def make_crl(self, revoked: Iterable[int], now: datetime) -> x509.CertificateRevocationList:
        """A signed list of revoked serial numbers."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now)
            .next_update(now + CRL_LIFE)
        )
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.key, hashes.SHA256())

    def _authority_key_id(self) -> x509.AuthorityKeyIdentifier:
        public: CertificateIssuerPublicKeyTypes = self.key.public_key()
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(public)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _ca_builder(
    subject: x509.Name, public_key: ec.EllipticCurvePublicKey, now: datetime, path_length: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _usage(role: Role, public_key: PlatformPublicKey) -> x509.KeyUsage:
    if role is not Role.PLATFORM:
        return _key_usage(digital_signature=True)
    if isinstance(public_key, rsa.RSAPublicKey):
        return _key_usage(key_encipherment=True)
    return _key_usage(key_agreement=True)


def _key_usage(**set_bits: bool) -> x509.KeyUsage:
    bits = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(**(bits | set_bits))
