"""Attacks on platform validation: by the platform, on the way, and by a DPF that lies (T4, T6, T8, T9, T16, T17)."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import uuid
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from actor_runtime.http import PartnerRefused, to_base64
from mcim.certificates import Role, TrustAnchors
from mcim.errors import StatementInvalid
from mcim.measurement_log import Measurement, encode_log
from mcim.ticket import issue_ticket, verify_ticket
from mcim.vocabulary import ValidationMode
from tests.support_operators import DPF_ID, PVA_ID, SHO_ID, Ca, Device, Pki, calling, der, ec_key
from tests.support_validation import (
    LOG,
    OTHER_DPF,
    REFERENCES,
    SoftTpm,
    Validation,
    digest_of,
    last_decision,
    pva_settings,
    read_ticket,
    refused,
    running_pva,
)

AUTONOMOUS, SEMI, REMOTE = ValidationMode.AUTONOMOUS, ValidationMode.SEMI_AUTONOMOUS, ValidationMode.REMOTE


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def device(pki):
    return Device(pki)


@pytest.fixture(scope="module")
def other_device(pki):
    return Device(pki, platform_key=ec_key(), m2me_id="urn:imei:004999010640001", tre_id="urn:m2m:tre:0002")


@pytest.fixture
async def service(pki, tmp_path):
    async with running_pva(pva_settings(pki, tmp_path), pki) as parts:
        yield parts


# --- evidence ---------------------------------------------------------------------------------------------------------


async def test_replayed_evidence(service, device):
    """T6, T17, REQ-18: evidence that was good once is good for its own challenge alone, and for one decision."""
    _, dpf, _ = service
    first = await Validation(device).ask(dpf)
    evidence = to_base64(first.evidence())
    assert await first.validate(dpf, evidence=evidence)
    again = await Validation(device).ask(dpf)
    assert await refused(again.validate(dpf, evidence=evidence)) == "evidence-challenge"
    replay = first.body(evidence=evidence) | {"reqId": str(again.req_id)}
    assert await refused(dpf.post("/v1/validate", replay)) == "challenge-known-and-unused"


async def test_the_challenge_of_a_failed_try_is_gone(service, device):
    """REQ-18: nobody tries evidence after evidence on one challenge."""
    _, dpf, _ = service
    validation = await Validation(device).ask(dpf)
    assert await refused(validation.validate(dpf, evidence=to_base64(os.urandom(200)))) == "evidence-signature"
    assert await refused(validation.validate(dpf)) == "challenge-known-and-unused"


OF_SOMETHING_ELSE = {
    "another TRE": ({"tre_id": "urn:m2m:tre:0002"}, "evidence-identities"),
    "another M2ME": ({"m2me_id": "urn:imei:004999010640001"}, "evidence-identities"),
    "another request": ({"req_id": uuid.UUID(int=5)}, "evidence-request"),
    "another nonce": ({"nonce": bytes(32)}, "evidence-nonce"),
    "another challenge": ({"challenge": bytes(32)}, "evidence-challenge"),
    "another PK_D": ({"platform_key_id": bytes(16)}, "evidence-platform-key"),
    "another mode": ({"mode": REMOTE}, "evidence-mode"),
    "a tampered TRE": ({"tre_state": "tampered"}, "tre-state"),
}


@pytest.mark.parametrize("quoted", [False, True], ids=["signed", "quoted"])
@pytest.mark.parametrize(("changes", "reason"), OF_SOMETHING_ELSE.values(), ids=OF_SOMETHING_ELSE)
async def test_true_evidence_of_something_else(service, device, quoted, changes, reason):
    """T4, T6, REQ-18: whatever the TRE signed, it must be about this TRE, request, nonce, challenge, key and mode."""
    _, dpf, _ = service
    known = REFERENCES["tpm-semi" if quoted else "semi"]
    validation = await Validation(device, known, tpm=SoftTpm() if quoted else None).ask(dpf)
    assert await refused(validation.validate(dpf, evidence=to_base64(validation.evidence(**changes)))) == reason


async def test_one_key_for_both_purposes(service, pki):
    """REQ-45: a key that decrypts and attests is good for neither, though each certificate is right by itself."""
    _, dpf, _ = service
    one = Device(pki, platform_key=ec_key())
    one.attest_key = one.platform_key
    one.attest_cert = pki.manufacturer.issue_role(one.attest_key, Role.ATTEST, one.tre_id, serial=one.m2me_id)
    validation = await Validation(one).ask(dpf)
    assert await refused(validation.validate(dpf)) == "two-keys-for-two-purposes"


async def test_a_good_sister_attests_for_a_bad_one(service, device, other_device):
    """T4, T6, REQ-18: evidence of a healthy device, sent with the certificates of another; and the other way round."""
    _, dpf, _ = service
    validation = await Validation(device).ask(dpf)
    sister = Validation(other_device)
    sister.req_id, sister.nonce, sister.challenge = validation.req_id, validation.nonce, validation.challenge
    assert await refused(validation.validate(dpf, evidence=to_base64(sister.evidence()))) == "evidence-signature"
    validation = await Validation(device).ask(dpf)
    sister.challenge = validation.challenge
    mixed = validation.body(
        attestCert=der(other_device.attest_cert), evidence=to_base64(sister.evidence(tre_id=device.tre_id))
    )
    assert await refused(dpf.post("/v1/validate", mixed)) == "attest-certificate"


@pytest.mark.parametrize("quoted", [False, True], ids=["signed", "quoted"])
@pytest.mark.parametrize("position", [0, 14, 30, 90, 200, -65, -64, -33, -32, -1])
async def test_forged_evidence(service, device, quoted, position):
    """T6, REQ-18: one bit anywhere."""
    _, dpf, _ = service
    known = REFERENCES["tpm-semi" if quoted else "semi"]
    validation = await Validation(device, known, tpm=SoftTpm() if quoted else None).ask(dpf)
    octets = bytearray(validation.evidence())
    octets[position] ^= 1
    assert await refused(validation.validate(dpf, evidence=to_base64(octets))) == "evidence-signature"


async def test_stale_challenge(service, device):
    """T17, REQ-18: a challenge that ran out, and one more second would have done."""
    pva, dpf, _ = service
    validation = await Validation(device).ask(dpf)
    pva.now.ahead = timedelta(seconds=301)
    assert await refused(validation.validate(dpf)) == "challenge-fresh"


async def test_challenge_of_another_dpf(service, pki, device):
    """REQ-18: a challenge serves the DPF it was given to."""
    _, dpf, url = service
    validation = await Validation(device).ask(dpf)
    async with calling(url, pki.client(OTHER_DPF)) as thief:
        assert await refused(validation.validate(thief)) == "challenge-binding"


# --- the log ----------------------------------------------------------------------------------------------------------

EDITS = {
    "edited": (LOG[0], Measurement(11, "kernel", digest_of("other")), *LOG[2:]),
    "the bad entry taken out": LOG[:-1],
    "reordered": (LOG[1], LOG[0], *LOG[2:]),
    "an entry twice": (*LOG, LOG[-1]),
    "in another register": (Measurement(12, LOG[0].name, LOG[0].digest), *LOG[1:]),
    "empty": (),
}


@pytest.mark.parametrize("quoted", [False, True], ids=["digest", "quote"])
@pytest.mark.parametrize("log", EDITS.values(), ids=EDITS)
async def test_log_changed_on_the_way(service, device, quoted, log):
    """T6, T9, REQ-18: the evidence binds the log; a clean log beside the evidence of a dirty platform helps nobody."""
    _, dpf, _ = service
    tpm, known = (SoftTpm(), REFERENCES["tpm"]) if quoted else (None, REFERENCES["remote"])
    validation = await Validation(device, known, mode=REMOTE, tpm=tpm, log=LOG).ask(dpf)
    assert await refused(validation.validate(dpf, log=to_base64(encode_log(log)))) == (
        "log-replay" if quoted else "log-digest"
    )


@pytest.mark.parametrize("octets", [b"", b"M2M-MLOG/1\0\x00", encode_log(LOG)[:-1], os.urandom(300)])
async def test_log_that_is_none(service, device, octets):
    """REQ-18: any octets are a log or a refusal."""
    _, dpf, _ = service
    validation = await Validation(device, REFERENCES["remote"], mode=REMOTE, log=LOG).ask(dpf)
    assert await refused(validation.validate(dpf, log=to_base64(octets))) == "measurement-log"


async def test_component_in_a_register_that_is_not_quoted(service, device):
    """T6, REQ-18: entries outside the quoted registers are nobody's word, so there may be none."""
    pva, dpf, _ = service
    hidden = Measurement(16, LOG[2].name, LOG[2].digest)
    log = (LOG[0], LOG[1], hidden, LOG[3])
    validation = await Validation(device, REFERENCES["tpm"], mode=REMOTE, tpm=SoftTpm(log), log=log).ask(dpf)
    assert await refused(validation.validate(dpf)) == "log-replay"
    assert "16" in str((await last_decision(pva))["detail"])


