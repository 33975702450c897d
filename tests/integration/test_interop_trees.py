"""Parts of the tree in one answer, two servers with different rights, and the habits of peers, over real HTTP."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dmclient.dm_account import write_account
from dmclient.management_session import SessionSettings, run_session
from syncml.codec import Encoding
from syncml.codes import AuthType
from syncml.model import Add, Get, Item, Meta, Replace, Sequence
from syncml.policy import Continue, Finish
from syncml.session import CommandAnswered
from tests.support_dmclient import OTHER, MemoryDpf, bootstrap_profile
from tests.support_site import MESSAGE_SIZE, Site, add, get, own, site

ENCODINGS = pytest.mark.parametrize("encoding", Encoding, ids=lambda each: each.name)


def value_of(result: dict[str, Any]) -> str | bytes:
    return base64.b64decode(result["valueBase64"]) if "valueBase64" in result else result["value"]


async def planted(here: Site) -> None:
    """./Scratch/n with two leaves, one of them binary, and an interior node."""
    binary = {"command": "add", "uri": "./Scratch/n/octets", "valueBase64": "AAECAw==", "format": "bin"}
    outcome = await here.ask(
        *own("./Scratch/n"),
        add("./Scratch/n/text", "<Grüße>"),
        binary,
        {"command": "add", "uri": "./Scratch/n/inner", "node": True},
        add("./Scratch/n/inner/deep", "d" * 200),
    )
    assert outcome["state"] == "done", outcome


@ENCODINGS
async def test_structure_and_values(tmp_path: Path, encoding: Encoding) -> None:
    """XI-10, XC-063: Struct gives every node without values, StructData with them."""
    async with site(tmp_path, encoding) as here:
        await planted(here)
        outcome = await here.ask(get("./Scratch/n?list=Struct"), get("./Scratch/n?list=StructData"))
        struct, data = ([*each["results"]] for each in outcome["commands"])
        uris = ["./Scratch/n", *(f"./Scratch/n/{name}" for name in ("text", "octets", "inner", "inner/deep"))]
        assert [each["uri"] for each in struct] == [each["uri"] for each in data] == uris
        assert [each["format"] for each in struct] == ["node", "chr", "bin", "node", "chr"]
        assert [value_of(each) for each in data] == ["", "<Grüße>", b"\x00\x01\x02\x03", "", "d" * 200]
        assert not any(value_of(each) for each in struct)


@ENCODINGS
async def test_serialised_tree_with_chosen_properties(tmp_path: Path, encoding: Encoding) -> None:
    """XI-10, XC-063: `TNDS+Value` has the values and no ACL, `TNDS-Value` the other way round."""
    async with site(tmp_path, encoding) as here:
        await planted(here)
        outcome = await here.ask(get("./Scratch/n?list=TNDS+Name+Value"), get("./Scratch/n?list=TNDS-Value"))
        values, rest = (value_of(each["results"][0]) for each in outcome["commands"])
        values, rest = (each if isinstance(each, bytes) else each.encode() for each in (values, rest))
        assert b"d" * 200 in values
        assert b"d" * 200 not in rest
        assert b"Add=dpf.example" in rest
        assert b"Add=dpf.example" not in values


@ENCODINGS
@pytest.mark.parametrize("message_size", [MESSAGE_SIZE, 2048])
async def test_a_serialised_tree_put_back_elsewhere(tmp_path: Path, encoding: Encoding, message_size: int) -> None:
    """XI-10, XC-063, XC-083: what a Get gave is added below another node, then replaces it; in several messages."""
    async with site(tmp_path, encoding, message_size=message_size, server_size=message_size) as here:
        await planted(here)
        many = [add(f"./Scratch/n/inner/v{number}", "v" * 100) for number in range(30)]
        assert (await here.ask(*many))["state"] == "done"
        (found,) = (await here.ask(get("./Scratch/n?list=TNDS")))["commands"][0]["results"]
        carried = {key: found[key] for key in ("value", "valueBase64", "format", "type") if key in found}
        for verb, target in (("add", "./Scratch/copy/n"), ("replace", "./Scratch/n")):
            here.wire.clear()
            outcome = await here.ask({"command": verb, "uri": target, **carried})
            assert outcome["state"] == "done", outcome
            assert len([each for each in here.wire if each.sender == "server"]) > 2
            assert max(len(each.octets) for each in here.wire) <= message_size
            area = tuple(target.split("/")[1:])
            nodes = here.device.tree.nodes
            below = {path[len(area) :]: nodes.value(path) for path in nodes.subtree(area)}
            assert len(below) == 35
            assert below["text",] == "<Grüße>"
            assert below["octets",] == b"\x00\x01\x02\x03"
            assert below["inner", "v29"] == "v" * 100


@ENCODINGS
async def test_a_serialised_tree_with_a_fault_changes_nothing(tmp_path: Path, encoding: Encoding) -> None:
    """XI-10, XC-065: one Status, no success, and the tree is what it was."""
    async with site(tmp_path, encoding) as here:
        await planted(here)
        text = (
            "<MgmtTree><VerDTD>1.2</VerDTD><Node><NodeName>bad</NodeName>"
            "<RTProperties><Format><node/></Format></RTProperties>"
            "<Node><NodeName>n</NodeName><RTProperties><Format><int/></Format></RTProperties><Value>no number</Value>"
            "</Node></Node></MgmtTree>"
        )
        before = set(here.device.tree.nodes.nodes)
        outcome = await here.ask(
            {
                "command": "add",
                "uri": "./Scratch/bad",
                "value": text,
                "format": "xml",
                "type": "application/vnd.syncml.dmtnds+xml",
            }
        )
        assert outcome["state"] == "failed"
        assert [each["code"] for each in outcome["commands"][0]["statuses"]] == [outcome["code"]]
        assert set(here.device.tree.nodes.nodes) == before


@ENCODINGS
async def test_two_servers_with_different_rights(tmp_path: Path, encoding: Encoding) -> None:
    """XI-9, XC-053: one server's nodes are closed to the other until their owner opens them, and only as far."""
    async with site(tmp_path, encoding) as here:
        await planted(here)
        write_account(here.device.tree, bootstrap_profile(OTHER))
        heard: list[int] = []

        def script(session: object, events: list[Any]) -> Continue | Finish:
            answered = [event for event in events if isinstance(event, CommandAnswered)]
            heard.extend(event.code for event in answered)
            if answered:
                return Finish()
            item = Item(target="./Scratch/n/text", data="theirs", meta=Meta(format="chr"))
            account = Get(items=(Item(target="./DMAcc/1/Name"),))
            return Continue((Get(items=(Item(target="./Scratch/n/text"),)), Replace(items=(item,)), account))

        other = MemoryDpf(script)
        other.account = replace(other.account, server_id=OTHER)

        async def visit() -> list[int]:
            heard.clear()
            report = await run_session(here.device, OTHER, other, SessionSettings(encoding=encoding), step="7")
            assert report.failure == ""
            return heard

        assert (await visit())[:2] == [425, 425]
        rights = f"Get=dpf.example+{OTHER}&Replace=dpf.example&Add=dpf.example&Delete=dpf.example"
        opened = await here.ask({"command": "replace", "uri": "./Scratch/n?prop=ACL", "value": rights})
        assert opened["state"] == "done"
        codes = await visit()
        assert codes[:2] == [200, 425]
        assert codes[2] != 200  # the account of the first server is none of the second's business
        assert here.device.tree.nodes.value(("Scratch", "n", "text")) == "<Grüße>"
        owner = await here.ask({"command": "replace", "uri": "./Scratch/n/text", "value": "ours"})
        assert owner["state"] == "done"
        assert here.device.tree.nodes.value(("Scratch", "n", "text")) == "ours"


