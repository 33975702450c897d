"""The endpoint towards devices as they are, over real HTTP: checklist rows of the server, and tolerances one by one."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import io
import json
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from dmserver.app import dm_application
from dmserver.news import AlertRules, UnknownTypes
from dmserver.operator_commands import parse_request
from dmserver.operator_outcomes import show_request
from dmserver.operator_service import queue_request, request_of
from dmserver.store.accounts import Account, change_device, find_device, put_account
from mo_definitions import AlertType
from syncml.auth import basic_data, hmac_value, md5_data
from syncml.codec import Encoding, decode, encode
from syncml.codes import AuthType
from syncml.model import Alert, Get, Replace, Sequence, Status
from tests.support_dmserver import DM_URL, Dpf
from tests.support_dpf_pki import DPF_ID, M2ME_ID
from tests.support_raw_device import (
    DEV_INFO,
    PACKAGE_1,
    SESSION_ALERT,
    Http,
    RawDevice,
    alert,
    b64,
    codes,
    statuses,
    wanted,
)

XML = "application/vnd.syncml.dm+xml"
WBXML = "application/vnd.syncml.dm+wbxml"
BOTH = pytest.mark.parametrize("encoding", list(Encoding), ids=lambda each: each.name)


@pytest.fixture
async def dpf(tmp_path: Path) -> AsyncIterator[Dpf]:
    made = Dpf(tmp_path)
    made.add_device()
    made.store.write_sync(lambda c: change_device(c, M2ME_ID, managed=True))
    yield made
    made.close()


@pytest.fixture
async def http(dpf: Dpf) -> AsyncIterator[Http]:
    async with TestClient(TestServer(dm_application(dpf.endpoint, dm_url=lambda _: DM_URL))) as client:
        yield client


def device(dpf: Dpf, http: Http, **options: object) -> RawDevice:
    return RawDevice(http, dpf.account(), **options)  # options of the device


def set_account(dpf: Dpf, **changes: object) -> Account:
    account = dataclasses.replace(dpf.account(), **changes)  # fields of an account
    dpf.store.write_sync(lambda c: put_account(c, dpf.key, account, dpf.clock()))
    return account


def queue(dpf: Dpf, *commands: dict[str, object], **options: object) -> str:
    order = parse_request({"commands": list(commands)} | options)
    return dpf.store.write_sync(lambda c: queue_request(c, dpf.key, M2ME_ID, order, dpf.clock()))[0].request_id


def shown(dpf: Dpf, request_id: str) -> dict[str, object]:
    return show_request(dpf.store.read_sync(lambda c: request_of(c, dpf.key, M2ME_ID, request_id)))


GET = {"command": "get", "uris": ["./DevDetail/SwV"]}


# --- session ----------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("code", [1200, 1201])
@pytest.mark.parametrize("session_id", ["1", "0", "2F", "AF", "00af", "FFFF"])
async def test_package_1(dpf: Dpf, http: Http, encoding: Encoding, code: int, session_id: str):
    """XS-001, XS-002, XS-008, XS-027: the answer to a correct package 1, in the encoding of the request."""
    it = device(dpf, http, encoding=encoding, session_id=session_id)
    body = it.message(SESSION_ALERT.replace("1201", str(code)), DEV_INFO)
    answer = await it.send(body, {"Accept": "application/vnd.syncml.dm+xml, application/vnd.syncml.dm+wbxml"})
    header = answer.header
    assert (header.session_id, header.msg_id, header.target, header.source) == (session_id, "1", M2ME_ID, DM_URL)
    assert codes(answer) == {"0": 212, "1": 200, "2": 200}
    assert (wanted(answer), answer.final) == ([], True)
    assert it.nonce == dpf.account().client_nonce


async def test_a_client_that_is_not_done(dpf: Dpf, http: Http):
    """XS-003, XS-004, XS-005: no commands before Final of the client; each message is answered."""
    queue(dpf, GET)
    it = device(dpf, http)
    first = await it.send(it.message(SESSION_ALERT, final=False))
    assert [each.code for each in wanted(first) if isinstance(each, Alert)] == [1222]
    assert not first.final
    second = await it.send(it.message(statuses(first), DEV_INFO.replace("<CmdID>2<", "<CmdID>7<")))
    assert [type(each) for each in wanted(second)] == [Get]
    assert second.final


async def test_abort_of_the_client(dpf: Dpf, http: Http):
    """XS-006: Status for the header and the Alert, no commands."""
    queue(dpf, GET)
    it = device(dpf, http)
    await it.open()
    answer = await it.send(it.message("<Alert><CmdID>4</CmdID><Data>1223</Data></Alert>"))
    assert (codes(answer)["4"], wanted(answer)) == (200, [])


@pytest.mark.parametrize("code", [404, 405, 406, 418, 425, 500, 0])
async def test_statuses_are_reported_and_the_session_goes_on(dpf: Dpf, http: Http, code: int):
    """XS-028: whatever a device says to a command, the next one follows."""
    bad, good = queue(dpf, GET), queue(dpf, GET)
    it = device(dpf, http)
    second = await it.send(it.message(statuses(await it.open(), code=code)))
    last = await it.send(it.message(statuses(second, values={"./DevDetail/SwV": "7.1"})))
    assert (shown(dpf, bad)["state"], shown(dpf, bad)["code"]) == ("failed", code)
    assert shown(dpf, good)["state"] == "done"
    assert (wanted(last), last.final) == ([], True)


async def test_a_sequence_stays_in_one_message(dpf: Dpf, http: Http):
    """XS-015, XS-029: no message is above MaxMsgSize of the client, and no group is cut."""
    made = queue(dpf, *[{"command": "replace", "uri": "./A/b", "value": "x" * 100}] * 5, grouping="sequence")
    it = device(dpf, http)
    meta = "<Meta><MaxMsgSize xmlns='syncml:metinf'>3000</MaxMsgSize></Meta>"
    answer = await it.send(it.message(*PACKAGE_1, meta=meta))
    if not wanted(answer):  # it did not fit beside the Statuses
        answer = await it.send(it.message(statuses(answer)))
    (group,) = wanted(answer)
    assert isinstance(group, Sequence)
    assert len(group.commands) == 5
    assert all(len(encode(each, Encoding.XML)) <= 3000 for each in it.answers)
    await it.send(it.message(statuses(answer)))
    assert shown(dpf, made)["state"] == "done"


PROPERTIES = ("ACL", "Format", "Name", "Size", "Title", "TStamp", "Type", "VerNo")


async def test_all_eight_properties(dpf: Dpf, http: Http):
    """XS-031, XS-039: properties are read and written by their URIs; the operator keeps access by writing ACL."""
    uris = [f"./A/b?prop={name}" for name in PROPERTIES]
    read = queue(dpf, {"command": "get", "uris": uris})
    acl = f"Get={DPF_ID}&Replace={DPF_ID}"
    queue(dpf, {"command": "replace", "uri": "./A/b?prop=ACL", "value": acl})
    it = device(dpf, http)
    first = await it.open()
    asked = [item.target for each in wanted(first) if isinstance(each, Get) for item in each.items]
    assert asked == uris
    second = await it.send(it.message(statuses(first, values={uri: uri[-3:] for uri in uris})))
    (command,) = wanted(second)
    assert isinstance(command, Replace)
    assert (command.items[0].target, command.items[0].data) == ("./A/b?prop=ACL", acl)
    results = shown(dpf, read)["commands"][0]["results"]  # JSON
    assert [each["value"] for each in results] == [uri[-3:] for uri in uris]


# --- authentication ---------------------------------------------------------------------------------------------------


def wrong(it: RawDevice) -> str:
    return it.cred_of(AuthType.MD5, md5_data("nobody", "guess", it.nonce))


CREDENTIALS = {
    "none": (lambda _: "", 407),
    "wrong": (wrong, 401),
    "basic where md5 is demanded": (
        lambda it: it.cred_of(AuthType.BASIC, basic_data(it.account.client_name, it.account.client_secret)),
        401,
    ),
    "empty Data": (lambda it: it.cred_of(AuthType.BASIC, ""), 401),
    "unknown type": (lambda it: it.cred_of("syncml:auth-x509", "AAAA"), 401),
}


@BOTH
@pytest.mark.parametrize(("cred", "code"), CREDENTIALS.values(), ids=CREDENTIALS)
async def test_a_challenge(dpf: Dpf, http: Http, encoding: Encoding, cred: object, code: int):
    """XS-007, XS-011: 407 or 401 with a challenge of the type agreed, the same for each command, and no commands."""
    made = queue(dpf, GET)
    it = device(dpf, http, encoding=encoding)
    answer = await it.send(it.message(*PACKAGE_1, cred=cred(it)))  # a function of the device
    assert codes(answer) == {"0": code, "1": code, "2": code}
    assert wanted(answer) == []
    header = answer.commands[0]
    assert isinstance(header, Status)
    assert header.chal is not None
    assert (header.chal.type, header.chal.next_nonce) == (AuthType.MD5, dpf.account().client_nonce)
    again = await it.send(it.message(statuses(answer), *(each.replace("<CmdID>", "<CmdID>8") for each in PACKAGE_1)))
    assert codes(again)["0"] == 212
    assert shown(dpf, made)["state"] == "sent"


async def test_a_stale_nonce_and_then_a_final_refusal(dpf: Dpf, http: Http):
    """XS-009: one more challenge, then refused without Chal, and nothing more is answered."""
    it = device(dpf, http, nonce=b"stale")
    await it.send(it.message(*PACKAGE_1))
    last = None
    for _ in range(4):
        last = it.answers[-1].commands[0]
        assert isinstance(last, Status)
        if last.chal is None:
            break
        await it.send(it.message(*PACKAGE_1, cred=wrong(it)))
    assert isinstance(last, Status)
    assert (last.code, last.chal) == (401, None)


async def test_server_credentials_go_out_again_when_the_device_asks(dpf: Dpf, http: Http):
    """XS-012: the device challenges us: the commands go out again with our credentials of the new nonce."""
    made = queue(dpf, GET)
    it = device(dpf, http)
    first = await it.open()
    nonce = "bmV3LW5vbmNl"
    chal = (
        "<Status><CmdID>1</CmdID><MsgRef>1</MsgRef><CmdRef>0</CmdRef><Cmd>SyncHdr</Cmd><Chal><Meta>"
        "<Type xmlns='syncml:metinf'>syncml:auth-md5</Type><Format xmlns='syncml:metinf'>b64</Format>"
        f"<NextNonce xmlns='syncml:metinf'>{nonce}</NextNonce></Meta></Chal><Data>401</Data></Status>"
        + "".join(
            f"<Status><CmdID>{n}</CmdID><MsgRef>1</MsgRef><CmdRef>{each.cmd_id}</CmdRef><Cmd>Get</Cmd><Data>401</Data></Status>"
            for n, each in enumerate(wanted(first), 2)
        )
    )
    second = await it.send(it.message(chal))
    account = dpf.account()
    assert second.header.cred is not None
    assert second.header.cred.data == md5_data(account.server_name, account.server_secret, b"new-nonce")
    assert account.server_nonce == b"new-nonce"
    assert [type(each) for each in wanted(second)] == [Get]
    await it.send(it.message(statuses(second, header=212, values={"./DevDetail/SwV": "7"})))
    assert shown(dpf, made)["state"] == "done"


@BOTH
async def test_hmac_in_both_directions(dpf: Dpf, http: Http, encoding: Encoding):
    """XS-010: a good MAC gets 200 and the next nonce in each message, and our messages carry theirs."""
    made = queue(dpf, GET)
    account = set_account(dpf, client_auth=AuthType.MAC, server_auth=AuthType.MAC)
    it = device(dpf, http, encoding=encoding)
    seen, server_nonce = {it.nonce}, account.server_nonce
    body = it.message(*PACKAGE_1)
    for number in range(3):
        async with http.post(
            it.path, data=body, headers={"Content-Type": encoding.media_type, **it.mac_headers(body)}
        ) as response:
            octets = await response.read()
            mac = response.headers["x-syncml-hmac"]
        expected = hmac_value(account.server_name, account.server_secret, server_nonce, octets)
        assert f"mac={expected}" in mac
        answer = decode(octets, encoding)
        header = answer.commands[0]
        assert isinstance(header, Status)
        assert (header.code, answer.header.cred) == (200, None)
        assert header.chal is not None
        assert header.chal.next_nonce is not None
        it.nonce = header.chal.next_nonce
        assert it.nonce not in seen  # each message proves itself with a nonce of its own
        assert it.nonce == dpf.account().client_nonce  # on disk before it left
        seen.add(it.nonce)
        assert answer.header.resp_uri is not None
        it.path = "/dm" + answer.header.resp_uri.removeprefix(DM_URL)
        if not wanted(answer):
            break
        server_nonce = f"nonce-{number}".encode()
        told = statuses(answer, values={"./DevDetail/SwV": "7"}).replace(
            "<Cmd>SyncHdr</Cmd>",
            "<Cmd>SyncHdr</Cmd><Chal><Meta><Type xmlns='syncml:metinf'>syncml:auth-MAC</Type>"
            "<Format xmlns='syncml:metinf'>b64</Format><NextNonce xmlns='syncml:metinf'>"
            f"{b64(server_nonce)}</NextNonce></Meta></Chal>",
        )
        body = it.message(told)
    assert shown(dpf, made)["state"] == "done"


@pytest.mark.parametrize("kind", ["absent", "bad", "of another body", "twice base64", "md5 Cred instead"])
async def test_a_mac_that_is_not_right(dpf: Dpf, http: Http, kind: str):
    """XS-010: bad or absent header: 401 and a challenge."""
    set_account(dpf, client_auth=AuthType.MAC)
    it = device(dpf, http)
    account = it.account
    cred = it.cred_of(AuthType.MD5, md5_data(account.client_name, account.client_secret, it.nonce))
    body = it.message(*PACKAGE_1, cred=cred if kind == "md5 Cred instead" else "")
    right = it.mac_headers(body)["x-syncml-hmac"]
    headers = {
        "absent": {},
        "bad": {"x-syncml-hmac": right[:-6] + "AAAA=="},
        "of another body": it.mac_headers(body + b" "),
        "twice base64": {"x-syncml-hmac": "\xff garbage ,,, ="},
        "md5 Cred instead": {},
    }[kind]
    answer = await it.send(body, headers)
    header = answer.commands[0]
    assert isinstance(header, Status)
    assert (header.code, wanted(answer)) == (401, [])
    assert header.chal is not None
    assert header.chal.type == AuthType.MAC


async def test_the_special_nonce_is_good_for_one_session(dpf: Dpf, http: Http):
    """XS-033: 0x00000000 is accepted once after a notification with it, and the flag is off from then on."""
    set_account(dpf, resync=True)
    it = device(dpf, http, nonce=bytes(4))
    assert codes(await it.open())["0"] == 212
    assert not dpf.account().resync
    again = device(dpf, http, nonce=bytes(4), session_id="2")
    assert codes(await again.open())["0"] == 401


async def test_the_nonce_before_survives_a_lost_answer_and_no_more(dpf: Dpf, http: Http):
    """Interop: the answer with the new nonce was lost: the one before is good once more, and then no longer."""
    lost = device(dpf, http, session_id="1")
    before = lost.nonce
    await lost.open()  # as if this answer never arrived
    again = device(dpf, http, session_id="2", nonce=before)
    assert codes(await again.open())["0"] == 212
    third = device(dpf, http, session_id="3", nonce=before)
    assert codes(await third.open())["0"] == 401


async def test_a_device_that_went_on_has_the_new_nonce(dpf: Dpf, http: Http):
    """Interop: once the device answered, the nonce before is used up: whoever overheard it gains nothing."""
    queue(dpf, GET)
    it = device(dpf, http)
    before = it.nonce
    first = await it.open()
    await it.send(it.message(statuses(first)))
    forged = device(dpf, http, session_id="2", nonce=before)
    assert codes(await forged.open())["0"] == 401


async def test_credentials_in_every_message_do_no_harm(dpf: Dpf, http: Http):
    """Interop: Cred re-sent in every message though 212 was said."""
    made = queue(dpf, GET)
    it = device(dpf, http)
    first = await it.open()
    second = await it.send(it.message(statuses(first, values={"./DevDetail/SwV": "1"}), cred=wrong(it)))
    assert (codes(second)["0"], shown(dpf, made)["state"]) == (200, "done")


# --- SessionIDs, repetitions, RespURI ---------------------------------------------------------------------------------


async def test_a_repeated_message_is_not_done_twice(dpf: Dpf, http: Http):
    """XS-036: the cached answer, octet for octet, and no second execution."""
    made, after = queue(dpf, GET), queue(dpf, GET)
    it = device(dpf, http)
    first = await it.open()
    body = it.message(statuses(first, values={"./DevDetail/SwV": "1"}))
    answers = [await it.send(body), await it.send(body)]
    assert answers[0] == answers[1]
    assert (shown(dpf, made)["state"], shown(dpf, after)["state"], shown(dpf, after)["attempts"]) == ("done", "sent", 1)


async def test_an_old_message_moves_nothing(dpf: Dpf, http: Http):
    """XS-036: a message before the last one is refused and the session goes on."""
    made = queue(dpf, GET)
    it = device(dpf, http)
    opening = it.message(*PACKAGE_1)
    first = await it.send(opening)
    second = await it.send(it.message(statuses(first, values={"./DevDetail/SwV": "1"})))
    assert codes(await it.send(opening))["0"] == 400
    assert (wanted(second), shown(dpf, made)["state"]) == ([], "done")


async def test_a_message_of_an_unknown_session(dpf: Dpf, http: Http):
    """XS-036: it is no package 1, so it opens nothing."""
    it = device(dpf, http, session_id="77")
    answer = await it.send(it.message("<Alert><CmdID>1</CmdID><Data>1222</Data></Alert>"))
    assert codes(answer) == {"0": 408}


@pytest.mark.parametrize("follows", [True, False], ids=["with RespURI", "posting to the first URL again"])
async def test_session_id_1_every_time(dpf: Dpf, http: Http, follows: bool):
    """Interop: SessionID always "1" and MsgID from 1: each package 1 is a new session."""
    for _ in range(3):
        it = device(dpf, http, follows_resp_uri=follows)
        assert codes(await it.open())["0"] == 212
        challenged = device(dpf, http, nonce=b"stale", follows_resp_uri=follows)
        first = await challenged.open()
        assert codes(first)["0"] == 401
        more = [each.replace("<CmdID>", "<CmdID>8") for each in PACKAGE_1]
        assert codes(await challenged.send(challenged.message(statuses(first), *more)))["0"] == 212


async def test_an_id_with_its_octets_swapped(dpf: Dpf, http: Http):
    """Interop: libdmclient swaps the octets of the id a notification gave it: any id will do."""
    it = device(dpf, http, session_id="AF00")
    answer = await it.send(it.message(SESSION_ALERT.replace("1201", "1200"), DEV_INFO))
    assert (answer.header.session_id, codes(answer)["0"]) == ("AF00", 212)


async def test_a_stranger_without_the_token_gets_nothing_of_a_session(dpf: Dpf, http: Http):
    """Interop: SessionIDs can be guessed; no message without our token is taken, or answered from the cache."""
    queue(dpf, {"command": "replace", "uri": "./A/AAuthSecret", "value": "topsecret"})
    it = device(dpf, http)
    first = await it.open()
    assert first.header.resp_uri is not None
    for msg_id in ("1", "2"):
        stranger = device(dpf, http, follows_resp_uri=False)
        body = stranger.message(statuses(first), msg_id=msg_id, cred="")
        answer = await stranger.send(body, path="/dm")
        assert codes(answer) == {"0": 408}
        assert "topsecret" not in str([each.items for each in answer.commands if isinstance(each, Replace)])
    assert codes(await it.send(it.message(statuses(first))))["0"] == 200


# --- alerts -----------------------------------------------------------------------------------------------------------

WINDOWS_STATUS = "com.microsoft/MDM/LoginStatus"
ALERTS = {
    "1226 of ours": (1226, AlertType.TAMPER_DETECTED.value, "default", UnknownTypes.REFUSE, 200),
    "1226 with the prefix": (1226, "Reversed-Domain-Name: org.example.known", "default", UnknownTypes.REFUSE, 200),
    "1226 without the prefix": (1226, "org.example.known", "default", UnknownTypes.REFUSE, 200),
    "1226 unknown, to the letter": (1226, "org.example.other", "default", UnknownTypes.REFUSE, 415),
    "1226 unknown, friendly": (1226, "org.example.other", "default", UnknownTypes.ACCEPT, 200),
    "1226 unenrolment of Windows": (
        1226,
        "com.microsoft:mdm.unenrollment.userrequest",
        "windows",
        UnknownTypes.REFUSE,
        200,
    ),
    "1226 without Items": (1226, "", "default", UnknownTypes.ACCEPT, 412),
    "1224 known": (1224, "org.example.known", "default", UnknownTypes.REFUSE, 200),
    "1224 unknown": (1224, WINDOWS_STATUS, "default", UnknownTypes.ACCEPT, 406),
    "1224 of Windows": (1224, WINDOWS_STATUS, "windows", UnknownTypes.ACCEPT, 200),
    "1100 from a client": (1100, "x", "default", UnknownTypes.ACCEPT, 406),
    "1299": (1299, "", "default", UnknownTypes.ACCEPT, 406),
}


@pytest.mark.parametrize(("code", "kind", "profile", "unknown", "status"), ALERTS.values(), ids=ALERTS)
async def test_alerts_of_devices(
    tmp_path: Path, code: int, kind: str, profile: str, unknown: UnknownTypes, status: int
):
    """XS-020, XS-021, XS-023, interop: what an alert in package 1 is answered."""
    rules = AlertRules(types=frozenset({"org.example.known"}), unknown=unknown)
    dpf = Dpf(tmp_path, alert_rules=rules)
    dpf.add_device()
    dpf.store.write_sync(lambda c: change_device(c, M2ME_ID, managed=True, peer_profile=profile))
    async with TestClient(TestServer(dm_application(dpf.endpoint, dm_url=lambda _: DM_URL))) as http:
        it = device(dpf, http)
        answer = await it.open(alert(code, kind=kind, data="user"))
        assert codes(answer) == {"0": 212, "1": 200, "2": 200, "9": status}
        assert answer.final
    dpf.close()


async def test_an_alert_with_several_items_has_one_status(dpf: Dpf, http: Http):
    """XS-022: one Status for all Items."""
    items = alert(1226, kind="org.example.a").replace("</Alert>", "")
    second = alert(1226, kind="org.example.b").partition("<Item>")
    it = device(dpf, http)
    answer = await it.open(items + second[1] + second[2])
    assert [each.cmd_ref for each in answer.commands if isinstance(each, Status)].count("9") == 1


# --- forms ------------------------------------------------------------------------------------------------------------

DEV_INFO_FORMS = {
    "Target for Source": DEV_INFO.replace("Source>", "Target>"),
    "without ./": DEV_INFO.replace("./DevInfo", "DevInfo"),
    "with an interior node": DEV_INFO.replace(
        "<Item>",
        "<Item><Source><LocURI>./DevInfo</LocURI></Source>"
        "<Meta><Format xmlns='syncml:metinf'>node</Format></Meta><Data>DevId/Man</Data></Item><Item>",
        1,
    ),
    "Meta of the command": DEV_INFO.replace(
        "</CmdID>", "</CmdID><Meta><Format xmlns='syncml:metinf'>chr</Format></Meta>", 1
    ),
    "Data before Source": DEV_INFO.replace(
        "<Source><LocURI>./DevInfo/Lang</LocURI></Source><Data>en</Data>",
        "<Data>en</Data><Source><LocURI>./DevInfo/Lang</LocURI></Source>",
    ),
    "Item by Item": "".join(
        f"<Replace><CmdID>{20 + number}</CmdID><Item>{item}</Replace>"
        for number, item in enumerate(DEV_INFO.removesuffix("</Replace>").split("<Item>")[1:])
    ),
    "foreign attributes": DEV_INFO.replace("<Data>", "<Data xmlns:msft='http://schemas.microsoft.com/x' msft:a='1'>"),
}


@pytest.mark.parametrize("form", DEV_INFO_FORMS.values(), ids=DEV_INFO_FORMS)
async def test_dev_info_in_every_form(dpf: Dpf, http: Http, form: str):
    """XS-025, XS-026: any order of elements, absent Meta, with and without ./, split over commands."""
    it = device(dpf, http)
    answer = await it.send(it.message(SESSION_ALERT, form))
    assert set(codes(answer).values()) == {212, 200}
    row = dpf.store.read_sync(lambda c: find_device(c, M2ME_ID))
    assert row is not None
    assert row.dev_info["./DevInfo/DevId"] == M2ME_ID
    assert row.dev_info["./DevInfo/Lang"] == "en"


async def test_dev_info_without_dev_id(dpf: Dpf, http: Http):
    """XS-026: a missing node is handled; who it is stands in Source."""
    it = device(dpf, http)
    answer = await it.send(it.message(SESSION_ALERT, DEV_INFO.replace("DevId", "Other")))
    row = dpf.store.read_sync(lambda c: find_device(c, M2ME_ID))
    assert row is not None
    assert (codes(answer)["0"], row.dev_info["./DevInfo/DevId"]) == (212, M2ME_ID)


@pytest.mark.parametrize(
    ("element", "code"),
    [
        ("<Put><CmdID>5</CmdID></Put>", 406),
        ("<Search><CmdID>5</CmdID></Search>", 406),
        ("<Get><CmdID>5</CmdID><Item><Target><LocURI>./A</LocURI></Target></Item></Get>", 405),
    ],
)
async def test_commands_a_client_does_not_send(dpf: Dpf, http: Http, element: str, code: int):
    """Protocol §14: the Status of the mistake, and the session goes on."""
    made = queue(dpf, GET)
    it = device(dpf, http)
    first = await it.open(element)
    assert codes(first)["5"] == code
    await it.send(it.message(statuses(first, values={"./DevDetail/SwV": "1"})))
    assert shown(dpf, made)["state"] == "done"


@pytest.mark.parametrize(("changes", "code"), [({"version": "1.1"}, 505), ({"protocol": "DM/9"}, 513)])
async def test_other_versions(dpf: Dpf, http: Http, changes: dict[str, str], code: int):
    """XS-038: VerDTD 505, VerProto 513."""
    it = device(dpf, http)
    answer = await it.send(it.message(*PACKAGE_1, **changes))  # texts of the header
    assert codes(answer)["0"] == code


# --- transport --------------------------------------------------------------------------------------------------------


async def raw_http(http: Http, octets: bytes) -> bytes:
    """Octets on a connection of their own; all that comes back."""
    server = http.server
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(octets)
    await writer.drain()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def http_head(*headers: str, target: str = "/dm") -> bytes:
    return "\r\n".join([f"POST {target} HTTP/1.1", "Host: dpf.example", "Connection: close", *headers, "", ""]).encode()


def in_chunks(body: bytes) -> bytes:
    parts = [body[start : start + 100] for start in range(0, len(body), 100)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def deflated(body: bytes) -> bytes:
    return zlib.compress(body)


def raw_deflated(body: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(body) + compressor.flush()


WINDOWS_TARGET = "/dm?mode=Maintenance&Platform=WoA&%ff=%00&s="
TRANSPORTS = {
    "plain": ([f"Content-Type: {XML}"], None, "/dm"),
    "query of Windows": ([f"Content-Type: {XML}"], None, WINDOWS_TARGET),
    "headers of Windows": (
        [
            f"Content-Type: {XML}",
            "User-Agent: MSFT OMA DM Client/1.2.0.1",
            "Authorization: Bearer abc",
            "MS-Signature: xyz",
            "MDM-GenericAlert: <Type1><Type2>",
        ],
        None,
        "/dm",
    ),
    "charset and verproto": ([f'Content-Type: {XML}; charset="utf-8"; verproto=DM/1.2'], None, "/dm"),
    "media type in capitals": ([f"Content-Type: {XML.upper()}"], None, "/dm"),
    "media type of DS": (["Content-Type: application/vnd.syncml+xml"], None, "/dm"),
    "no media type": ([], None, "/dm"),
    "octet-stream": (["Content-Type: application/octet-stream"], None, "/dm"),
    "gzip": ([f"Content-Type: {XML}", "Content-Encoding: gzip"], gzip.compress, "/dm"),
    "deflate": ([f"Content-Type: {XML}", "Content-Encoding: deflate"], deflated, "/dm"),
    "deflate without its header": ([f"Content-Type: {XML}", "Content-Encoding: deflate"], raw_deflated, "/dm"),
    "identity": ([f"Content-Type: {XML}", "Content-Encoding: identity"], None, "/dm"),
    "a charset as coding": ([f"Content-Type: {XML}", "Content-Encoding: UTF-8"], None, "/dm"),
    "an empty coding": ([f"Content-Type: {XML}", "Content-Encoding: "], None, "/dm"),
    "Accept of another encoding": ([f"Content-Type: {XML}", f"Accept: {WBXML}", "Accept-Encoding: gzip"], None, "/dm"),
}


@pytest.mark.parametrize("chunked", [False, True], ids=["Content-Length", "chunked"])
@pytest.mark.parametrize(("headers", "code_body", "target"), TRANSPORTS.values(), ids=TRANSPORTS)
async def test_requests_as_devices_make_them(
    dpf: Dpf, http: Http, headers: list[str], code_body: object, target: str, chunked: bool
):
    """Interop: chunks, codings, headers and queries; the answer has a Content-Length, no chunks and no coding."""
    body = device(dpf, http).message(*PACKAGE_1)
    body = code_body(body) if callable(code_body) else body
    framing = ["Transfer-Encoding: chunked"] if chunked else [f"Content-Length: {len(body)}"]
    octets = http_head(*headers, *framing, target=target) + (in_chunks(body) if chunked else body)
    head, _, answer = (await raw_http(http, octets)).partition(b"\r\n\r\n")
    told = head.decode().lower()
    assert told.startswith("http/1.1 200")
    assert f"content-length: {len(answer)}\r\n" in told + "\r\n"
    assert "transfer-encoding" not in told
    assert "content-encoding" not in told
    assert codes(decode(answer, Encoding.XML))["0"] == 212


async def test_wbxml_without_a_media_type(dpf: Dpf, http: Http):
    """Interop: absent Content-Type: the first octets tell."""
    body = device(dpf, http, encoding=Encoding.WBXML).message(*PACKAGE_1)
    octets = http_head(f"Content-Length: {len(body)}") + body
    head, _, answer = (await raw_http(http, octets)).partition(b"\r\n\r\n")
    assert f"content-type: {WBXML}" in head.decode().lower()
    assert codes(decode(answer, Encoding.WBXML))["0"] == 212


async def test_wbxml_under_the_media_type_of_ds(dpf: Dpf, http: Http):
    """XS-027, interop: palm webOS: answered in the same type."""
    it = device(dpf, http, encoding=Encoding.WBXML, content_type="application/vnd.syncml+wbxml")
    assert codes(await it.open())["0"] == 212


async def test_expect_100_continue(dpf: Dpf, http: Http):
    """Interop: the device waits for 100 before it sends the body."""
    body = device(dpf, http).message(*PACKAGE_1)
    head = http_head(f"Content-Type: {XML}", f"Content-Length: {len(body)}", "Expect: 100-continue")
    answer = await raw_http(http, head + body)
    assert answer.startswith(b"HTTP/1.1 100")
    assert b"HTTP/1.1 200" in answer


REFUSED = {
    "unknown coding": (["Content-Encoding: x-secret"], lambda body: body, 415),
    "two codings": (["Content-Encoding: gzip, deflate"], gzip.compress, 415),
    "no gzip": (["Content-Encoding: gzip"], lambda body: body, 400),
    "gzip that ends too early": (["Content-Encoding: gzip"], lambda body: gzip.compress(body)[:-20], 400),
    "a bomb": (["Content-Encoding: gzip"], lambda body: gzip.compress(body + b" " * 50_000_000), 413),
}


@pytest.mark.parametrize(("headers", "code_body", "status"), REFUSED.values(), ids=REFUSED)
async def test_bodies_that_cannot_be_taken(dpf: Dpf, http: Http, headers: list[str], code_body: object, status: int):
    """Interop: a coding is taken off within the limit of a body, or refused; the server goes on."""
    body = device(dpf, http).message(*PACKAGE_1)
    coded = code_body(body)  # a function of octets
    octets = http_head(f"Content-Type: {XML}", f"Content-Length: {len(coded)}", *headers) + coded
    answer = await raw_http(http, octets)
    assert answer.startswith(f"HTTP/1.1 {status}".encode()), answer[:200]
    assert b"Traceback" not in answer
    assert codes(await device(dpf, http).open())["0"] == 212


@BOTH
@pytest.mark.parametrize(
    "octets", [b"", b"<", b"<SyncML>", b"\x02\xa4\x01", b"\x03\xa4\x01\x6a\x00\xff\xff", b"\x00" * 64]
)
async def test_malformed_messages(dpf: Dpf, http: Http, encoding: Encoding, octets: bytes):
    """XS-037: HTTP 400 and no crash."""
    headers = {"Content-Type": encoding.media_type}
    async with http.post("/dm", data=io.BytesIO(octets), headers=headers) as answer:
        assert answer.status == 400, await answer.text()
    assert codes(await device(dpf, http, encoding=encoding).open())["0"] == 212


async def test_a_message_a_little_above_our_limit_is_taken(dpf: Dpf, http: Http):
    """Interop: a message above our MaxMsgSize, up to twice, is taken; more is refused with 413."""
    it = device(dpf, http)
    body = it.message(*PACKAGE_1, f"<!-- {'x' * 70_000} -->")
    assert codes(await it.send(body))["0"] == 212
    async with http.post("/dm", data=io.BytesIO(b" " * 140_000 + body), headers={"Content-Type": XML}) as answer:
        assert answer.status == 413


async def test_a_session_keeps_its_encoding(dpf: Dpf, http: Http):
    """XS-027: a message in the other encoding does not belong to the session, and its answer is in its own."""
    queue(dpf, GET)
    it = device(dpf, http)
    first = await it.open()
    it.encoding = Encoding.WBXML
    answer = await it.send(it.message(statuses(first)))
    assert codes(answer) == {"0": 408}


async def test_nothing_of_a_device_is_in_the_trail_in_clear(dpf: Dpf, http: Http):
    """XS-007: credentials and nonces of both sides stay out of what is recorded."""
    it = device(dpf, http)
    body = it.message(*PACKAGE_1)
    await it.send(body)
    account = dpf.account()
    recorded = json.dumps([record.to_json() for record in dpf.records])
    for secret in (account.client_secret, account.server_secret, it.nonce.decode()):
        assert secret not in recorded


# --- devices that lose RespURI ----------------------------------------------------------------------------------------


@pytest.fixture
def without_resp_uri(dpf: Dpf) -> Dpf:
    """The device's profile says that it loses RespURIs."""
    dpf.store.write_sync(lambda c: change_device(c, M2ME_ID, peer_profile="no-resp-uri"))
    return dpf


