"""Credentials of all types, the header of HMAC, nonce chains, and full sessions of both roles with each of them."""

from __future__ import annotations

import base64
import contextlib
from dataclasses import replace
from itertools import count, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncml.accounts import ClientAccount, DmAccount
from syncml.auth import SPECIAL_NONCES, Credentials, basic_data, hmac_value, md5_data, type_named
from syncml.authentication import Authenticator, HeaderAnswer, Proof, Prover
from syncml.codec import Encoding
from syncml.codes import AuthType
from syncml.errors import LocalProtocolError, MalformedHmac
from syncml.hmac_header import MAX_HMAC_HEADER, build_hmac_header, parse_hmac_header
from syncml.model import Chal, Cred, Message, Replace, Status, walk
from syncml.policy import Continue, Finish
from syncml.session import (
    ClientAuthenticated,
    CredentialsRefused,
    Event,
    NonceChanged,
    ServerAuthenticated,
    SessionAborted,
    SessionClosed,
    SessionOpened,
)
from syncml.values import leaf_item
from tests.support_syncml import (
    CLIENT_ACCOUNT,
    SERVER_ACCOUNT,
    Run,
    client_session,
    get,
    pump,
    sequence,
    server_session,
)

TYPES = [AuthType.BASIC, AuthType.MD5, AuthType.MAC]
MAC = "6AZk96DG6F0jSIaEpbK4Ng=="
RAW_MAC = base64.b64decode(MAC)
BODY = b"<SyncML xmlns='SYNCML:SYNCML1.2'></SyncML>"

HEADERS = {
    "as we write it": f'algorithm=MD5, username="Bruce2", mac={MAC}',
    "another order": f'mac={MAC},username="Bruce2",algorithm=MD5',
    "white space": f'  algorithm = MD5 ,\tusername = "Bruce2" ,  mac = {MAC}  ',
    "quoted values": f'algorithm="MD5", username="Bruce2", mac="{MAC}"',
    "unquoted name": f"algorithm=MD5, username=Bruce2, mac={MAC}",
    "names in upper case": f'ALGORITHM=md5, UserName="Bruce2", MAC={MAC}',
    "no algorithm": f'username="Bruce2", mac={MAC}',
    "no padding": f'username="Bruce2", mac={MAC.rstrip("=")}',
    "hexadecimal": f'username="Bruce2", mac={RAW_MAC.hex()}',
    "upper-case hexadecimal": f'username="Bruce2", mac={RAW_MAC.hex().upper()}',
    "Base64 of hexadecimal": f'username="Bruce2", mac={base64.b64encode(RAW_MAC.hex().encode()).decode()}',
    "empty elements and foreign parameters": f',, realm="x, y=z", username="Bruce2",, mac={MAC},',
    "escapes in quotes": rf'username="Bru\ce2", mac={MAC}',
}


@pytest.mark.parametrize("value", HEADERS.values(), ids=HEADERS)
def test_hmac_header_in_every_form(value: str) -> None:
    """XC-027, XS-010: order, case, white space, quotes, padding and hexadecimal are the peer's choice."""
    header = parse_hmac_header(value)
    assert (header.username, header.mac) == ("Bruce2", RAW_MAC)


BAD_HEADERS = {
    "empty": "",
    "no user name": f"algorithm=MD5, mac={MAC}",
    "empty user name": f'username="", mac={MAC}',
    "no MAC": 'algorithm=MD5, username="Bruce2"',
    "empty MAC": 'username="Bruce2", mac=',
    "MAC too short": 'username="Bruce2", mac=QUJD',
    "MAC no Base64": 'username="Bruce2", mac=***',
    "MAC with a letter too many in hexadecimal": f'username="Bruce2", mac={RAW_MAC.hex()}0',
    "MAC twice": f'username="Bruce2", mac={MAC}, mac={MAC}',
    "user name twice": f'username="a", username="Bruce2", mac={MAC}',
    "another algorithm": f'algorithm=SHA-1, username="Bruce2", mac={MAC}',
    "quote not closed": f'username="Bruce2, mac={MAC}',
    "text after a quote": f'username="Bruce2"x, mac={MAC}',
    "no parameters": "Basic QnJ1Y2UyOk9oQmVoYXZl",
    "no octets of any text": f'username="\udc80", mac={MAC}',
    "too long": f'username="{"x" * MAX_HMAC_HEADER}", mac={MAC}',
}


