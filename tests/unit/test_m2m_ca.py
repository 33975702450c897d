"""The CA tool: what it lays down, for whom it is readable, and whom it certifies."""

from __future__ import annotations

import base64
import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from typer.testing import CliRunner

from m2m_ca import cli
from m2m_ca.directory import CAS, CaDirectory, CaError, read_request, write_secret
from mcim.certificates import Role, TrustAnchors, load_pem_chain, validate
from mcim.key_id import key_id_of
from mcim.statements import raw_signature
from tests.support_pki import DPF_ID, M2ME_ID, NOW, PVA_ID, SHO_ID, TRE_ID, rsa_key

HOSTS = ["localhost", "127.0.0.1"]
ATTEST = ec.generate_private_key(ec.SECP256R1())
EC_PLATFORM = ec.generate_private_key(ec.SECP256R1())


def _pem(public_key: Any) -> str:
    return public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def request(
    platform: Any = None, attest: Any = ATTEST, prover: ec.EllipticCurvePrivateKey | None = None, **members: str
) -> dict[str, Any]:
    """A request as a TRE makes it."""
    body = {
        "m2meId": M2ME_ID,
        "treId": TRE_ID,
        "platformKey": _pem(platform or EC_PLATFORM.public_key()),
        "attestKey": _pem(attest.public_key()),
    } | members
    octets = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    proof = raw_signature(prover or ATTEST, octets)
    return {**body, "proof": base64.b64encode(proof).decode()}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> CaDirectory:
    """A demo PKI that the tests only read or issue from."""
    made = CaDirectory(tmp_path_factory.mktemp("demo") / "pki")
    made.demo_pki(hosts=HOSTS, sho_id=SHO_ID, dpf_id=DPF_ID, pva_id=PVA_ID, now=NOW)
    return made


def anchors(demo: CaDirectory, purpose: str) -> TrustAnchors:
    return TrustAnchors(load_pem_chain((demo.path / "anchors" / f"{purpose}.pem").read_bytes()), purpose)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def files(path: Path) -> set[str]:
    return {str(each.relative_to(path)) for each in path.rglob("*") if each.is_file()}


DEMO_FILES = {
    *(f"anchors/{name}.pem" for name in ("tls", "manufacturer", "sho", "pva", "crl-issuers")),
    *(f"ca/{name}.{kind}" for name in ("tls", "operator", "manufacturer", "pva") for kind in ("crt", "key")),
    *(f"ca/{name}-root.key" for name in ("operator", "manufacturer")),
    *(f"{actor}/tls.{kind}" for actor in ("dpf", "sho", "pva", "ro") for kind in ("crt", "key")),
    *(f"{actor}/signing.{kind}" for actor in ("sho", "pva") for kind in ("crt", "key")),
    "issued.jsonl",
    "ca/settings.json",
    ".lock",
}


def test_demo_pki_layout(demo: CaDirectory) -> None:
    """REQ-43: one file of roots for each purpose, and exactly these files, no temporary one left."""
    assert files(demo.path) == DEMO_FILES
    roots = {purpose: anchors(demo, purpose).certificates for purpose in ("tls", "manufacturer", "sho", "pva")}
    assert all(len(each) == 1 for each in roots.values())
    assert len({key_id_of(each[0].public_key()) for each in roots.values()}) == len(roots)


@pytest.mark.parametrize("name", sorted(name for name in DEMO_FILES if name.endswith(".key")))
def test_private_keys_are_the_owners_alone(demo: CaDirectory, name: str) -> None:
    """REQ-45: mode 0600, and a key of its own in every file."""
    assert mode(demo.path / name) == 0o600
    key = load_pem_private_key((demo.path / name).read_bytes(), None)
    others = [each for each in demo.path.rglob("*.key") if each != demo.path / name]
    assert all(load_pem_private_key(each.read_bytes(), None).public_key() != key.public_key() for each in others)


@pytest.mark.parametrize("name", sorted(name for name in DEMO_FILES if name.endswith((".crt", ".pem"))))
def test_certificates_are_for_everybody_to_read(demo: CaDirectory, name: str) -> None:
    """REQ-43: mode 0644, and no private key slipped in."""
    assert mode(demo.path / name) == 0o644
    assert b"PRIVATE" not in (demo.path / name).read_bytes()


