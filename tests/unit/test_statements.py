"""Evidence, receipt and ticket: what was signed comes back, and nothing else is taken for it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from mcim import evidence as evidence_module
from mcim import receipt as receipt_module
from mcim import statements, tlv
from mcim.certificates import Role, TrustAnchors
from mcim.errors import InvalidArgument, StatementInvalid
from mcim.evidence import Evidence, sign_evidence, verify_evidence
from mcim.key_id import key_id_of
from mcim.receipt import Receipt, sign_receipt, verify_receipt
from mcim.statements import MAX_STATEMENT, SIGNATURE_LENGTH, raw_signature
from mcim.ticket import MAX_LIFETIME, MAX_TICKET, TYPE, Ticket, issue_ticket, ticket_digest, verify_ticket
from mcim.vocabulary import Operation, ResultCode, ValidationMode
from tests.support_pki import DPF_ID, M2ME_ID, NOW, OTHER_SHO_ID, PVA_ID, SHO_ID, TRE_ID, Signer, pki

PKI = pki()
PUBLIC = PKI.attest_key.public_key()
STRANGER = ec.generate_private_key(ec.SECP256R1())
SECOND = timedelta(seconds=1)


def attest(octets: bytes) -> bytes:
    return raw_signature(PKI.attest_key, octets)


EVIDENCE = Evidence(
    mode=ValidationMode.REMOTE,
    m2me_id=M2ME_ID,
    tre_id=TRE_ID,
    tre_type="software",
    tre_version="1.2",
    tre_state="ok",
    platform_key_id=key_id_of(PKI.platform_key.public_key()),
    challenge=b"c" * 32,
    nonce=b"n" * 32,
    req_id=UUID(int=1),
    counter=3,
)
RECEIPT = Receipt(
    tre_id=TRE_ID,
    operation=Operation.INSTALL,
    mcim_id=UUID(int=2),
    sho_id=SHO_ID,
    sequence=7,
    nonce=b"n" * 32,
    revision=1,
    package_hash=b"h" * 32,
    result=ResultCode.SUCCESS,
    counter=4,
    time=NOW,
)
TICKET = Ticket(
    issuer=PVA_ID,
    audience=(DPF_ID, SHO_ID),
    tre_id=TRE_ID,
    m2me_id=M2ME_ID,
    req_id=str(UUID(int=1)),
    nonce=b"n" * 32,
    platform_key_id=key_id_of(PKI.platform_key.public_key()),
    attest_key_id=key_id_of(PUBLIC),
    mode=ValidationMode.REMOTE,
    tre_type="software",
    tre_version="1.2",
    issued_at=NOW,
    expires_at=NOW + MAX_LIFETIME,
    ticket_id="t-1",
)

OTHER_EVIDENCE = replace(
    EVIDENCE,
    mode=ValidationMode.AUTONOMOUS,
    m2me_id="urn:imei:004999010640001",
    tre_id="urn:m2m:tre:0002",
    tre_type="uicc",
    tre_version="",
    tre_state="degraded",
    platform_key_id=b"k" * 16,
    challenge=b"",
    nonce=b"m" * 64,
    req_id=UUID(int=2**128 - 1),
    counter=2**63 - 1,
    capabilities=b"C" * 32,
    log_digest=b"L" * 32,
)
OTHER_RECEIPT = Receipt(
    tre_id="urn:m2m:tre:0002",
    operation=None,
    mcim_id=None,
    sho_id=None,
    sequence=None,
    nonce=None,
    revision=None,
    package_hash=b"g" * 32,
    result=ResultCode.SIGNATURE_INVALID,
    counter=0,
    time=None,
)


def one_by_one(base: Any, other: Any) -> list[Any]:
    """`base` with each field in turn taken from `other`, and both of them."""
    names = [field.name for field in fields(base) if field.name != "quote"]  # no claim: see test_tpm_quote.py
    assert all(getattr(base, name) != getattr(other, name) for name in names)
    changed = [
        pytest.param(replace(base, **{name: getattr(other, name)}), id=f"{type(base).__name__}-{name}")
        for name in names
    ]
    return [
        pytest.param(base, id=type(base).__name__),
        pytest.param(other, id=f"other-{type(base).__name__}"),
        *changed,
    ]


SIGN: dict[type, Callable[..., bytes]] = {Evidence: sign_evidence, Receipt: sign_receipt}
VERIFY: dict[type, Callable[..., Any]] = {Evidence: verify_evidence, Receipt: verify_receipt}
BOTH = pytest.mark.parametrize("statement", [EVIDENCE, RECEIPT, OTHER_RECEIPT], ids=["evidence", "receipt", "refusal"])


@pytest.mark.parametrize("statement", [*one_by_one(EVIDENCE, OTHER_EVIDENCE), *one_by_one(RECEIPT, OTHER_RECEIPT)])
def test_round_trip_and_each_field_is_bound(statement: Any) -> None:
    """REQ-67: every field comes back, and each of them is under the signature."""
    signed = SIGN[type(statement)](statement, attest)
    assert VERIFY[type(statement)](signed, PUBLIC) == statement
    base = EVIDENCE if isinstance(statement, Evidence) else RECEIPT
    if statement != base:
        body = signed[:-SIGNATURE_LENGTH]
        signature = SIGN[type(statement)](base, attest)[-SIGNATURE_LENGTH:]
        with pytest.raises(StatementInvalid):
            VERIFY[type(statement)](body + signature, PUBLIC)


@BOTH
def test_secrets_are_not_in_repr(statement: Any) -> None:
    """REQ-42: the nonce is no text for a log."""
    assert "nnnn" not in repr(statement)


def _sign_prefixed(prefix: bytes, statement: Any) -> bytes:
    body = SIGN[type(statement)](statement, attest)[:-SIGNATURE_LENGTH]
    changed = prefix + body[body.index(b"\0") + 1 :]
    return changed + attest(changed)


@BOTH
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda signed: b"", id="nothing"),
        pytest.param(lambda signed: signed[:-1], id="truncated"),
        pytest.param(lambda signed: signed + b"\0", id="trailing"),
        pytest.param(lambda signed: signed[:-SIGNATURE_LENGTH], id="unsigned"),
        pytest.param(lambda signed: signed[:-SIGNATURE_LENGTH] + bytes(SIGNATURE_LENGTH), id="zero-signature"),
        pytest.param(lambda signed: signed[:-SIGNATURE_LENGTH] + b"\xff" * SIGNATURE_LENGTH, id="signature-of-ones"),
        pytest.param(lambda signed: signed[:-SIGNATURE_LENGTH] + signed[-32:] + signed[-64:-32], id="s-and-r"),
        pytest.param(lambda signed: signed[-SIGNATURE_LENGTH:], id="signature-only"),
        pytest.param(lambda signed: signed + bytes(MAX_STATEMENT), id="oversize"),
        pytest.param(lambda signed: b"M2M-XXXX/1\0" + signed[11:], id="another-prefix"),
        pytest.param(lambda signed: signed[11:], id="no-prefix"),
    ],
)
def test_spoiled(statement: Any, spoil: Callable[[bytes], bytes]) -> None:
    """REQ-67: what is not exactly a signed statement is none."""
    with pytest.raises(StatementInvalid):
        VERIFY[type(statement)](spoil(SIGN[type(statement)](statement, attest)), PUBLIC)


@BOTH
def test_wrong_key(statement: Any) -> None:
    """REQ-67: only the attestation key expected."""
    signed = SIGN[type(statement)](statement, attest)
    with pytest.raises(StatementInvalid):
        VERIFY[type(statement)](signed, STRANGER.public_key())


@BOTH
@pytest.mark.parametrize("prefix", [b"M2M-EVID/2\0", b"M2M-RCPT/2\0", b"m2m-evid/1\0", b"", b"\0"])
def test_wrong_prefix_rightly_signed(statement: Any, prefix: bytes) -> None:
    """REQ-45: the prefix separates what one key signs, whatever the TRE could be brought to sign."""
    with pytest.raises(StatementInvalid):
        VERIFY[type(statement)](_sign_prefixed(prefix, statement), PUBLIC)


def test_swapped_kinds() -> None:
    """REQ-45, REQ-67: evidence is no receipt, a receipt no evidence."""
    assert evidence_module.PREFIX != receipt_module.PREFIX
    with pytest.raises(StatementInvalid):
        verify_receipt(sign_evidence(EVIDENCE, attest), PUBLIC)
    with pytest.raises(StatementInvalid):
        verify_evidence(sign_receipt(RECEIPT, attest), PUBLIC)
    with pytest.raises(StatementInvalid):
        verify_evidence(_sign_prefixed(evidence_module.PREFIX, RECEIPT), PUBLIC)


def _fields(prefix: bytes, signed: bytes) -> dict[int, bytes]:
    return dict(tlv.decode(signed[len(prefix) : -SIGNATURE_LENGTH]))


@pytest.mark.parametrize(
    ("kind", "value"),
    [(kind, None) for kind in range(1, 12)]
    + [
        (1, b"trusted"),
        (1, b"\xff"),
        (2, b"\xc3\xa9"),
        (3, b"a\nb"),
        (6, b"\0"),
        (10, b"\0" * 15),
        (10, b""),
        (11, b""),
        (11, b"\1" * 9),
        (11, b"\x80" + bytes(7)),
    ],
)
def test_evidence_with_a_field_missing_or_broken(kind: int, value: bytes | None) -> None:
    """REQ-67: a rightly signed statement with a hole in it is none."""
    all_fields = _fields(evidence_module.PREFIX, sign_evidence(EVIDENCE, attest))
    if value is None:
        del all_fields[kind]
    else:
        all_fields[kind] = value
    with pytest.raises(StatementInvalid):
        verify_evidence(statements.sign(evidence_module.PREFIX, list(all_fields.items()), attest), PUBLIC)


@pytest.mark.parametrize(
    ("kind", "value"),
    [(kind, None) for kind in (1, 8, 9, 10)]
    + [
        (1, b"\xff"),
        (2, b""),
        (2, b"\0"),
        (2, b"\x63"),
        (2, b"\1\0"),
        (3, b"\0" * 17),
        (5, b"\1"),
        (5, b"\1" + bytes(8)),
        (7, b"\1"),
        (9, b"\0" + ResultCode.SUCCESS.to_bytes(2, "big")),
        (10, b""),
        (10, b"\1" * 9),
        (10, b"\x80" + bytes(7)),
        (4, b"a\tb"),
        (9, b"\0\1"),
        (11, b"\xff" * 8),
        (11, b"\xff" * 4000),
    ],
)
def test_receipt_with_a_field_missing_or_broken(kind: int, value: bytes | None) -> None:
    """REQ-67: a receipt without TRE, package, result or counter reports nothing."""
    all_fields = _fields(receipt_module.PREFIX, sign_receipt(RECEIPT, attest))
    if value is None:
        del all_fields[kind]
    else:
        all_fields[kind] = value
    with pytest.raises(StatementInvalid):
        verify_receipt(statements.sign(receipt_module.PREFIX, list(all_fields.items()), attest), PUBLIC)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\0\2\0\0\0\1\0\0", id="descending"),
        pytest.param(b"\0\1\0\0\0\1\0\0", id="twice"),
        pytest.param(b"\0\1\0\5a", id="over-the-end"),
        pytest.param(b"\0\1\0", id="half-a-length"),
    ],
)
def test_fields_that_are_no_list(body: bytes) -> None:
    """REQ-67: one encoding for one content."""
    octets = evidence_module.PREFIX + body
    with pytest.raises(StatementInvalid):
        verify_evidence(octets + attest(octets), PUBLIC)


@given(st.binary(max_size=300), st.sampled_from([b"", evidence_module.PREFIX, receipt_module.PREFIX]))
def test_any_octets(octets: bytes, prefix: bytes) -> None:
    """REQ-67: arbitrary octets end in the one exception."""
    for verify in VERIFY.values():
        with pytest.raises(StatementInvalid):
            verify(prefix + octets, PUBLIC)


@given(st.binary(max_size=200), st.sampled_from([Evidence, Receipt]))
def test_any_octets_rightly_signed(octets: bytes, kind: type) -> None:
    """REQ-67: not even the device's own key makes octets raise anything else."""
    body = {Evidence: evidence_module.PREFIX, Receipt: receipt_module.PREFIX}[kind] + octets
    with pytest.raises(StatementInvalid):
        VERIFY[kind](body + attest(body), PUBLIC)