async def test_remote_evidence_that_binds_no_log(service, device):
    """REQ-18: a log that the TRE did not sign for is not evidence."""
    _, dpf, _ = service
    validation = await Validation(device, REFERENCES["remote"], mode=REMOTE, log=LOG).ask(dpf)
    assert (
        await refused(validation.validate(dpf, evidence=to_base64(validation.evidence(log_digest=b"")))) == "log-digest"
    )


async def test_quote_beside_the_digest_of_another_log(service, device):
    """REQ-18: where evidence has both, both must hold."""
    _, dpf, _ = service
    validation = await Validation(device, REFERENCES["tpm"], mode=REMOTE, tpm=SoftTpm(), log=LOG).ask(dpf)
    evidence = to_base64(validation.evidence(log_digest=bytes(32)))
    assert await refused(validation.validate(dpf, evidence=evidence)) == "log-digest"


# --- modes and types --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("known", "mode"), [("remote", SEMI), ("remote", AUTONOMOUS), ("semi", AUTONOMOUS)])
async def test_mode_talked_down(service, device, known, mode):
    """T16, REQ-17: what a type must show is the PVA's rule; the DPF asks in vain for less."""
    _, dpf, _ = service
    validation = Validation(device, REFERENCES[known], mode=mode)
    if mode is not AUTONOMOUS:
        await validation.ask(dpf)
    assert await refused(validation.validate(dpf)) == "mode-sufficient"