def test_a_secret_that_was_readable_is_no_more(tmp_path: Path) -> None:
    """REQ-45: overwriting does not keep the looser mode, and a failed write leaves nothing behind."""
    path = tmp_path / "a.key"
    path.write_bytes(b"old")
    path.chmod(0o644)
    write_secret(path, b"new")
    assert (path.read_bytes(), mode(path)) == (b"new", 0o600)
    (tmp_path / "taken" / "x").mkdir(parents=True)
    with pytest.raises(OSError):  # noqa: PT011 (a directory is in the way; which errno depends on the system)
        write_secret(tmp_path / "taken", b"new")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.key", "taken"]


@pytest.mark.parametrize(
    ("actor", "role", "purpose", "identity"), [("sho", Role.SHO, "sho", SHO_ID), ("pva", Role.PVA, "pva", PVA_ID)]
)
def test_signing_certificates(demo: CaDirectory, actor: str, role: Role, purpose: str, identity: str) -> None:
    """REQ-46: the certificate delivered is good for the role, with its key beside it and its chain behind it."""
    chain = load_pem_chain((demo.path / actor / "signing.crt").read_bytes())
    validated = validate(chain[0], chain[1:], anchors(demo, purpose), role, NOW, identity=identity)
    key = load_pem_private_key((demo.path / actor / "signing.key").read_bytes(), None)
    assert validated.public_key == key.public_key()


@pytest.mark.parametrize(("actor", "name"), [("dpf", DPF_ID), ("sho", SHO_ID), ("pva", "pva")])
def test_tls_certificates(demo: CaDirectory, actor: str, name: str) -> None:
    """REQ-46: TLS certificates name the actor and the hosts and hold below the TLS root; no role may use them."""
    chain = load_pem_chain((demo.path / actor / "tls.crt").read_bytes())
    san = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    names = [str(each) for each in san.get_values_for_type(x509.DNSName)]
    assert names == list(dict.fromkeys([name, actor, "localhost"]))
    assert [str(each) for each in san.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    chain[0].verify_directly_issued_by(anchors(demo, "tls").certificates[0])
    ekus = chain[0].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert not {role.eku for role in Role} & set(ekus)


def test_every_certificate_is_noted(demo: CaDirectory) -> None:
    """REQ-21: what was issued can be revoked by what stands in the list."""
    notes = [json.loads(line) for line in (demo.path / "issued.jsonl").read_text().splitlines()]
    serials = {each["serial"] for each in notes}
    for name in ("sho/signing.crt", "pva/signing.crt", "dpf/tls.crt", "sho/tls.crt", "pva/tls.crt"):
        leaf = load_pem_chain((demo.path / name).read_bytes())[0]
        assert f"{leaf.serial_number:x}" in serials
    assert all({"serial", "kind", "subject", "notAfter", "ca", "keyId"} <= set(each) for each in notes)


def test_init_refuses_twice(tmp_path: Path) -> None:
    """REQ-21: a CA is never overwritten."""
    ca = CaDirectory(tmp_path / "pki")
    ca.init(NOW)
    before = {name: (ca.path / name).read_bytes() for name in files(ca.path)}
    for again in (
        lambda: ca.init(NOW),
        lambda: ca.demo_pki(hosts=HOSTS, sho_id=SHO_ID, dpf_id=DPF_ID, pva_id=PVA_ID, now=NOW),
    ):
        with pytest.raises(CaError) as caught:
            again()
        assert caught.value.hint
    assert {name: (ca.path / name).read_bytes() for name in files(ca.path)} == before


@pytest.mark.parametrize("platform", [rsa_key().public_key(), EC_PLATFORM.public_key()], ids=["rsa", "ec"])
def test_issue_tre(demo: CaDirectory, platform: Any) -> None:
    """REQ-21, REQ-46: with a right proof, two certificates good for their two roles."""
    issued = demo.issue_tre(request(platform), NOW)
    for leaf, role, key in (
        (issued.platform, Role.PLATFORM, platform),
        (issued.attest, Role.ATTEST, ATTEST.public_key()),
    ):
        validated = validate(leaf, issued.chain, anchors(demo, "manufacturer"), role, NOW, identity=TRE_ID)
        assert (validated.m2me_id, validated.public_key) == (M2ME_ID, key)
    noted = (demo.path / "issued.jsonl").read_text()
    assert f"{issued.platform.serial_number:x}" in noted
    assert f"{issued.attest.serial_number:x}" in noted


def _without(name: str) -> dict[str, Any]:
    made = request()
    del made[name]
    return made


STRANGER = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(request(prover=STRANGER), id="proved-by-a-stranger"),
        pytest.param(request() | {"proof": ""}, id="empty-proof"),
        pytest.param(request() | {"proof": "?"}, id="proof-no-base64"),
        pytest.param(request() | {"proof": "\u00e9"}, id="proof-no-ascii"),
        pytest.param(request() | {"proof": base64.b64encode(bytes(64)).decode()}, id="proof-of-zeroes"),
        pytest.param(request() | {"proof": None}, id="proof-null"),
        pytest.param(request() | {"proof": request(treId="urn:m2m:tre:0002")["proof"]}, id="proof-of-another-request"),
        pytest.param(request() | {"treId": "urn:m2m:tre:0002"}, id="tre-changed"),
        pytest.param(request() | {"m2meId": "urn:imei:004999010640001"}, id="m2me-changed"),
        pytest.param(request() | {"platformKey": _pem(STRANGER.public_key())}, id="platform-key-changed"),
        pytest.param(request() | {"attestKey": _pem(STRANGER.public_key())}, id="attest-key-changed"),
        *(pytest.param(_without(name), id=f"without-{name}") for name in request()),
        pytest.param(request(platformKey="no key"), id="platform-key-no-pem"),
        pytest.param(request(attestKey="no key"), id="attest-key-no-pem"),
        pytest.param(request() | {"platformKey": "\ud800"}, id="platform-key-no-text"),
        pytest.param(request(treId=""), id="empty-tre"),
        pytest.param(request(m2meId=""), id="empty-m2me"),
        pytest.param(request(treId="urn:m2m:tre:\u00e9"), id="tre-no-ascii"),
        pytest.param(request(m2meId="\ud800"), id="m2me-no-text"),
    ],
)
def test_issue_tre_refuses_a_bad_request(demo: CaDirectory, bad: dict[str, Any]) -> None:
    """REQ-21: nobody has identities or keys certified that the attestation key did not sign; no traceback either."""
    before = (demo.path / "issued.jsonl").read_text()
    with pytest.raises(CaError):
        demo.issue_tre(bad, NOW)
    assert (demo.path / "issued.jsonl").read_text() == before


