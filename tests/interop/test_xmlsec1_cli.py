"""Our package signature against Debian's xmlsec1, another build of the library with its own OpenSSL (REQ-31)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mcim.platform_key import PlatformPublicKey
from mcim.vocabulary import Container
from tests.support_package import build
from tests.support_pki import NOW, TRE_ID, pki, rsa_key

pytestmark = pytest.mark.skipif(
    shutil.which("xmlsec1") is None, reason="xmlsec1 is not installed (apt-get install xmlsec1)"
)

PKI = pki()
RECIPIENTS: dict[str, PlatformPublicKey] = {
    "rsa": PKI.platform_key.public_key(),
    "ec": ec.generate_private_key(ec.SECP256R1()).public_key(),
}


def package(recipient: PlatformPublicKey = RECIPIENTS["rsa"], container: Container = Container.XML) -> bytes:
    return build(container, public_key=recipient, content=b"content")


def xmlsec1(octets: bytes, directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    file = directory / "package.xml"
    file.write_bytes(octets)
    command = ["xmlsec1", "--verify", "--enabled-reference-uris", "empty", *options, str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def pem(certificate: x509.Certificate, directory: Path) -> str:
    file = directory / f"{certificate.serial_number:x}.pem"
    file.write_bytes(certificate.public_bytes(Encoding.PEM))
    return str(file)


def by_key(octets: bytes, directory: Path, certificate: x509.Certificate) -> subprocess.CompletedProcess[str]:
    """Verified with the key of one certificate; what the package itself says of its signer is not looked at."""
    key = pem(certificate, directory)
    return xmlsec1(octets, directory, "--enabled-key-data", "key-name", "--pubkey-cert-pem", key)


def by_chain(octets: bytes, directory: Path, root: x509.Certificate) -> subprocess.CompletedProcess[str]:
    """Verified by the chain in the package, up to one root, at the time of these tests."""
    moment = NOW.strftime("%Y-%m-%d %H:%M:%S+00:00")
    return xmlsec1(octets, directory, "--verification-gmt-time", moment, "--trusted-pem", pem(root, directory))


@pytest.mark.parametrize("recipient", RECIPIENTS)
def test_verifies_with_the_certificate_of_the_sho(recipient: str, tmp_path: Path) -> None:
    """REQ-31, REQ-50: an older library in another program accepts the signature."""
    result = by_key(package(RECIPIENTS[recipient]), tmp_path, PKI.sho.chain[0])
    assert result.returncode == 0, result.stderr
    assert "SignedInfo References (ok/all): 1/1" in result.stdout + result.stderr


def test_verifies_by_the_chain_in_the_package(tmp_path: Path) -> None:
    """REQ-31: KeyInfo carries what a verifier needs besides the root."""
    result = by_chain(package(), tmp_path, PKI.operator_root.certificate)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(TRE_ID.encode(), b"urn:m2m:tre:0002", id="recipient"),
        pytest.param(b"<SequenceNumber>7<", b"<SequenceNumber>8<", id="sequence"),
        pytest.param(b"xmlenc11#aes256-gcm", b"xmlenc11#aes128-gcm", id="algorithm"),
        pytest.param(b"<AuthMode>token</AuthMode>", b"<AuthMode>token</AuthMode> ", id="white-space"),
    ],
)
def test_rejects_a_changed_one(old: bytes, new: bytes, tmp_path: Path) -> None:
    """REQ-31, REQ-58: all of the package but the signature itself is under the signature."""
    original = package()
    assert original.count(old) == 1
    result = by_key(original.replace(old, new), tmp_path, PKI.sho.chain[0])
    assert result.returncode != 0
    assert "FAIL" in result.stdout + result.stderr


def test_rejects_the_certificate_of_another(tmp_path: Path) -> None:
    """REQ-50: the tool does compare with the key it was given, so the tests above mean something."""
    assert by_key(package(), tmp_path, PKI.other_sho.chain[0]).returncode != 0
    assert by_chain(package(), tmp_path, PKI.manufacturer_root.certificate).returncode != 0


def decrypted(octets: bytes, directory: Path, key: rsa.RSAPrivateKey) -> subprocess.CompletedProcess[bytes]:
    file, key_file = directory / "package.xml", directory / "key.pem"
    file.write_bytes(octets)
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    command = ["xmlsec1", "--decrypt", "--privkey-pem", str(key_file), str(file)]
    return subprocess.run(command, capture_output=True, timeout=30, check=False)


def test_mgf1p_is_decrypted_and_verified(tmp_path: Path) -> None:
    """REQ-31: what xml-mgf1p is for: a library that knows no other OAEP verifies the package and opens it."""
    octets = package(container=Container.XML_MGF1P)
    result = by_key(octets, tmp_path, PKI.sho.chain[0])
    assert result.returncode == 0, result.stderr
    opened = decrypted(octets, tmp_path, PKI.platform_key)
    assert opened.returncode == 0, opened.stderr
    # The tool writes the document with the plaintext in the place of EncryptedData, or the plaintext alone.
    assert b"content" in opened.stdout
    assert b"EncryptedData" not in opened.stdout


def test_mgf1p_is_not_decrypted_by_another_key(tmp_path: Path) -> None:
    """REQ-29: the tool does use the key it was given, so the test above means something."""
    assert decrypted(package(container=Container.XML_MGF1P), tmp_path, rsa_key(2048, 1)).returncode != 0