@pytest.mark.parametrize("kind", [AuthType.BASIC, AuthType.MD5, AuthType.MAC])
async def test_without_resp_uri_each_message_proves_itself(without_resp_uri: Dpf, http: Http, kind: AuthType):
    """Interop: RespURI is lost: taken with credentials in every message, and then only with right ones."""
    dpf = without_resp_uri
    made, after = queue(dpf, GET), queue(dpf, GET)
    set_account(dpf, client_auth=kind, per_message=kind is not AuthType.MAC, server_auth=AuthType.BASIC)
    it = device(dpf, http, follows_resp_uri=False)
    first = await it.open()
    assert (codes(first)["0"], first.header.resp_uri) == (200, None)
    stranger = device(dpf, http, follows_resp_uri=False)
    # The same MsgID again, as if to be answered from the cache: what it holds is for the device alone.
    cached = await stranger.send(stranger.message(*PACKAGE_1, "<!-- other -->", cred="", msg_id="2"), {})
    assert wanted(cached) == []
    forged = await stranger.send(stranger.message(statuses(first, code=500), cred="", msg_id="2"), {})
    assert (codes(forged)["0"] // 100, wanted(forged)) == (4, [])
    assert (shown(dpf, made)["state"], shown(dpf, after)["state"]) == ("sent", "queued")


async def test_without_resp_uri_a_session_goes_on(without_resp_uri: Dpf, http: Http):
    """Interop: the device posts to the first URL with credentials in every message."""
    dpf = without_resp_uri
    made = queue(dpf, GET)
    set_account(dpf, per_message=True)
    it = device(dpf, http, follows_resp_uri=False)
    first = await it.open()
    second = await it.send(it.message(statuses(first, values={"./DevDetail/SwV": "1"})))
    assert (codes(second)["0"], shown(dpf, made)["state"]) == (200, "done")


async def test_without_resp_uri_and_credentials_for_the_session_only(without_resp_uri: Dpf, http: Http):
    """Interop: 212 authenticates whoever knows the SessionID: without a token, that is not enough."""
    dpf = without_resp_uri
    made = queue(dpf, GET)
    it = device(dpf, http, follows_resp_uri=False)
    first = await it.open()
    answer = await it.send(it.message(statuses(first)))
    assert (codes(answer), shown(dpf, made)["state"]) == ({"0": 408}, "sent")