@pytest.mark.parametrize(
    "weak",
    [
        pytest.param(request(rsa_key(1024).public_key()), id="rsa-1024"),
        pytest.param(request(rsa.RSAPublicNumbers(65537, 1 << 4103 | 1).public_key()), id="rsa-4104"),
        pytest.param(request(rsa.RSAPublicNumbers(3, 1 << 2047 | 1).public_key()), id="rsa-exponent-3"),
        pytest.param(request(P384.public_key()), id="platform-p-384"),
        pytest.param(request(attest=P384), id="attest-p-384"),
        pytest.param(request(attest=rsa_key()), id="attest-rsa"),
        pytest.param(request(ATTEST.public_key()), id="one-key-for-both"),
    ],
)
def test_issue_tre_refuses_a_weak_key(demo: CaDirectory, weak: dict[str, Any]) -> None:
    """REQ-20, REQ-21, REQ-45: the CA certifies nothing that the parties would have to refuse."""
    with pytest.raises(CaError):
        demo.issue_tre(weak, NOW)


@pytest.mark.parametrize("name", ["nobody", "../ca/tls.crt", ""])
def test_no_such_ca(demo: CaDirectory, name: str) -> None:
    """REQ-21: a CA that is not there is told, with what to do."""
    with pytest.raises(CaError) as caught:
        demo.authority(name)
    assert caught.value.hint


@pytest.mark.parametrize(
    "octets",
    [b"", b"[]", b"null", b"{", b"\xff", b'{"a":"' + b"x" * 20_000 + b'"}', b"[" * 9000, b'{"a":' * 3000],
    ids=["empty", "list", "null", "half", "no-text", "oversize", "deep-list", "deep-object"],
)
def test_request_file_that_is_none(tmp_path: Path, octets: bytes) -> None:
    """REQ-21: unreadable, too large, too deep or no object."""
    path = tmp_path / "request.json"
    path.write_bytes(octets)
    with pytest.raises(CaError):
        read_request(path)
    with pytest.raises(CaError):
        read_request(tmp_path / "missing.json")


# The command line


RUNNER = CliRunner()


def m2m_ca(*arguments: object) -> Any:
    return RUNNER.invoke(cli.app, [str(each) for each in arguments])


