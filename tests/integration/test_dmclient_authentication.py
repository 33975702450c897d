"""The device's credentials in sessions: every type in both encodings, nonces over restarts, the header of HMAC."""

from __future__ import annotations

import ssl
from dataclasses import replace
from itertools import product

import pytest
from aiohttp import web

from dmclient.dm_account import client_account, store_nonce, write_account
from dmclient.http_transport import HttpAnswer, HttpTransport, ServerNotAuthenticated, TransportFailed
from dmclient.management_session import SessionFailed, SessionSettings, run_session
from mo_definitions.standard import CLCRED, SRVCRED, AccountNode
from syncml.bootstrap.profile import DmCredentials
from syncml.codec import Encoding, decode, encode
from syncml.codes import AlertCode, AuthType
from syncml.hmac_header import HMAC_HEADER
from syncml.model import Get, Item
from syncml.policy import Continue, Finish
from syncml.session import CommandAnswered, CredentialsRefused, SessionOpened
from tests.integration.test_dmclient_transport import BODY, XML, served
from tests.support_dmclient import (
    CLIENT_NONCE,
    CLIENT_SECRET,
    DPF,
    DPF_URL,
    SERVER_NONCE,
    SERVER_SECRET,
    MemoryDpf,
    bootstrap_profile,
    make_device,
)

TYPES = [AuthType.BASIC, AuthType.MD5, AuthType.MAC]
ASK = Continue((Get(items=(Item(target="./DevDetail/SwV"),)),))


def asking(session, events):
    """A policy that reads one node in each session."""
    return ASK if any(isinstance(event, SessionOpened) for event in events) else Finish()


def profile_of(auth_type: AuthType):
    return bootstrap_profile(
        client=DmCredentials(auth_type=auth_type, name="device-1", secret=CLIENT_SECRET, nonce=CLIENT_NONCE),
        server=DmCredentials(auth_type=auth_type, name="dpf-1", secret=SERVER_SECRET, nonce=SERVER_NONCE),
    )


def dpf_with(auth_type: AuthType, script=asking) -> MemoryDpf:
    dpf = MemoryDpf(script)
    dpf.account = replace(dpf.account, client_auth=auth_type, server_auth=auth_type)
    return dpf


def device_with(tmp_path, auth_type: AuthType):
    device, _ = make_device(tmp_path)
    write_account(device.tree, profile_of(auth_type))
    return device


def refused(dpf: MemoryDpf) -> list[CredentialsRefused]:
    return [event for event in dpf.events if isinstance(event, CredentialsRefused)]


@pytest.mark.parametrize(("encoding", "auth_type"), list(product(Encoding, TYPES)), ids=str)
async def test_two_sessions_with_a_restart_between(tmp_path, encoding, auth_type):
    """XI-2, XI-3, XC-022, XC-027: the second session, of a device read from disk, needs no challenge."""
    dpf = dpf_with(auth_type)
    settings = SessionSettings(encoding=encoding)
    report = await run_session(device_with(tmp_path, auth_type), DPF, dpf, settings, step="7")
    assert (report.failure, report.commands) == ("", 1)
    again, _ = make_device(tmp_path)
    report = await run_session(again, DPF, dpf, settings, step="7")
    assert (report.failure, report.commands) == ("", 1)
    assert refused(dpf) == []
    assert [event.code for event in dpf.events if isinstance(event, CommandAnswered)] == [200, 200]
    account = client_account(again.tree.nodes, DPF, tls=True)
    assert (account.client_nonce, account.server_nonce) == (dpf.account.client_nonce, dpf.account.server_nonce)


@pytest.mark.parametrize("auth_type", [AuthType.MD5, AuthType.MAC])
@pytest.mark.parametrize("lost", ["the request", "the answer"])
@pytest.mark.parametrize("exchange", [1, 2])
async def test_connection_lost_and_a_session_without_commands_afterwards(tmp_path, auth_type, lost, exchange):
    """XI-12, interop: whichever message got lost, both sides find to each other without a challenge.

    In the second session the server has nothing to ask, so that it could not be challenged at all.
    """
    dpf, device = dpf_with(auth_type), device_with(tmp_path, auth_type)

    class Breaking:
        posts = 0

        async def post(self, url, body, encoding, mac=None) -> HttpAnswer:
            self.posts += 1
            if self.posts == exchange and lost == "the request":
                raise TransportFailed("lost")
            answer = await dpf.post(url, body, encoding, mac)
            if self.posts == exchange:
                raise TransportFailed("lost")
            return answer

    with pytest.raises(SessionFailed):
        await run_session(device, DPF, Breaking(), SessionSettings(), step="7")
    again, _ = make_device(tmp_path)
    dpf.script = lambda session, events: Finish()
    for _ in range(2):
        report = await run_session(again, DPF, dpf, SessionSettings(), step="7")
        assert report.failure == ""
    dpf.script = asking
    report = await run_session(again, DPF, dpf, SessionSettings(), step="7")
    assert (report.failure, report.commands) == ("", 1)
    assert refused(dpf) == []


