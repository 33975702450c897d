"""Certificate roles and path validation: good for one role only, and for every fault its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID, ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st

from mcim.authority import CRL_LIFE, Authority
from mcim.certificates import Reason, Role, TrustAnchors, load_der, load_pem_chain, validate
from mcim.errors import CertificateRefused
from mcim.key_id import key_id_of
from tests.support_pki import DPF_ID, M2ME_ID, NOW, OTHER_SHO_ID, PVA_ID, SHO_ID, TRE_ID, pki, rsa_key

PKI = pki()
P256 = ec.generate_private_key(ec.SECP256R1()).public_key()
DAY = timedelta(days=1)

USAGE_BITS = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def usage(*bits: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{bit: bit in bits for bit in USAGE_BITS})


@dataclass(frozen=True)
class Call:
    """Arguments of one `validate`, a good SHO unless told otherwise."""

    leaf: x509.Certificate
    intermediates: tuple[x509.Certificate, ...] = PKI.operator.intermediates
    anchors: TrustAnchors = PKI.sho_anchors
    role: Role = Role.SHO
    now: datetime = NOW
    identity: str | None = SHO_ID
    crls: tuple[x509.CertificateRevocationList, ...] = field(default=())

    def run(self) -> Any:
        return validate(
            self.leaf,
            self.intermediates,
            self.anchors,
            self.role,
            self.now,
            identity=self.identity,
            crls=self.crls,
        )


def refusal(call: Call) -> str:
    with pytest.raises(CertificateRefused) as caught:
        call.run()
    return caught.value.reason


def sho(authority: Authority = PKI.operator, **kwargs: Any) -> x509.Certificate:
    return authority.issue_role(Role.SHO, P256, **({"identity": SHO_ID, "now": NOW} | kwargs))


def odd(public_key: Any = P256, **kwargs: Any) -> x509.Certificate:
    """An SHO certificate with one thing that the profile would not do."""
    arguments = {
        "subject": x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SHO_ID)]),
        "names": [x509.DNSName(SHO_ID)],
        "usage": usage("digital_signature"),
        "ekus": [Role.SHO.eku],
        "now": NOW,
        "life": DAY,
    }
    return PKI.operator.issue(public_key, **(arguments | kwargs))


def raw(*extensions: x509.ExtensionType, ca: bool = False) -> x509.Certificate:
    """A certificate of the operator CA with exactly these extensions."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SHO_ID)]))
        .issuer_name(PKI.operator.certificate.subject)
        .public_key(P256)
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(PKI.operator.key, hashes.SHA256())


TWO_DEVICES = x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, each) for each in (M2ME_ID, "urn:imei:2")])
GOOD = Call(sho())
TRE = Call(PKI.platform, PKI.tre_chain, PKI.manufacturer_anchors, Role.PLATFORM, identity=TRE_ID)
EC_PLATFORM = PKI.manufacturer.issue_platform(Role.PLATFORM, P256, tre_id=TRE_ID, m2me_id=M2ME_ID, now=NOW)


