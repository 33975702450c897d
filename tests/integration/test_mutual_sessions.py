"""Device and DPF over real HTTP: both prove who they are, in every encoding and with every kind of credentials."""

from __future__ import annotations

import base64
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from dmclient.dm_account import store_nonce
from dmserver.store.accounts import put_account
from mo_definitions.standard import CLCRED, SRVCRED
from syncml.codec import Encoding
from syncml.codes import AuthType
from syncml.model import Status
from tests.support_dmclient import DEVICE_ID
from tests.support_dpf_pki import DPF_ID
from tests.support_site import MESSAGE_SIZE, add, get, own, site

ENCODINGS = pytest.mark.parametrize("encoding", Encoding, ids=lambda each: each.name)
TYPES = pytest.mark.parametrize("auth", AuthType, ids=lambda each: each.name)


@ENCODINGS
@TYPES
async def test_full_mutual_session(tmp_path: Path, encoding: Encoding, auth: AuthType) -> None:
    """XI-1, XI-3, XC-013, XS-027: credentials both ways, reading and changing the tree, and a second session."""
    async with site(tmp_path, encoding, auth) as here:
        first = here.queue(
            get("./DevDetail/SwV", "./DevInfo"),
            *own("./Scratch/n"),
            add("./Scratch/n/a", "one"),
            {"command": "replace", "uri": "./Scratch/n/a", "value": "<&>"},
            get("./Scratch/n/a"),
            {"command": "delete", "uris": ["./Scratch/n/a"]},
            get("./Scratch/n/a"),
        )
        assert (await here.session()).failure == ""
        outcome = here.outcome(first)
        codes = [[status["code"] for status in each["statuses"]] for each in outcome["commands"]]
        assert codes == [[200, 200], [200], [200], [200], [200], [200], [200], [404]]
        assert here.only_what_a_client_sends()
        assert outcome["commands"][5]["results"][0]["value"] == "<&>"
        second = here.queue(add("./Scratch/b", "two"), get("./Scratch/b"), grouping="sequence")
        here.wire.clear()
        assert (await here.session()).failure == ""
        assert here.outcome(second)["state"] == "done"
        accepted = 200 if auth is AuthType.MAC else 212
        assert here.header_codes("server")[0] == accepted  # by the nonces of the session before, unchallenged
        assert here.header_codes("device")[0] == accepted
        kind = encoding.media_type
        assert {each.content_type for each in here.wire} == {kind}
        if auth is AuthType.MAC:
            assert all(each.mac and each.message.header.cred is None for each in here.wire)
        else:
            assert all(each.mac is None for each in here.wire)
            creds = [each.message.header.cred for each in here.wire]
            assert [cred.type for cred in creds if cred is not None] == [auth, auth]  # one of each side, then 212


@ENCODINGS
@TYPES
async def test_spoilt_nonces_recover(tmp_path: Path, encoding: Encoding, auth: AuthType) -> None:
    """XI-2: both sides challenge, the same session goes on, and nothing is asked or done before."""
    async with site(tmp_path, encoding, auth) as here:
        for level in (CLCRED, SRVCRED):
            store_nonce(here.device.tree.nodes, DPF_ID, level, b"spoilt")
        request = here.queue(get("./DevDetail/SwV"))
        assert (await here.session()).failure == ""
        assert here.outcome(request)["state"] == "done"
        refused = [code for sender in ("server", "device") for code in here.header_codes(sender) if code >= 300]
        assert refused == ([] if auth is AuthType.BASIC else [401, 401])
        assert len({each.message.header.session_id for each in here.wire}) == 1


@TYPES
async def test_a_wrong_secret_gets_nothing(tmp_path: Path, auth: AuthType) -> None:
    """XS-007, XS-009, XC-025: neither side tells or does anything for one that does not prove itself."""
    async with site(tmp_path, Encoding.XML, auth) as here:
        account = here.dpf.account(DEVICE_ID)
        wrong = replace(account, server_secret="another")
        here.dpf.store.write_sync(lambda c: put_account(c, here.dpf.key, wrong, here.dpf.clock()))
        request = here.queue(add("./Scratch/a", "one"))
        report = await here.session()
        assert report.failure
        assert report.commands == 0
        assert ("Scratch", "a") not in here.device.tree.nodes
        assert here.outcome(request)["state"] in ("queued", "sent", "failed")
        wrong = replace(account, client_secret="another")
        here.dpf.store.write_sync(lambda c: put_account(c, here.dpf.key, wrong, here.dpf.clock()))
        here.wire.clear()
        assert (await here.session()).failure
        server = [each.message for each in here.wire if each.sender == "server"]
        assert all(isinstance(command, Status) for message in server for command in message.commands)


@ENCODINGS
async def test_200_kb_both_ways_in_messages_of_4096_octets(tmp_path: Path, encoding: Encoding) -> None:
    """XI-4: binary and text, to the device and back, no message over the limit and Size in the first chunk alone."""
    octets = bytes(range(256)) * 800
    text = "Grüße, <SyncML> & Kompagnie! " * 6500
    async with site(tmp_path, encoding, AuthType.MD5) as here:
        request = here.queue(
            {
                "command": "add",
                "uri": "./Scratch/octets",
                "valueBase64": base64.b64encode(octets).decode(),
                "format": "bin",
                "type": "application/octet-stream",
            },
            add("./Scratch/text", text),
            get("./Scratch/octets"),
            get("./Scratch/text"),
        )
        assert (await here.session()).failure == ""
        nodes = here.device.tree.nodes
        assert nodes.value(("Scratch", "octets")) == octets
        assert nodes.value(("Scratch", "text")) == text
        outcome = here.outcome(request)
        assert [each["code"] for each in outcome["commands"]] == [200, 200, 200, 200], outcome
        assert max(len(each.octets) for each in here.wire) <= MESSAGE_SIZE
        chunks = [
            (command.name, item.target or item.source, item.meta.size if item.meta else None, item.more_data)
            for each in here.wire
            for command in each.message.commands
            if not isinstance(command, Status)
            for item in getattr(command, "items", ())
            if item.more_data
        ]
        assert len(chunks) > 200
        for before, after in pairwise(chunks):
            assert (after[2] is None) == (after[:2] == before[:2])


@ENCODINGS
async def test_values_too_large_for_the_record_are_cut_there_and_nowhere_else(
    tmp_path: Path, encoding: Encoding
) -> None:
    """XC-083: what came back in chunks is whole, up to what the queue keeps of a value."""
    async with site(tmp_path, encoding, AuthType.MD5) as here:
        value = "v" * 20_000
        request = here.queue(add("./Scratch/v", value), get("./Scratch/v"))
        assert (await here.session()).failure == ""
        assert here.outcome(request)["commands"][1]["results"][0]["value"] == value