async def test_resynchronisation_after_a_notification(tmp_path):
    """XC-002, XC-092: the notification's SessionID, Alert 1200, credentials with 0x00000000, fresh nonces on disk."""
    dpf, device = dpf_with(AuthType.MD5), device_with(tmp_path, AuthType.MD5)
    store_nonce(device.tree.nodes, DPF, CLCRED, b"out of step")
    store_nonce(device.tree.nodes, DPF, SRVCRED, b"out of step")
    dpf.account = replace(dpf.account, resync=True)
    report = await run_session(
        device,
        DPF,
        dpf,
        SessionSettings(),
        step="7",
        start=AlertCode.SERVER_INITIATED_MGMT,
        session_id="AF",
        resync=True,
    )
    assert (report.failure, report.commands, list(dpf.sessions)) == ("", 1, ["AF"])
    assert refused(dpf) == []
    again, _ = make_device(tmp_path)
    account = client_account(again.tree.nodes, DPF, tls=True)
    assert (account.client_nonce, account.server_nonce) == (dpf.account.client_nonce, dpf.account.server_nonce)


async def test_nonces_are_on_disk_before_the_message_that_needs_them_leaves(tmp_path):
    """XC-022: power may fail at any time between receiving a nonce and using it."""
    dpf, device = dpf_with(AuthType.MAC), device_with(tmp_path, AuthType.MAC)
    seen = []

    class Watching:
        async def post(self, url, body, encoding, mac=None) -> HttpAnswer:
            saved, _ = make_device(tmp_path)
            account = client_account(saved.tree.nodes, DPF, tls=True)
            seen.append((account.client_nonce == dpf.account.client_nonce, account.server_nonce))
            return await dpf.post(url, body, encoding, mac)

    device.save()
    await run_session(device, DPF, Watching(), SessionSettings(), step="7")
    assert [client for client, _ in seen] == [True, True]
    assert seen[0][1] == SERVER_NONCE != seen[1][1] == dpf.account.server_nonce


PREFERENCES = {
    "BASIC": AuthType.BASIC,
    "HMAC": AuthType.MAC,
    "": AuthType.MD5,
    "DIGEST": AuthType.MD5,
    "X": AuthType.MD5,
}


@pytest.mark.parametrize(("preferred", "chosen"), PREFERENCES.items(), ids=lambda value: str(value) or "none")
def test_preferred_type_comes_first(tmp_path, preferred, chosen):
    """XC-066: AAuthPref chooses between the client credentials of an account; nonces go where they belong."""
    device = device_with(tmp_path, AuthType.MD5)
    nodes, tree = device.tree.nodes, device.tree
    account = ("DMAcc", "1")
    for name, kind in (("b", "BASIC"), ("m", "HMAC")):
        base = (*account, "AppAuth", name)
        leaves = {"AAuthLevel": CLCRED, "AAuthType": kind, "AAuthName": f"user-{kind}", "AAuthSecret": "s"}
        for path, value in ((base, ""), *(((*base, leaf), text) for leaf, text in leaves.items())):
            nodes.put(path, value, like=tree.described(path))
        nodes.put((*base, "AAuthData"), b"", like=tree.described((*base, "AAuthData")))
    if preferred:
        path = (*account, *AccountNode.A_AUTH_PREF.segments)
        nodes.put(path, preferred, like=tree.described(path))
    assert client_account(nodes, DPF, tls=True).client_auth is chosen
    store_nonce(nodes, DPF, CLCRED, b"new")
    assert client_account(nodes, DPF, tls=True).client_nonce == b"new"
    others = [nodes.value((*account, "AppAuth", name, "AAuthData")) for name in nodes.children((*account, "AppAuth"))]
    assert others.count(b"new") == 1


MAC = 'algorithm=MD5, username="u", mac=AAAAAAAAAAAAAAAAAAAAAA=='
ANSWERS = {
    "DM, XML": ("application/vnd.syncml.dm+xml", Encoding.XML),
    "DM, WBXML": ("Application/vnd.syncml.DM+wbxml; charset=utf-8", Encoding.WBXML),
    "DS, XML": ("application/vnd.syncml+xml", Encoding.XML),
    "DS, WBXML": ("application/vnd.syncml+wbxml", Encoding.WBXML),
}


