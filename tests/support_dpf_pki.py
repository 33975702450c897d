"""What a DPF under test believes in: a manufacturer, a PVA, one device's certificates, and its rules."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding as CertEncoding

from dmserver.policy import Rules
from mcim.authority import Authority
from mcim.certificates import Role, TrustAnchors
from mcim.vocabulary import (
    ValidationMode,
)
from mo_definitions import load

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
DPF_ID, SHO_ID, PVA_ID = "dpf.example", "sho.example", "urn:m2m:pva:example"
M2ME_ID, TRE_ID = "urn:imei:490154203237518", "urn:m2m:tre:0001"


@dataclass(frozen=True, kw_only=True)
class Pki:
    """Manufacturer and PVA, and one device's certificates. Keys are made once per process: RSA is slow."""

    manufacturer_root: Authority
    manufacturer: Authority
    platform_key: rsa.RSAPrivateKey
    attest_key: ec.EllipticCurvePrivateKey
    pva_root: Authority
    pva_key: ec.EllipticCurvePrivateKey
    pva_cert: x509.Certificate

    @property
    def manufacturers(self) -> TrustAnchors:
        return TrustAnchors((self.manufacturer_root.certificate,), "manufacturer")

    @property
    def pvas(self) -> TrustAnchors:
        return TrustAnchors((self.pva_root.certificate,), "pva")

    @property
    def chain(self) -> tuple[bytes, ...]:
        return tuple(der(certificate) for certificate in self.manufacturer.intermediates)

    def platform_cert(
        self,
        *,
        ca: Authority | None = None,
        role: Role = Role.PLATFORM,
        key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | None = None,
        tre_id: str = TRE_ID,
        m2me_id: str = M2ME_ID,
        issued: datetime = NOW - timedelta(days=30),
        life: timedelta = timedelta(days=3650),
    ) -> bytes:
        public = key or self.platform_key.public_key()
        ca = ca or self.manufacturer
        return der(ca.issue_platform(role, public, tre_id=tre_id, m2me_id=m2me_id, now=issued, life=life))

    def attest_cert(self, *, m2me_id: str = M2ME_ID) -> bytes:
        return self.platform_cert(role=Role.ATTEST, key=self.attest_key.public_key(), m2me_id=m2me_id)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(CertEncoding.DER)


@functools.cache
def pki() -> Pki:
    made = NOW - timedelta(days=60)
    root = Authority.create_root("Manufacturer root", made)
    pva_root = Authority.create_root("PVA root", made)
    pva_key = ec.generate_private_key(ec.SECP256R1())
    return Pki(
        manufacturer_root=root,
        manufacturer=root.create_subordinate("Manufacturer CA", made),
        platform_key=rsa.generate_private_key(public_exponent=65537, key_size=2048),
        attest_key=ec.generate_private_key(ec.SECP256R1()),
        pva_root=pva_root,
        pva_key=pva_key,
        pva_cert=pva_root.issue_role(Role.PVA, pva_key.public_key(), identity=PVA_ID, now=made),
    )


def rules(mode: ValidationMode = ValidationMode.SEMI_AUTONOMOUS, **changes: object) -> Rules:
    plain = Rules(
        server_id=DPF_ID,
        mode=mode,
        manufacturers=pki().manufacturers,
        pvas=pki().pvas,
        pva_id=PVA_ID,
        crls=tuple,
        ddf=load("M2MMobj"),
    )
    return dataclasses.replace(plain, **changes)
