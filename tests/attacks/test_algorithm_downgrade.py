"""T16, REQ-39, REQ-59: every algorithm a package names is changed into every other one that has a name."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from lxml import etree

from mcim.certificates import TrustAnchors
from mcim.data import encode_data
from mcim.errors import PackageRefused
from mcim.mcim_object import MAGIC, fresh_keys, open_mcim, seal_mcim
from mcim.package import verify_package
from mcim.vocabulary import ResultCode, Suite, Tag
from tests.support_attacks import STRUCTURE, Arena, make_arena, refused, still_provisions
from tests.support_tre import NOW, SHO
from tests.support_xml import (
    HEADER,
    REFERENCE,
    SIGNATURE,
    D,
    M,
    find,
    library_accepts,
    octets_of,
    parse,
    sign_again,
    sign_by_hand,
    without_signature,
)

DSIG, ENC, ENC11 = (
    "http://www.w3.org/2000/09/xmldsig#",
    "http://www.w3.org/2001/04/xmlenc#",
    "http://www.w3.org/2009/xmlenc11#",
)
MORE, MORE07, MORE21 = (f"http://www.w3.org/{date}/xmldsig-more#" for date in ("2001/04", "2007/05", "2021/04"))
DSIG11 = "http://www.w3.org/2009/xmldsig11#"

KNOWN = (
    # signatures
    *(f"{DSIG}{name}" for name in ("dsa-sha1", "rsa-sha1", "hmac-sha1")),
    *(f"{DSIG11}{name}" for name in ("dsa-sha256",)),
    *(f"{MORE}{name}" for name in (
        "rsa-md5", "rsa-ripemd160", "rsa-sha224", "rsa-sha256", "rsa-sha384", "rsa-sha512", "hmac-md5",
        "hmac-ripemd160", "hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512", "ecdsa-sha1", "ecdsa-sha224",
        "ecdsa-sha256", "ecdsa-sha384", "ecdsa-sha512", "esign-sha1",
    )),
    *(f"{MORE07}{name}" for name in (
        "rsa-pss", "sha1-rsa-MGF1", "sha256-rsa-MGF1", "sha512-rsa-MGF1", "ecdsa-ripemd160", "ecdsa-whirlpool",
        "MGF1",
    )),
    *(f"{MORE21}{name}" for name in ("ecdsa-sha3-256", "eddsa-ed25519", "xmss-sha2-10-192", "hkdf")),
    # digests
    f"{DSIG}sha1",
    *(f"{MORE}{name}" for name in ("md5", "sha224", "sha384")),
    *(f"{ENC}{name}" for name in ("sha256", "sha512", "ripemd160")),
    *(f"{MORE07}{name}" for name in ("sha3-224", "sha3-256", "sha3-512", "whirlpool")),
    # canonical forms and transforms
    "http://www.w3.org/TR/2001/REC-xml-c14n-20010315",
    "http://www.w3.org/TR/2001/REC-xml-c14n-20010315#WithComments",
    "http://www.w3.org/2006/12/xml-c14n11",
    "http://www.w3.org/2006/12/xml-c14n11#WithComments",
    "http://www.w3.org/2010/xml-c14n2",
    "http://www.w3.org/2001/10/xml-exc-c14n#",
    "http://www.w3.org/2001/10/xml-exc-c14n#WithComments",
    f"{DSIG}enveloped-signature",
    f"{DSIG}base64",
    "http://www.w3.org/TR/1999/REC-xpath-19991116",
    "http://www.w3.org/2002/06/xmldsig-filter2",
    "http://www.w3.org/TR/1999/REC-xslt-19991116",
    f"{MORE}xptr",
    "http://www.w3.org/2002/07/decrypt#XML",
    "http://schemas.openxmlformats.org/package/2006/RelationshipTransform",
    # encryption, transport, agreement, derivation
    *(f"{ENC}{name}" for name in (
        "tripledes-cbc", "aes128-cbc", "aes192-cbc", "aes256-cbc", "rsa-1_5", "rsa-oaep-mgf1p", "kw-tripledes",
        "kw-aes128", "kw-aes192", "kw-aes256", "dh",
    )),
    *(f"{ENC11}{name}" for name in (
        "aes128-gcm", "aes192-gcm", "aes256-gcm", "rsa-oaep", "kw-aes-128-pad", "kw-aes-256-pad", "ECDH-ES", "dh-es",
        "ConcatKDF", "pbkdf2", "mgf1sha1", "mgf1sha224", "mgf1sha256", "mgf1sha384", "mgf1sha512",
    )),
    f"{MORE}arcfour",
    f"{MORE}camellia256-cbc",
    f"{MORE21}chacha20-poly1305",
    # none at all
    "", "urn:x", f"{ENC}sha256 ", f"{ENC}SHA256", "#",
)  # fmt: skip


def _anchors(arena: Arena) -> TrustAnchors:
    return TrustAnchors((arena.operator_root.certificate,), "sho")


def _places(package: bytes) -> list[int]:
    """Where an Algorithm stands, as the number of the element in document order."""
    return [index for index, each in enumerate(parse(package).iter()) if "Algorithm" in each.attrib]


PLACES = {"rsa": 9, "ec": 10}


def test_number_of_places(made_rsa: Arena, made_ec: Arena) -> None:
    """T16 REQ-39: the loop below finds all of them."""
    assert (len(_places(made_rsa.good)), len(_places(made_ec.good))) == (PLACES["rsa"], PLACES["ec"])


@pytest.mark.parametrize(("kind", "place"), [(kind, place) for kind in PLACES for place in range(PLACES[kind])])
def test_every_uri_at_every_place(made_rsa: Arena, made_ec: Arena, kind: str, place: int) -> None:
    """T16 REQ-39 REQ-59: replaced on the way, and replaced by a sender with the SHO's own key."""
    arena = made_rsa if kind == "rsa" else made_ec
    key = arena.signers[SHO][0]
    index = _places(arena.good)[place]
    original = list(parse(arena.good).iter())[index].get("Algorithm")
    for uri in KNOWN:
        if uri == original:
            continue
        root = parse(arena.good)
        list(root.iter())[index].set("Algorithm", uri)
        on_the_way = octets_of(root)
        sign_by_hand(root, key)
        for package in (on_the_way, octets_of(root)):
            with pytest.raises(PackageRefused) as caught:
                verify_package(package, anchors=_anchors(arena), now=NOW, expected_sho_id=SHO)
            assert caught.value.code in (ResultCode.UNSUPPORTED_SUITE, *STRUCTURE), uri


