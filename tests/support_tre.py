"""A software TRE with certificates, and the home operators that make packages for it."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509.oid import NameOID

from actor_runtime.sealing import SealingKey
from dmclient.tre.base import Hints, Outcome, Registration
from dmclient.tre.environment import Tre
from dmclient.tre.software import SoftwareKeyStore
from mcim.certificates import Role
from mcim.content import McimContent
from mcim.data import encode_data
from mcim.evidence import Evidence, verify_evidence
from mcim.key_id import key_id_of
from mcim.mcim_object import fresh_keys, seal_mcim
from mcim.package import build_package
from mcim.package_header import PackageHeader
from mcim.receipt import Receipt, verify_receipt
from mcim.vocabulary import Operation, Tag

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SEAL_KEY = SealingKey(bytes(range(32)))
M2ME_ID, TRE_ID = "urn:imei:004999010640000", "urn:m2m:tre:0001"
SHO, OTHER_SHO = "sho1.example", "sho2.example"
MCIM_ID = UUID("00112233-4455-6677-8899-aabbccddeeff")
IMSI = "001010123456789"
K = bytes.fromhex("465b5ce8b199b49faa5f0a2ee238a6bc")
OPC = bytes.fromhex("cd63cb71954a9f4e48a5994e37a02baf")
NO_HINTS = Hints()


def certificate(
    subject: str,
    public_key: CertificatePublicKeyTypes,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    role: Role | None = None,
    san: x509.GeneralName | None = None,
    usage: str = "digital_signature",
) -> x509.Certificate:
    """A certificate as small as the profile allows; without a role it is a CA's."""
    purposes = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    wanted = {usage} if role else {"key_cert_sign", "crl_sign"}
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=30))
        .not_valid_after(NOW + timedelta(days=300))
        .add_extension(x509.BasicConstraints(ca=role is None, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**{name: name in wanted for name in purposes}), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if role is not None and san is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([role.eku]), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName([san]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


class World:
    """One TRE in a directory, and two home operators below the root it trusts."""

    def __init__(self, directory: Path, *, key_type: Literal["rsa", "ec"] = "rsa", **options: Any) -> None:
        self.directory = directory
        self.tre = Tre.manufacture(
            directory,
            seal_key=SEAL_KEY,
            key_store=SoftwareKeyStore(directory),
            m2me_id=M2ME_ID,
            tre_id=TRE_ID,
            key_type=key_type,
            **options,
        )
        request = self.tre.certification_request()
        self.platform_key = load_pem_public_key(request["platformKey"].encode())
        self.attest_key = load_pem_public_key(request["attestKey"].encode())
        self._certify()

    def _certify(self) -> None:
        """Manufacturer's certificates for the TRE, and two operators below one root."""
        ca, root = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        tre_name = x509.UniformResourceIdentifier(TRE_ID)
        is_ec = isinstance(self.platform_key, ec.EllipticCurvePublicKey)
        usage = "key_agreement" if is_ec else "key_encipherment"
        self.certificates = (
            certificate("TRE", self.platform_key, "M", ca, role=Role.PLATFORM, san=tre_name, usage=usage),
            certificate("TRE", self.attest_key, "M", ca, role=Role.ATTEST, san=tre_name),
            [certificate("M", ca.public_key(), "M", ca)],
            [certificate("Operators", root.public_key(), "Operators", root)],
        )
        self.tre.install_certificates(*self.certificates)
        self.signers = {}
        for sho_id in (SHO, OTHER_SHO):
            key = ec.generate_private_key(ec.SECP256R1())
            leaf = certificate(sho_id, key.public_key(), "Operators", root, role=Role.SHO, san=x509.DNSName(sho_id))
            self.signers[sho_id] = (key, [leaf])

    def reopen(self) -> Tre:
        """The TRE after a power cycle."""
        self.tre = Tre.open(self.directory, SEAL_KEY, SoftwareKeyStore(self.directory))
        return self.tre

    def register(self, now: datetime = NOW, sho_id: str | None = SHO) -> Registration:
        return self.tre.renew_registration(reason="initial", sho_id=sho_id, now=now)

    def package(
        self,
        *,
        header: dict[str, Any] | None = None,
        content: dict[str, Any] | None = None,
        signer: str = SHO,
        payload: bytes | None = None,
        frame: bytes | None = None,
        mcim_object: bytes | None = None,
        revision: int = 1,
        tag: Tag = Tag.MCIM,
    ) -> bytes:
        """A package for the registration now open, right in everything but what is given."""
        registration = self.tre.registration(NOW)
        suite = self.tre.facts().suites[0]
        inner = replace(
            McimContent(
                mcim_id=MCIM_ID,
                sho_id=SHO,
                tre_id=TRE_ID,
                registration_nonce=registration.nonce or bytes(32),
                sequence=registration.next_sequence,
                not_before=NOW - timedelta(minutes=1),
                not_after=NOW + timedelta(days=365),
                transaction_id=UUID(int=7),
                imsi=IMSI,
                k=K,
                opc=OPC,
                sqn_init=0x400,
                initial_state=40,
            ),
            **(content or {}),
        )
        outer = PackageHeader(
            transaction_id=UUID(int=7),
            sequence=registration.next_sequence,
            registration_nonce=registration.nonce or bytes(32),
            m2me_id=M2ME_ID,
            tre_id=TRE_ID,
            platform_key_id=key_id_of(self.platform_key),
            sho_id=SHO,
            dpf_id="dpf.example",
            operation=Operation.INSTALL,
            mcim_id=MCIM_ID,
            suite=suite,
            not_before=NOW - timedelta(minutes=1),
            not_after=NOW + timedelta(hours=1),
            ticket_digest="0" * 64,
            auth_mode="none",
        )
        outer = replace(outer, **(header or {}))
        data = encode_data(tag, inner.to_payload() if payload is None else payload, revision)
        if mcim_object is None:
            mcim_object = seal_mcim(
                data if frame is None else frame,
                suite=suite,
                recipient=self.platform_key,
                keys=fresh_keys(suite, os.urandom),
            )
        key, chain = self.signers[signer]
        return build_package(
            outer, mcim_object, recipient_public_key=self.platform_key, signing_key=key, signer_chain=chain
        )

    def provision(self, package: bytes, hints: Hints = NO_HINTS, now: datetime = NOW) -> Outcome:
        return self.tre.provision(package, hints, now)

    def receipt_of(self, outcome: Outcome) -> Receipt:
        assert isinstance(self.attest_key, ec.EllipticCurvePublicKey)
        return verify_receipt(outcome.receipt, self.attest_key)

    def evidence_of(self, octets: bytes) -> Evidence:
        assert isinstance(self.attest_key, ec.EllipticCurvePublicKey)
        return verify_evidence(octets, self.attest_key)
