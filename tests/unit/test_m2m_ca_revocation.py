"""The CA tool revokes, makes lists and changes the keys of a TRE (REQ-21)."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from typer.testing import CliRunner

from m2m_ca import cli
from m2m_ca.directory import CAS, CaDirectory, CaError
from m2m_ca.files import append_line
from m2m_ca.records import RevocationReason
from m2m_ca.revocation_lists import list_path, make_list, make_lists, read_list, refresh_list
from mcim.certificates import Role, TrustAnchors, load_pem_chain, validate
from mcim.errors import CertificateRefused
from mcim.statements import raw_signature
from tests.support_pki import DPF_ID, M2ME_ID, NOW, PVA_ID, SHO_ID, TRE_ID

URL = "http://ca.example:8080/crl"
RUNNER = CliRunner()
DAY = timedelta(days=1)


def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def pem(made: Any) -> str:
    return made.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def request(
    attest: ec.EllipticCurvePrivateKey,
    old: ec.EllipticCurvePrivateKey | None = None,
    *,
    old_prover: ec.EllipticCurvePrivateKey | None = None,
    prover: ec.EllipticCurvePrivateKey | None = None,
    name_old: bool = True,
    **members: str,
) -> dict[str, str]:
    """A TRE's request; with `old` one to change its keys."""
    body = {"m2meId": M2ME_ID, "treId": TRE_ID, "platformKey": pem(key()), "attestKey": pem(attest)} | members
    octets = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    proofs = {"proof": raw_signature(prover or attest, octets)}
    if old is not None:
        proofs["oldProof"] = raw_signature(old_prover or old, octets)
    named = {} if old is None or not name_old else {"oldAttestKey": pem(old)}
    return body | named | {name: base64.b64encode(proof).decode() for name, proof in proofs.items()}


@pytest.fixture
def ca(tmp_path: Path) -> CaDirectory:
    made = CaDirectory(tmp_path / "pki")
    made.demo_pki(hosts=["localhost"], sho_id=SHO_ID, dpf_id=DPF_ID, pva_id=PVA_ID, now=NOW, crl_url=URL)
    return made


