"""A simulated device with the objects of device descriptions, and what of them survives a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from actor_runtime.errors import ConfigError
from actor_runtime.sealing import SealingKey
from actor_runtime.trail import Trail
from dmclient.app import open_device
from dmclient.config import ClientSettings
from dmclient.device import Device
from dmclient.dm_device import DeviceSetup
from dmclient.management_tree import MAX_NODES, ManagementTree
from dmclient.objects.described import DescribedObjects, DescriptionConflict
from dmclient.objects.device import DeviceFacts, build_device_objects
from mo_definitions import Ddf, check_tree, load, parse_ddfs, read_ddf_file
from syncml.codec import Encoding
from syncml.codes import Format
from syncml.model import Add, Delete, Exec, Get, Item, Meta, Replace
from tests.support_dmclient import DEVICE_ID, DPF, Clock, FakeTre, make_device
from tests.support_executor import Commands

VECTORS = Path(__file__).parents[1] / "vectors" / "ddf"
GADGET = "./Device/Vendor/Example/Gadget"
FUMO = parse_ddfs(
    b"""<MgmtTree><VerDTD>1.2</VerDTD><Node><NodeName/><Path>./FUMO</Path><DFProperties>
    <AccessType><Add/><Delete/><Get/></AccessType><DFFormat><node/></DFFormat><Occurrence><ZeroOrMore/></Occurrence>
    <DFType><DDFName>urn:oma:mo:oma-fumo:1.0</DDFName></DFType></DFProperties>
    <Node><NodeName>Update</NodeName><DFProperties><AccessType><Add/><Exec/><Get/></AccessType><DFFormat><node/></DFFormat>
    <DFType><DDFName/></DFType></DFProperties></Node></Node></MgmtTree>"""
)


def tree(*ddfs: Ddf) -> tuple[ManagementTree, DescribedObjects]:
    made = ManagementTree(now=Clock())
    build_device_objects(made, DeviceFacts(device_id=DEVICE_ID))
    described = DescribedObjects(made, ddfs)
    described.complete()
    return made, described


def code(executor: Commands, command: type, uri: str, data: str | None = None, **meta: str) -> int:
    item = Item(target=uri, data=data, meta=Meta(**meta) if meta else None)
    return executor.execute(command(cmd_id="1", items=(item,)))[0].code


def test_nodes_made_from_a_description():
    """XC-049: One and permanent nodes are there with their defaults; the rest may come. The live tree fits the DDF."""
    made, described = tree(*read_ddf_file(VECTORS / "csp-style-gadget.xml"))
    nodes = made.nodes
    at = ("Device", "Vendor", "Example", "Gadget")
    assert nodes.children(at) == ["Enabled", "Reset", "Profiles", "Level"]
    assert (nodes.text((*at, "Enabled")), nodes.text((*at, "Level"))) == ("true", "0")
    assert nodes.text((*at[:-1], "GadgetInfo")) == "v1"
    assert described.roots == [GADGET, "./Device/Vendor/Example/GadgetInfo"]
    assert check_tree(read_ddf_file(VECTORS / "csp-style-gadget.xml")[0], made.facts(at)) == []


def test_what_servers_may_do_is_what_is_described():
    """XC-040, XC-046, XC-048, XC-060: AccessType, Scope, Format and Occurrence of the vendor's description."""
    made, _ = tree(*read_ddf_file(VECTORS / "csp-style-gadget.xml"))
    executor = Commands(made, DPF)
    text = {"format": "chr", "type": "text/plain"}
    steps = {
        "leaf": (Replace, f"{GADGET}/Enabled", "false", 200),
        "no bool": (Replace, f"{GADGET}/Enabled", "maybe", 415),
        "permanent": (Delete, f"{GADGET}/Enabled", None, 405),
        "not described": (Add, f"{GADGET}/Colour", "red", 405),
        "read-only": (Replace, "./Device/Vendor/Example/GadgetInfo", "v2", 405),
        "Exec": (Exec, f"{GADGET}/Reset", None, 200),
        "no Exec": (Exec, f"{GADGET}/Enabled", None, 405),
        "dynamic": (Delete, f"{GADGET}/Level", None, 200),
        "dynamic again": (Delete, f"{GADGET}/Level", None, 404),
        "beside the object": (Add, "./Device/Vendor/Example/Other", "x", 405),
    }
    found = {}
    for name, (command, uri, data, _) in steps.items():
        meta = {} if command is not Add else text
        found[name] = code(executor, command, uri, data, **meta)
    assert found == {name: step[3] for name, step in steps.items()}
    for number, expected in enumerate((200, 200, 405), start=1):
        assert code(executor, Add, f"{GADGET}/Profiles/p{number}", format="node") == expected
    assert code(executor, Add, f"{GADGET}/Profiles/p1/Key", "AAEC", format="b64") == 200
    assert made.nodes[("Device", "Vendor", "Example", "Gadget", "Profiles", "p1", "Key")].format is Format.BIN
    assert code(executor, Get, f"{GADGET}/Profiles/p1/Key") == 405