@pytest.mark.parametrize("value", BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_bad_hmac_header_proves_nothing(value: str) -> None:
    """XC-028, XS-010: a typed error, and for the account that of wrong credentials."""
    with pytest.raises(MalformedHmac):
        parse_hmac_header(value)
    assert not Credentials(type=AuthType.MAC, name="Bruce2", secret="OhBehave", nonce=b"Nonce").accepts_body(
        value, BODY
    )


@given(st.text(max_size=1100))
def test_any_text_is_a_header_or_a_typed_error(value: str) -> None:
    """XS-010."""
    with contextlib.suppress(MalformedHmac):
        assert len(parse_hmac_header(value).mac) == 16


@given(st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=60))
def test_any_user_name_survives_the_header(name: str) -> None:
    """XC-027: quotes and backslashes are escaped."""
    assert parse_hmac_header(build_hmac_header(name, MAC)).username == name


@pytest.mark.parametrize("name", ["a\r\nx-other: 1", "a\0b", "x" * 2000], ids=["line break", "NUL", "too long"])
def test_a_name_that_no_header_line_carries_is_refused(name: str) -> None:
    with pytest.raises(LocalProtocolError):
        build_hmac_header(name, MAC)


def test_hmac_covers_name_nonce_and_body() -> None:
    """XC-027: the vectors of auth-MAC, and one thing wrong at a time."""
    mac = Credentials(type=AuthType.MAC, name="Bruce2", secret="OhBehave", nonce=b"Nonce")
    assert mac.prove_body(BODY) == HEADERS["as we write it"]
    assert mac.prove_body(b"").endswith("mac=gbjsdKI2jLRPFi9gmOstJg==")
    assert mac.accepts_body(mac.prove_body(BODY), BODY)
    wrong = {
        "body": mac.accepts_body(mac.prove_body(BODY), BODY + b" "),
        "name": mac.accepts_body(HEADERS["as we write it"].replace("Bruce2", "Bruce3"), BODY),
        "nonce": replace(mac, nonce=b"other").accepts_body(mac.prove_body(BODY), BODY),
        "secret": replace(mac, secret="guess").accepts_body(mac.prove_body(BODY), BODY),
        "absent": mac.accepts_body(None, BODY),
        "type": replace(mac, type=AuthType.MD5).accepts_body(mac.prove_body(BODY), BODY),
        "in a Cred": mac.accepts(Cred(type=AuthType.MAC, data=MAC)),
    }
    assert not any(wrong.values()), wrong
    with pytest.raises(LocalProtocolError):
        mac.prove()
    assert "OhBehave" not in repr(mac)


NONCE = b"TWFueSByYW5kb20gbGV0dGVycw=="
FORMS = {
    "octets": (NONCE, True),
    "undecoded text": (base64.b64encode(NONCE), True),
    "decoded once more": (base64.b64decode(NONCE), True),
    "another nonce": (b"other", False),
    "no nonce": (b"", False),
}