def _any_bit(statement: Any) -> None:
    signed = SIGN[type(statement)](statement, attest)
    for position in range(len(signed)):
        octets = bytearray(signed)
        octets[position] ^= 1 << position % 8
        with pytest.raises(StatementInvalid):
            VERIFY[type(statement)](bytes(octets), PUBLIC)


@BOTH
def test_no_octet_can_be_changed(statement: Any) -> None:
    """REQ-67: prefix, lengths, values and signature, all of it."""
    _any_bit(statement)


# Tickets


def issue(ticket: Ticket = TICKET, signer: Signer = PKI.pva) -> str:
    return issue_ticket(ticket, signer.key, signer.chain)


def verify(token: str, **kwargs: Any) -> Ticket:
    given_: dict[str, Any] = {"anchors": PKI.pva_anchors, "now": NOW, "audience": SHO_ID} | kwargs
    return verify_ticket(token, given_.pop("anchors"), given_.pop("now"), **given_)


def invalid(token: str, **kwargs: Any) -> str:
    with pytest.raises(StatementInvalid) as caught:
        verify(token, **kwargs)
    return str(caught.value)


X5C = [base64.b64encode(each.public_bytes(Encoding.DER)).decode() for each in PKI.pva.chain]


def forged(
    headers: dict[str, Any] | None = None, key: Any = PKI.pva.key, algorithm: str = "ES256", **claims: Any
) -> str:
    """A ticket of the real PVA with members replaced, or left out when None: what `issue_ticket` would not make."""
    payload = jwt.decode(issue(), options={"verify_signature": False, "verify_aud": False}) | claims
    payload = {name: value for name, value in payload.items() if value is not None}
    header = {"typ": TYPE, "x5c": X5C} | (headers or {})
    return jwt.PyJWS().encode(json.dumps(payload).encode(), key, algorithm=algorithm, headers=header)