def run(*arguments: object, code: int = 0) -> str:
    result = RUNNER.invoke(cli.app, [str(each) for each in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def serials(ca: CaDirectory, name: str) -> dict[int, str]:
    published = read_list(ca, name)
    assert published is not None
    return {each.serial_number: "".join(str(e.value.reason.value) for e in each.extensions) for each in published}


def sho_leaf(ca: CaDirectory) -> x509.Certificate:
    return load_pem_chain((ca.path / "sho" / "signing.crt").read_bytes())[0]


def anchors(ca: CaDirectory, purpose: str) -> TrustAnchors:
    return TrustAnchors(load_pem_chain((ca.path / "anchors" / f"{purpose}.pem").read_bytes()), purpose)


def test_lists_of_all_cas(ca: CaDirectory) -> None:
    """REQ-21: one list for each CA and root, numbered, signed, and good for whoever demands lists."""
    assert make_lists(ca, NOW) == dict.fromkeys(CAS, 1)
    lists = [read_list(ca, name) for name in CAS]
    for name, made in zip(CAS, lists, strict=True):
        assert made is not None
        assert made.is_signature_valid(ca.certificate(name).public_key())  # EC
        assert (made.last_update_utc, made.next_update_utc) == (NOW, NOW + 7 * DAY)
        assert made.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier is not None
    chain = load_pem_chain((ca.path / "sho" / "signing.crt").read_bytes())
    validate(chain[0], chain[1:], anchors(ca, "sho"), Role.SHO, NOW, crls=lists, require_crl=True)


def test_certificates_say_where_their_list_is(ca: CaDirectory) -> None:
    """Scheme: leaf and intermediate, each its own issuer's list, by the name under which it is published."""

    def url(certificate: x509.Certificate) -> str:
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
        return next(name.value for point in points for name in point.full_name or ())

    assert url(sho_leaf(ca)) == f"{URL}/operator.crl"
    assert url(ca.certificate("operator")) == f"{URL}/operator-root.crl"
    assert url(load_pem_chain((ca.path / "dpf" / "tls.crt").read_bytes())[0]) == f"{URL}/tls.crl"
    assert url(ca.issue_tre(request(key()), NOW).platform) == f"{URL}/manufacturer.crl"


def test_without_a_url_certificates_say_nothing(tmp_path: Path) -> None:
    """REQ-21: no address is made up; a directory without settings is one from before."""
    ca = CaDirectory(tmp_path / "pki")
    ca.init(NOW)
    for _ in range(2):
        leaf = ca.issue_tre(request(key()), NOW).platform
        with pytest.raises(x509.ExtensionNotFound):
            leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints)
        (ca.path / "ca" / "settings.json").unlink(missing_ok=True)


def test_revoked_by_serial_by_certificate_and_an_intermediate(ca: CaDirectory) -> None:
    """REQ-21: each on the list of its own issuer, with its reason, and only there."""
    leaf, pva = sho_leaf(ca), load_pem_chain((ca.path / "pva" / "signing.crt").read_bytes())[0]
    assert ca.revoke("operator", leaf.serial_number, RevocationReason.KEY_COMPROMISE, NOW)
    assert ca.revoke_certificate(pva, RevocationReason.UNSPECIFIED, NOW)
    assert ca.revoke_certificate(ca.certificate("manufacturer"), RevocationReason.CA_COMPROMISE, NOW)
    make_lists(ca, NOW)
    assert {name: serials(ca, name) for name in CAS} == {
        "tls": {},
        "operator": {leaf.serial_number: "keyCompromise"},
        "manufacturer": {},
        "pva": {pva.serial_number: ""},
        "operator-root": {},
        "manufacturer-root": {ca.certificate("manufacturer").serial_number: "cACompromise"},
    }
    issued = ca.issue_tre(request(key()), NOW)
    crls = [made for name in CAS if (made := read_list(ca, name)) is not None]
    with pytest.raises(CertificateRefused, match="revoked"):
        validate(issued.platform, issued.chain, anchors(ca, "manufacturer"), Role.PLATFORM, NOW, crls=crls)


def test_revoking_twice_keeps_the_first(ca: CaDirectory) -> None:
    """REQ-21: idempotent; a later word changes neither time nor reason."""
    serial = sho_leaf(ca).serial_number
    assert ca.revoke("operator", serial, RevocationReason.KEY_COMPROMISE, NOW)
    assert not ca.revoke("operator", serial, RevocationReason.SUPERSEDED, NOW + DAY)
    assert not ca.revoke_certificate(sho_leaf(ca), RevocationReason.SUPERSEDED, NOW + DAY)
    (noted,) = ca.records.revoked("operator")
    assert (noted.reason, noted.at) == (RevocationReason.KEY_COMPROMISE, NOW)
    assert len((ca.path / "revoked.jsonl").read_text().splitlines()) == 1


def test_what_no_ca_here_issued(ca: CaDirectory, tmp_path: Path) -> None:
    """REQ-21: a slip of the pen revokes nobody, and a certificate of a stranger of the same name is a stranger's."""
    other = CaDirectory(tmp_path / "other")
    other.init(NOW)
    stranger = other.issue_tre(request(key()), NOW).platform
    for call in (
        lambda: ca.revoke("operator", 5, RevocationReason.UNSPECIFIED, NOW),
        lambda: ca.revoke("manufacturer", sho_leaf(ca).serial_number, RevocationReason.UNSPECIFIED, NOW),
        lambda: ca.revoke("nobody", sho_leaf(ca).serial_number, RevocationReason.UNSPECIFIED, NOW),
        lambda: ca.revoke_certificate(stranger, RevocationReason.UNSPECIFIED, NOW),
    ):
        with pytest.raises(CaError):
            call()
    assert ca.records.revoked() == []


def test_numbers_rise_whatever_happens_to_the_files(ca: CaDirectory) -> None:
    """REQ-21, RFC 5280 §5.2.3: a lost list or a lost record of numbers does not bring a number back."""
    assert [make_list(ca, "pva", NOW) for _ in range(2)] == [1, 2]
    list_path(ca, "pva").unlink()
    assert make_list(ca, "pva", NOW) == 3
    (ca.path / "ca" / "crl-numbers.json").unlink()
    assert make_list(ca, "pva", NOW) == 4
    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(lambda _: make_list(ca, "pva", NOW), range(8)))
    assert sorted(numbers) == list(range(5, 13))
    (ca.path / "ca" / "crl-numbers.json").write_text("[1]")
    with pytest.raises(CaError, match="broken"):
        make_list(ca, "pva", NOW)


