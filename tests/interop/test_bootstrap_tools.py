"""Bootstrap documents against other people's tools: libwbxml (Debian package libwbxml2-utils) and OpenSSL."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from syncml.bootstrap import (
    BootstrapSecrets,
    DmSec,
    Sec,
    decode_cp,
    decode_cp_xml,
    encode_cp,
    encode_cp_xml,
    protect,
    read_accounts,
    read_connectivity,
)
from syncml.bootstrap.connectivity import connectivity_groups
from syncml.bootstrap.cp import CpDocument
from syncml.bootstrap.dm_profile import bootstrap_message, protect_message, read_message
from tests.fuzz.push_targets import PUSH_SEEDS
from tests.unit.test_bootstrap_connectivity import ACCOUNT, DOCUMENT
from tests.unit.test_bootstrap_dm_profile import FULL

needs_libwbxml = pytest.mark.skipif(
    shutil.which("xml2wbxml") is None or shutil.which("wbxml2xml") is None,
    reason="xml2wbxml and wbxml2xml are not installed (apt-get install libwbxml2-utils)",
)
DOCUMENTS = {"every connectivity characteristic": DOCUMENT} | {
    f"accounts {number}": decode_cp(octets) for number, octets in enumerate(PUSH_SEEDS["fuzz_cp"], start=1)
}


def run(tool: str, octets: bytes, tmp_path: Path, *arguments: str) -> bytes:
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(octets)
    subprocess.run([tool, *arguments, "-o", str(target), str(source)], check=True, capture_output=True, timeout=20)
    return target.read_bytes()


@needs_libwbxml
@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_our_wbxml_read_by_libwbxml(tmp_path, document: CpDocument):
    """XI-8, XS-034: and its XML, with the document type it writes, read by us."""
    assert decode_cp_xml(run("wbxml2xml", encode_cp(document), tmp_path, "-k")) == document


@needs_libwbxml
@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_our_xml_read_by_libwbxml(tmp_path, document: CpDocument):
    """XI-8, XC-094: and its WBXML read by us."""
    assert decode_cp(run("xml2wbxml", encode_cp_xml(document), tmp_path, "-v", "1.3")) == document


NO_NONCES = replace(
    FULL,
    client=replace(FULL.client, nonce=None),
    server=replace(FULL.server, nonce=None),
    obex=replace(FULL.obex, data=None),
)
"""libwbxml puts the octets of a serialised tree as they are into its XML, which then is none: no nonces here."""


@needs_libwbxml
def test_dm_profile_through_libwbxml(tmp_path):
    """XI-8, XC-095: our message to XML and back by libwbxml, with the embedded tree; the account is the same."""
    ours = bootstrap_message(NO_NONCES, device_id="urn:imei:004999010640000")
    xml = run("wbxml2xml", ours, tmp_path, "-k")
    assert b"urn:oma:mo:oma-dm-dmacc:1.0" in xml
    (offer,) = read_message(run("xml2wbxml", xml, tmp_path, "-v", "1.2")).offers
    assert offer == read_message(ours).offers[0]
    assert offer.account == NO_NONCES


SECRETS = BootstrapSecrets(pin="1234", imsi="493005100592800")
PUSHES = {
    "NETWPIN": (protect(ACCOUNT, SECRETS, Sec.NETWPIN), "hexkey:4939001500958200"),
    "USERPIN": (protect(ACCOUNT, SECRETS, Sec.USERPIN), "key:1234"),
    "USERNETWPIN": (protect(ACCOUNT, SECRETS, Sec.USERNETWPIN), "hexkey:4939001500958200" + b"1234".hex()),
    "USERPIN_NETWORKID": (
        protect_message(FULL, device_id="d", secrets=SECRETS, sec=DmSec.USERPIN_NETWORKID),
        "key:1234:493005100592800",
    ),
}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize(("push", "key"), PUSHES.values(), ids=PUSHES)
def test_mac_is_what_openssl_computes(tmp_path, push, key):
    """XI-8, XS-034: HMAC-SHA1 over the exact octets."""
    (tmp_path / "body").write_bytes(push.body)
    done = subprocess.run(
        ["openssl", "dgst", "-sha1", "-mac", "HMAC", "-macopt", key, str(tmp_path / "body")],
        check=True,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.stdout.strip().rpartition(" ")[2].upper() == push.mac


def test_documents_of_the_table_have_what_they_are_named_for():
    """XI-8: the table would prove nothing with empty documents."""
    assert len(connectivity_groups(read_connectivity(DOCUMENT))) == 7
    assert all(read_accounts(DOCUMENTS[f"accounts {number}"]) for number in (1, 2, 3))
