"""T5, T6, T16, REQ-20, REQ-43, REQ-46: certificates of the wrong role, time, strength, name or place in the chain."""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mcim.authority import Authority
from mcim.certificates import Reason, Role, TrustAnchors, validate
from mcim.errors import CertificateRefused, PackageRefused, StatementInvalid
from mcim.package import verify_package
from mcim.receipt import verify_receipt
from mcim.ticket import Ticket, issue_ticket, verify_ticket
from mcim.vocabulary import ResultCode, ValidationMode
from tests.support_attacks import PKI_TIME, Arena, refused, still_provisions
from tests.support_pki import rsa_key
from tests.support_tre import M2ME_ID, NOW, OTHER_SHO, SHO, TRE_ID

DAY = timedelta(days=1)
PVA = "urn:m2m:pva:1"
P256 = ec.SECP256R1()


def usage(**bits: bool) -> x509.KeyUsage:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: bits.get(name, False) for name in names})


def common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def issue(issuer: Authority, public_key: Any, **options: Any) -> x509.Certificate:
    """An SHO certificate, with whatever is asked for instead of what is right."""
    right = {
        "subject": common_name(SHO),
        "names": [x509.DNSName(SHO)],
        "usage": usage(digital_signature=True),
        "ekus": [Role.SHO.eku],
        "now": PKI_TIME,
        "life": 300 * DAY,
    }
    return issuer.issue(public_key, **(right | options))


# -- role swaps -----------------------------------------------------------------------------------------------------

PURPOSES = {Role.PLATFORM: "manufacturer", Role.ATTEST: "manufacturer", Role.SHO: "sho", Role.PVA: "pva"}
ROLES = list(Role)