async def test_a_mode_that_this_pva_does_not_offer(pki, tmp_path, device):
    """T16: without a challenge there is no other door."""
    async with running_pva(pva_settings(pki, tmp_path, modes=frozenset({REMOTE})), pki) as (_, dpf, _):
        validation = Validation(device, REFERENCES["autonomous"], mode=AUTONOMOUS)
        assert await refused(validation.validate(dpf)) == "mode-offered"


@pytest.mark.parametrize(("known", "mode"), [("tpm", REMOTE), ("tpm-semi", SEMI)])
async def test_a_program_that_says_it_is_a_tpm(service, device, known, mode):
    """T6: signed evidence, all measurements right, and no quote."""
    _, dpf, _ = service
    validation = Validation(device, REFERENCES[known], mode=mode, log=LOG if mode is REMOTE else None)
    await validation.ask(dpf)
    assert await refused(validation.validate(dpf)) == "quote-present"


async def test_autonomous_with_the_type_of_something_better(service, device):
    """T6, T16: in autonomous mode the DPF tells the type; a type that must show a quote cannot be told."""
    _, dpf, _ = service
    for known in ("tpm", "tpm-semi"):
        validation = Validation(device, REFERENCES[known], mode=AUTONOMOUS)
        assert await refused(validation.validate(dpf)) == "mode-sufficient"
    validation = Validation(device, REFERENCES["autonomous"], mode=AUTONOMOUS)
    for facts in ({"treType": ""}, {"treVersion": "2"}, {"treType": "UICC"}):
        assert await refused(validation.validate(dpf, **facts)) == "reference-value"