def test_what_a_crash_left_of_a_line(ca: CaDirectory) -> None:
    """REQ-21: half a line was never acknowledged; the next one is whole."""
    path = ca.path / "revoked.jsonl"
    path.write_bytes(b'{"ca": "operator", "ser')
    assert ca.records.revoked() == []
    assert ca.revoke_certificate(sho_leaf(ca), RevocationReason.UNSPECIFIED, NOW)
    assert [each.serial for each in ca.records.revoked()] == [sho_leaf(ca).serial_number]
    append_line(path, '{"ca": "operator"')
    assert len(ca.records.revoked()) == 1


@pytest.mark.parametrize(
    "line",
    [
        '{"ca": "operator", "serial": "xyz"}',
        '{"ca": "operator"}',
        '{"ca" "operator"}',
        '{"ca": "operator", "serial": "1"}',
        '{"ca": "operator", "serial": "1", "reason": "onHold", "at": "2026-01-01T00:00:00+00:00"}',
    ],
)
def test_a_revocation_does_not_vanish_without_a_word(ca: CaDirectory, line: str) -> None:
    """T17, REQ-21: no list is made from records of which a whole line is broken."""
    append_line(ca.path / "revoked.jsonl", line)
    with pytest.raises(CaError, match=r"revoked\.jsonl: (line 1|a line) is broken"):
        make_lists(ca, NOW)


def refresh_lists(ca: CaDirectory, now: datetime) -> list[str]:
    return [name for name in CAS if refresh_list(ca, name, now)]


def test_lists_are_made_anew_when_it_is_time(ca: CaDirectory) -> None:
    """REQ-21: missing, behind the revocations, or half used up; not otherwise."""
    assert refresh_lists(ca, NOW) == list(CAS)
    assert refresh_lists(ca, NOW + DAY) == []
    ca.revoke_certificate(sho_leaf(ca), RevocationReason.UNSPECIFIED, NOW + DAY)
    assert refresh_lists(ca, NOW + DAY) == ["operator"]
    assert refresh_lists(ca, NOW + 3.5 * DAY) == [name for name in CAS if name != "operator"]


def test_a_root_whose_key_is_kept_elsewhere(ca: CaDirectory) -> None:
    """REQ-21: its list stays; the others go on."""
    make_lists(ca, NOW)
    before = list_path(ca, "operator-root").read_bytes()
    (ca.path / "ca" / "operator-root.key").unlink()
    assert make_lists(ca, NOW + DAY) == {name: None if name == "operator-root" else 2 for name in CAS}
    assert list_path(ca, "operator-root").read_bytes() == before
    assert "operator-root" not in refresh_lists(ca, NOW + 300 * DAY)
    list_path(ca, "pva").write_bytes(b"spoilt")
    with pytest.raises(CaError):
        make_lists(ca, NOW)


# --- new keys of a TRE ------------------------------------------------------------------------------------------------


def test_new_keys_take_the_place_of_the_old(ca: CaDirectory, tmp_path: Path) -> None:
    """REQ-21: proved by both keys; new certificates are there before the old ones are revoked as superseded."""
    old, new = key(), key()
    first, other = ca.issue_tre(request(old), NOW), ca.issue_tre(request(key(), treId="urn:m2m:tre:0002"), NOW)
    (tmp_path / "r.json").write_text(json.dumps(request(new, old)))
    said = run("issue", "tre", ca.path, tmp_path / "r.json", "--out", tmp_path / "tre", "--json")
    gone = {first.platform.serial_number, first.attest.serial_number}
    assert json.loads(said)["revoked"] == [f"{serial:x}" for serial in sorted_as_noted(ca, gone)]
    make_lists(ca, NOW)
    assert serials(ca, "manufacturer") == dict.fromkeys(gone, "superseded")
    assert other.platform.serial_number not in gone
    chain = load_pem_chain((tmp_path / "tre" / "chain.pem").read_bytes())
    crls = [made for name in CAS if (made := read_list(ca, name)) is not None]
    for file, role in (("platform.crt", Role.PLATFORM), ("attest.crt", Role.ATTEST)):
        leaf = load_pem_chain((tmp_path / "tre" / file).read_bytes())[0]
        now = leaf.not_valid_before_utc + timedelta(minutes=6)
        assert validate(leaf, chain, anchors(ca, "manufacturer"), role, now, identity=TRE_ID).m2me_id == M2ME_ID
    assert crls
    ca.issue_tre(request(key(), new, name_old=False), NOW)  # and so on; a TRE need not say which key it had
    with pytest.raises(CaError, match="old attestation key"):
        ca.issue_tre(request(key(), old), NOW)