@pytest.mark.parametrize(
    ("call", "subject_id", "m2me_id"),
    [
        pytest.param(TRE, TRE_ID, M2ME_ID, id="platform-rsa"),
        pytest.param(replace(TRE, leaf=EC_PLATFORM), TRE_ID, M2ME_ID, id="platform-ec"),
        pytest.param(replace(TRE, leaf=PKI.attest, role=Role.ATTEST), TRE_ID, M2ME_ID, id="attest"),
        pytest.param(GOOD, SHO_ID, None, id="sho"),
        pytest.param(replace(GOOD, identity=None), SHO_ID, None, id="sho-of-any-name"),
        pytest.param(Call(PKI.pva.chain[0], (), PKI.pva_anchors, Role.PVA, identity=PVA_ID), PVA_ID, None, id="pva"),
        pytest.param(
            replace(
                GOOD,
                leaf=PKI.operator.issue_role(Role.DPF, P256, identity=DPF_ID, now=NOW),
                role=Role.DPF,
                identity=DPF_ID,
            ),
            DPF_ID,
            None,
            id="dpf",
        ),
        pytest.param(replace(GOOD, leaf=sho(PKI.operator_root), intermediates=()), SHO_ID, None, id="right-below-root"),
        pytest.param(
            replace(GOOD, intermediates=(*PKI.tre_chain, *PKI.operator.intermediates)), SHO_ID, None, id="foreign-hints"
        ),
        pytest.param(
            replace(GOOD, leaf=odd(names=[x509.DNSName(OTHER_SHO_ID), x509.DNSName(SHO_ID)])),
            SHO_ID,
            None,
            id="one-of-two-names",
        ),
        pytest.param(replace(GOOD, now=GOOD.leaf.not_valid_before_utc), SHO_ID, None, id="first-second"),
        pytest.param(replace(GOOD, now=GOOD.leaf.not_valid_after_utc), SHO_ID, None, id="last-second"),
    ],
)
def test_good(call: Call, subject_id: str, m2me_id: str | None) -> None:
    """REQ-20, REQ-46: each role, validated for itself, tells its identity and its key."""
    validated = call.run()
    assert (validated.role, validated.subject_id, validated.m2me_id) == (call.role, subject_id, m2me_id)
    assert validated.certificate == call.leaf
    assert validated.key_id == key_id_of(call.leaf.public_key())


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        pytest.param(replace(GOOD, now=NOW + 731 * DAY), Reason.EXPIRED, id="expired"),
        pytest.param(replace(GOOD, now=NOW - DAY), Reason.NOT_YET_VALID, id="not-yet-valid"),
        pytest.param(
            Call(sho(now=NOW + 3640 * DAY), now=NOW + 3660 * DAY), Reason.UNKNOWN_CA, id="the-ca-above-is-expired"
        ),
    ],
)
def test_times(call: Call, reason: Reason) -> None:
    """REQ-20: the validity of the leaf and of all above it."""
    assert refusal(call) == reason


def _of_role(role: Role) -> x509.Certificate:
    if role in (Role.PLATFORM, Role.ATTEST):
        return MIXED.issue_platform(role, P256, tre_id=TRE_ID, m2me_id=M2ME_ID, now=NOW)
    return MIXED.issue_role(role, P256, identity=PVA_ID if role in (Role.PVA, Role.SUPPLIER) else SHO_ID, now=NOW)


MIXED = Authority.create_root("CA of all roles", NOW)
PURPOSE = {
    Role.PLATFORM: "manufacturer",
    Role.ATTEST: "manufacturer",
    Role.SHO: "sho",
    Role.PVA: "pva",
    Role.DPF: "sho",
    Role.SUPPLIER: "manufacturer",
}
BY_ROLE = {role: _of_role(role) for role in Role}