@pytest.mark.parametrize(("form", "good"), FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("auth_type", [AuthType.MD5, AuthType.MAC])
def test_nonce_forms(auth_type: AuthType, form: bytes, good: bool) -> None:
    """Interop: decoded, undecoded and encoded twice are the same nonce; nothing else is."""
    credentials = Credentials(type=auth_type, name="u", secret="p", nonce=NONCE)
    if auth_type is AuthType.MD5:
        assert credentials.accepts(Cred(type=AuthType.MD5, data=md5_data("u", "p", form))) is good
    else:
        header = build_hmac_header("u", hmac_value("u", "p", form, BODY))
        assert credentials.accepts_body(header, BODY) is good


# -- the authenticator ------------------------------------------------------------------------------------------------


def md5_proof(nonce: bytes, secret: str = "p") -> Proof:
    return Proof(cred=Cred(type=AuthType.MD5, data=md5_data("u", secret, nonce)))


def mac_proof(nonce: bytes, secret: str = "p") -> Proof:
    return Proof(mac=build_hmac_header("u", hmac_value("u", secret, nonce, BODY)), body=BODY)


def basic_proof(secret: str = "p") -> Proof:
    return Proof(cred=Cred(type=AuthType.BASIC, data=basic_data("u", secret)))


def authenticator(auth_type: AuthType, **options: object) -> Authenticator:
    numbers = count(1)
    credentials = Credentials(type=auth_type, name="u", secret="p", nonce=b"now")
    return Authenticator(credentials, lambda: f"n{next(numbers)}".encode(), **options)


WRONG = md5_proof(b"now", "guess")
EMPTY_BASIC = Proof(cred=Cred(type=AuthType.BASIC, data=""))
# type, options, what comes message by message → code and whether a challenge goes with it
JUDGED = {
    "md5": (AuthType.MD5, {}, [md5_proof(b"now")], [(212, False)]),
    "md5 missing, then right": (AuthType.MD5, {}, [Proof(), md5_proof(b"n1")], [(407, True), (212, False)]),
    "md5 stale, then right": (AuthType.MD5, {}, [md5_proof(b"old"), md5_proof(b"n1")], [(401, True), (212, False)]),
    "md5 wrong twice": (AuthType.MD5, {}, [WRONG, WRONG], [(401, True), (401, False)]),
    "md5 missing, wrong twice": (AuthType.MD5, {}, [Proof(), WRONG, WRONG], [(407, True), (401, True), (401, False)]),
    "never anything": (AuthType.MD5, {}, [Proof()] * 3, [(407, True), (407, True), (401, False)]),
    "basic for md5": (AuthType.MD5, {}, [basic_proof(), md5_proof(b"n1")], [(401, True), (212, False)]),
    "basic for md5 for ever": (AuthType.MD5, {}, [basic_proof()] * 3, [(401, True), (401, True), (401, False)]),
    "basic without data for md5": (AuthType.MD5, {}, [EMPTY_BASIC], [(401, True)]),
    "basic": (AuthType.BASIC, {}, [basic_proof()], [(212, False)]),
    "basic wrong": (AuthType.BASIC, {}, [basic_proof("x"), basic_proof()], [(401, True), (212, False)]),
    "basic without data": (AuthType.BASIC, {}, [EMPTY_BASIC], [(401, True)]),
    "md5 for basic": (AuthType.BASIC, {}, [md5_proof(b"now")], [(401, True)]),
    "an answer was lost": (AuthType.MD5, {"nonce_before": b"old"}, [md5_proof(b"old")], [(212, False)]),
    "the nonce before, after a challenge": (
        AuthType.MD5,
        {"nonce_before": b"old"},
        [Proof(), md5_proof(b"old")],
        [(407, True), (401, True)],
    ),
    "no nonce before is no empty nonce": (AuthType.MD5, {"nonce_before": b""}, [md5_proof(b"")], [(401, True)]),
    "special nonce, unasked": (AuthType.MD5, {}, [md5_proof(bytes(4))], [(401, True)]),
    "special nonce": (AuthType.MD5, {"resync": True}, [md5_proof(bytes(4))], [(212, False)]),
    "special nonce in ten characters": (AuthType.MD5, {"resync": True}, [md5_proof(b"0x00000000")], [(212, False)]),
    "special nonce after a challenge": (
        AuthType.MD5,
        {"resync": True},
        [Proof(), md5_proof(bytes(4))],
        [(407, True), (401, True)],
    ),
    "special nonce, wrong secret": (AuthType.MD5, {"resync": True}, [md5_proof(bytes(4), "x")], [(401, True)]),
    "stored nonce although resynchronising": (AuthType.MD5, {"resync": True}, [md5_proof(b"now")], [(212, False)]),
    "MAC": (AuthType.MAC, {}, [mac_proof(b"now")], [(200, False)]),
    "MAC absent": (AuthType.MAC, {}, [Proof(body=BODY), mac_proof(b"n1")], [(401, True), (200, False)]),
    "MAC wrong": (AuthType.MAC, {}, [mac_proof(b"now", "x")], [(401, True)]),
    "MAC wrong twice": (AuthType.MAC, {}, [mac_proof(b"now", "x")] * 2, [(401, True), (401, False)]),
    "MAC malformed": (AuthType.MAC, {}, [Proof(mac="?", body=BODY)], [(401, True)]),
    "MAC for another body": (AuthType.MAC, {}, [replace(mac_proof(b"now"), body=b"")], [(401, True)]),
    "md5 for MAC": (AuthType.MAC, {}, [replace(md5_proof(b"now"), body=BODY)], [(401, True)]),
    "MAC for md5": (AuthType.MD5, {}, [mac_proof(b"now")], [(407, True)]),
    "MAC, an answer was lost": (AuthType.MAC, {"nonce_before": b"old"}, [mac_proof(b"old")], [(200, False)]),
    "MAC, special nonce": (AuthType.MAC, {"resync": True}, [mac_proof(bytes(4))], [(200, False)]),
}


@pytest.mark.parametrize(("auth_type", "options", "proofs", "verdicts"), JUDGED.values(), ids=JUDGED)
def test_authenticator(
    auth_type: AuthType, options: dict[str, object], proofs: list[Proof], verdicts: list[tuple[int, bool]]
) -> None:
    """XS-007 to XS-011, XC-024, XC-025, XC-028: code and challenge of each message; challenges bring new nonces."""
    judge = authenticator(auth_type, **options)
    found = [judge.judge(proof) for proof in proofs]
    assert [(verdict.code, verdict.chal is not None) for verdict in found] == verdicts
    challenges = [verdict.chal.next_nonce for verdict in found if verdict.chal is not None]
    assert challenges == [
        None if auth_type is AuthType.BASIC else f"n{i}".encode() for i in range(1, len(challenges) + 1)
    ]
    assert judge.known is found[-1].accepted


@pytest.mark.parametrize("old", [b"now", b"old", bytes(4), b"0x00000000"])
def test_no_nonce_is_good_twice(old: bytes) -> None:
    """Replay: once a nonce is accepted and the next is out, neither it nor the one before nor the special one is."""
    judge = authenticator(AuthType.MD5, nonce_before=b"old", resync=True, per_message=True)
    assert judge.judge(md5_proof(old)).accepted
    judge.issue()
    for nonce in (b"now", b"old", *SPECIAL_NONCES):
        again = authenticator(AuthType.MD5, nonce_before=b"old", resync=True, per_message=True)
        assert again.judge(md5_proof(old)).accepted
        again.issue()
        assert not again.judge(md5_proof(nonce)).accepted
    assert judge.judge(md5_proof(b"n1")).accepted


def test_a_nonce_before_is_good_in_one_session_only() -> None:
    """Interop: the holder of the account moves both nonces on with every nonce issued."""
    first = authenticator(AuthType.MD5, nonce_before=b"old")
    assert first.judge(md5_proof(b"old")).accepted
    first.issue()
    next_session = Authenticator(
        Credentials(type=AuthType.MD5, name="u", secret="p", nonce=first.nonce), lambda: b"n2", nonce_before=b"now"
    )
    assert not next_session.judge(md5_proof(b"old")).accepted


def test_credentials_after_212_are_read_by_nobody() -> None:
    """Interop: Cred in every message is harmless when right and gains nothing when wrong."""
    judge = authenticator(AuthType.MD5)
    assert judge.judge(md5_proof(b"now")).accepted
    for proof in (md5_proof(b"now"), WRONG, Proof(), basic_proof()):
        verdict = judge.judge(proof)
        assert (verdict.accepted, verdict.code, verdict.chal, verdict.checked) == (True, 200, None, False)


# -- the prover -------------------------------------------------------------------------------------------------------


def header_status(code: int, auth_type: str | None = None, nonce: bytes | None = None) -> Status:
    chal = None if auth_type is None else Chal(type=auth_type, next_nonce=nonce)
    return Status(cmd_id="1", msg_ref="1", cmd_ref="0", cmd="SyncHdr", code=code, chal=chal)


def prover(auth_type: AuthType = AuthType.MD5, *, preemptive: bool = True) -> Prover:
    return Prover(Credentials(type=auth_type, name="u", secret="p", nonce=b"now"), preemptive=preemptive)


HEARD = {
    "212": (AuthType.MD5, header_status(212, AuthType.MD5, b"x"), HeaderAnswer.ACCEPTED, None),
    "200": (AuthType.MD5, header_status(200, AuthType.MD5, b"x"), HeaderAnswer.ACCEPTED, AuthType.MD5),
    "200 without a nonce": (AuthType.MD5, header_status(200), HeaderAnswer.ACCEPTED, AuthType.MD5),
    "407 and md5": (AuthType.MD5, header_status(407, AuthType.MD5, b"x"), HeaderAnswer.CHALLENGED, AuthType.MD5),
    "type in upper case": (
        AuthType.MD5,
        header_status(401, "SYNCML:AUTH-MD5", b"x"),
        HeaderAnswer.CHALLENGED,
        AuthType.MD5,
    ),
    "md5 for basic": (AuthType.BASIC, header_status(401, AuthType.MD5, b"x"), HeaderAnswer.CHALLENGED, AuthType.MD5),
    "MAC for basic": (AuthType.BASIC, header_status(401, AuthType.MAC, b"x"), HeaderAnswer.CHALLENGED, AuthType.MAC),
    "MAC for md5": (AuthType.MD5, header_status(401, AuthType.MAC, b"x"), HeaderAnswer.CHALLENGED, AuthType.MAC),
    "basic for md5": (AuthType.MD5, header_status(401, AuthType.BASIC), HeaderAnswer.UNSUPPORTED, AuthType.MD5),
    "basic for MAC": (AuthType.MAC, header_status(401, AuthType.BASIC), HeaderAnswer.UNSUPPORTED, AuthType.MAC),
    "md5 for MAC": (AuthType.MAC, header_status(407, AuthType.MD5, b"x"), HeaderAnswer.UNSUPPORTED, AuthType.MAC),
    "nobody's type": (AuthType.MD5, header_status(407, "syncml:auth-X509"), HeaderAnswer.UNSUPPORTED, AuthType.MD5),
    "no challenge": (AuthType.MD5, header_status(401), HeaderAnswer.REFUSED, AuthType.MD5),
    "the same nonce again": (
        AuthType.MD5,
        header_status(401, AuthType.MD5, b"now"),
        HeaderAnswer.REFUSED,
        AuthType.MD5,
    ),
    "no nonce": (AuthType.MD5, header_status(401, AuthType.MD5), HeaderAnswer.REFUSED, AuthType.MD5),
    "basic refused": (AuthType.BASIC, header_status(401, AuthType.BASIC), HeaderAnswer.REFUSED, AuthType.BASIC),
    "code 0": (AuthType.MD5, header_status(0), HeaderAnswer.NOTHING, AuthType.MD5),
    "202": (AuthType.MD5, header_status(202), HeaderAnswer.NOTHING, AuthType.MD5),
}


@pytest.mark.parametrize(("auth_type", "status", "answer", "shows"), HEARD.values(), ids=HEARD)
def test_prover(auth_type: AuthType, status: Status, answer: HeaderAnswer, shows: AuthType | None) -> None:
    """XC-020 to XC-023, XC-029, XS-012: what a Status of our header means, and what the next message shows."""
    mine = prover(auth_type)
    mine.cred()
    assert mine.hear(status) is answer
    cred = mine.cred()
    shown = cred.type if cred is not None else (AuthType.MAC if mine.mac(BODY) is not None else None)
    assert shown == shows
    assert mine.nonce == (
        b"x" if status.chal is not None and answer in ACCEPTING and status.chal.next_nonce else b"now"
    )


ACCEPTING = (HeaderAnswer.ACCEPTED, HeaderAnswer.CHALLENGED)


def test_prover_gives_up_at_the_third_challenge() -> None:
    """XC-021: new nonces without end are no reason to go on."""
    mine = prover()
    answers = []
    for number in range(3):
        mine.cred()
        answers.append(mine.hear(header_status(401, AuthType.MD5, f"x{number}".encode())))
    assert answers == [HeaderAnswer.CHALLENGED, HeaderAnswer.CHALLENGED, HeaderAnswer.REFUSED]


def test_prover_takes_401_for_407_where_nothing_was_shown() -> None:
    """Interop: 401 although no Cred was sent, even with the nonce we would have used."""
    mine = prover(preemptive=False)
    assert mine.cred() is None
    assert mine.hear(header_status(401, AuthType.MD5, b"now")) is HeaderAnswer.CHALLENGED
    assert mine.cred() == md5_proof(b"now").cred


def test_prover_decodes_a_nonce_again_when_the_plain_form_was_refused() -> None:
    """Interop: a peer that encodes NextNonce twice; learnt from its second challenge, kept for the session."""
    mine = prover(preemptive=False)
    mine.cred()
    mine.hear(header_status(407, AuthType.MD5, base64.b64encode(b"first nonce")))
    assert mine.cred() == md5_proof(base64.b64encode(b"first nonce")).cred
    mine.hear(header_status(401, AuthType.MD5, base64.b64encode(b"second nonce")))
    assert mine.cred() == md5_proof(b"second nonce").cred
    mine.hear(header_status(212, AuthType.MD5, base64.b64encode(b"third nonce")))
    assert mine.nonce == b"third nonce"


def test_names_of_types() -> None:
    assert [type_named(name) for name in ("syncml:auth-mac", " SYNCML:AUTH-BASIC ", "x")] == [
        AuthType.MAC,
        AuthType.BASIC,
        None,
    ]


# -- sessions ---------------------------------------------------------------------------------------------------------


def accounts(auth_type: AuthType, *, preemptive: bool = True) -> tuple[ClientAccount, DmAccount]:
    changes = {"client_auth": auth_type, "server_auth": auth_type, "preemptive": preemptive}
    return replace(CLIENT_ACCOUNT, **changes), replace(SERVER_ACCOUNT, **changes)


def stored(account: ClientAccount | DmAccount, events: list[Event]) -> ClientAccount | DmAccount:
    """The account as its holder keeps it: nonces move on as the events say."""
    for event in events:
        if not isinstance(event, NonceChanged):
            continue
        if event.direction == "client":
            if isinstance(account, DmAccount):
                account = replace(account, client_nonce_before=account.client_nonce)
            account = replace(account, client_nonce=event.nonce)
        else:
            if isinstance(account, ClientAccount):
                account = replace(account, server_nonce_before=account.server_nonce)
            account = replace(account, server_nonce=event.nonce)
    return account


def shown(message: Message, mac: str | None) -> bool:
    return message.header.cred is not None or mac is not None


PACKAGE = (
    get("./A"),
    Replace(items=(leaf_item("./B", "1"),)),
    sequence(get("./C"), Replace(items=(leaf_item("./D", "2"),))),
)


@pytest.mark.parametrize(
    ("encoding", "auth_type", "preemptive"),
    list(product(Encoding, TYPES, [True, False])),
    ids=lambda value: {True: "pre-emptive", False: "challenge first"}.get(value, str(value).split("-")[-1]),
)
def test_full_mutual_session_and_the_next_one(encoding: Encoding, auth_type: AuthType, preemptive: bool) -> None:
    """XI-2, XI-3, XC-022, XC-027, XS-008, XS-010: both sides prove themselves, three packages, then again with the
    nonces that the first session left."""
    client_account, server_account = accounts(auth_type, preemptive=preemptive)
    for number in (1, 2):
        client = client_session(client_account, encoding=encoding, session_id=str(number), prefix=f"m{number}-")
        server = server_session(server_account, encoding=encoding, session_id=str(number), prefix=f"n{number}-")
        run = pump(client, server, [Continue(PACKAGE), Continue((get("./E"),))], encoding=encoding)
        assert client.closed
        assert server.closed
        assert [answer.code for answer in run.answers] == [200, 200, 200, 200]
        assert [command.name for command in run.received] == ["Get", "Replace", "Sequence", "Get"]
        refusals = [e for e in run.server_events + run.client_events if isinstance(e, CredentialsRefused)]
        assert len(refusals) == (0 if preemptive else 4)  # each side is asked once, and both note it
        assert sum(isinstance(e, ClientAuthenticated) for e in run.server_events) == 1
        assert sum(isinstance(e, ServerAuthenticated) for e in run.client_events) == 1
        check_credentials(run, auth_type)
        client_account = stored(client_account, run.client_events)
        server_account = stored(server_account, run.server_events)
        assert client_account.client_nonce == server_account.client_nonce
        assert client_account.server_nonce == server_account.server_nonce
        if auth_type is not AuthType.BASIC:
            assert client_account.client_nonce.startswith(f"n{number}-".encode())
            assert client_account.server_nonce.startswith(f"m{number}-".encode())


def check_credentials(run: Run, auth_type: AuthType) -> None:
    """auth-MAC beside every message and never in a Cred; the others in the header until 212."""
    sent = list(zip(run.client_messages, run.client_macs, strict=True))
    sent += list(zip(run.server_messages, run.server_macs, strict=True))
    if auth_type is AuthType.MAC:
        assert not any(message.header.cred for message, _ in sent)
        proofs = [mac for _, mac in sent if mac is not None]
        assert len(set(proofs)) == len(proofs) >= 4
    else:
        assert not any(mac for _, mac in sent)
        for messages in (run.client_messages, run.server_messages):
            assert sum(message.header.cred is not None for message in messages) == 1
    accepted = 200 if auth_type is AuthType.MAC else 212
    for messages in (run.client_messages, run.server_messages):
        codes = [c.code for m in messages for c in m.commands if isinstance(c, Status) and c.cmd_ref == "0"]
        assert accepted in codes
        assert (212 in codes) is (auth_type is not AuthType.MAC)


@pytest.mark.parametrize("auth_type", [AuthType.MD5, AuthType.MAC])
@pytest.mark.parametrize("side", ["client", "server", "both"])
def test_a_corrupt_nonce_recovers(auth_type: AuthType, side: str) -> None:
    """XI-2: the stored nonces differ on one side or on both; one challenge each and the session goes through."""
    client_account, server_account = accounts(auth_type)
    if side in ("client", "both"):
        client_account = replace(client_account, client_nonce=b"corrupt")
    if side in ("server", "both"):
        server_account = replace(server_account, server_nonce=b"corrupt")
    run = pump(client_session(client_account), server_session(server_account), [Continue((get("./A"),))])
    assert [answer.code for answer in run.answers] == [200]


@pytest.mark.parametrize("auth_type", [AuthType.MD5, AuthType.MAC])
def test_answers_that_got_lost(auth_type: AuthType) -> None:
    """Interop: neither side got the other's newest nonce; the one before is good once more, in both directions."""
    client_account, server_account = accounts(auth_type)
    client_account = replace(client_account, server_nonce=b"lost", server_nonce_before=b"server-nonce")
    server_account = replace(server_account, client_nonce=b"lost", client_nonce_before=b"client-nonce")
    run = pump(client_session(client_account), server_session(server_account), [Continue((get("./A"),))])
    assert not [e for e in run.server_events + run.client_events if isinstance(e, CredentialsRefused)]
    assert [answer.code for answer in run.answers] == [200]
    client_after = stored(client_account, run.client_events)
    server_after = stored(server_account, run.server_events)
    assert (client_after.client_nonce, client_after.server_nonce) == (
        server_after.client_nonce,
        server_after.server_nonce,
    )


def test_a_nonce_before_becomes_the_present_one_when_no_message_carries_another() -> None:
    """XC-026: a session without commands leaves the server the nonce it has, and the device agrees."""
    client_account = replace(CLIENT_ACCOUNT, server_nonce=b"lost", server_nonce_before=b"server-nonce")
    run = pump(client_session(client_account), server_session(), [Finish()])
    assert any(isinstance(e, ServerAuthenticated) for e in run.client_events)
    assert stored(client_account, run.client_events).server_nonce == b"server-nonce"


@pytest.mark.parametrize("auth_type", [AuthType.MD5, AuthType.MAC])
def test_resynchronisation(auth_type: AuthType) -> None:
    """XC-092, XS-033: both sides prove themselves with 0x00000000, both get a fresh nonce at once."""
    client_account, server_account = accounts(auth_type)
    client_account = replace(client_account, client_nonce=b"?", server_nonce=b"?", resync=True)
    server_account = replace(server_account, client_nonce=b"!", server_nonce=b"!", resync=True)
    run = pump(client_session(client_account), server_session(server_account), [Continue((get("./A"),))])
    assert not [e for e in run.server_events + run.client_events if isinstance(e, CredentialsRefused)]
    assert [answer.code for answer in run.answers] == [200]
    after = stored(client_account, run.client_events), stored(server_account, run.server_events)
    assert {(account.client_nonce, account.server_nonce) for account in after} != {(b"?", b"?")}
    assert after[0].client_nonce == after[1].client_nonce not in (b"?", b"!", *SPECIAL_NONCES)
    assert after[0].server_nonce == after[1].server_nonce not in (b"?", b"!", *SPECIAL_NONCES)


@pytest.mark.parametrize("asked", ["client", "server"])
def test_resynchronisation_that_one_side_did_not_ask_for(asked: str) -> None:
    """XS-033: the special nonce is no key for everybody; a challenge follows and the session recovers."""
    client_account = replace(CLIENT_ACCOUNT, resync=asked == "client")
    server_account = replace(SERVER_ACCOUNT, resync=asked == "server")
    run = pump(client_session(client_account), server_session(server_account), [Continue((get("./A"),))])
    refused = [e for e in run.server_events if isinstance(e, CredentialsRefused)]
    assert len(refused) == (1 if asked == "client" else 0)
    assert [answer.code for answer in run.answers] == [200]


@pytest.mark.parametrize("auth_type", [AuthType.BASIC, AuthType.MD5])
def test_credentials_in_every_message_where_the_account_says_so(auth_type: AuthType) -> None:
    """XC-023: 200 and a new nonce for each message; the client shows credentials in each."""
    client_account, server_account = accounts(auth_type)
    run = pump(
        client_session(client_account),
        server_session(replace(server_account, per_message=True)),
        [Continue((get("./A"),)), Continue((get("./B"),))],
    )
    assert [answer.code for answer in run.answers] == [200, 200]
    assert all(message.header.cred is not None for message in run.client_messages)
    if auth_type is AuthType.MD5:
        assert len({message.header.cred.data for message in run.client_messages if message.header.cred}) == 3
    for message in run.server_messages:
        status = message.commands[0]
        assert isinstance(status, Status)
        assert status.code == 200
        assert (status.chal is not None) is (auth_type is AuthType.MD5)


def test_wrong_secret_of_hmac_gets_nothing() -> None:
    """XS-010, XC-028: neither role executes or tells anything."""
    for wrong in ("client_secret", "server_secret"):
        client_account, server_account = accounts(AuthType.MAC)
        client = client_session(replace(client_account, **{wrong: "guess"}))
        run = pump(client, server_session(server_account), [Continue((get("./A"),))])
        assert client.closed
        assert not run.received
        assert not run.answers
        assert any(isinstance(e, SessionOpened) for e in run.server_events) is (wrong == "server_secret")
        assert len(run.client_messages) <= 4


def test_server_switches_to_the_stronger_type_the_device_asks_for() -> None:
    """XS-012: md5 is agreed, the device demands HMAC; for the session the server proves itself so."""
    run = pump(
        client_session(replace(CLIENT_ACCOUNT, server_auth=AuthType.MAC)), server_session(), [Continue((get("./A"),))]
    )
    assert [answer.code for answer in run.answers] == [200]
    assert run.server_messages[0].header.cred is not None
    assert [mac is not None for mac in run.server_macs] == [False, True, True]


def test_server_does_not_become_weaker() -> None:
    """XS-012: the device asks for basic where md5 is agreed; 406 and the end, no password leaves."""
    run = pump(
        client_session(replace(CLIENT_ACCOUNT, server_auth=AuthType.BASIC)), server_session(), [Continue((get("./A"),))]
    )
    assert [e.reason for e in run.server_events if isinstance(e, SessionAborted)]
    status = run.server_messages[-1].commands[0]
    assert isinstance(status, Status)
    assert status.code == 406
    assert not run.received
    assert all(m.header.cred is None or m.header.cred.type == AuthType.MD5 for m in run.server_messages)


def test_client_does_not_become_weaker() -> None:
    """XC-029: a server that wants basic from an md5 account hears nothing more."""
    client = client_session()
    run = pump(client, server_session(replace(SERVER_ACCOUNT, client_auth=AuthType.BASIC)))
    assert client.closed
    assert len(run.client_messages) == 1
    assert any(isinstance(e, SessionClosed) for e in run.client_events)


def test_every_command_of_a_refused_message_has_its_status_and_nothing_else_is_there() -> None:
    """XC-024, XS-007: through groups as well; no Results, no command, nothing executed."""
    run = pump(
        client_session(),
        server_session(replace(SERVER_ACCOUNT, server_nonce=b"old")),
        [Continue((sequence(get("./A"), get("./B")), get("./C")))],
    )
    refusal = run.client_messages[1]
    assert all(isinstance(command, Status) for command in refusal.commands)
    assert [c.code for c in refusal.commands if isinstance(c, Status)] == [401] * 5
    asked = run.server_messages[0].commands
    refs = [c.cmd_ref for c in refusal.commands if isinstance(c, Status)]
    assert refs == ["0", *(c.cmd_id for c in walk(asked) if not isinstance(c, Status))]
    assert [answer.code for answer in run.answers] == [200, 200]
