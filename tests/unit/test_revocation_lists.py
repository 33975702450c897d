"""Revocation lists: which of them clear a certificate, which revoke, and which are nobody's (RFC 5280 §5, §6.3)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ObjectIdentifier

from mcim.authority import CRL_LIFE, Authority, Revocation
from mcim.certificates import CRL_SKEW, Reason, Role, TrustAnchors, ValidatedCertificate, validate
from mcim.errors import CertificateRefused, StatementInvalid
from mcim.ticket import Ticket, issue_ticket, verify_ticket
from mcim.vocabulary import ValidationMode
from tests.support_pki import NOW, PVA_ID, SHO_ID, TRE_ID, pki

PKI = pki()
LEAF = PKI.sho.chain[0]
SECOND = timedelta(seconds=1)
Crl = x509.CertificateRevocationList


def judge(*crls: Crl, require: bool = False, now: datetime = NOW) -> ValidatedCertificate:
    return validate(
        LEAF,
        PKI.operator.intermediates,
        PKI.sho_anchors,
        Role.SHO,
        now,
        identity=SHO_ID,
        crls=crls,
        require_crl=require,
    )


def reason_of(*crls: Crl, require: bool = False, now: datetime = NOW) -> str:
    with pytest.raises(CertificateRefused) as caught:
        judge(*crls, require=require, now=now)
    return caught.value.reason


def made(
    authority: Authority = PKI.operator,
    *extensions: tuple[x509.ExtensionType, bool],
    entry: tuple[x509.ExtensionType, bool] | None = None,
    at: datetime = NOW,
    life: timedelta = CRL_LIFE,
) -> Crl:
    """A list as no good CA makes it. With `entry` it revokes the leaf by an entry with that extension."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(authority.certificate.subject)
    builder = builder.last_update(at).next_update(at + life)
    for value, critical in extensions:
        builder = builder.add_extension(value, critical=critical)
    if entry is not None:
        row = x509.RevokedCertificateBuilder().serial_number(LEAF.serial_number).revocation_date(at)
        builder = builder.add_revoked_certificate(row.add_extension(entry[0], critical=entry[1]).build())
    return builder.sign(authority.key, hashes.SHA256())


def scope(**members: object) -> x509.IssuingDistributionPoint:
    nothing: dict[str, object] = {
        "full_name": None,
        "relative_name": None,
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
    }
    return x509.IssuingDistributionPoint(**(nothing | members))  # as the constructor has them


UNKNOWN = x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.99999.7"), b"\x05\x00")
GOOD, OF_ROOT = PKI.operator.make_crl([], NOW), PKI.operator_root.make_crl([], NOW)
CLEARS_NOBODY = {
    "out of date": PKI.operator.make_crl([], NOW - CRL_LIFE - SECOND),
    "the root's out of date": PKI.operator_root.make_crl([], NOW - CRL_LIFE - SECOND),
    "not valid yet": PKI.operator.make_crl([], NOW + CRL_SKEW + SECOND),
    "delta": made(PKI.operator, (x509.DeltaCRLIndicator(1), True)),
    "delta that does not say it is critical": made(PKI.operator, (x509.DeltaCRLIndicator(1), False)),
    "indirect": made(PKI.operator, (scope(indirect_crl=True), True)),
    "CA certificates alone": made(PKI.operator, (scope(only_contains_ca_certs=True), True)),
    "some reasons alone": made(
        PKI.operator, (scope(only_some_reasons=frozenset({x509.ReasonFlags.key_compromise})), True)
    ),
    "scope that does not say it is critical": made(PKI.operator, (scope(only_contains_user_certs=True), False)),
    "unknown critical extension": made(PKI.operator, (UNKNOWN, True)),
}


@pytest.mark.parametrize("crl", CLEARS_NOBODY.values(), ids=CLEARS_NOBODY)
def test_a_list_that_clears_nobody_refuses(crl: Crl) -> None:
    """REQ-20, REQ-21: the issuer speaks, and what it says is not enough: refused, whether or not lists are required."""
    assert reason_of(crl) == Reason.REVOCATION_UNKNOWN


@pytest.mark.parametrize("crl", CLEARS_NOBODY.values(), ids=CLEARS_NOBODY)
def test_a_good_list_beside_it_clears(crl: Crl) -> None:
    """REQ-21: a complete and fresh list is what counts; an old one left in a directory harms nobody."""
    assert judge(GOOD, crl, OF_ROOT, require=True).subject_id == SHO_ID


