"""TLS contexts: who is believed to be whom, and files that cannot be used."""

from __future__ import annotations

import os
import pty
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import ClientConnectorCertificateError, ClientSession
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from actor_runtime.errors import ConfigError
from actor_runtime.http import new_application
from actor_runtime.tls import client_context, server_context


def own(
    directory: Path, *names: x509.GeneralName, encryption: KeySerializationEncryption | None = None
) -> tuple[Path, Path]:
    """A self-signed certificate with CN=localhost and these other names; its file and that of its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    builder = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    cert_file, key_file = directory / "tls.crt", directory / "tls.key"
    cert_file.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()))
    return cert_file, key_file


NAMES = {
    "in the SAN": ([x509.DNSName("localhost")], True),
    "another in the SAN": ([x509.DNSName("other.example")], False),
    "in the subject alone": ([], False),
    "mail in the SAN": ([x509.RFC822Name("localhost@localhost")], False),
}


@pytest.mark.parametrize(("names", "believed"), NAMES.values(), ids=NAMES)
async def test_a_server_is_who_its_san_says(tmp_path, names, believed):
    """T5, RFC 9525 §2: a name in the subject is no identity."""
    cert, key = own(tmp_path, *names)
    server = TestServer(new_application(), host="localhost")
    await server.start_server(ssl=server_context(cert, key))
    try:
        async with ClientSession() as session:
            url = f"https://localhost:{server.port}/healthz"
            if believed:
                async with session.get(url, ssl=client_context(cert)) as response:
                    assert response.status == 200
            else:
                with pytest.raises(ClientConnectorCertificateError):
                    await session.get(url, ssl=client_context(cert))
    finally:
        await server.close()


def test_an_encrypted_key_is_an_error_and_no_question(tmp_path):
    """A service that asked at the terminal would hang at its start, and there it has a terminal."""
    cert, key = own(tmp_path, encryption=BestAvailableEncryption(b"secret"))
    with pytest.raises(ConfigError, match=r"tls\.key"):
        server_context(cert, key)
    master, slave = pty.openpty()
    program = (
        "import fcntl, sys, termios, pathlib; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "from actor_runtime.tls import server_context; server_context(*map(pathlib.Path, sys.argv[1:]))"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, cert, key],
            stdin=slave, capture_output=True, start_new_session=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(slave)
        os.close(master)
    assert b"ConfigError" in done.stderr


def test_contexts_want_tls_1_2_and_a_client_certificate_where_anchors_are_given(tmp_path):
    """REQ-43, T5"""
    cert, key = own(tmp_path)
    for context in (server_context(cert, key, client_ca=cert), client_context(cert, cert=cert, key=key)):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.verify_mode is ssl.CERT_REQUIRED
    assert server_context(cert, key).verify_mode is ssl.CERT_NONE
    with pytest.raises(ConfigError):
        client_context(cert, cert=cert)