OTHER_TICKET = replace(
    TICKET,
    audience=(SHO_ID,),
    tre_id="urn:m2m:tre:0002",
    m2me_id="urn:imei:004999010640001",
    req_id="r-2",
    nonce=b"m" * 16,
    platform_key_id=b"k" * 16,
    attest_key_id=b"a" * 16,
    mode=ValidationMode.AUTONOMOUS,
    tre_type="uicc",
    tre_version="",
    issued_at=NOW - SECOND,
    expires_at=NOW + SECOND,
    ticket_id="t-2",
    capabilities=b"c" * 32,
)
TICKET_FIELDS = [field.name for field in fields(Ticket) if field.name != "issuer"]


@pytest.mark.parametrize("name", TICKET_FIELDS)
def test_ticket_round_trip_by_field(name: str) -> None:
    """REQ-19: every member comes back as it was decided, and each of them is under the signature."""
    changed = replace(TICKET, **{name: getattr(OTHER_TICKET, name)})
    if name == "issued_at":
        changed = replace(changed, expires_at=NOW + SECOND)
    assert changed != TICKET
    token, base = issue(changed), issue()
    assert verify(token) == changed
    header, payload, _ = token.split(".")
    assert "signature is wrong" in invalid(f"{header}.{payload}.{base.split('.')[2]}")