SIGNED_WEAKLY = {
    "T16 REQ-39 SHA-1 in the signature": ("SignatureMethod", f"{MORE}ecdsa-sha1"),
    "T16 REQ-39 SHA-1 as digest": ("DigestMethod", f"{DSIG}sha1"),
    "T16 REQ-39 another SHA-2 as digest": ("DigestMethod", f"{ENC}sha512"),
    "T16 REQ-39 canonical form with comments": (
        "CanonicalizationMethod",
        "http://www.w3.org/2001/10/xml-exc-c14n#WithComments",
    ),
    "T16 REQ-39 inclusive canonical form": (
        "CanonicalizationMethod",
        "http://www.w3.org/TR/2001/REC-xml-c14n-20010315",
    ),
}


@pytest.mark.parametrize(("tag", "uri"), SIGNED_WEAKLY.values(), ids=SIGNED_WEAKLY)
def test_valid_signature_by_another_algorithm(arena: Arena, tag: str, uri: str) -> None:
    """T16 REQ-39: really signed so, with the SHO's key; the library takes it, the TRE does not (1415)."""
    root = parse(arena.good)
    find(root, f"{SIGNATURE}//{D}{tag}").set("Algorithm", uri)
    key = arena.signers[SHO][0]
    assert sign_again(root, key)
    assert library_accepts(octets_of(root), key.public_key())
    refused(arena, octets_of(root), ResultCode.UNSUPPORTED_SUITE)
    still_provisions(arena)


@pytest.mark.parametrize("method", ["hmac-sha256", "hmac-sha1", "hmac-md5"])
def test_public_key_as_the_secret_of_a_mac(arena: Arena, method: str) -> None:
    """T16 REQ-59: HMAC with what everybody knows in the place of ECDSA."""
    uri = (DSIG if method == "hmac-sha1" else MORE) + method
    public = arena.signers[SHO][0].public_key()
    root = parse(arena.good)
    find(root, f"{SIGNATURE}//{D}SignatureMethod").set("Algorithm", uri)
    octets = etree.tostring(find(root, f"{SIGNATURE}/{D}SignedInfo"), method="c14n", exclusive=True)
    for secret in (
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
    ):
        mac = hmac.new(secret, octets, method.removeprefix("hmac-")).digest()
        find(root, f"{SIGNATURE}/{D}SignatureValue").text = base64.b64encode(mac).decode()
        refused(arena, octets_of(root), ResultCode.UNSUPPORTED_SUITE)
    still_provisions(arena)


