"""Our packages against other implementations: Debian's `xmlsec1` tool for the signature, libxmlsec for the decryption.

The tool of Debian 12 knows no `xmlenc11#rsa-oaep`; so libxmlsec, given the recipient's private key as our own code
never gives it, must read the whole EncryptedData by itself.
"""

from __future__ import annotations

import shutil
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import xmlsec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from lxml import etree
from xmlsec import constants

from mcim.key_id import key_id_of
from mcim.package import EPHEMERAL_NAME, build_package
from mcim.package_header import PackageHeader, peek_header
from mcim.vocabulary import Operation, Suite
from tests.support_pki import DPF_ID, M2ME_ID, NOW, SHO_ID, TRE_ID, Signer, pki, rsa_key

PKI = pki()
OBJECT = bytes(range(256)) * 3
EC_KEY = ec.generate_private_key(ec.SECP256R1())
RECIPIENTS = {"rsa": (rsa_key(), Suite.RSA_GCM_256), "ec": (EC_KEY, Suite.EC_GCM_256)}

needs_tool = pytest.mark.skipif(
    shutil.which("xmlsec1") is None, reason="xmlsec1 is not installed (apt-get install xmlsec1)"
)


def package(recipient: str, signer: Signer = PKI.sho) -> bytes:
    key, suite = RECIPIENTS[recipient]
    header = PackageHeader(
        transaction_id=UUID(int=1),
        sequence=1,
        registration_nonce=bytes(range(32)),
        m2me_id=M2ME_ID,
        tre_id=TRE_ID,
        platform_key_id=key_id_of(key.public_key()),
        sho_id=SHO_ID,
        dpf_id=DPF_ID,
        operation=Operation.INSTALL,
        mcim_id=UUID(int=2),
        suite=suite,
        not_before=NOW,
        not_after=NOW + timedelta(days=1),
        ticket_digest="00" * 32,
    )
    return build_package(
        header, OBJECT, recipient_public_key=key.public_key(), signing_key=signer.key, signer_chain=signer.chain
    )


def is_verified(octets: bytes, certificate: x509.Certificate, directory: Path) -> bool:
    """Whether the tool accepts the signature with the key of that certificate."""
    (directory / "package.xml").write_bytes(octets)
    (directory / "signer.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    command = ["xmlsec1", "--verify", "--enabled-reference-uris", "empty", "--pubkey-cert-pem", "signer.pem"]
    done = subprocess.run([*command, "package.xml"], cwd=directory, capture_output=True, check=False, timeout=60)
    return done.returncode == 0


@needs_tool
@pytest.mark.parametrize("recipient", RECIPIENTS)
def test_the_tool_verifies_our_signature(recipient: str, tmp_path: Path) -> None:
    """REQ-31, REQ-50: with the SHO's certificate, and with nobody else's."""
    octets = package(recipient)
    assert is_verified(octets, PKI.sho.chain[0], tmp_path)
    assert not is_verified(octets, PKI.other_sho.chain[0], tmp_path)


@needs_tool
@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(b"<TREId>urn:m2m:tre:0001<", b"<TREId>urn:m2m:tre:0002<", id="recipient"),
        pytest.param(b"<SequenceNumber>1<", b"<SequenceNumber>9<", id="sequence"),
        pytest.param(b"<Operation>install<", b"<Operation>delete<", id="operation"),
        pytest.param(b"<Header>", b"<Header><Extra/>", id="element-more"),
        pytest.param(b'version="1"', b'version="2"', id="attribute"),
    ],
)
def test_the_tool_refuses_a_changed_package(old: bytes, new: bytes, tmp_path: Path) -> None:
    """REQ-59: everything outside the Signature is covered by it, for every reader."""
    octets = package("rsa")
    assert octets.count(old) == 1
    assert not is_verified(octets.replace(old, new), PKI.sho.chain[0], tmp_path)


@pytest.mark.parametrize("recipient", RECIPIENTS)
def test_libxmlsec_reads_the_whole_encrypted_data(recipient: str) -> None:
    """REQ-31, REQ-41: our EncryptedKey, made and read by code of our own for EC, is XML Encryption 1.1 to others."""
    octets, (key, _) = package(recipient), RECIPIENTS[recipient]
    header = peek_header(octets)
    manager = xmlsec.KeysManager()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    manager.add_key(_key(private, header.platform_key_id.hex()))
    if header.ephemeral_key is not None:
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), header.ephemeral_key)
        public = point.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        manager.add_key(_key(public, EPHEMERAL_NAME))
    assert xmlsec.EncryptionContext(manager).decrypt(etree.fromstring(octets)[1]) == OBJECT


def _key(pem: bytes, name: str) -> Any:
    key = xmlsec.Key.from_memory(pem, constants.KeyDataFormatPem)
    key.name = name
    return key