@pytest.mark.parametrize("wanted", Role)
@pytest.mark.parametrize("has", Role)
def test_role_swap(has: Role, wanted: Role) -> None:
    """REQ-46: below one and the same root, a good certificate of another role is refused."""
    call = Call(BY_ROLE[has], (), TrustAnchors((MIXED.certificate,), PURPOSE[wanted]), wanted, identity=None)
    if has is wanted:
        assert call.run().role is wanted
    else:
        assert refusal(call) == Reason.WRONG_USAGE


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(replace(GOOD, leaf=odd(ekus=[ObjectIdentifier("1.3.6.1.5.5.7.3.2")])), id="client-auth-only"),
        pytest.param(
            replace(GOOD, leaf=odd(ekus=[x509.oid.ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])), id="any-usage"
        ),
        pytest.param(replace(GOOD, leaf=odd(usage=usage("key_encipherment"))), id="sho-that-decrypts"),
        pytest.param(
            replace(GOOD, leaf=odd(usage=usage("digital_signature", "key_agreement"))), id="sho-that-also-agrees"
        ),
        pytest.param(replace(GOOD, leaf=odd(usage=usage("content_commitment"))), id="sho-that-does-not-sign"),
        pytest.param(
            replace(TRE, leaf=odd(rsa_key().public_key(), ekus=[Role.PLATFORM.eku], usage=usage("digital_signature"))),
            id="platform-key-that-signs",
        ),
        pytest.param(
            replace(
                TRE,
                leaf=odd(
                    rsa_key().public_key(),
                    ekus=[Role.PLATFORM.eku],
                    usage=usage("key_encipherment", "digital_signature"),
                ),
            ),
            id="platform-key-that-also-signs",
        ),
        pytest.param(
            replace(TRE, leaf=odd(ekus=[Role.PLATFORM.eku], usage=usage("key_encipherment"))),
            id="ec-platform-key-with-the-usage-of-rsa",
        ),
        pytest.param(
            replace(
                GOOD,
                leaf=raw(usage("digital_signature", "key_cert_sign"), x509.ExtendedKeyUsage([Role.SHO.eku]), ca=True),
            ),
            id="ca-with-the-role-as-leaf",
        ),
    ],
)
def test_wrong_usage(call: Call) -> None:
    """REQ-45, REQ-46: usage and extended usage must both be those of the role; a CA is nobody's leaf."""
    assert refusal(call) == Reason.WRONG_USAGE


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(replace(GOOD, leaf=PKI.operator.certificate, intermediates=()), id="ca-as-leaf"),
        pytest.param(replace(GOOD, leaf=PKI.operator_root.certificate, intermediates=()), id="root-as-leaf"),
        pytest.param(replace(GOOD, leaf=raw(x509.ExtendedKeyUsage([Role.SHO.eku]))), id="no-key-usage"),
        pytest.param(replace(GOOD, leaf=raw(usage("digital_signature"))), id="no-extended-key-usage"),
        pytest.param(
            replace(GOOD, leaf=raw(usage("digital_signature"), x509.ExtendedKeyUsage([Role.SHO.eku]))), id="no-san"
        ),
        pytest.param(
            replace(
                GOOD,
                leaf=raw(
                    usage("digital_signature"),
                    x509.ExtendedKeyUsage([Role.SHO.eku]),
                    x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, bytes.fromhex("3002a300")),
                ),
            ),
            id="a-name-of-a-kind-nobody-reads",
        ),
        pytest.param(
            replace(
                GOOD,
                leaf=raw(
                    usage("digital_signature"),
                    x509.ExtendedKeyUsage([Role.SHO.eku]),
                    x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x30\x7f"),
                ),
            ),
            id="san-that-is-not-der",
        ),
    ],
)
def test_without_the_extensions_of_a_role(call: Call) -> None:
    """REQ-20: what cannot be judged is refused, and never with another exception."""
    assert refusal(call) in (Reason.MALFORMED, Reason.UNKNOWN_CA)


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(replace(GOOD, leaf=sho(identity=OTHER_SHO_ID)), id="another-sho"),
        pytest.param(replace(GOOD, leaf=odd(subject=TWO_DEVICES)), id="two-serial-numbers"),
        pytest.param(replace(GOOD, identity=f"x.{SHO_ID}"), id="longer"),
        pytest.param(replace(GOOD, leaf=sho(identity="*.example")), id="no-wildcards"),
        pytest.param(
            replace(GOOD, leaf=odd(names=[x509.UniformResourceIdentifier(SHO_ID)])), id="right-name-of-the-wrong-kind"
        ),
        pytest.param(
            replace(GOOD, leaf=odd(names=[x509.RFC822Name("a@example")]), identity=None), id="no-name-to-take"
        ),
        pytest.param(
            replace(GOOD, leaf=odd(names=[x509.DNSName(SHO_ID), x509.DNSName(OTHER_SHO_ID)]), identity=None),
            id="two-names-to-take",
        ),
        pytest.param(replace(TRE, identity="urn:m2m:tre:0002"), id="another-tre"),
        pytest.param(replace(TRE, identity=M2ME_ID), id="m2me-is-not-the-tre"),
    ],
)
def test_wrong_identity(call: Call) -> None:
    """REQ-20, REQ-50: the SAN decides, as a whole and by its kind; the common name never does."""
    assert refusal(call) == Reason.WRONG_IDENTITY


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(
            replace(TRE, leaf=odd(key, ekus=[Role.PLATFORM.eku], usage=usage("key_encipherment"))),
            id=name,
        )
        for name, key in {
            "rsa-1024": rsa_key(1024).public_key(),
            "rsa-2040": rsa.RSAPublicNumbers(65537, 1 << 2039 | 1).public_key(),
            "rsa-4104": rsa.RSAPublicNumbers(65537, 1 << 4103 | 1).public_key(),
            "rsa-exponent-3": rsa.RSAPublicNumbers(3, 1 << 2047 | 1).public_key(),
        }.items()
    ]
    + [
        pytest.param(replace(GOOD, leaf=odd(key)), id=name)
        for name, key in {
            "p-384": ec.generate_private_key(ec.SECP384R1()).public_key(),
            "secp256k1": ec.generate_private_key(ec.SECP256K1()).public_key(),
            "ed25519": ed25519.Ed25519PrivateKey.generate().public_key(),
            "rsa-for-a-signer": rsa_key().public_key(),
        }.items()
    ],
)
def test_weak_key(call: Call) -> None:
    """REQ-20, REQ-39: RSA of 2048 to 4096 bits for PK_D alone, P-256 for all."""
    assert refusal(call) == Reason.WEAK_KEY


