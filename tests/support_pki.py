"""A PKI in memory for everybody's tests. RSA keys are made once for a process."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mcim.authority import Authority
from mcim.certificates import Role, TrustAnchors
from mcim.statements import raw_signature

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
M2ME_ID, TRE_ID = "urn:imei:004999010640000", "urn:m2m:tre:0001"
SHO_ID, OTHER_SHO_ID = "sho1.example", "sho2.example"
DPF_ID, PVA_ID = "dpf.example", "urn:m2m:pva:1"


@functools.cache
def rsa_key(bits: int = 2048, number: int = 0) -> rsa.RSAPrivateKey:
    """One RSA key for a size and number, made once."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)  # small ones are what must be refused


@dataclass(frozen=True)
class Signer:
    """A key with its certificate and what is above it."""

    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]

    def sign(self, octets: bytes) -> bytes:
        return raw_signature(self.key, octets)


class Pki:
    """Roots by purpose, a manufacturer, two operators, a PVA and one TRE's certificates."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now
        self.manufacturer_root = Authority.create_root("Manufacturer root", now)
        self.operator_root = Authority.create_root("Operator root", now)
        self.pva_root = Authority.create_root("PVA root", now)
        self.manufacturer = self.manufacturer_root.create_subordinate("Manufacturer CA", now)
        self.operator = self.operator_root.create_subordinate("Operator CA", now)
        self.manufacturer_anchors = TrustAnchors((self.manufacturer_root.certificate,), "manufacturer")
        self.sho_anchors = TrustAnchors((self.operator_root.certificate,), "sho")
        self.pva_anchors = TrustAnchors((self.pva_root.certificate,), "pva")
        self.sho = self.signer(self.operator, Role.SHO, SHO_ID)
        self.other_sho = self.signer(self.operator, Role.SHO, OTHER_SHO_ID)
        self.pva = self.signer(self.pva_root, Role.PVA, PVA_ID)
        self.platform_key = rsa_key()
        self.attest_key = ec.generate_private_key(ec.SECP256R1())
        tre = {"tre_id": TRE_ID, "m2me_id": M2ME_ID}
        issue = self.manufacturer.issue_platform
        self.platform = issue(Role.PLATFORM, self.platform_key.public_key(), now=now, **tre)
        self.attest = issue(Role.ATTEST, self.attest_key.public_key(), now=now, **tre)
        self.tre_chain = self.manufacturer.intermediates

    def signer(self, authority: Authority, role: Role, identity: str) -> Signer:
        """A key certified for a role."""
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = authority.issue_role(role, key.public_key(), identity=identity, now=self.now)
        return Signer(key, (leaf, *authority.intermediates))


@functools.cache
def pki() -> Pki:
    """The PKI shared by the tests of one process; nobody changes it."""
    return Pki()