# -- peer profiles ----------------------------------------------------------------------------------------------------


def no_sequence(here: Site) -> bool:
    return not here.sent("server", Sequence) and len(here.sent("server", Add)) > 2


def explicit(here: Site) -> bool:
    items = [(each.meta, item) for each in here.sent("server", Add) for item in each.items]
    assert any(item.meta is not None and item.meta.format == "node" for _, item in items)
    return all(meta is None and item.meta is not None and item.data is not None for meta, item in items)


def small(here: Site) -> bool:
    return max(len(each.octets) for each in here.wire if each.sender == "server") <= 2048


def windows(here: Site) -> bool:
    metas = [each.message.header.meta for each in here.wire if each.sender == "server"]
    return all(meta is None or (meta.max_msg_size is None and meta.max_obj_size is None) for meta in metas)


def no_resp_uri(here: Site) -> bool:
    headers = [each.message.header for each in here.wire]
    targets = {each.message.header.target for each in here.wire if each.sender == "device"}
    return all(header.resp_uri is None for header in headers) and len(targets) == 1


FORMS = {
    "no-sequence": no_sequence,
    "explicit": explicit,
    "small": small,
    "windows": windows,
    "no-resp-uri": no_resp_uri,
}


@ENCODINGS
@pytest.mark.parametrize("auth", [AuthType.BASIC, AuthType.MD5, AuthType.MAC], ids=lambda each: each.name)
@pytest.mark.parametrize(("profile", "as_told"), FORMS.items(), ids=FORMS)
async def test_peer_profile(
    tmp_path: Path, encoding: Encoding, auth: AuthType, profile: str, as_told: Callable[[Site], bool]
) -> None:
    """interop, XS-016, XS-029: what leaves the server has the form of the profile, not that of the default."""
    shown = []
    for name in (profile, "default"):
        (tmp_path / name).mkdir()
        async with site(tmp_path / name, encoding, auth, profile=name) as here:
            if profile == "no-resp-uri" and name == profile:
                here.change_account(per_message=True)
            request = here.queue(add("./Scratch/a", "one"), add("./Scratch/b", "two"), grouping="sequence")
            node = here.queue({"command": "add", "uri": "./Scratch/n", "node": True})
            large = here.queue(add("./Scratch/c", "t" * 5000))
            reading = here.queue(get("./DevDetail/SwV", "./Scratch"))
            assert (await here.session()).failure == ""
            outcome = here.outcome(reading)
            assert (here.outcome(request)["state"], outcome["state"]) == ("done", "done"), here.outcome(request)
            cut = name != "windows"  # a peer that knows no large objects gets none
            assert here.outcome(node)["state"] == "done"
            assert here.outcome(large)["code"] == (200 if cut else 413)
            assert outcome["commands"][0]["results"][1]["value"] == ("a/b/n/c" if cut else "a/b/n")
            shown.append(as_told(here))
    assert shown == [True, False]
