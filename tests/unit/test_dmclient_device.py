"""The M2ME between sessions: what it keeps, and what happens when it cannot."""

from __future__ import annotations

from dataclasses import replace

from mcim.vocabulary import ContainerState, ResultCode
from syncml.codes import Format
from syncml.model import Add
from syncml.values import leaf_item, node_item
from tests.support_dmclient import DPF, MCIM_ID, NEW_MCIM_ID, PCID, FakeTre, installed, make_device
from tests.support_executor import Commands


def pushed(device, package=b"good package"):
    """A package in a container."""
    items = (
        node_item("./M2MSIMMobj/c1"),
        leaf_item("./M2MSIMMobj/c1/Package", package, format=Format.BIN, type="application/vnd.m2m.mcim+xml"),
    )
    assert {each.code for each in Commands(device.tree, DPF).execute(Add(cmd_id="1", items=items))} == {200}


def owned(device):
    device.tree.nodes.change(("M2MSIMMobj",), acl=None)
    return device


def test_a_package_that_cannot_be_kept_for_tests_is_provisioned(tmp_path):
    """REQ-56: the copy is for testers alone; a full disk there costs nobody an MCIM."""
    device, trail = make_device(tmp_path, keep_package=tmp_path / "nowhere" / "package")
    pushed(owned(device))
    assert device.provision_ready() == [ResultCode.SUCCESS]
    assert "not kept" in "".join(record.to_json() for record in trail)


def test_what_was_announced_is_kept_as_long_as_its_mcim(tmp_path):
    """T12: home operators that install and delete again and again do not fill the state file."""
    tre = FakeTre(installed=[installed(ContainerState.ACTIVATED)])
    device, _ = make_device(tmp_path, tre=tre)
    device.attach_succeeded(tre.mcims()[0])
    assert device.announced == [str(MCIM_ID)]
    tre.installed = [replace(tre.installed[0], mcim_id=NEW_MCIM_ID)]
    device.attach_succeeded(tre.mcims()[0])
    assert device.announced == [str(NEW_MCIM_ID)]


def test_two_mcims_of_one_id_are_two(tmp_path):
    """T4, REQ-64: a home operator that takes another one's MCIM id in another TRE is not taken for it."""
    first = FakeTre(installed=[installed(ContainerState.SUSPENDED)])
    foreign = replace(installed(ContainerState.ACTIVATED), sho_id="other.example")
    second = FakeTre(platform_key_id=b"\x02" * 16, installed=[foreign])
    device, _ = make_device(tmp_path, tre=first, more_tres=(second,))
    usable = device.usable_mcim()
    assert usable == foreign
    device.attach_succeeded(usable)
    assert (first.confirmed, second.confirmed) == ([], [MCIM_ID])


def test_no_pcid_in_a_representation(tmp_path):
    """T13: the profile of the device is no place to read it."""
    from dmclient.objects.m2m import M2MFacts

    device, _ = make_device(tmp_path, m2m=M2MFacts(pcid=PCID))
    assert PCID not in repr(device.profile)
