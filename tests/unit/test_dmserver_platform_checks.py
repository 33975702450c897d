"""What a platform must show (REQ-12 to REQ-15, REQ-20, REQ-43 to REQ-46), and how M2MMobj becomes a snapshot."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dmserver.answers import Answers, NodeValue, node_key
from dmserver.platform_checks import Expectation, check_platform
from dmserver.snapshot import SnapshotIncomplete, read_chain, read_object, registration_over, take_snapshot
from mcim.authority import Authority
from mcim.certificates import Role, load_der
from mo_definitions import load
from syncml.model import Get
from tests.support_dpf_pki import M2ME_ID, NOW, SHO_ID, TRE_ID, pki
from tests.support_stub_device import StubDevice

ROOT = "./M2MMobj"


def answers_of(device: StubDevice, commands: tuple[object, ...]) -> Answers:
    codes: dict[str, int] = {}
    nodes: dict[str, NodeValue] = {}
    for command in commands:
        assert isinstance(command, Get)
        for result in device.execute(command):
            assert result.target is not None
            codes[node_key(result.target)] = result.code
            if result.item is not None and result.item.data is not None and result.item.meta is not None:
                nodes[node_key(result.target)] = NodeValue(
                    value=result.item.data, format=str(result.item.meta.format), type=result.item.meta.type
                )
    return Answers(codes=codes, nodes=nodes)


def snapshot_of(device: StubDevice):
    answers = answers_of(device, read_object(ROOT))
    return take_snapshot(ROOT, answers, answers_of(device, read_chain(ROOT, answers)))


def expectation(**changes) -> Expectation:
    values = {
        "device_id": M2ME_ID,
        "sho_id": SHO_ID,
        "former_requests": frozenset(),
        "manufacturers": pki().manufacturers,
        "crls": (),
        "ddf": load("M2MMobj"),
    }
    return Expectation(**(values | changes))


def verdict(device: StubDevice, **changes):
    return check_platform(snapshot_of(device), expectation(**changes), NOW)


def test_a_good_platform_passes_every_check():
    result = verdict(StubDevice())
    assert result.refusal == ""
    assert all(entry.passed for entry in result.entries)
    assert result.platform is not None
    assert result.platform.subject_id == TRE_ID


def certificate(**changes):
    return lambda: pki().platform_cert(**changes)


STRANGER = Authority.create_root("Manufacturer root", NOW - timedelta(days=60))
PLATFORM_CERTS = {
    "expired": (certificate(issued=NOW - timedelta(days=30), life=timedelta(days=29)), "expired"),
    "not valid yet": (certificate(issued=NOW + timedelta(days=1)), "not-yet-valid"),
    "another role's EKU": (certificate(role=Role.ATTEST), "wrong-usage"),
    "another TRE in the SAN": (certificate(tre_id="urn:m2m:tre:other"), "wrong-identity"),
    "unknown CA of the same name": (certificate(ca=STRANGER), "unknown-ca"),
    "a CA for another purpose": (certificate(ca=pki().pva_root), "unknown-ca"),
    "RSA-1024": (
        certificate(key=rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()),
        "weak-key",
    ),
    "P-384": (certificate(key=ec.generate_private_key(ec.SECP384R1()).public_key()), "weak-key"),
    "not a certificate": (lambda: b"\x30\x03\x02\x01\x00", "malformed"),
}


@pytest.mark.parametrize(("make", "reason"), PLATFORM_CERTS.values(), ids=PLATFORM_CERTS)
def test_req20_req46_unacceptable_platform_certificates(make, reason):
    device = StubDevice()
    device.put("M2MMobj/TRE/PlatformCert", make())
    result = verdict(device)
    assert result.refusal == f"platform-certificate ({reason})"
    assert result.platform is None


def test_req20_req21_a_revoked_platform_is_refused():
    device = StubDevice()
    snapshot = snapshot_of(device)
    serial = load_der(snapshot.platform_cert).serial_number
    crl = pki().manufacturer.make_crl([serial], NOW)
    assert verdict(device, crls=(crl,)).refusal == "platform-certificate (revoked)"


def test_req43_without_the_intermediate_there_is_no_path():
    device = StubDevice()
    del device.nodes["M2MMobj/TRE/CertChain/0"]
    assert "unknown-ca" in verdict(device).refusal


def test_req14_certificates_of_two_devices_do_not_go_together():
    device = StubDevice()
    device.put("M2MMobj/TRE/AttestCert", pki().attest_cert(m2me_id="urn:imei:other"))
    assert verdict(device).refusal == "certificates-name-this-m2me"


def test_req45_platform_and_attestation_key_must_differ():
    device = StubDevice()
    key = pki().attest_key.public_key()
    device.put("M2MMobj/TRE/PlatformCert", pki().platform_cert(key=key))
    assert verdict(device).refusal == "keys-differ"


def test_req14_tree_of_another_device():
    assert verdict(StubDevice(), device_id="urn:imei:other").refusal == "m2me-id-is-authenticated-identity"


def test_req15_a_closed_request_does_not_open_again():
    device = StubDevice()
    former = frozenset({str(device.value("Registration/ReqId"))})
    assert verdict(device, former_requests=former).refusal == "request-not-closed-earlier"


def test_req06_an_unknown_node_is_a_deviation():
    device = StubDevice()
    device.put("M2MMobj/TRE/Backdoor", "x")
    assert verdict(device).refusal.startswith("m2mmobj-conforms-to-ddf (TRE/Backdoor: unknown")


def test_req06_a_wrong_format_is_a_deviation():
    device = StubDevice()
    device.put("M2MMobj/TRE/Version", "1", "int")
    assert "TRE/Version: wrong-format" in verdict(device).refusal


REQUIRED = (
    *("M2MEId", "TRE/Id", "TRE/Type", "TRE/Version", "TRE/State", "TRE/Suites", "TRE/Containers", "TRE/Algorithms"),
    *("TRE/TrustAnchors", "TRE/PlatformCert", "TRE/AttestCert", "Registration/State", "Registration/ReqId"),
    *("Registration/Nonce", "Registration/Reason", "Registration/NextSequence"),
)


@pytest.mark.parametrize("path", REQUIRED)
def test_req12_every_required_leaf_is_required(path):
    device = StubDevice()
    del device.nodes[f"M2MMobj/{path}"]
    with pytest.raises(SnapshotIncomplete, match=path):
        snapshot_of(device)


UNUSABLE = {
    "ReqId is no UUID": ("Registration/ReqId", "../../x"),
    "nonce too short": ("Registration/Nonce", b"short"),
    "nonce too long": ("Registration/Nonce", b"n" * 65),
    "sequence is no number": ("Registration/NextSequence", "many"),
}


@pytest.mark.parametrize(("path", "value"), UNUSABLE.values(), ids=UNUSABLE)
def test_req12_unusable_values_count_as_missing(path, value):
    device = StubDevice()
    device.nodes[f"M2MMobj/{path}"].value = value
    with pytest.raises(SnapshotIncomplete, match=path):
        snapshot_of(device)


def test_optional_nodes_may_be_absent_and_chains_are_in_order():
    device = StubDevice()
    for path in ("PCID", "Registration/SHO"):
        del device.nodes[f"M2MMobj/{path}"]
    device.put("M2MMobj/TRE/CertChain/10", b"c")
    device.put("M2MMobj/TRE/CertChain/2", b"b")
    snapshot = snapshot_of(device)
    assert snapshot.sho_id is None
    assert snapshot.cert_chain == (pki().chain[0], b"b", b"c")


def test_the_record_of_a_snapshot_has_neither_nonce_nor_provisional_identity():
    device = StubDevice()
    document = snapshot_of(device).to_json()
    assert "001019876543210" not in document
    assert "nonce" not in document.lower()


@pytest.mark.parametrize(
    ("state", "expiry", "over"),
    [
        ("0", None, True),
        ("1", None, False),
        ("1", "2026-11-24T11:59:59Z", True),
        ("1", "2026-11-24T12:00:01Z", False),
        ("2", "2026-11-24T11:59:59Z", False),
        ("3", None, False),
        ("4", None, True),
        ("5", None, True),
    ],
)
def test_which_registrations_are_renewed(state, expiry, over):
    device = StubDevice()
    device.put("M2MMobj/Registration/State", state, "int")
    if expiry is not None:
        device.put("M2MMobj/Registration/NonceExpiry", expiry)
    assert registration_over(ROOT, answers_of(device, read_object(ROOT)), NOW) is over


def test_req25_a_nonce_that_ran_out_is_not_handed_over():
    """T3: a tree may show an open registration whose nonce is over."""
    snapshot = replace(snapshot_of(StubDevice()), nonce_expiry=NOW)
    assert check_platform(snapshot, expectation(), NOW).refusal == "registration-nonce-in-time"
    later = replace(snapshot, nonce_expiry=NOW + timedelta(seconds=1))
    assert check_platform(later, expectation(), NOW).refusal == ""
