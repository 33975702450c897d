"""A software TRE with certificates, and the home operators that make packages for it."""

from __future__ import annotations

import os
from collections.abc import Callable
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
from dmclient.tre.counter import COUNTER_NAME
from dmclient.tre.environment import Tre
from dmclient.tre.keys import KeyStore
from dmclient.tre.software import SoftwareKeyStore
from dmclient.tre.store import STORE_NAME
from mcim.certificates import Role
from mcim.content import AlgorithmContent, BoundContent, McimContent, UpdateContent
from mcim.data import encode_data
from mcim.evidence import Evidence, verify_evidence
from mcim.key_id import key_id_of
from mcim.mcim_object import fresh_keys, seal_mcim
from mcim.package import build_package
from mcim.package_header import PackageHeader
from mcim.receipt import Receipt, verify_receipt
from mcim.statements import raw_signature
from mcim.supplier_command import SupplierCommand, issue_supplier_command
from mcim.vocabulary import Container, Operation, ResultCode, Suite, Tag

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

    tre_id = TRE_ID

    def __init__(
        self,
        directory: Path,
        *,
        key_type: Literal["rsa", "ec"] = "rsa",
        open_key_store: Callable[[Path], KeyStore] = SoftwareKeyStore,
        **options: Any,
    ) -> None:
        self.directory = directory
        self.open_key_store = open_key_store
        self.suite: Suite | None = None  # of packages; None: the first that the TRE offers
        self.container: Container | None = None  # the same
        self.tre = Tre.manufacture(
            directory,
            seal_key=SEAL_KEY,
            key_store=open_key_store(directory),
            m2me_id=M2ME_ID,
            tre_id=TRE_ID,
            key_type=key_type,
            **options,
        )
        self._know(self.tre.certification_request())
        self._certify()

    @classmethod
    def around(cls, request: dict[str, str]) -> World:
        """The surroundings of a TRE that somebody else made and opens (`tre` is still to be set)."""
        world = cls.__new__(cls)
        world.suite = world.container = None
        world.tre_id = request["treId"]
        world._know(request)
        world._issue()
        return world

    def _know(self, request: dict[str, str]) -> None:
        """The public keys of a request."""
        self.platform_key = load_pem_public_key(request["platformKey"].encode())
        self.attest_key = load_pem_public_key(request["attestKey"].encode())

    def _certify(self) -> None:
        """What is issued, put into the TRE."""
        self._issue()
        self.tre.install_certificates(*self.certificates, supplier_anchors=self.certificates[2])

    def _issue(self) -> None:
        """Manufacturer's certificates for the TRE, and two operators below one root."""
        self.ca, self.root = ca, root = tuple(ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        self.certificates = (
            *self.certify(self.platform_key, self.attest_key),
            [certificate("M", ca.public_key(), "M", ca)],
            [certificate("Operators", root.public_key(), "Operators", root)],
        )
        self.signers = {}
        for sho_id in (SHO, OTHER_SHO):
            key = ec.generate_private_key(ec.SECP256R1())
            leaf = certificate(sho_id, key.public_key(), "Operators", root, role=Role.SHO, san=x509.DNSName(sho_id))
            self.signers[sho_id] = (key, [leaf])

    def certify(self, platform: Any, attest: Any) -> tuple[x509.Certificate, x509.Certificate]:
        """Certificates of the manufacturer for a pair of keys."""
        name = x509.UniformResourceIdentifier(self.tre_id)
        usage = "key_agreement" if isinstance(platform, ec.EllipticCurvePublicKey) else "key_encipherment"
        return (
            certificate("TRE", platform, "M", self.ca, role=Role.PLATFORM, san=name, usage=usage),
            certificate("TRE", attest, "M", self.ca, role=Role.ATTEST, san=name),
        )

    def take_over(self, request: dict[str, str]) -> tuple[x509.Certificate, x509.Certificate]:
        """The manufacturer certifies the keys of a request, and the home operators hear of them."""
        self._know(request)
        return self.certify(self.platform_key, self.attest_key)

    def supplier(self, *, role: Role = Role.SUPPLIER, issuer: str = "M", **changes: Any) -> bytes:
        """A command of the supplier, right in everything but what is given."""
        key = ec.generate_private_key(ec.SECP256R1())
        san = x509.UniformResourceIdentifier("urn:m2m:supplier:1")
        signed_by = self.ca if issuer == "M" else self.root
        leaf = certificate("Supplier", key.public_key(), issuer, signed_by, role=role, san=san)
        values = {
            "tre_id": self.tre_id,
            "counter": 1,
            "not_before": NOW - timedelta(minutes=1),
            "not_after": NOW + timedelta(hours=1),
            "reset_token_counter": True,
        }
        command = SupplierCommand(**values | changes)
        return issue_supplier_command(command, lambda octets: raw_signature(key, octets), [leaf])

    def reopen(self) -> Tre:
        """The TRE after a power cycle."""
        self.tre = Tre.open(self.directory, SEAL_KEY, self.open_key_store(self.directory))
        return self.tre

    def snapshot(self) -> dict[str, bytes]:
        """Sealed file and counter as they lie on the disk."""
        return {name: (self.directory / name).read_bytes() for name in (STORE_NAME, COUNTER_NAME)}

    def restore(self, files: dict[str, bytes]) -> Tre:
        """Put such files back and start again."""
        for name, octets in files.items():
            (self.directory / name).write_bytes(octets)
        tre = self.reopen()
        self._know(tre.certification_request())
        return tre

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
        suite = self._suite()
        inner = replace(
            McimContent(
                mcim_id=MCIM_ID,
                sho_id=SHO,
                tre_id=self.tre_id,
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
            tre_id=self.tre_id,
            platform_key_id=key_id_of(self.platform_key),
            sho_id=SHO,
            dpf_id="dpf.example",
            operation=Operation.INSTALL,
            mcim_id=MCIM_ID,
            suite=suite,
            not_before=NOW - timedelta(minutes=1),
            not_after=NOW + timedelta(hours=1),
            ticket_digest="0" * 64,
            auth_mode="none" if inner.auth_token is None else "token",
        )
        outer = replace(outer, **(header or {}))
        if inner.replaces is not None and "operation" not in (content or {}):
            outer = replace(outer, operation=Operation.REPLACE)
            inner = replace(inner, operation=Operation.REPLACE)
        return self._pack(outer, inner, signer, payload, frame, mcim_object, revision, tag)

    def update(
        self,
        *,
        revision: int = 2,
        header: dict[str, Any] | None = None,
        kind: type[UpdateContent] | type[AlgorithmContent] = UpdateContent,
        **changes: Any,
    ) -> bytes:
        """An update for the registration now open: the fields given, and nothing else, are in it."""
        registration = self.tre.registration(NOW)
        sho_id = changes.pop("sho_id", SHO)
        common = {"mcim_id": changes.pop("mcim_id", MCIM_ID), "sho_id": sho_id, "sequence": self.sequence(sho_id)}
        common |= {key: changes.pop(key) for key in ("sequence",) if key in changes}
        outer = self.header(Operation.UPDATE, registration.nonce or bytes(32), **common, **(header or {}))
        inner = kind(
            tre_id=self.tre_id,
            registration_nonce=outer.registration_nonce,
            not_before=NOW - timedelta(minutes=1),
            not_after=changes.pop("not_after", NOW + timedelta(days=365)),
            transaction_id=outer.transaction_id,
            **common,
            **changes,
        )
        tag = Tag.UPDATE if kind is UpdateContent else Tag.ALGORITHM
        return self._pack(outer, inner, sho_id, None, None, None, revision, tag)

    def command(self, operation: Operation, *, signer: str = SHO, **changes: Any) -> bytes:
        """A signed command for the registration now open."""
        nonce = self.tre.registration(NOW).nonce or bytes(32)
        values = {"sho_id": signer, "sequence": self.sequence(changes.get("sho_id", signer))} | changes
        key, chain = self.signers[signer]
        return build_package(
            self.header(operation, nonce, **values),
            None,
            recipient_public_key=self.platform_key,
            signing_key=key,
            signer_chain=chain,
        )

    def release(self, *, signer: str = SHO, new_sho_id: str = OTHER_SHO, **changes: Any) -> bytes:
        """A release token of the home operator of an MCIM."""
        return self.command(Operation.RELEASE, signer=signer, new_sho_id=new_sho_id, **changes)

    def sequence(self, sho_id: str) -> int:
        """The next sequence number of that home operator, as it counts itself."""
        return self.tre._state.next_sequence(sho_id)

    def header(self, operation: Operation, nonce: bytes, **changes: Any) -> PackageHeader:
        """A header with everything right but what is given."""
        values: dict[str, Any] = {
            "transaction_id": UUID(int=7),
            "sequence": self.sequence(SHO),
            "registration_nonce": nonce,
            "m2me_id": M2ME_ID,
            "tre_id": self.tre_id,
            "platform_key_id": key_id_of(self.platform_key),
            "sho_id": SHO,
            "dpf_id": "dpf.example",
            "operation": operation,
            "mcim_id": MCIM_ID,
            "suite": self._suite(),
            "not_before": NOW - timedelta(minutes=1),
            "not_after": NOW + timedelta(hours=1),
            "ticket_digest": "0" * 64,
        }
        return PackageHeader(**values | changes)

    def do(self, operation: Operation, command: bytes | None = None, **changes: Any) -> ResultCode:
        """Open a request, if the command is not given sign one for it, and carry it out."""
        if command is None:
            self.register(sho_id=None)
            command = self.command(operation, **changes)
        return self.tre.command(operation, command, NO_HINTS, NOW).code

    def _pack(
        self,
        outer: PackageHeader,
        inner: BoundContent,
        signer: str,
        payload: bytes | None,
        frame: bytes | None,
        mcim_object: bytes | None,
        revision: int,
        tag: Tag,
    ) -> bytes:
        suite = self._suite()
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
            outer,
            mcim_object,
            recipient_public_key=self.platform_key,
            signing_key=key,
            signer_chain=chain,
            container=self.container or Container(self.tre.facts().containers[0]),
        )

    def _suite(self) -> Suite:
        return self.suite or self.tre.facts().suites[0]

    def provision(self, package: bytes, hints: Hints = NO_HINTS, now: datetime = NOW) -> Outcome:
        return self.tre.provision(package, hints, now)

    def receipt_of(self, outcome: Outcome) -> Receipt:
        assert isinstance(self.attest_key, ec.EllipticCurvePublicKey)
        return verify_receipt(outcome.receipt, self.attest_key)

    def evidence_of(self, octets: bytes) -> Evidence:
        assert isinstance(self.attest_key, ec.EllipticCurvePublicKey)
        return verify_evidence(octets, self.attest_key)