def test_an_object_without_a_name():
    """XC-041: its instances are added by servers, directly or through the Inbox."""
    made, _ = tree(*FUMO)
    executor = Commands(made, DPF)
    assert code(executor, Get, "./FUMO") == 200
    assert code(executor, Add, "./FUMO/1", format="node") == 200
    assert code(executor, Add, "./FUMO/1/Update", format="node") == 200
    assert code(executor, Exec, "./FUMO/1/Update") == 200
    assert made.home_of("urn:oma:mo:oma-fumo:1.0") == ("FUMO",)


def test_what_the_device_describes_itself_is_passed_over():
    made, described = tree(load("DevInfo"))
    assert (described.passed_over, described.roots) == (["./DevInfo"], [])
    assert made.nodes.text(("DevInfo", "DevId")) == DEVICE_ID


def test_two_descriptions_of_one_address():
    with pytest.raises(DescriptionConflict, match="two objects"):
        tree(*FUMO, *FUMO)


def test_more_nodes_than_the_device_holds():
    many = "".join(f"<Node><NodeName>n{number}</NodeName></Node>" for number in range(MAX_NODES))
    with pytest.raises(DescriptionConflict, match="more than"):
        tree(*parse_ddfs(f"<MgmtTree><Node><NodeName>A</NodeName>{many}</Node></MgmtTree>".encode()))


def reopened(directory: Path) -> Device:
    from dmclient.device import DeviceProfile
    from dmclient.store.state_file import StateFile

    clock = Clock()
    return Device(
        profile=DeviceProfile(facts=DeviceFacts(device_id=DEVICE_ID)),
        tre=FakeTre(),
        state_file=StateFile(directory / "device.state", SealingKey(b"k" * 32)),
        trail=Trail("M2ME", now=clock),
        now=clock,
        setup=DeviceSetup(ddfs=read_ddf_file(VECTORS / "csp-style-gadget.xml")),
    )


def test_described_objects_survive_a_restart(tmp_path):
    """Values written and nodes added stay, nodes deleted stay away; a description may also come to an old device."""
    make_device(tmp_path)[0].save()
    device = reopened(tmp_path)
    executor = Commands(device.tree, DPF, device.surroundings(Encoding.XML))
    assert code(executor, Get, f"{GADGET}/Level") == 200
    assert code(executor, Delete, f"{GADGET}/Level") == 200
    assert code(executor, Replace, f"{GADGET}/Enabled", "false") == 200
    assert code(executor, Add, f"{GADGET}/Profiles/p1", format="node") == 200
    device.save()
    again = reopened(tmp_path).tree.nodes
    at = ("Device", "Vendor", "Example", "Gadget")
    assert (*at, "Level") not in again
    assert again.text((*at, "Enabled")) == "false"
    assert (*at, "Profiles", "p1") in again


def settings(tmp_path: Path, **more: object) -> ClientSettings:
    key = tmp_path / "seal.key"
    if not key.exists():
        SealingKey.generate(key)
    return ClientSettings(m2me_id=DEVICE_ID, state_dir=tmp_path / "state", seal_key_file=key, **more)


def test_settings_name_descriptions_and_behaviour(tmp_path):
    """`ddf_files` and `behaviour_file` reach the executor of a session."""
    behaviour = tmp_path / "behaviour.toml"
    behaviour.write_text("user = 'scripted'\n[[rule]]\nuri = './Device/**'\ncommand = 'Get'\nstatus = 403")
    device = open_device(
        settings(tmp_path, ddf_files=(VECTORS / "csp-style-gadget.xml",), behaviour_file=behaviour),
        Trail("M2ME"),
        tre=FakeTre(),
    )
    executor = Commands(device.tree, DPF, device.surroundings(Encoding.XML))
    assert code(executor, Get, GADGET) == 403
    assert code(executor, Get, "./DevInfo") == 200
    assert code(executor, Replace, f"{GADGET}/Enabled", "false") == 200


FAULTY = {
    "missing": ("none.xml", "No such file"),
    "malformed": ("nonconformant-unknown-element.xml", "line 5: Colour"),
}


@pytest.mark.parametrize(("name", "fault"), FAULTY.values(), ids=FAULTY)
def test_faulty_files_are_named(tmp_path, name, fault):
    with pytest.raises(ConfigError, match=fault):
        open_device(settings(tmp_path, ddf_files=(VECTORS / name,)), Trail("M2ME"), tre=FakeTre())


def test_a_file_given_twice(tmp_path):
    twice = (VECTORS / "csp-style-gadget.xml",) * 2
    with pytest.raises(ConfigError, match="two objects"):
        open_device(settings(tmp_path, ddf_files=twice), Trail("M2ME"), tre=FakeTre())