async def test_the_dpf_tells_another_type_than_the_tre(service, device):
    """T16: what the TRE signed counts, and a DPF that says otherwise is found out."""
    _, dpf, _ = service
    validation = await Validation(device, dataclasses.replace(REFERENCES["semi"], version="0.9")).ask(dpf)
    assert await refused(validation.validate(dpf, treVersion="1.0")) == "evidence-tre-facts"
    validation = await Validation(device, dataclasses.replace(REFERENCES["semi"], version="0.9")).ask(dpf)
    assert await refused(validation.validate(dpf)) == "reference-value"


async def test_autonomous_request_with_evidence(service, device):
    """REQ-18: evidence nobody asked for is not looked at, and so not taken."""
    _, dpf, _ = service
    validation = Validation(device, REFERENCES["autonomous"], mode=AUTONOMOUS)
    for extra in ({"evidence": to_base64(b"x")}, {"challenge": to_base64(bytes(32))}):
        assert await refused(validation.validate(dpf, **extra)) == "no-evidence-without-challenge"


# --- tickets ----------------------------------------------------------------------------------------------------------


async def a_ticket(service, device) -> tuple[Validation, str]:
    _, dpf, _ = service
    validation = await Validation(device).ask(dpf)
    return validation, await validation.validate(dpf)


BINDINGS = {
    "another request": ({"req_id": str(uuid.UUID(int=9))}, "request"),
    "another nonce": ({"nonce": bytes(32)}, "nonce"),
    "another TRE": ({"tre_id": "urn:m2m:tre:0002"}, "TRE"),
    "PK_D swapped by the DPF": ({"platform_key_id": bytes(16)}, "platform key"),
    "another attestation key": ({"attest_key_id": bytes(16)}, "attestation key"),
    "mode talked down": ({"mode": REMOTE}, "mode"),
}


@pytest.mark.parametrize(("changes", "named"), BINDINGS.values(), ids=BINDINGS)
async def test_ticket_replayed_for_something_else(service, pki, device, changes, named):
    """T4, T8, T16, REQ-19, REQ-24: a true ticket speaks of one TRE, request, nonce, pair of keys and mode."""
    validation, token = await a_ticket(service, device)
    ticket = read_ticket(token, pki)
    right = {
        "tre_id": device.tre_id,
        "req_id": str(validation.req_id),
        "nonce": validation.nonce,
        "platform_key_id": device.platform_key_id,
        "attest_key_id": ticket.attest_key_id,
        "mode": SEMI,
    }
    ticket.check_binding(**right)
    with pytest.raises(StatementInvalid, match=named):
        ticket.check_binding(**(right | changes))


OTHER_WAYS = {
    "b64 as it is anyway": {"b64": True},
    "b64, critical": {"b64": True, "crit": ["b64"]},
    "unencoded payload": {"b64": False, "crit": ["b64"]},
    "an extension that nobody knows": {"crit": ["x-m2m"], "x-m2m": 1},
    "nothing that is critical": {"crit": []},
}


@pytest.mark.parametrize("header", OTHER_WAYS.values(), ids=OTHER_WAYS)
async def test_ticket_that_asks_to_be_read_in_another_way(service, pki, device, header):
    """T9, RFC 7515 §4.1.11, RFC 7797: whatever a library makes of `b64` and `crit`, a ticket has neither."""
    _, token = await a_ticket(service, device)
    claims, own = jwt.decode(token, options={"verify_signature": False}), jwt.get_unverified_header(token)
    assert read_ticket(signed(pki.pva_key, claims, own), pki)
    with pytest.raises(StatementInvalid):
        read_ticket(signed(pki.pva_key, claims, own | header), pki)


