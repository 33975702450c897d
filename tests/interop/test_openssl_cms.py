"""Packages in CMS against `openssl cms`: it verifies and opens ours, and we open what it encrypts.

It cannot make a whole package: its command line has no way to put an attribute of one's own, our header, under the
signature. So its EnvelopedData is signed by us in the tests of that direction.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mcim import cms_package
from mcim.certificates import Role
from mcim.cms_syntax import ENVELOPED_DATA, LABEL
from mcim.package import open_package
from mcim.platform_key import SoftwarePlatformKey
from mcim.vocabulary import Operation
from tests.support_cms import build, verify
from tests.support_package import header
from tests.support_pki import DPF_ID, M2ME_ID, NOW, TRE_ID, pki, rsa_key

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl is not installed (apt-get install openssl)"
)

PKI = pki()
OBJECT = b"\r\n" + bytes(range(256))
EC_PRIVATE = ec.generate_private_key(ec.SECP256R1())
KEYS: dict[str, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey] = {"rsa": PKI.platform_key, "ec": EC_PRIVATE}
CERTIFICATES = {
    "rsa": PKI.platform,
    "ec": PKI.manufacturer.issue_platform(
        Role.PLATFORM, EC_PRIVATE.public_key(), tre_id=TRE_ID, m2me_id=M2ME_ID, now=NOW
    ),
}
WRAP = {
    "rsa": (
        "-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256", "-keyopt", "rsa_mgf1_md:sha256",
        "-keyopt", f"rsa_oaep_label:{LABEL.hex()}",
    ),
    "ec": ("-keyopt", "ecdh_kdf_md:sha256"),
}  # fmt: skip


@asn1.sequence
class EnvelopedMessage:
    """ContentInfo with an EnvelopedData: what `openssl cms -decrypt` reads and -encrypt writes."""

    content_type: x509.ObjectIdentifier
    content: asn1.TLV


def package(kind: str, operation: Operation = Operation.INSTALL) -> bytes:
    content = OBJECT if operation.carries_object else None
    return build(public_key=KEYS[kind].public_key(), content=content, operation=operation)


def cms(directory: Path, octets: bytes, *options: str) -> tuple[subprocess.CompletedProcess[bytes], bytes]:
    """Run `openssl cms`; how it ended and what it wrote."""
    given, written = directory / "in", directory / "out"
    given.write_bytes(octets)
    written.unlink(missing_ok=True)
    command = ["openssl", "cms", "-binary", *options, "-in", str(given), "-out", str(written)]
    done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    return done, written.read_bytes() if written.exists() else b""


def checked(directory: Path, octets: bytes, root: x509.Certificate) -> tuple[bool, bytes]:
    """Whether openssl takes signature and chain, and the content that was signed."""
    anchor = pem(directory, root)
    moment = str(int(NOW.timestamp()))
    options = ("-verify", "-inform", "DER", "-CAfile", anchor, "-purpose", "any", "-attime", moment)
    done, content = cms(directory, octets, *options)
    return done.returncode == 0, content


def pem(directory: Path, certificate: x509.Certificate) -> str:
    file = directory / f"{certificate.serial_number:x}.pem"
    file.write_bytes(certificate.public_bytes(Encoding.PEM))
    return str(file)


def key_file(directory: Path, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    file = directory / "key.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return str(file)


def message(enveloped: bytes) -> bytes:
    """The content of a SignedData is a bare EnvelopedData (RFC 5652 §5.2); openssl wants its ContentInfo around it."""
    explicit = b"\xa0\x82" + len(enveloped).to_bytes(2, "big") + enveloped
    return asn1.encode_der(EnvelopedMessage(content_type=ENVELOPED_DATA, content=asn1.decode_der(asn1.TLV, explicit)))


@pytest.mark.parametrize("kind", KEYS)
def test_openssl_verifies_and_decrypts(kind: str, tmp_path: Path) -> None:
    """REQ-31, REQ-29: chain, signature, recipient and content are those of the standard."""
    good, enveloped = checked(tmp_path, package(kind), PKI.operator_root.certificate)
    assert good
    recipient = ("-recip", pem(tmp_path, CERTIFICATES[kind]), "-inkey", key_file(tmp_path, KEYS[kind]))
    done, opened = cms(tmp_path, message(enveloped), "-decrypt", "-inform", "DER", *recipient)
    assert (done.returncode, opened) == (0, OBJECT), done.stderr


@pytest.mark.parametrize(("kind", "key"), [("rsa", rsa_key(2048, 1)), ("ec", ec.generate_private_key(ec.SECP256R1()))])
def test_openssl_does_not_decrypt_with_another_key(
    kind: str, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, tmp_path: Path
) -> None:
    """REQ-29: the tool does use the key it was given, so the test above means something."""
    _, enveloped = checked(tmp_path, package(kind), PKI.operator_root.certificate)
    options = ("-decrypt", "-inform", "DER", "-inkey", key_file(tmp_path, key))
    _, opened = cms(tmp_path, message(enveloped), *options)
    assert opened != OBJECT  # with RSA it goes on with a random key, so that nobody learns that unwrapping failed


@pytest.mark.parametrize(
    "operation", [each for each in Operation if not each.carries_object and each.label != "release"]
)
def test_openssl_verifies_a_command(operation: Operation, tmp_path: Path) -> None:
    """REQ-31: a signed header without content is a message with a signature over nothing but attributes."""
    assert checked(tmp_path, package("rsa", operation), PKI.operator_root.certificate) == (True, b"")


@pytest.mark.parametrize("old", [TRE_ID.encode(), DPF_ID.encode(), b"n" * 32], ids=["recipient", "dpf", "nonce"])
def test_openssl_rejects_a_changed_header(old: bytes, tmp_path: Path) -> None:
    """REQ-58, T2: the header is under the signature for others as well."""
    octets = package("rsa")
    assert octets.count(old) == 1
    assert not checked(tmp_path, octets.replace(old, old[:-1] + b"x"), PKI.operator_root.certificate)[0]


def test_openssl_rejects_another_root(tmp_path: Path) -> None:
    """REQ-50: the tool does look at the chain."""
    assert not checked(tmp_path, package("rsa"), PKI.manufacturer_root.certificate)[0]


@pytest.mark.parametrize("kind", KEYS)
def test_we_open_what_openssl_encrypts(kind: str, tmp_path: Path) -> None:
    """REQ-31, REQ-59: the one structure we take is one that others write."""
    options = ("-encrypt", "-noindef", "-outform", "DER", "-aes-256-cbc", "-keyid")
    done, octets = cms(tmp_path, OBJECT, *options, "-recip", pem(tmp_path, CERTIFICATES[kind]), *WRAP[kind])
    assert done.returncode == 0, done.stderr
    enveloped = bytes(asn1.decode_der(EnvelopedMessage, octets).content.data)
    signed = cms_package.sign(header(KEYS[kind].public_key()), enveloped, signing_key=PKI.sho.key, chain=PKI.sho.chain)
    assert open_package(verify(signed), SoftwarePlatformKey(KEYS[kind])) == OBJECT