@pytest.mark.parametrize(("content_type", "encoding"), ANSWERS.values(), ids=ANSWERS)
async def test_header_and_media_types_over_http(content_type, encoding):
    """XC-027, XI-1, interop: `x-syncml-hmac` out and in; an answer has the encoding it says, DS types included."""
    seen = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.headers.get(HMAC_HEADER), request.headers["Content-Type"]))
        return web.Response(body=b"answer", headers={"Content-Type": content_type, "X-SyncML-HMAC": MAC})

    plain = HttpTransport(
        ssl_context=ssl.create_default_context(), timeout_s=5.0, max_answer=1000, allow_plain_http=True
    )
    async with served(answer, None) as url, plain as transport:
        first = await transport.post(f"{url}/dm", BODY, Encoding.XML, MAC)
        second = await transport.post(f"{url}/dm", BODY, Encoding.WBXML)
    assert seen == [(MAC, XML), (None, "application/vnd.syncml.dm+wbxml")]
    assert (first.encoding, first.mac, first.body) == (second.encoding, second.mac, second.body)
    assert (first.encoding, first.mac, first.body) == (encoding, MAC, b"answer")


@pytest.mark.parametrize("encoding", Encoding, ids=lambda each: each.name)
async def test_an_answer_in_the_other_encoding_is_understood(tmp_path, encoding):
    """Interop: some servers do not mirror the encoding of the request."""
    dpf = dpf_with(AuthType.MD5)
    other = Encoding.XML if encoding is Encoding.WBXML else Encoding.WBXML

    class Turning:
        async def post(self, url, body, encoding, mac=None) -> HttpAnswer:
            answer = await dpf.post(url, body, encoding, mac)
            return replace(answer, body=encode(decode(answer.body, encoding), other), encoding=other)

    report = await run_session(
        device_with(tmp_path, AuthType.MD5), DPF, Turning(), SessionSettings(encoding=encoding), step="7"
    )
    assert (report.failure, report.commands) == ("", 1)
    assert dpf.urls[0] == DPF_URL


async def test_resp_uri_may_not_lead_away_from_the_only_proof(tmp_path):
    """OMA-TS-DM_Security-V1_2 §5.3: where TLS alone says who the server is, every message goes over TLS, whatever the
    transport would do for a test."""
    dpf = dpf_with(AuthType.MD5)
    dpf.server_uri = "http://dpf.example/dm"
    device, _ = make_device(tmp_path)
    write_account(device.tree, replace(profile_of(AuthType.MD5), server=None))
    with pytest.raises(ServerNotAuthenticated, match="RespURI"):
        await run_session(device, DPF, dpf, SessionSettings(), step="7")
    assert dpf.urls == [DPF_URL]


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_server_of_another_version_is_told_so(tmp_path, arrives):
    """OMA-TS-SyncML_RepPro-V1_2 §10: the Statuses with 505 are the device's last message; what answers them, or
    whether they arrive at all, changes nothing."""
    dpf = dpf_with(AuthType.MD5)
    heard = []

    class Older:
        async def post(self, url, body, encoding, mac=None) -> HttpAnswer:
            heard.append(decode(body, encoding))
            if len(heard) > 1 and not arrives:
                raise TransportFailed("gone")
            answer = await dpf.post(url, body, encoding, mac)
            message = decode(answer.body, encoding)
            older = replace(message, header=replace(message.header, ver_dtd="1.1"))
            return replace(answer, body=encode(older, encoding))

    report = await run_session(device_with(tmp_path, AuthType.MD5), DPF, Older(), SessionSettings(), step="7")
    assert "another version: 505" in report.failure
    assert (report.commands, len(heard)) == (0, 2)
    assert {each.code for each in heard[1].commands} == {505}


UNSENDABLE = {"a line end": "device\n1", "too long": "d" * 2000}


@pytest.mark.parametrize("name", UNSENDABLE.values(), ids=UNSENDABLE)
async def test_a_user_name_that_no_header_carries_fails_the_session_alone(tmp_path, name):
    """XC-066: a server may Replace its AAuthName; one that x-syncml-hmac has no way to say ends the session, and not
    the device that listens for the next."""
    device = device_with(tmp_path, AuthType.MAC)
    device.tree.nodes.change(("DMAcc", "1", "AppAuth", "1", "AAuthName"), value=name)
    dpf = dpf_with(AuthType.MAC)
    with pytest.raises(SessionFailed, match="cannot be sent"):
        await run_session(device, DPF, dpf, SessionSettings(), step="7")
    assert dpf.urls == []