def sorted_as_noted(ca: CaDirectory, wanted: set[int]) -> list[int]:
    return [each.serial for each in ca.records.issued() if each.serial in wanted]


def test_old_certificates_can_be_kept(ca: CaDirectory, tmp_path: Path) -> None:
    """REQ-21: `--keep-old`, and a first request, revoke nobody."""
    old = key()
    ca.issue_tre(request(old), NOW)
    for number, (members, options) in enumerate(((request(key(), old), ("--keep-old",)), (request(key()), ()))):
        (tmp_path / "r.json").write_text(json.dumps(members))
        run("issue", "tre", ca.path, tmp_path / "r.json", "--out", tmp_path / f"tre{number}", *options)
    assert ca.records.revoked() == []


OLD, NEW, STRANGER = key(), key(), key()
BAD = {
    "old key of nobody": request(NEW, STRANGER),
    "old key of another TRE": request(NEW, OLD, treId="urn:m2m:tre:0002"),
    "old key of another M2ME": request(NEW, OLD, m2meId="urn:imei:004999010640001"),
    "not proved by the old key": request(NEW, OLD, old_prover=NEW),
    "not proved by the new key": request(NEW, OLD, prover=OLD),
    "old proof of another request": request(NEW, OLD) | {"oldProof": request(STRANGER, OLD)["oldProof"]},
    "old proof missing": {name: value for name, value in request(NEW, OLD).items() if name != "oldProof"},
    "old proof no Base64": request(NEW, OLD) | {"oldProof": "?"},
    "old key no key": request(NEW, OLD) | {"oldAttestKey": "x"},
    "of another request altogether": request(STRANGER)
    | {name: request(NEW, OLD)[name] for name in ("oldAttestKey", "oldProof")},
    "another key named than the one that proves": request(NEW, OLD) | {"oldAttestKey": pem(STRANGER)},
    "unnamed old key of another TRE": request(NEW, OLD, name_old=False, treId="urn:m2m:tre:0002"),
    "unnamed old key of nobody": request(NEW, STRANGER, name_old=False),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_new_keys_that_are_not_given(ca: CaDirectory, bad: dict[str, str]) -> None:
    """REQ-21: who does not hold the old key of that very TRE gets nothing, and revokes nothing."""
    ca.issue_tre(request(OLD), NOW)
    before = (ca.path / "issued.jsonl").read_text()
    with pytest.raises(CaError):
        ca.issue_tre(bad, NOW)
    assert (ca.path / "issued.jsonl").read_text() == before
    assert ca.records.revoked() == []


def test_an_old_key_that_is_good_no_more(ca: CaDirectory) -> None:
    """REQ-21: revoked or expired, it vouches for no successor."""
    issued = ca.issue_tre(request(OLD), NOW)
    with pytest.raises(CaError, match="old attestation key"):
        ca.issue_tre(request(NEW, OLD), NOW + timedelta(days=3651))
    ca.revoke_certificate(issued.attest, RevocationReason.KEY_COMPROMISE, NOW)
    with pytest.raises(CaError, match="old attestation key"):
        ca.issue_tre(request(NEW, OLD), NOW)


# --- the command line -------------------------------------------------------------------------------------------------


def test_command_line(ca: CaDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """REQ-21: revoke by either way, see it listed, make the lists."""
    monkeypatch.setattr(cli, "_now", lambda: NOW)
    leaf = sho_leaf(ca)
    by_serial = ("revoke", ca.path, "--ca", "operator", "--serial", f"{leaf.serial_number:x}")
    assert run(*by_serial, "--reason", "keyCompromise").endswith(": revoked\n")
    assert run("revoke", ca.path, "--certificate", ca.path / "sho" / "signing.crt").endswith("was revoked already\n")
    run(*by_serial, "--reason", "certificateHold", code=2)  # nothing is on hold here
    assert "operator: number 1" in run("crl", ca.path, "--days", "2")
    made = read_list(ca, "operator")
    assert made is not None
    assert made.next_update_utc == NOW + 2 * DAY
    (row,) = json.loads(run("list", ca.path, "--revoked", "--json"))
    assert (row["ca"], row["kind"], row["reason"]) == ("operator", "sho", "keyCompromise")
    rows = json.loads(run("list", ca.path, "--json"))
    assert sum(each["revoked"] is not None for each in rows) == 1
    assert {each["kind"] for each in rows} == {"ca", "tls", "sho", "pva"}