def test_digest_of_a_collision_prone_hash(arena: Arena) -> None:
    """T16 REQ-39: MD5 that fits, in a SignedInfo that the attacker hopes nobody compares with the list."""
    root = parse(arena.good)
    octets = etree.tostring(without_signature(root), method="c14n", exclusive=True)
    find(root, f"{REFERENCE}/{D}DigestMethod").set("Algorithm", f"{MORE}md5")
    find(root, f"{REFERENCE}/{D}DigestValue").text = base64.b64encode(hashlib.md5(octets).digest()).decode()
    refused(arena, octets_of(root), ResultCode.UNSUPPORTED_SUITE)
    still_provisions(arena)


# -- suites of the object -------------------------------------------------------------------------------------------


def _object(arena: Arena, suite: Suite) -> bytes:
    """A well-made object of another suite that the same key can open."""
    data = encode_data(Tag.MCIM, b"x" * 32, 1)
    return seal_mcim(data, suite=suite, recipient=arena.platform_key, keys=fresh_keys(suite, os.urandom))


def _suite_octet(octets: bytes, suite: Suite) -> bytes:
    assert octets[:4] == MAGIC
    return octets[:4] + bytes((suite,)) + octets[5:]


Attack = Callable[[Arena], dict[str, Any]]
SUITES: dict[str, tuple[Attack, ResultCode]] = {
    "T16 REQ-39 legacy suite in header and object": (
        lambda arena: {"header": {"suite": Suite.LEGACY_1}, "mcim_object": _object(arena, Suite.LEGACY_1)},
        ResultCode.UNSUPPORTED_SUITE,
    ),
    "T16 REQ-39 legacy suite in the header": (
        lambda arena: {"header": {"suite": Suite.LEGACY_1}},
        ResultCode.UNSUPPORTED_SUITE,
    ),
    "T16 REQ-39 legacy object under a modern header": (
        lambda arena: {"mcim_object": _object(arena, Suite.LEGACY_1)},
        ResultCode.CRYPTO_FAILURE,
    ),
    "T16 REQ-39 CBC object under a GCM header": (
        lambda arena: {"mcim_object": _object(arena, Suite.RSA_CBC_256)},
        ResultCode.CRYPTO_FAILURE,
    ),
    "T16 REQ-39 EC suite for an RSA key": (
        lambda arena: {"header": {"suite": Suite.EC_GCM_256}},
        ResultCode.UNSUPPORTED_SUITE,
    ),
    "T16 REQ-39 suite of the object renamed": (
        lambda arena: {"mcim_object": _suite_octet(_object(arena, Suite.RSA_CBC_256), Suite.RSA_GCM_256)},
        ResultCode.CRYPTO_FAILURE,
    ),
    "T16 REQ-39 suite of the object renamed to the legacy one": (
        lambda arena: {
            "header": {"suite": Suite.RSA_CBC_256},
            "mcim_object": _suite_octet(_object(arena, Suite.RSA_CBC_256), Suite.LEGACY_1),
        },
        ResultCode.CRYPTO_FAILURE,
    ),
}


@pytest.mark.parametrize(("attack", "code"), SUITES.values(), ids=SUITES)
def test_suites(rsa_arena: Arena, attack: Attack, code: ResultCode) -> None:
    """T16 REQ-39: signed by the SHO, but weaker than the TRE's minimum, or other inside than outside."""
    refused(rsa_arena, rsa_arena.package(**attack(rsa_arena)), code)
    still_provisions(rsa_arena)


def test_the_minimum_is_the_tres_own(tmp_path: Path) -> None:
    """T16 REQ-39: the object refused above is sound: a TRE that was made for the old suite takes it."""
    made = make_arena(tmp_path / "old", legacy_suite=True)
    assert Suite.LEGACY_1 in made.tre.facts().suites
    outcome = made.provision(made.package(header={"suite": Suite.LEGACY_1}, mcim_object=_object(made, Suite.LEGACY_1)))
    assert outcome.code is ResultCode.CONTENT_INVALID  # opened, and then its content is read: the sample has none


def test_unknown_suite(arena: Arena) -> None:
    """T16 REQ-39: a suite of the future, or of nobody."""
    root = parse(arena.good)
    find(root, f"{HEADER}/{M}Suite").text = "MCIM-NULL-0"
    sign_again(root, arena.signers[SHO][0])
    refused(arena, octets_of(root), ResultCode.UNSUPPORTED_SUITE)
    still_provisions(arena)


def test_object_from_another_suite_is_not_the_headers(made_ec: Arena) -> None:
    """T16: the control of the table above: each of those objects is sound for the suite that it names."""
    for suite in (Suite.EC_CBC_256, Suite.EC_GCM_256):
        octets = _object(made_ec, suite)
        key = made_ec.tre._keys.platform
        assert open_mcim(octets, key, accepted=frozenset({suite}), random=os.urandom)
        others = frozenset(Suite) - {suite}
        with pytest.raises(PackageRefused):
            open_mcim(octets, key, accepted=others, random=os.urandom)