@pytest.mark.parametrize(
    "header", [{"crit": ["b64"], "b64": True}, {"b64": True}, {"crit": ["exp"]}, {"crit": []}], ids=str
)
def test_ticket_with_a_header_that_changes_what_is_signed(header: dict[str, Any]) -> None:
    """REQ-19, RFC 7515 §4.1.11, RFC 7797: rightly signed, and still no ticket."""
    signing_input = f"{_b64({'alg': 'ES256', 'typ': TYPE, 'x5c': X5C} | header)}.{issue().split('.')[1]}"
    signature = base64.urlsafe_b64encode(statements.raw_signature(PKI.pva.key, signing_input.encode()))
    invalid(f"{signing_input}.{signature.decode().rstrip('=')}")


def test_ticket_is_what_both_readers_take() -> None:
    """REQ-19: one ticket for DPF and SHO; its digest is over the octets sent."""
    token = issue()
    assert verify(token, audience=DPF_ID, pva_id=PVA_ID) == verify(token) == TICKET
    assert len(ticket_digest(token)) == 64
    assert ticket_digest(token) != ticket_digest(issue())


def _b64(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _algorithm(name: str) -> str:
    """The real ticket under a header that names another algorithm."""
    _, payload, signature = issue().split(".")
    return f"{_b64({'typ': TYPE, 'alg': name, 'x5c': X5C})}.{payload}.{'' if name == 'none' else signature}"


def _signer(role: Role, identity: str = PVA_ID, **kwargs: Any) -> Signer:
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = PKI.pva_root.issue_role(role, key.public_key(), **({"identity": identity, "now": NOW} | kwargs))
    return Signer(key, (leaf,))


@pytest.mark.parametrize(
    ("token", "kwargs"),
    [
        pytest.param(lambda: "", {}, id="nothing"),
        pytest.param(lambda: "a.b.c", {}, id="three-letters"),
        pytest.param(lambda: issue() + "A" * MAX_TICKET, {}, id="oversize"),
        pytest.param(lambda: issue().rsplit(".", 1)[0], {}, id="two-parts"),
        pytest.param(lambda: issue().rsplit(".", 1)[0] + ".", {}, id="unsigned"),
        pytest.param(lambda: forged({"typ": "JWT"}), {}, id="another-typ"),
        pytest.param(lambda: forged({"typ": TYPE.upper()}), {}, id="typ-in-capitals"),
        pytest.param(lambda: _algorithm("none"), {}, id="alg-none"),
        pytest.param(lambda: forged(key="k" * 32, algorithm="HS256"), {}, id="alg-hs256"),
        pytest.param(lambda: _algorithm("ES384"), {}, id="alg-of-another-curve"),
        pytest.param(lambda: forged({"x5c": []}), {}, id="no-certificate"),
        pytest.param(lambda: forged({"x5c": None}), {}, id="x5c-null"),
        pytest.param(lambda: forged({"x5c": [1]}), {}, id="x5c-number"),
        pytest.param(lambda: forged({"x5c": ["\u00e9"]}), {}, id="x5c-no-ascii"),
        pytest.param(lambda: forged({"x5c": "AAAA"}), {}, id="x5c-text"),
        pytest.param(lambda: forged({"x5c": ["AAAA"]}), {}, id="x5c-no-der"),
        pytest.param(lambda: forged({"crit": ["x"], "x": 1}), {}, id="critical-header"),
        pytest.param(lambda: forged(key=STRANGER), {}, id="another-key"),
        pytest.param(issue, {"audience": OTHER_SHO_ID}, id="another-audience"),
        pytest.param(issue, {"audience": ""}, id="no-audience"),
        pytest.param(lambda: forged(aud=SHO_ID), {"audience": "s"}, id="letter-of-the-audience"),
        pytest.param(lambda: forged(iss="urn:m2m:pva:2"), {}, id="issuer-is-not-the-signer"),
        pytest.param(issue, {"pva_id": "urn:m2m:pva:2"}, id="another-pva-expected"),
        pytest.param(lambda: forged(result="untrusted"), {}, id="negative"),
        pytest.param(lambda: forged(result=None), {}, id="undecided"),
        pytest.param(issue, {"now": NOW + MAX_LIFETIME}, id="expired"),
        pytest.param(issue, {"now": NOW - timedelta(seconds=61)}, id="from-the-future"),
        pytest.param(
            lambda: forged(exp=int((NOW + MAX_LIFETIME + SECOND).timestamp())), {}, id="lives-a-second-too-long"
        ),
        pytest.param(lambda: forged(iat=0), {}, id="issued-in-1970"),
        pytest.param(lambda: forged(iat=-62135596800, exp=-62135596800), {}, id="issued-in-the-year-1"),
        pytest.param(lambda: forged(iat=10**30), {}, id="time-beyond-all"),
        pytest.param(lambda: forged(exp="soon"), {}, id="time-in-words"),
        pytest.param(lambda: forged(exp=float("inf")), {}, id="infinite"),
        pytest.param(lambda: forged(mode="none"), {}, id="unknown-mode"),
        pytest.param(lambda: forged(nonce="?"), {}, id="nonce-no-base64"),
        pytest.param(lambda: forged(nonce="\u00e9"), {}, id="nonce-no-ascii"),
        pytest.param(lambda: forged(nonce=5), {}, id="nonce-number"),
        pytest.param(lambda: forged(pkdKid="x"), {}, id="key-id-no-hex"),
        pytest.param(lambda: forged(aud=7), {}, id="audience-number"),
        pytest.param(lambda: issue(signer=PKI.sho), {}, id="an-sho"),
        pytest.param(lambda: issue(signer=PKI.sho), {"anchors": PKI.sho_anchors}, id="an-sho-below-its-own-root"),
        pytest.param(
            lambda: issue(replace(TICKET, issuer=SHO_ID), _signer(Role.SHO, SHO_ID)), {}, id="an-sho-of-the-pva-root"
        ),
        pytest.param(
            lambda: issue(signer=Signer(PKI.attest_key, (PKI.attest, *PKI.tre_chain))), {}, id="the-device-itself"
        ),
        pytest.param(
            lambda: issue(signer=Signer(PKI.pva_root.key, (PKI.pva_root.certificate,))), {}, id="the-ca-itself"
        ),
        pytest.param(
            lambda: issue(signer=_signer(Role.PVA, life=timedelta(minutes=5))),
            {"now": NOW + timedelta(minutes=6)},
            id="expired-signer",
        ),
        pytest.param(issue, {"anchors": TrustAnchors((), "pva")}, id="no-anchors"),
    ]
    + [
        pytest.param(lambda name=name: forged(**{name: None}), {}, id=f"without-{name}")
        for name in (
            *("iss", "aud", "sub", "m2meId", "reqId", "nonce", "pkdKid", "attestKid"),
            *("mode", "treType", "treVersion", "iat", "exp", "jti"),
        )
    ],
)
def test_ticket_refused(token: Callable[[], str], kwargs: dict[str, Any]) -> None:
    """REQ-19, REQ-46: type, algorithm, signer, audience, issuer, times and members; all end in one exception."""
    invalid(token(), **kwargs)


@pytest.mark.parametrize(
    "now", [NOW - timedelta(minutes=1), NOW, NOW + MAX_LIFETIME - SECOND], ids=["clocks-differ", "now", "last-second"]
)
def test_ticket_in_its_time(now: datetime) -> None:
    """REQ-19: from a minute before it was issued to the last second."""
    assert verify(issue(), now=now) == TICKET


@pytest.mark.parametrize("life", [timedelta(), -SECOND, MAX_LIFETIME + SECOND])
def test_ticket_that_is_not_issued(life: timedelta) -> None:
    """REQ-19: the PVA signs no ticket that nobody may take."""
    with pytest.raises(InvalidArgument):
        issue(replace(TICKET, expires_at=NOW + life))


BINDING: dict[str, Any] = {
    "tre_id": TICKET.tre_id,
    "req_id": TICKET.req_id,
    "nonce": TICKET.nonce,
    "platform_key_id": TICKET.platform_key_id,
    "attest_key_id": TICKET.attest_key_id,
    "mode": TICKET.mode,
}


@pytest.mark.parametrize("name", BINDING)
def test_ticket_binding(name: str) -> None:
    """REQ-19: a right ticket for another platform, request or mode; the text says what differs, never the nonce."""
    TICKET.check_binding(**BINDING)
    TICKET.check_binding(**(BINDING | {"attest_key_id": None, "mode": None}))
    with pytest.raises(StatementInvalid) as caught:
        TICKET.check_binding(**(BINDING | {name: getattr(OTHER_TICKET, name)}))
    assert str(caught.value).startswith("the ticket is bound to another ")
    assert "," not in str(caught.value)
    assert "nnnn" not in str(caught.value)


def test_deeply_nested_header() -> None:
    """REQ-19: a header of nothing but brackets is malformed, not a crash."""
    depth = 3000
    nested = f'{{"typ":"{TYPE}","alg":"ES256","x":{"[" * depth}{"]" * depth}}}'
    header = base64.urlsafe_b64encode(nested.encode()).decode().rstrip("=")
    invalid(f"{header}.e30.AA")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.text(max_size=100) | st.binary(max_size=100).map(lambda each: each.decode("latin-1")))
def test_any_text_is_no_ticket(token: str) -> None:
    """REQ-19: arbitrary text ends in the one exception."""
    invalid(token)


@given(header=st.dictionaries(st.sampled_from(["typ", "alg", "x5c", "crit", "b64", "kid"]), JSON), payload=JSON)
def test_any_header_is_no_ticket(header: dict[str, Any], payload: object) -> None:
    """REQ-19: whatever JSON stands in the header."""
    invalid(f"{_b64({'typ': TYPE, 'alg': 'ES256', 'x5c': X5C} | header)}.{_b64(payload)}.AAAA")


@given(st.sampled_from(["iss", "aud", "nonce", "pkdKid", "attestKid", "mode", "iat", "exp", "result"]), JSON)
def test_any_claim_rightly_signed(name: str, value: object) -> None:
    """REQ-19: not even the PVA's own key makes a member raise anything else."""
    try:
        ticket = verify(forged(**{name: value}))
    except StatementInvalid:
        return
    assert ticket.issuer == PVA_ID
    assert SHO_ID in ticket.audience
    assert ticket.issued_at <= NOW + timedelta(minutes=1)
    assert ticket.issued_at.tzinfo is UTC