def _of(issuer: Authority, role: Role, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """A certificate of a role whose SAN would be right in every place: URI and DNS names of all."""
    bits = {"key_agreement": True} if role is Role.PLATFORM else {"digital_signature": True}
    return issue(issuer, key.public_key(), usage=usage(**bits), ekus=[role.eku])


@pytest.mark.parametrize("has", ROLES, ids=lambda role: role.name)
def test_role_in_the_place_of_the_sho(arena: Arena, has: Role) -> None:
    """T5 REQ-46: every role's certificate, issued by the operators' own CA in the SHO's name, signs a package."""
    key = ec.generate_private_key(P256)
    chain = [_of(arena.operator, has, key), *arena.operator.intermediates]
    package = arena.signed_by(key, chain)
    if has is Role.SHO:
        still_provisions(arena, package)  # the control: the role is all that differs
        return
    refused(arena, package, ResultCode.SIGNER_NOT_ACCEPTABLE)
    still_provisions(arena)


def _ticket(arena: Arena, issuer: str = PVA) -> Ticket:
    return Ticket(
        issuer=issuer,
        audience=("dpf.example", SHO),
        tre_id=TRE_ID,
        m2me_id=M2ME_ID,
        req_id="00112233-4455-4677-8899-aabbccddeeff",
        nonce=bytes(32),
        platform_key_id=bytes(16),
        attest_key_id=bytes(16),
        mode=ValidationMode.SEMI_AUTONOMOUS,
        tre_type="software",
        tre_version="1.0",
        issued_at=NOW,
        expires_at=NOW + timedelta(minutes=30),
        ticket_id="1",
    )


@pytest.mark.parametrize("has", ROLES, ids=lambda role: role.name)
def test_role_in_the_place_of_the_pva(arena: Arena, has: Role) -> None:
    """T6 REQ-19 REQ-46: every role's certificate, below the PVA's own root and in its name, signs a ticket."""
    root = Authority.create_root("PVA root", PKI_TIME)
    anchors = TrustAnchors((root.certificate,), "pva")
    key = ec.generate_private_key(P256)
    bits = {"key_agreement": True} if has is Role.PLATFORM else {"digital_signature": True}
    names = [x509.UniformResourceIdentifier(PVA)]
    leaf = issue(root, key.public_key(), usage=usage(**bits), ekus=[has.eku], names=names)
    token = issue_ticket(_ticket(arena), key, [leaf])
    if has is Role.PVA:
        assert verify_ticket(token, anchors, NOW, audience=SHO).issuer == PVA
        return
    with pytest.raises(StatementInvalid, match="certificate"):
        verify_ticket(token, anchors, NOW, audience=SHO)


def test_sho_as_pva_below_its_own_root(arena: Arena) -> None:
    """T6 REQ-43: a real SHO signs a ticket; its root is none for PVAs, nor does the PVA's purpose take SHO roots."""
    key, chain = arena.signers[SHO]
    token = issue_ticket(_ticket(arena, issuer=SHO), key, chain)
    for purpose in ("pva", "sho", "manufacturer"):
        with pytest.raises(StatementInvalid):
            verify_ticket(token, TrustAnchors((arena.operator_root.certificate,), purpose), NOW, audience=SHO)


@pytest.mark.parametrize("wanted", PURPOSES, ids=lambda role: role.name)
@pytest.mark.parametrize("has", ROLES, ids=lambda role: role.name)
def test_role_matrix(has: Role, wanted: Role) -> None:
    """T5 T6 REQ-46: in every place exactly one role is good, with the right root, names and key usage."""
    root = Authority.create_root("Root of all", PKI_TIME)
    key = ec.generate_private_key(P256).public_key()
    names = [x509.DNSName(SHO)] if wanted is Role.SHO else [x509.UniformResourceIdentifier(TRE_ID)]
    bits = {"key_agreement": True} if wanted is Role.PLATFORM else {"digital_signature": True}
    leaf = issue(root, key, names=names, ekus=[has.eku], usage=usage(**bits))
    anchors = TrustAnchors((root.certificate,), PURPOSES[wanted])
    if has is wanted:
        assert validate(leaf, [], anchors, wanted, NOW).role is wanted
        return
    with pytest.raises(CertificateRefused) as caught:
        validate(leaf, [], anchors, wanted, NOW)
    assert caught.value.reason == Reason.WRONG_USAGE


@pytest.mark.parametrize("wanted", PURPOSES, ids=lambda role: role.name)
def test_root_of_another_purpose(wanted: Role) -> None:
    """T5 T6 REQ-43: a sound certificate whose root was configured for something else."""
    root = Authority.create_root("Root", PKI_TIME)
    key = ec.generate_private_key(P256).public_key()
    names = [x509.DNSName(SHO)] if wanted is Role.SHO else [x509.UniformResourceIdentifier(TRE_ID)]
    bits = {"key_agreement": True} if wanted is Role.PLATFORM else {"digital_signature": True}
    leaf = issue(root, key, names=names, ekus=[wanted.eku], usage=usage(**bits))
    for purpose in {"manufacturer", "sho", "pva", "dpf", ""} - {PURPOSES[wanted]}:
        with pytest.raises(CertificateRefused) as caught:
            validate(leaf, [], TrustAnchors((root.certificate,), purpose), wanted, NOW)
        assert caught.value.reason == Reason.UNKNOWN_CA


TWO_PURPOSES = {
    "two roles": {"ekus": [Role.SHO.eku, Role.PVA.eku]},
    "no role": {"ekus": [ExtendedKeyUsageOID.CLIENT_AUTH]},
    "any purpose": {"ekus": [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]},
    "role of the arc above": {"ekus": [x509.ObjectIdentifier("1.3.6.1.4.1.99999.1")]},
    "role with something behind": {"ekus": [x509.ObjectIdentifier("1.3.6.1.4.1.99999.1.2.1")]},
    "key that encrypts as well": {"usage": usage(digital_signature=True, key_encipherment=True)},
    "key that agrees as well": {"usage": usage(digital_signature=True, key_agreement=True)},
    "key that only signs certificates": {"usage": usage(key_cert_sign=True)},
    "key that does nothing": {"usage": usage(data_encipherment=True)},
}


@pytest.mark.parametrize("options", TWO_PURPOSES.values(), ids=TWO_PURPOSES)
def test_signer_for_other_purposes(arena: Arena, options: dict[str, Any]) -> None:
    """T5 REQ-45 REQ-46: usages beside the one there must be."""
    key = ec.generate_private_key(P256)
    leaf = issue(arena.operator, key.public_key(), **options)
    refused(arena, arena.signed_by(key, [leaf, *arena.operator.intermediates]), ResultCode.SIGNER_NOT_ACCEPTABLE)
    still_provisions(arena)


def test_tls_certificate_as_signer(arena: Arena) -> None:
    """T5 REQ-46: the SHO's own TLS certificate does not sign packages."""
    key = ec.generate_private_key(P256)
    leaf = arena.operator.issue_tls(key.public_key(), hosts=[SHO], now=PKI_TIME)
    refused(arena, arena.signed_by(key, [leaf, *arena.operator.intermediates]), ResultCode.SIGNER_NOT_ACCEPTABLE)
    still_provisions(arena)


def test_attestation_key_as_signer(arena: Arena) -> None:
    """T9 REQ-45: a TRE's own attestation key makes receipts; a package signed with it is nobody's."""
    key = ec.generate_private_key(P256)
    leaf = arena.manufacturer.issue_platform(
        Role.ATTEST, key.public_key(), tre_id=TRE_ID, m2me_id=M2ME_ID, now=PKI_TIME
    )
    refused(arena, arena.signed_by(key, [leaf, *arena.manufacturer.intermediates]), ResultCode.SIGNER_NOT_ACCEPTABLE)
    still_provisions(arena)


def test_receipt_by_another_key(arena: Arena) -> None:
    """T10 REQ-67: receipts of another TRE, of the SHO and with one bit changed."""
    outcome = arena.provision(arena.good)
    for key in (arena.signers[SHO][0].public_key(), ec.generate_private_key(P256).public_key()):
        with pytest.raises(StatementInvalid):
            verify_receipt(outcome.receipt, key)
    for position in range(0, len(outcome.receipt), 7):
        forged = bytearray(outcome.receipt)
        forged[position] ^= 1
        with pytest.raises(StatementInvalid):
            verify_receipt(bytes(forged), arena.attest_key)


# -- time and revocation --------------------------------------------------------------------------------------------


TIMES: dict[str, dict[str, Any]] = {
    "expired": {"now": NOW - 10 * DAY, "life": 9 * DAY},
    "expired a second ago": {"now": NOW - 10 * DAY, "life": 10 * DAY - timedelta(seconds=1)},
    "not yet valid": {"now": NOW + DAY},
}


@pytest.mark.parametrize("options", TIMES.values(), ids=TIMES)
def test_signer_out_of_its_time(arena: Arena, options: dict[str, Any]) -> None:
    """T5 REQ-20: expired and not yet valid signers."""
    key = ec.generate_private_key(P256)
    leaf = issue(arena.operator, key.public_key(), **options)
    refused(arena, arena.signed_by(key, [leaf, *arena.operator.intermediates]), ResultCode.SIGNER_NOT_ACCEPTABLE)
    still_provisions(arena)


def test_ca_out_of_its_time(arena: Arena) -> None:
    """T5 REQ-20: the leaf is in force, the CA above it is not any more."""
    old = arena.operator_root.create_subordinate("Old CA", NOW - 365 * 30 * DAY)
    assert old.certificate.not_valid_after_utc < NOW
    refused(arena, arena.signed_by(*arena.certified(old, SHO)), ResultCode.SIGNER_NOT_ACCEPTABLE)
    still_provisions(arena)


def _verify(arena: Arena, crls: Sequence[x509.CertificateRevocationList]) -> ResultCode:
    anchors = TrustAnchors((arena.operator_root.certificate,), "sho")
    try:
        verify_package(arena.good, anchors=anchors, now=NOW, expected_sho_id=SHO, crls=crls)
    except PackageRefused as refusal:
        return refusal.code
    return ResultCode.SUCCESS


def test_revoked_signer(made_ec: Arena) -> None:
    """T5 REQ-20 REQ-21: its serial, or its CA's, on a fresh list of who issued it; an old list is as bad."""
    serial = made_ec.signers[SHO][1][0].serial_number
    listed = made_ec.operator.make_crl([serial], NOW - DAY)
    assert _verify(made_ec, [listed]) is ResultCode.CERTIFICATE_REVOKED
    above = made_ec.operator_root.make_crl([made_ec.operator.certificate.serial_number], NOW - DAY)
    assert _verify(made_ec, [above]) is ResultCode.CERTIFICATE_REVOKED
    stale = made_ec.operator.make_crl([], NOW - 300 * DAY)
    assert _verify(made_ec, [stale]) is ResultCode.SIGNER_NOT_ACCEPTABLE  # nobody says that it is revoked
    assert _verify(made_ec, [made_ec.operator.make_crl([serial + 1], NOW - DAY)]) is ResultCode.SUCCESS


def test_forged_revocation_list(made_ec: Arena) -> None:
    """T12 REQ-20: a list in the CA's name by somebody else revokes nobody."""
    serial = made_ec.signers[SHO][1][0].serial_number
    rogue = Authority.create_root("Operator CA", PKI_TIME)
    assert rogue.certificate.subject == made_ec.operator.certificate.subject
    assert _verify(made_ec, [rogue.make_crl([serial], NOW - DAY)]) is ResultCode.SUCCESS


# -- strength -------------------------------------------------------------------------------------------------------


@functools.cache
def _weak() -> dict[str, Any]:
    return {
        "RSA-1024": rsa_key(1024).public_key(),
        "RSA-2048": rsa_key().public_key(),  # no SHO has RSA
        "P-224": ec.generate_private_key(ec.SECP224R1()).public_key(),
        "P-384": ec.generate_private_key(ec.SECP384R1()).public_key(),
        "P-521": ec.generate_private_key(ec.SECP521R1()).public_key(),
        "secp256k1": ec.generate_private_key(ec.SECP256K1()).public_key(),
        "brainpool": ec.generate_private_key(ec.BrainpoolP256R1()).public_key(),
    }


@pytest.mark.parametrize("name", ["RSA-1024", "RSA-2048", "P-224", "P-384", "P-521", "secp256k1", "brainpool"])
def test_signer_with_another_kind_of_key(arena: Arena, name: str) -> None:
    """T16 REQ-20: P-256 and nothing else, weaker or stronger."""
    leaf = issue(arena.operator, _weak()[name])
    package = arena.signed_by(arena.signers[SHO][0], [leaf, *arena.operator.intermediates])
    refused(arena, package, ResultCode.SIGNER_NOT_ACCEPTABLE)
    still_provisions(arena)


@pytest.mark.parametrize("key", [rsa_key(1024), rsa_key(1024, 1)], ids=["RSA-1024", "another RSA-1024"])
def test_platform_key_that_is_weak(arena: Arena, key: rsa.RSAPrivateKey) -> None:
    """T6 REQ-20: the manufacturer certified a short RSA key; nothing is wrapped for it."""
    leaf = arena.manufacturer.issue_platform(
        Role.PLATFORM, key.public_key(), tre_id=TRE_ID, m2me_id=M2ME_ID, now=PKI_TIME
    )
    anchors = TrustAnchors((arena.manufacturer_root.certificate,), "manufacturer")
    with pytest.raises(CertificateRefused) as caught:
        validate(leaf, arena.manufacturer.intermediates, anchors, Role.PLATFORM, NOW, identity=TRE_ID)
    assert caught.value.reason == Reason.WEAK_KEY


def _ca(key: Any, issuer: Authority, *, path_length: int | None = 0, **options: Any) -> x509.Certificate:
    """A CA certificate of any key below an authority."""
    return (
        x509.CertificateBuilder()
        .subject_name(common_name("Strange CA"))
        .issuer_name(issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(PKI_TIME)
        .not_valid_after(NOW + 300 * DAY)
        .add_extension(x509.BasicConstraints(ca=options.get("ca", True), path_length=path_length), critical=True)
        .add_extension(options.get("usage", usage(key_cert_sign=True, crl_sign=True)), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)
        .sign(issuer.key, hashes.SHA256())
    )


def _leaf_below(ca: x509.Certificate, ca_key: Any, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(common_name(SHO))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(PKI_TIME)
        .not_valid_after(NOW + 300 * DAY)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([Role.SHO.eku]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(SHO)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )


STRANGE_CAS: dict[str, Callable[[Arena], tuple[Any, dict[str, Any]]]] = {
    "T16 REQ-20 RSA-1024 as a CA": lambda arena: (rsa_key(1024), {}),
    "T5 REQ-20 no CA": lambda arena: (ec.generate_private_key(P256), {"ca": False, "path_length": None}),
    "T5 REQ-20 CA that may not sign certificates": lambda arena: (
        ec.generate_private_key(P256),
        {"usage": usage(digital_signature=True)},
    ),
}


@pytest.mark.parametrize("make", STRANGE_CAS.values(), ids=STRANGE_CAS)
def test_strange_ca(arena: Arena, make: Callable[[Arena], tuple[Any, dict[str, Any]]]) -> None:
    """T5 T16 REQ-20: what is between root and leaf must be a CA, and strong."""
    ca_key, options = make(arena)
    ca = _ca(ca_key, arena.operator_root, **options)
    key = ec.generate_private_key(P256)
    package = arena.signed_by(key, [_leaf_below(ca, ca_key, key), ca])
    refused(arena, package, ResultCode.SIGNER_NOT_ACCEPTABLE)
    still_provisions(arena)


def test_control_of_the_strange_cas(arena: Arena) -> None:
    """REQ-20: made the same way with nothing strange, it is taken."""
    ca_key = ec.generate_private_key(P256)
    ca = _ca(ca_key, arena.operator_root)
    key = ec.generate_private_key(P256)
    still_provisions(arena, arena.signed_by(key, [_leaf_below(ca, ca_key, key), ca]))


# -- names ----------------------------------------------------------------------------------------------------------

NUL_NAME = "sho1.example\0.evil"
NAMES: dict[str, list[x509.GeneralName]] = {
    "another name": [x509.DNSName(OTHER_SHO)],
    "wildcard": [x509.DNSName("*.example")],
    "wildcard of all": [x509.DNSName("*")],
    "parent domain": [x509.DNSName("example")],
    "subdomain": [x509.DNSName("a.sho1.example")],
    "name with something before": [x509.DNSName("evilsho1.example")],
    "name with something behind": [x509.DNSName("sho1.example.evil")],
    "final dot": [x509.DNSName("sho1.example.")],
    "upper case": [x509.DNSName("SHO1.EXAMPLE")],
    "NUL inside": [x509.DNSName._init_without_validation(NUL_NAME)],
    "NUL at the end": [x509.DNSName._init_without_validation("sho1.example\0")],
    "white space": [x509.DNSName("sho1.example ")],
    "IDN that looks alike": [x509.DNSName("xn--sh1-1cc.example")],
    "URI instead of DNS": [x509.UniformResourceIdentifier(SHO)],
    "URI of the host": [x509.UniformResourceIdentifier(f"https://{SHO}/")],
    "mail": [x509.RFC822Name("a@sho1.example")],
    "directory name": [x509.DirectoryName(common_name(SHO))],
    "list in one name": [x509.DNSName("sho2.example,sho1.example")],
    "several others": [x509.DNSName(OTHER_SHO), x509.DNSName("*.example"), x509.UniformResourceIdentifier(SHO)],
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_signer_whose_name_nearly_fits(arena: Arena, names: list[x509.GeneralName]) -> None:
    """T5 REQ-50: the whole DNS name and nothing near it; the common name says the right one and never counts."""
    key = ec.generate_private_key(P256)
    leaf = issue(arena.operator, key.public_key(), names=names)
    refused(arena, arena.signed_by(key, [leaf, *arena.operator.intermediates]), ResultCode.SIGNER_NOT_ACCEPTABLE)
    still_provisions(arena)


def test_signer_with_a_common_name_alone(arena: Arena) -> None:
    """T5 REQ-50: no SAN at all."""
    key = ec.generate_private_key(P256)
    issuer = arena.operator
    leaf = (
        x509.CertificateBuilder()
        .subject_name(common_name(SHO))
        .issuer_name(issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(PKI_TIME)
        .not_valid_after(NOW + 300 * DAY)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([Role.SHO.eku]), critical=False)
        .sign(issuer.key, hashes.SHA256())
    )
    refused(arena, arena.signed_by(key, [leaf, *issuer.intermediates]), ResultCode.SIGNER_NOT_ACCEPTABLE)
    still_provisions(arena)


LOOKALIKES = [
    "SHO1.example",
    "sho1.example.",
    "sh\u043e1.example",
    "sho1.example\u200b",
    "xn--sh1-1cc.example",
    "*.example",
]


@pytest.mark.parametrize("selected", LOOKALIKES, ids=ascii)
def test_selected_name_that_looks_alike(arena: Arena, selected: str) -> None:
    """T5 REQ-50: the user selected a name that only looks like the signer's."""
    registration = arena.register(sho_id=selected)
    nonce = {"registration_nonce": registration.nonce}
    refused(arena, arena.package(header=nonce, content=nonce), ResultCode.SIGNER_NOT_ACCEPTABLE)


# -- places in the chain --------------------------------------------------------------------------------------------


def _ca_as_leaf(arena: Arena) -> tuple[ec.EllipticCurvePrivateKey, list[x509.Certificate]]:
    return arena.operator.key, [arena.operator.certificate]


def _root_as_leaf(arena: Arena) -> tuple[ec.EllipticCurvePrivateKey, list[x509.Certificate]]:
    return arena.operator_root.key, [arena.operator_root.certificate]


def _ca_with_a_role(arena: Arena) -> tuple[ec.EllipticCurvePrivateKey, list[x509.Certificate]]:
    """A CA certificate that has name and role of an SHO as well."""
    key = ec.generate_private_key(P256)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(common_name(SHO))
        .issuer_name(arena.operator_root.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(PKI_TIME)
        .not_valid_after(NOW + 300 * DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(digital_signature=True, key_cert_sign=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([Role.SHO.eku]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(SHO)]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(arena.operator_root.key.public_key()), critical=False
        )
        .sign(arena.operator_root.key, hashes.SHA256())
    )
    return key, [leaf]


def _leaf_as_ca(arena: Arena) -> tuple[ec.EllipticCurvePrivateKey, list[x509.Certificate]]:
    """Another SHO, with a sound certificate, issues one for the selected SHO."""
    issuer_key, chain = arena.signers[OTHER_SHO]
    key = ec.generate_private_key(P256)
    return key, [_leaf_below(chain[0], issuer_key, key), *chain]


def _path_too_long(arena: Arena) -> tuple[ec.EllipticCurvePrivateKey, list[x509.Certificate]]:
    """A CA below a CA that may have none below it."""
    below = arena.operator.create_subordinate("Second CA", PKI_TIME)
    return arena.certified(below, SHO)


def _three_intermediates(arena: Arena) -> tuple[ec.EllipticCurvePrivateKey, list[x509.Certificate]]:
    """Allowed by the path lengths, but longer than any path of this scheme."""
    root = Authority.create_root("Long root", PKI_TIME, path_length=5)
    authority = root
    for number in range(3):
        authority = authority.create_subordinate(f"CA {number}", PKI_TIME, path_length=4 - number)
    arena.tre._memory.state = replace(arena.tre._state, sho_anchors=(_der(root.certificate),))
    return arena.certified(authority, SHO)


def _without_intermediates(arena: Arena) -> tuple[ec.EllipticCurvePrivateKey, list[x509.Certificate]]:
    key, chain = arena.signers[SHO]
    return key, chain[:1]


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


PLACES = {
    "T5 REQ-46 CA as leaf": _ca_as_leaf,
    "T5 REQ-46 root as leaf": _root_as_leaf,
    "T5 REQ-46 CA that has the role": _ca_with_a_role,
    "T5 REQ-20 leaf as CA": _leaf_as_ca,
    "T5 REQ-20 path longer than its CA allows": _path_too_long,
    "T12 REQ-20 path longer than the scheme's": _three_intermediates,
    "T5 REQ-20 intermediate missing": _without_intermediates,
}


@pytest.mark.parametrize("make", PLACES.values(), ids=PLACES)
def test_place_in_the_chain(
    arena: Arena, make: Callable[[Arena], tuple[ec.EllipticCurvePrivateKey, list[x509.Certificate]]]
) -> None:
    """T5 REQ-20 REQ-46: only an end entity at the end of a path that the CAs allow."""
    refused(arena, arena.signed_by(*make(arena)), ResultCode.SIGNER_NOT_ACCEPTABLE)


BROKEN = {
    "no certificate": b"",
    "no DER": b"\x30\x82\xff\xff",
    "zeroes": bytes(100),
    "very long": b"\x30\x84\x7f\xff\xff\xff" + bytes(64),
}


@pytest.mark.parametrize("octets", BROKEN.values(), ids=BROKEN)
def test_broken_certificate(arena: Arena, octets: bytes) -> None:
    """T12 REQ-20: what is no certificate is a refusal, never an internal error."""
    honest = base64.b64encode(_der(arena.signers[SHO][1][0]))
    refused(
        arena,
        arena.good.replace(honest, base64.b64encode(octets)),
        ResultCode.SIGNER_NOT_ACCEPTABLE,
        ResultCode.SIGNATURE_INVALID,
    )
    still_provisions(arena)


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_certificates_with_any_octet_changed(arena: Arena) -> None:
    """T5 T12 REQ-20: the signer's certificate damaged at many places: one code, no internal error."""
    honest = _der(arena.signers[SHO][1][0])
    for position in range(0, len(honest), 3):
        changed = bytearray(honest)
        changed[position] ^= 0x41
        package = arena.good.replace(base64.b64encode(honest), base64.b64encode(bytes(changed)))
        refused(arena, package, ResultCode.SIGNER_NOT_ACCEPTABLE)
    still_provisions(arena)