LEAF_CA = Authority(certificate=PKI.sho.chain[0], key=PKI.sho.key, intermediates=PKI.sho.chain)
ROGUE_ROOT = Authority.create_root("Operator root", NOW)
ROGUE = ROGUE_ROOT.create_subordinate("Operator CA", NOW)
UNDER_PATH_LENGTH_0 = PKI.operator.create_subordinate("One too many", NOW)


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(replace(GOOD, anchors=TrustAnchors((MIXED.certificate,), "sho")), id="unknown-ca"),
        pytest.param(replace(GOOD, anchors=TrustAnchors((), "sho")), id="no-anchors"),
        pytest.param(replace(GOOD, intermediates=()), id="intermediate-missing"),
        pytest.param(Call(sho(ROGUE), ROGUE.intermediates), id="rogue-ca-of-the-same-name"),
        pytest.param(Call(sho(ROGUE)), id="rogue-ca-behind-the-real-intermediate"),
        pytest.param(Call(sho(ROGUE), (*ROGUE.intermediates, ROGUE_ROOT.certificate)), id="brings-its-root-along"),
        pytest.param(Call(sho(LEAF_CA), LEAF_CA.intermediates), id="leaf-as-issuer"),
        pytest.param(Call(sho(UNDER_PATH_LENGTH_0), UNDER_PATH_LENGTH_0.intermediates), id="path-length"),
        pytest.param(
            replace(TRE, anchors=TrustAnchors(PKI.sho_anchors.certificates, "manufacturer")), id="tre-below-an-sho-root"
        ),
        pytest.param(
            replace(GOOD, anchors=TrustAnchors(PKI.pva_anchors.certificates, "sho")), id="sho-below-a-pva-root"
        ),
        pytest.param(
            Call(sho(PKI.manufacturer), PKI.manufacturer.intermediates), id="sho-profile-made-by-a-manufacturer"
        ),
    ],
)
def test_no_path(call: Call) -> None:
    """REQ-20, REQ-43: only a path to a root for this purpose counts; what the peer sends along is a hint."""
    assert refusal(call) == Reason.UNKNOWN_CA


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(replace(TRE, anchors=PKI.sho_anchors), id="platform-against-sho"),
        pytest.param(replace(TRE, leaf=PKI.attest, role=Role.ATTEST, anchors=PKI.pva_anchors), id="attest-against-pva"),
        pytest.param(replace(GOOD, anchors=PKI.manufacturer_anchors), id="sho-against-manufacturers"),
        pytest.param(
            Call(PKI.pva.chain[0], (), PKI.sho_anchors, Role.PVA, identity=PVA_ID), id="pva-against-sho-anchors"
        ),
    ],
)
def test_anchors_of_another_purpose(call: Call) -> None:
    """REQ-43: a manufacturer's certificate means nothing to the anchors for SHOs, and so with every other pair."""
    assert refusal(call) == Reason.UNKNOWN_CA


def _crl(authority: Authority = PKI.operator, *serials: int, now: datetime = NOW) -> x509.CertificateRevocationList:
    return authority.make_crl(serials, now)


SERIAL = GOOD.leaf.serial_number
STALE = NOW - CRL_LIFE - timedelta(seconds=1)