CLEARS = {
    "empty": GOOD,
    "unknown extension that is not critical": made(PKI.operator, (UNKNOWN, False)),
    "first second within the clocks' difference": PKI.operator.make_crl([], NOW + CRL_SKEW),
    "last second": PKI.operator.make_crl([], NOW - CRL_LIFE),
    "without a number": made(),
}


@pytest.mark.parametrize("crl", CLEARS.values(), ids=CLEARS)
def test_a_list_that_clears(crl: Crl) -> None:
    """REQ-21: complete, fresh and signed by the issuer."""
    assert judge(crl, OF_ROOT, require=True).subject_id == SHO_ID


REVOKES = {
    "for a reason": PKI.operator.make_crl(
        [Revocation(serial=LEAF.serial_number, at=NOW, reason=x509.ReasonFlags.key_compromise)], NOW
    ),
    "on hold": PKI.operator.make_crl(
        [Revocation(serial=LEAF.serial_number, at=NOW, reason=x509.ReasonFlags.certificate_hold)], NOW
    ),
    "removed from a list, in a complete one": made(entry=(x509.CRLReason(x509.ReasonFlags.remove_from_crl), False)),
    "unknown critical extension of the entry": made(entry=(UNKNOWN, True)),
    "dated in the future": PKI.operator.make_crl([Revocation(serial=LEAF.serial_number, at=NOW + CRL_LIFE)], NOW),
    "intermediate": PKI.operator_root.make_crl([PKI.operator.certificate.serial_number], NOW),
}


@pytest.mark.parametrize("crl", REVOKES.values(), ids=REVOKES)
def test_an_entry_revokes_whatever_it_says(crl: Crl) -> None:
    """REQ-21: an entry of the issuer's list refuses, even beside a list without it."""
    assert reason_of(crl) == Reason.REVOKED
    assert reason_of(GOOD, OF_ROOT, crl, require=True) == Reason.REVOKED


@pytest.mark.parametrize(
    "crls",
    [
        pytest.param((), id="none"),
        pytest.param((GOOD,), id="none-of-the-root"),
        pytest.param((OF_ROOT,), id="none-of-the-operator-ca"),
        pytest.param((PKI.pva_root.make_crl([], NOW), OF_ROOT), id="a-strangers"),
    ],
)
def test_required_lists_that_are_not_there(crls: tuple[Crl, ...]) -> None:
    """REQ-20: with `require_crl` every issuer on the path has a list at hand, or nobody below it is accepted."""
    assert judge(*crls).subject_id == SHO_ID
    assert reason_of(*crls, require=True) == Reason.REVOCATION_UNKNOWN


ROGUE = Authority.create_root("Operator root", NOW).create_subordinate("Operator CA", NOW)
FORGED: dict[str, Callable[[], Crl]] = {
    "of a CA of the same name": lambda: ROGUE.make_crl([LEAF.serial_number], NOW),
    "signed by the revoked SHO itself": lambda: Authority(
        certificate=PKI.operator.certificate, key=PKI.sho.key
    ).make_crl([LEAF.serial_number], NOW),
}


@pytest.mark.parametrize("make", FORGED.values(), ids=FORGED)
def test_a_forged_list_neither_revokes_nor_clears(make: Callable[[], Crl]) -> None:
    """REQ-21: only a signature of the issuer on the validated path makes a list."""
    assert judge(make()).subject_id == SHO_ID
    assert reason_of(make(), OF_ROOT, require=True) == Reason.REVOCATION_UNKNOWN


