"""Packages made once: what was readable stays so, and what is written now has their form (tests/vectors/packages)."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key
from lxml import etree

from mcim.certificates import TrustAnchors
from mcim.key_id import key_id_of
from mcim.package import build_package, open_package, verify_package
from mcim.package_header import PackageHeader
from mcim.platform_key import SoftwarePlatformKey
from mcim.vocabulary import Container, Operation, Suite
from tests.support_der import Node, parse
from tests.support_pki import pki

VECTORS = Path(__file__).parents[1] / "vectors" / "packages"
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
ANCHORS = TrustAnchors(tuple(x509.load_pem_x509_certificates((VECTORS / "root.pem").read_bytes())), "sho")
KEYS = json.loads((VECTORS / "keys.json").read_text())
OID, OCTET_STRING = 0x06, 0x04

PACKAGES = {
    "xml-rsa.xml": (Container.XML, "rsa", Operation.INSTALL),
    "xml-ec.xml": (Container.XML, "ec", Operation.INSTALL),
    "xml-mgf1p.xml": (Container.XML_MGF1P, "rsa", Operation.INSTALL),
    "cms-rsa.der": (Container.CMS, "rsa", Operation.INSTALL),
    "cms-ec.der": (Container.CMS, "ec", Operation.INSTALL),
    "cms-command.der": (Container.CMS, "rsa", Operation.SUSPEND),
}


def private_key(kind: str) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    key = load_der_private_key(bytes.fromhex(KEYS[kind]), None)
    assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    return key


def header(kind: str, operation: Operation) -> PackageHeader:
    return PackageHeader(
        transaction_id=UUID(int=1),
        sequence=7,
        registration_nonce=b"n" * 32,
        m2me_id="urn:imei:004999010640000",
        tre_id="urn:m2m:tre:0001",
        platform_key_id=key_id_of(private_key(kind).public_key()),
        sho_id="sho1.example",
        dpf_id="dpf.example",
        operation=operation,
        mcim_id=UUID(int=2),
        suite=Suite.RSA_GCM_256,
        not_before=NOW,
        not_after=NOW + timedelta(days=1),
        ticket_digest="0a" * 32,
        auth_mode="token",
    )


@pytest.mark.parametrize(("name", "container", "kind", "operation"), [(n, *rest) for n, rest in PACKAGES.items()])
def test_still_read(name: str, container: Container, kind: str, operation: Operation) -> None:
    """REQ-29 REQ-31: a package of that day verifies and opens."""
    verified = verify_package(
        (VECTORS / name).read_bytes(),
        anchors=ANCHORS,
        now=NOW,
        expected_sho_id="sho1.example",
        containers=frozenset({container}),
    )
    assert verified.container is container
    assert replace(verified.header, ephemeral_key=None) == header(kind, operation)
    if operation.carries_object:
        key = SoftwarePlatformKey(private_key(kind))
        assert open_package(verified, key) == (VECTORS / "object.bin").read_bytes()


@pytest.mark.parametrize(("name", "container", "kind", "operation"), [(n, *rest) for n, rest in PACKAGES.items()])
def test_still_written_so(name: str, container: Container, kind: str, operation: Operation) -> None:
    """REQ-31: what is written now differs in nothing but keys, random octets, signature and certificates."""
    package = build_package(
        header(kind, operation),
        (VECTORS / "object.bin").read_bytes() if operation.carries_object else None,
        recipient_public_key=private_key(kind).public_key(),
        signing_key=pki().sho.key,
        signer_chain=pki().sho.chain,
        container=container,
    )
    form = _der_form if container is Container.CMS else _xml_form
    assert form(package) == form((VECTORS / name).read_bytes())


def _xml_form(package: bytes) -> list[Any]:
    changing = {"CipherValue", "DigestValue", "SignatureValue", "X509Certificate", "EphemeralKey"}
    form = []
    for element in etree.fromstring(package).iter():
        name = etree.QName(element).localname
        text = len((element.text or "").strip()) if name == "CipherValue" else (element.text or "").strip()
        form.append((element.tag, sorted(element.attrib.items()), None if name in changing - {"CipherValue"} else text))
    return form


def _der_form(package: bytes) -> Any:
    message = parse(package)
    signed = message.at(1, 0)
    content = signed.at(2, 1, 0)
    enveloped = _shape(parse(content.octets)) if content.octets else None
    signer = signed.at(4, 0)
    header_value = next(each for each in signed.at(4, 0, 3).children if each[0].octets.endswith(b"\x8d\x1f\x02\x01"))
    return (
        [each.tag for each in signed.children],
        signed[1].encode(),
        signed[2][0].encode(),
        enveloped,
        [each.tag for each in signer.children],
        [_shape(each) for each in (signer[2], signer[4])],
        [each[0].octets for each in signer[3].children],
        header_value.encode(),
    )


def _shape(node: Node) -> Any:
    """Tags, object identifiers and lengths of octet strings."""
    if node.children:
        return (node.tag, [_shape(child) for child in node.children])
    return (node.tag, node.octets if node.tag == OID else len(node.octets))
