"""Our quotes before tpm2-tools, and our token objects before OpenSC: programs that know nothing of us."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dmclient.config import TpmSection, TreSection
from dmclient.tre.measured_start import REGISTER, measure_start
from mcim import tlv
from mcim.evidence import QUOTED_PREFIX, Evidence
from mcim.measurement_log import composite_digest, replay
from mcim.tpm_quote import parse_quote
from mcim.vocabulary import ValidationMode
from tests.support_tokens import missing, running_tpm, token

CHECKQUOTE, PCRREAD, PKCS11_TOOL = (shutil.which(name) for name in ("tpm2_checkquote", "tpm2_pcrread", "pkcs11-tool"))

needs_tpm2_tools = pytest.mark.skipif(
    CHECKQUOTE is None or bool(missing("tpm")), reason=missing("tpm") or "needs tpm2_checkquote (Debian: tpm2-tools)"
)
needs_opensc = pytest.mark.skipif(
    PKCS11_TOOL is None or bool(missing("pkcs11")), reason=missing("pkcs11") or "needs pkcs11-tool (Debian: opensc)"
)

EVIDENCE = Evidence(
    mode=ValidationMode.REMOTE,
    m2me_id="urn:imei:004999010640000",
    tre_id="urn:m2m:tre:0001",
    tre_type="tpm",
    tre_version="1.0",
    tre_state="ok",
    platform_key_id=b"k" * 16,
    challenge=b"c" * 32,
    nonce=b"n" * 32,
    req_id=UUID(int=1),
    counter=3,
)


def signature_structure(raw: bytes) -> bytes:
    """TPMT_SIGNATURE: ECDSA (0018) with SHA-256 (000B), r and s with their lengths."""
    return b"\x00\x18\x00\x0b" + b"".join(b"\x00\x20" + part for part in (raw[:32], raw[32:]))


@pytest.fixture(scope="module")
def quote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with evidence of a measured start in the files that the tools want."""
    from dmclient.tre.tpm import TpmKeyStore

    directory = tmp_path_factory.mktemp("quote")
    with running_tpm(directory) as tpm:
        store = TpmKeyStore(TpmSection(tcti=tpm.tcti), directory)
        keys = store.load(store.generate("ec"))
        measured = measure_start(TreSection())
        store.measure(measured)
        parts = dict(tlv.decode(keys.attest(EVIDENCE)[len(QUOTED_PREFIX) :]))
        assert parse_quote(parts[2]).pcr_digest == composite_digest(replay(measured))
        (directory / "message").write_bytes(parts[2])
        (directory / "signature").write_bytes(signature_structure(parts[3]))
        (directory / "qualification").write_text(hashlib.sha256(QUOTED_PREFIX + parts[1]).hexdigest())
        pem = keys.attest_public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (directory / "key.pem").write_bytes(pem)
        subprocess.run(
            [str(PCRREAD), f"sha256:{REGISTER}", "-F", "serialized", "-o", "registers"],
            cwd=directory,
            env={**os.environ, "TPM2TOOLS_TCTI": tpm.tcti},
            check=True,
            capture_output=True,
        )
        yield directory


def check_quote(directory: Path, **changes: str) -> bool:
    """Whether tpm2_checkquote accepts it: signature, qualifying data, and the registers' values."""
    qualification = (directory / "qualification").read_text()
    files = {"m": "message", "s": "signature", "u": "key.pem", "f": "registers", "q": qualification} | changes
    arguments = [argument for name, value in files.items() for argument in (f"-{name}", value)]
    done = subprocess.run(
        [str(CHECKQUOTE), *arguments, "-g", "sha256"],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode == 0


@needs_tpm2_tools
def test_tpm2_checkquote_accepts_our_evidence(quote: Path) -> None:
    """REQ-18: message, signature, qualifying data and register values."""
    assert check_quote(quote)


@needs_tpm2_tools
def test_tpm2_checkquote_refuses_what_we_refuse(quote: Path) -> None:
    """REQ-18: other qualifying data, a changed message, another key, other values of the registers."""
    assert check_quote(quote)
    assert not check_quote(quote, q=hashlib.sha256(b"another challenge").hexdigest())
    message = bytearray((quote / "message").read_bytes())
    message[-1] ^= 1
    (quote / "changed").write_bytes(message)
    assert not check_quote(quote, m="changed")
    registers = bytearray((quote / "registers").read_bytes())
    position = registers.find(replay(measure_start(TreSection()))[REGISTER])
    assert position > 0
    registers[position] ^= 1
    (quote / "other-registers").write_bytes(registers)
    assert not check_quote(quote, f="other-registers")


@needs_opensc
@pytest.mark.parametrize("key_type", ["rsa", "ec"])
def test_pkcs11_tool_sees_keys_that_cannot_leave(key_type: str, tmp_path: Path) -> None:
    """REQ-42: as another program reads the attributes."""
    from dmclient.tre.pkcs11 import Pkcs11KeyStore, TokenKey
    from dmclient.tre.pkcs11_session import TokenSession

    made = token()
    store = Pkcs11KeyStore(TokenSession.of(made.module, made.label, made.pin), tmp_path, label_prefix="interop")
    blobs = store.generate("rsa" if key_type == "rsa" else "ec")
    idents = [TokenKey.decode(each).ident.hex() for each in (blobs.platform, blobs.attest)]
    listing = subprocess.run(
        [str(PKCS11_TOOL), "--module", str(made.module), "--token-label", made.label, "--login",
         "--pin", made.pin, "--list-objects", "--type", "privkey"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout  # fmt: skip
    store.close()
    found = {ident: entry for entry in listing.split("Private Key Object;")[1:] for ident in idents if ident in entry}
    assert sorted(found) == sorted(idents)
    for entry in found.values():
        for attribute in ("sensitive", "always sensitive", "never extractable", "local"):
            assert attribute in entry.lower(), entry