def ok(*arguments: object) -> str:
    result = m2m_ca(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_now", lambda: NOW)


def test_an_init_that_was_cut_short_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """REQ-43: there are all CAs or none, and what a cut left does not hinder the next one."""
    ca, replace = CaDirectory(tmp_path / "pki"), os.replace

    def cut(source: Path, target: Path) -> None:
        if Path(target).name == "ca":
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr("m2m_ca.directory.os.replace", cut)
        with pytest.raises(KeyboardInterrupt):
            ca.init(NOW)
    with pytest.raises(CaError, match="no tls CA"):
        ca.listing(revoked_only=False)
    ca.init(NOW)
    assert len(ca.listing(revoked_only=False)) == 2
    assert {each.name for each in ca.path.iterdir()} == {"anchors", "ca", "issued.jsonl"}
    ca.issue_signing(Role.SHO, SHO_ID, tmp_path / "sho", NOW)
    signing = load_pem_chain((tmp_path / "sho" / "signing.crt").read_bytes())
    validate(signing[0], signing[1:], anchors(ca, "sho"), Role.SHO, NOW, identity=SHO_ID)


@pytest.mark.usefixtures("clock")
def test_what_was_made_is_shown(tmp_path: Path) -> None:
    """REQ-21: files, serial number and end of each certificate; the serial number is that to revoke by."""
    pki = tmp_path / "pki"
    assert json.loads(ok("init", pki, "--json")) == {"directory": str(pki), "anchors": str(pki / "anchors")}
    shown = json.loads(ok("issue", "tls", pki, "--host", "a.example", "--out", tmp_path / "tls", "--json"))
    leaf = load_pem_chain(Path(shown["certificate"]).read_bytes())[0]
    assert (shown["serial"], mode(Path(shown["key"]))) == (f"{leaf.serial_number:x}", 0o600)
    assert shown["notAfter"] == leaf.not_valid_after_utc.isoformat()
    revoked = json.loads(ok("revoke", pki, "--ca", "tls", "--serial", shown["serial"], "--json"))
    assert revoked == {"serial": shown["serial"], "state": "revoked"}
    assert json.loads(ok("crl", pki, "--json")) == dict.fromkeys(CAS, 1)


@pytest.mark.usefixtures("clock")
def test_command_line(tmp_path: Path) -> None:
    """REQ-21: production from the shell: CAs, operators, a device, a revocation list."""
    pki = tmp_path / "pki"
    ok("init", pki)
    ok("issue", "sho", pki, "--identity", SHO_ID, "--out", tmp_path / "sho")
    ok("issue", "pva", pki, "--identity", PVA_ID, "--out", tmp_path / "pva")
    ok("issue", "dpf", pki, "--identity", DPF_ID, "--out", tmp_path / "dpf")
    ok("issue", "tls", pki, "--host", "localhost", "--host", "::1", "--out", tmp_path / "dpf")
    (tmp_path / "request.json").write_text(json.dumps(request()))
    ok("issue", "tre", pki, tmp_path / "request.json", "--out", tmp_path / "tre")
    assert files(tmp_path / "dpf") == {"signing.key", "signing.crt", "tls.key", "tls.crt"}
    assert files(tmp_path / "tre") == {"platform.crt", "attest.crt", "chain.pem"}
    tre, ca = tmp_path / "tre", CaDirectory(pki)
    leaf = load_pem_chain((tre / "platform.crt").read_bytes())[0]
    chain = load_pem_chain((tre / "chain.pem").read_bytes())
    validate(leaf, chain, anchors(ca, "manufacturer"), Role.PLATFORM, NOW, identity=TRE_ID)
    for actor, role, purpose in (("sho", Role.SHO, "sho"), ("pva", Role.PVA, "pva"), ("dpf", Role.DPF, "sho")):
        signing = load_pem_chain((tmp_path / actor / "signing.crt").read_bytes())
        validate(signing[0], signing[1:], anchors(ca, purpose), role, NOW)
    ok("issue", "supplier", pki, "--identity", "urn:m2m:supplier:1", "--out", tmp_path / "supplier")
    signing = load_pem_chain((tmp_path / "supplier" / "signing.crt").read_bytes())
    validate(signing[0], signing[1:], anchors(ca, "manufacturer"), Role.SUPPLIER, NOW, identity="urn:m2m:supplier:1")
    ok("revoke", pki, "--ca", "manufacturer", "--serial", f"{leaf.serial_number:x}")
    ok("crl", pki)
    crl = x509.load_der_x509_crl((pki / "crl" / "manufacturer.crl").read_bytes())
    assert crl.get_revoked_certificate_by_serial_number(leaf.serial_number) is not None
    assert mode(pki / "crl" / "manufacturer.crl") == 0o644


def test_command_line_demo_pki(tmp_path: Path) -> None:
    """REQ-43: the demo's PKI by one command, by today's clock, with further hosts."""
    ok("demo-pki", tmp_path / "pki", "--host", "10.0.0.1", "--host", "localhost")
    assert files(tmp_path / "pki") == DEMO_FILES
    leaf = load_pem_chain((tmp_path / "pki/dpf/tls.crt").read_bytes())[0]
    san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(each) for each in san.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "10.0.0.1"]
    assert leaf.not_valid_before_utc < datetime.now(UTC) < leaf.not_valid_after_utc


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("init", "{demo}"), id="init-twice"),
        pytest.param(("demo-pki", "{demo}"), id="demo-pki-twice"),
        pytest.param(("issue", "sho", "{tmp}/none", "--identity", SHO_ID, "--out", "{tmp}/out"), id="no-ca"),
        pytest.param(("issue", "sho", "{demo}", "--identity", "\u00e9", "--out", "{tmp}/out"), id="sho-no-ascii"),
        pytest.param(("issue", "tls", "{demo}", "--host", "\u00e9", "--out", "{tmp}/out"), id="host-no-ascii"),
        pytest.param(("issue", "tre", "{demo}", "{tmp}/none.json", "--out", "{tmp}/out"), id="no-request"),
        pytest.param(("revoke", "{demo}", "--ca", "manufacturer", "--serial", "xyz"), id="serial-no-hex"),
        pytest.param(("revoke", "{demo}", "--ca", "manufacturer", "--serial", "0"), id="serial-zero"),
        pytest.param(("revoke", "{demo}", "--ca", "manufacturer", "--serial", "-1"), id="serial-negative"),
        pytest.param(("revoke", "{demo}", "--ca", "manufacturer", "--serial", "abc"), id="serial-not-issued"),
        pytest.param(("revoke", "{demo}", "--ca", "nobody", "--serial", "1"), id="unknown-ca"),
        pytest.param(("revoke", "{demo}", "--ca", "manufacturer"), id="no-serial"),
        pytest.param(("revoke", "{demo}", "--serial", "1"), id="no-ca"),
        pytest.param(("revoke", "{demo}"), id="nothing-to-revoke"),
        pytest.param(("revoke", "{demo}", "--certificate", "{tmp}/none.crt"), id="no-certificate"),
        pytest.param(("crl", "{tmp}/none"), id="lists-of-no-ca"),
        pytest.param(("publish", "{tmp}/none"), id="publish-no-ca"),
        pytest.param(("publish", "{demo}", "--listen", "nowhere"), id="publish-no-address"),
        pytest.param(("init", "{tmp}/out", "--crl-url", "ftp://ca.example/"), id="crl-url-no-http"),
        pytest.param(("init", "{tmp}/out", "--crl-url", "http://a b/"), id="crl-url-with-space"),
        pytest.param(("init", "{tmp}/out", "--crl-url", "http://"), id="crl-url-no-host"),
        pytest.param(("init", "{tmp}/out", "--crl-url", "http://a:x/"), id="crl-url-no-port"),
        pytest.param(("init", "/dev/null/out"), id="init-no-directory"),
        pytest.param(("demo-pki", "{tmp}/out", "--host", "a b"), id="demo-pki-no-host"),
        pytest.param(("issue", "sho", "{demo}", "--identity", "a b.example", "--out", "{tmp}/out"), id="sho-no-fqdn"),
        pytest.param(("issue", "dpf", "{demo}", "--identity", "dpf", "--out", "{tmp}/out"), id="dpf-no-fqdn"),
        pytest.param(("issue", "pva", "{demo}", "--identity", "no uri", "--out", "{tmp}/out"), id="pva-no-uri"),
        pytest.param(("issue", "tls", "{demo}", "--host", "", "--out", "{tmp}/out"), id="host-empty"),
        pytest.param(("issue", "tls", "{demo}", "--host", "a..b", "--out", "{tmp}/out"), id="host-empty-label"),
        pytest.param(("issue", "tls", "{demo}", "--host", "a.example", "--out", "/dev/null"), id="out-no-directory"),
        pytest.param(("list", "{tmp}/none"), id="list-no-ca"),
        pytest.param(("revoke", "{tmp}/none", "--certificate", "{demo}/dpf/tls.crt"), id="revoke-no-ca"),
    ],
)
def test_command_line_refusals(
    demo: CaDirectory,
    tmp_path: Path,
    arguments: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """REQ-21: what a person can put right ends with exit status 1 and a line, not a traceback, and writes nothing."""
    filled = [each.format(demo=demo.path, tmp=tmp_path) for each in arguments]
    monkeypatch.setattr("sys.argv", ["m2m-ca", *filled])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "out").exists()