@pytest.mark.parametrize(
    "crls",
    [
        pytest.param((_crl(PKI.operator, SERIAL),), id="leaf"),
        pytest.param((_crl(PKI.operator, 1, 2, SERIAL),), id="leaf-among-others"),
        pytest.param((_crl(), _crl(PKI.operator, SERIAL)), id="in-the-second-list"),
        pytest.param((_crl(PKI.operator_root, PKI.operator.certificate.serial_number),), id="intermediate"),
        pytest.param((_crl(PKI.operator, SERIAL, now=STALE),), id="in-a-stale-list"),
    ],
)
def test_revoked(crls: tuple[x509.CertificateRevocationList, ...]) -> None:
    """REQ-20, REQ-21: a revoked certificate anywhere on the path, in whatever list of its issuer."""
    assert refusal(replace(GOOD, crls=crls)) == Reason.REVOKED


@pytest.mark.parametrize(
    "crls",
    [
        pytest.param((_crl(),), id="empty"),
        pytest.param((_crl(PKI.operator, SERIAL + 1),), id="another-serial"),
        pytest.param((_crl(PKI.operator_root, SERIAL),), id="same-serial-of-another-issuer"),
        pytest.param((_crl(ROGUE, SERIAL),), id="list-of-a-rogue-ca-of-the-same-name"),
        pytest.param((_crl(PKI.pva_root, SERIAL, now=STALE),), id="stale-list-of-a-stranger"),
        pytest.param((_crl(now=STALE + timedelta(seconds=1)),), id="last-second-of-the-list"),
    ],
)
def test_not_revoked(crls: tuple[x509.CertificateRevocationList, ...]) -> None:
    """REQ-20: only a list signed by an issuer on the path can revoke."""
    assert replace(GOOD, crls=crls).run().subject_id == SHO_ID


DER = GOOD.leaf.public_bytes(Encoding.DER)
PEM = GOOD.leaf.public_bytes(Encoding.PEM)
VERSION_AT = DER.index(bytes.fromhex("a003020102")) + 4


@pytest.mark.parametrize(
    ("load", "octets"),
    [
        pytest.param(load_der, b"", id="nothing"),
        pytest.param(load_der, b"\x30\x03\x02\x01\x01", id="another-structure"),
        pytest.param(load_der, DER[:-1], id="truncated"),
        pytest.param(load_der, DER + b"\0", id="trailing"),
        pytest.param(load_der, PEM, id="pem"),
        pytest.param(load_der, DER[:VERSION_AT] + b"\x22" + DER[VERSION_AT + 1 :], id="unknown-version"),
        pytest.param(load_pem_chain, b"", id="no-pem"),
        pytest.param(load_pem_chain, PEM[:200], id="half-a-pem"),
        pytest.param(load_pem_chain, PEM.replace(b"\nMI", b"\nXX"), id="broken-pem"),
    ],
)
def test_malformed(load: Callable[[bytes], Any], octets: bytes) -> None:
    """REQ-20: octets that are no certificate."""
    with pytest.raises(CertificateRefused) as caught:
        load(octets)
    assert caught.value.reason == Reason.MALFORMED


def test_pem_chain_keeps_its_order() -> None:
    """REQ-20: leaf first, as it was sent."""
    octets = b"".join(each.public_bytes(Encoding.PEM) for each in PKI.sho.chain)
    assert load_pem_chain(octets) == PKI.sho.chain


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@given(st.binary(max_size=200))
def test_any_octets(octets: bytes) -> None:
    """REQ-20: arbitrary octets end in the one exception."""
    with pytest.raises(CertificateRefused):
        load_der(octets)


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")  # odd serial numbers
@given(position=st.integers(0, len(DER) - 1), value=st.integers(0, 255))
def test_any_octet_changed(position: int, value: int) -> None:
    """REQ-20: a changed certificate is refused, unless the change is outside what is signed and means nothing."""
    changed = DER[:position] + bytes((value,)) + DER[position + 1 :]
    try:
        validated = replace(GOOD, leaf=load_der(changed)).run()
    except CertificateRefused:
        return
    assert validated.certificate.tbs_certificate_bytes == GOOD.leaf.tbs_certificate_bytes