def signed(key, claims, header):
    """A JWS with that header, which no library would make."""

    def part(octets: bytes) -> bytes:
        return base64.urlsafe_b64encode(octets).rstrip(b"=")

    octets = part(json.dumps(header).encode()) + b"." + part(json.dumps(claims).encode())
    r, s = decode_dss_signature(key.sign(octets, ec.ECDSA(hashes.SHA256())))
    return (octets + b"." + part(r.to_bytes(32, "big") + s.to_bytes(32, "big"))).decode()


async def test_ticket_for_another_audience(service, pki, device):
    """REQ-19: a ticket for one home operator and DPF is nothing to others."""
    _, token = await a_ticket(service, device)
    for audience in (DPF_ID, SHO_ID):
        assert read_ticket(token, pki, audience).audience == (DPF_ID, SHO_ID)
    for audience in ("sho2.example", "dpf2.example", "", "dpf"):
        with pytest.raises(StatementInvalid, match="audience"):
            read_ticket(token, pki, audience)


async def test_old_ticket(service, pki, device):
    """T17, REQ-22: after its hour, and from before its time."""
    _, token = await a_ticket(service, device)
    now = datetime.now(UTC)
    for moment in (now + timedelta(minutes=61), now - timedelta(minutes=2)):
        with pytest.raises(StatementInvalid, match="expired"):
            read_ticket(token, pki, now=moment)


async def test_tickets_of_two_pvas(service, pki, device):
    """REQ-19, REQ-43: another PVA below the same root is not the configured one; one of another root is none."""
    validation, token = await a_ticket(service, device)
    ticket = read_ticket(token, pki)
    key = ec_key()
    second = pki.pva.issue_role(key, Role.PVA, "urn:m2m:pva:second")
    for issuer in ("urn:m2m:pva:second", PVA_ID):
        with pytest.raises(StatementInvalid):
            read_ticket(issue_ticket(dataclasses.replace(ticket, issuer=issuer), key, [second]), pki)
    anchors = TrustAnchors((pki.pva.certificate,), "pva")
    borrowed = issue_ticket(ticket, key, [second])  # says it is the first one's, where any PVA below the root will do
    with pytest.raises(StatementInvalid, match="of its signer"):
        verify_ticket(borrowed, anchors, datetime.now(UTC), audience=DPF_ID)
    rogue = Ca.make("PVA").issue_role(key, Role.PVA, PVA_ID)
    with pytest.raises(StatementInvalid, match="certificate"):
        read_ticket(issue_ticket(ticket, key, [rogue]), pki)
    with pytest.raises(StatementInvalid, match="signature"):  # the true certificate, another key
        read_ticket(issue_ticket(ticket, key, [pki.pva_cert]), pki)
    assert validation.req_id


@pytest.mark.parametrize("claim", ["capabilities", "pkdKid", "treType", "mode", "exp", "aud", "reqId"])
async def test_edited_ticket(service, pki, device, claim):
    """T16, REQ-19: what the TRE attested to offer goes through the DPF inside the PVA's signature."""
    _, token = await a_ticket(service, device)
    head, payload, signature = token.split(".")
    claims = jwt.decode(token, options={"verify_signature": False})
    claims[claim] = {"exp": claims["exp"] + 60, "aud": [*claims["aud"], "x"]}.get(claim, "00" * 16)
    forged = jwt.encode(claims, None, algorithm="none").split(".")[1]
    assert forged != payload
    with pytest.raises(StatementInvalid):
        read_ticket(f"{head}.{forged}.{signature}", pki)


async def test_only_a_dpf_on_the_list_may_ask(service, pki, device):
    """REQ-24: the certificate of a partner that is no DPF opens no validation."""
    _, dpf, url = service
    validation = await Validation(device).ask(dpf)
    async with calling(url, pki.client(SHO_ID)) as operator:
        with pytest.raises(PartnerRefused) as caught:
            await validation.validate(operator)
        assert caught.value.code == "client-not-allowed"