def test_a_ca_that_may_not_sign_lists_clears_nobody() -> None:
    """RFC 5280 §6.3.3 (f): the issuer's key usage must have cRLSign."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Root without lists")])
    usage = LEAF.extensions.get_extension_for_class(x509.KeyUsage).value
    bits = {
        name.lstrip("_"): False
        for name in ("content_commitment", "data_encipherment", "key_encipherment", "key_agreement", "crl_sign")
    }
    assert usage.digital_signature
    root = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW - SECOND)
        .not_valid_after(NOW + CRL_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False, key_cert_sign=True, encipher_only=False, decipher_only=False, **bits
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    authority = Authority(certificate=root, key=key)
    leaf = authority.issue_role(Role.SHO, PKI.sho.key.public_key(), identity=SHO_ID, now=NOW)
    anchors = TrustAnchors((root,), "sho")
    assert validate(leaf, (), anchors, Role.SHO, NOW).subject_id == SHO_ID
    with pytest.raises(CertificateRefused) as caught:
        validate(leaf, (), anchors, Role.SHO, NOW, crls=(authority.make_crl([], NOW),))
    assert caught.value.reason == Reason.REVOCATION_UNKNOWN


def test_lists_carry_number_issuer_key_and_reasons() -> None:
    """REQ-21, RFC 5280 §5.2.1, §5.2.3, §5.3.1: what a list must have, and no reason where none is known."""
    crl = PKI.operator.make_crl(
        [Revocation(serial=5, at=NOW, reason=x509.ReasonFlags.superseded), 6], NOW, number=17, life=timedelta(days=1)
    )
    assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 17
    key_id = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    own = PKI.operator.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert key_id == own.key_identifier
    assert (crl.last_update_utc, crl.next_update_utc) == (NOW, NOW + timedelta(days=1))
    reasons = {each.serial_number: [e.value.reason for e in each.extensions] for each in crl}
    assert reasons == {5: [x509.ReasonFlags.superseded], 6: []}


def test_certificates_say_where_the_list_is() -> None:
    """Scheme, certificates: leaf and intermediate carry the distribution point of their own issuer."""
    root = Authority.create_root("Root", NOW)
    root = Authority(certificate=root.certificate, key=root.key, crl_url="http://ca.example/crl/root.crl")
    below = root.create_subordinate("Below", NOW)
    below = Authority(certificate=below.certificate, key=below.key, intermediates=below.intermediates,
                      crl_url="http://ca.example/crl/below.crl")  # fmt: skip
    leaf = below.issue_role(Role.SHO, PKI.sho.key.public_key(), identity=SHO_ID, now=NOW)

    def url(certificate: x509.Certificate) -> str:
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
        return next(name.value for point in points for name in point.full_name or ())

    assert (url(leaf), url(below.certificate)) == (below.crl_url, root.crl_url)
    assert (
        validate(leaf, below.intermediates, TrustAnchors((root.certificate,), "sho"), Role.SHO, NOW).certificate == leaf
    )


def test_a_supplier_is_known_by_a_uri_below_the_manufacturers() -> None:
    """REQ-43, REQ-46: a role of its own, for commands of the equipment supplier."""
    signer = PKI.signer(PKI.manufacturer, Role.SUPPLIER, "urn:m2m:supplier:1")
    found = validate(signer.chain[0], signer.chain[1:], PKI.manufacturer_anchors, Role.SUPPLIER, NOW)
    assert (found.subject_id, found.m2me_id) == ("urn:m2m:supplier:1", None)
    for anchors in (PKI.sho_anchors, PKI.pva_anchors):
        with pytest.raises(CertificateRefused) as caught:
            validate(signer.chain[0], signer.chain[1:], anchors, Role.SUPPLIER, NOW)
        assert caught.value.reason == Reason.UNKNOWN_CA


def _ticket() -> str:
    ticket = Ticket(
        issuer=PVA_ID,
        audience=(SHO_ID,),
        tre_id=TRE_ID,
        m2me_id="urn:imei:1",
        req_id="r",
        nonce=bytes(32),
        platform_key_id=bytes(16),
        attest_key_id=bytes(16),
        mode=ValidationMode.REMOTE,
        tre_type="tpm",
        tre_version="1",
        issued_at=NOW,
        expires_at=NOW + timedelta(minutes=5),
        ticket_id="1",
    )
    return issue_ticket(ticket, PKI.pva.key, PKI.pva.chain)


def test_a_ticket_of_a_revoked_pva_is_refused() -> None:
    """REQ-19, REQ-21: the signer's certificate is looked up, and a list can be demanded."""
    given = {"anchors": PKI.pva_anchors, "now": NOW, "audience": SHO_ID}
    clear = PKI.pva_root.make_crl([], NOW)
    assert verify_ticket(_ticket(), **given, crls=(clear,), require_crl=True).issuer == PVA_ID
    with pytest.raises(StatementInvalid, match="revoked"):
        verify_ticket(_ticket(), **given, crls=(PKI.pva_root.make_crl([PKI.pva.chain[0].serial_number], NOW),))
    with pytest.raises(StatementInvalid, match="revocation-unknown"):
        verify_ticket(_ticket(), **given, require_crl=True)
