"""What a bootstrap becomes in `./DMAcc`, and who may replace it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dmclient.bootstrap_receiver import BootstrapReceiver, Verdict
from dmclient.calls import Call, CallQueue
from dmclient.dm_account import DM_ACC, client_account, server_ids, server_secret, write_account
from mo_definitions import check_tree, load
from syncml.bootstrap import (
    AppAddress,
    BootstrapSecrets,
    DmBootstrap,
    DmCredentials,
    DmSec,
    Port,
    PxLogical,
    PxPhysical,
    Sec,
    TransportCredentials,
    compute_mac,
    encode_cp,
    encode_cp_xml,
    protect,
    protect_document,
    to_document,
    typed_number,
)
from syncml.bootstrap.dm_profile import account_node, protect_message
from syncml.codec import Encoding, encode
from syncml.codes import AuthType, MediaType
from syncml.model import Add, Atomic, Delete, Item, Message, Meta, SyncHdr
from syncml.tnds import Tnds, encode_tnds
from tests.support_dmclient import DEVICE_ID, DPF, DPF_URL, OTHER, SECRET, bootstrap_profile, make_device
from tests.support_executor import Commands

IMSI = "001010123456789"
SECRETS = BootstrapSecrets(pin=SECRET, imsi=IMSI)


@pytest.fixture
def device(tmp_path):
    return make_device(tmp_path)[0]


def receiver_of(device, secrets=SECRETS, calls=None) -> BootstrapReceiver:
    return BootstrapReceiver(
        tree=device.tree,
        memory=device.bootstrap,
        secrets=secrets,
        trail=device.trail,
        save=device.save,
        calls=calls,
    )


def dm(*accounts: DmBootstrap, sec: DmSec = DmSec.USERPIN):
    return protect_message(*accounts, device_id=DEVICE_ID, secrets=SECRETS, sec=sec)


FULL = bootstrap_profile(
    port=8443,
    addresses=(
        AppAddress(addr="192.0.2.1", addr_type="IPV4"),
        AppAddress(addr=DPF_URL, ports=(Port(number=8443), Port(number=443))),
    ),
    obex=TransportCredentials(auth_type="HTTP-DIGEST", name="o", secret="s3", data=b"\1"),
    to_proxies=("PX1",),
    to_napids=("NAP1", "INTERNET"),
    proxies=(
        PxLogical(
            proxy_id="PX1",
            password="hush",
            name="Proxy",
            physical=(PxPhysical(address="192.0.2.9", ports=(Port(number=8080),)),),
        ),
    ),
)
LEAVES = {
    "AppID": "w7",
    "ServerID": DPF,
    "Name": "Registration operator",
    "ToConRef/1/ConRef": "PX1",
    "ToConRef/2/ConRef": "NAP1",
    "ToConRef/3/ConRef": "INTERNET",
    "AppAddr/1/Addr": DPF_URL,
    "AppAddr/1/AddrType": "URI",
    "AppAddr/1/Port/1/PortNbr": "8443",
    "AppAddr/1/Port/2/PortNbr": "443",
    "AppAddr/2/Addr": "192.0.2.1",
    "AppAddr/2/AddrType": "IPv4",
    "AppAuth/1/AAuthLevel": "CLCRED",
    "AppAuth/1/AAuthType": "DIGEST",
    "AppAuth/1/AAuthName": "device-1",
    "AppAuth/1/AAuthSecret": "client-secret",
    "AppAuth/1/AAuthData": b"first client nonce",
    "AppAuth/2/AAuthLevel": "SRVCRED",
    "AppAuth/2/AAuthSecret": "server-secret",
    "AppAuth/3/AAuthLevel": "OBEX",
    "AppAuth/3/AAuthType": "HTTP-DIGEST",
    "AppAuth/3/AAuthName": "o",
    "AppAuth/3/AAuthSecret": "s3",
    "AppAuth/3/AAuthData": b"\1",
}


@pytest.mark.parametrize("profile", ["CP", "CP XML", "DM"])
def test_mapping_to_dmacc(device, profile):
    """XC-094, XC-095: OMA-TS-DM_Bootstrap §5.3.2, leaf by leaf; binary nonces come out of their Base64."""
    if profile == "DM":
        push = dm(FULL)
    else:
        push = protect_document(to_document(FULL), SECRETS, Sec.USERPIN, as_xml=profile == "CP XML")
    assert receiver_of(device).take(push) is Verdict.APPLIED
    nodes = device.tree.nodes
    found = {name: nodes.value((*DM_ACC, "1", *name.split("/"))) for name in LEAVES}
    assert found == LEAVES
    assert check_tree(load("DMAcc"), device.tree.facts(DM_ACC)) == []
    assert client_account(nodes, DPF, tls=True).server_uri == "https://dpf.example:8443/dm"
    assert str(nodes[(*DM_ACC, "1")].acl) == f"Delete={DPF}&Get={DPF}&Replace={DPF}"


def test_connections_are_kept_without_passwords(device):
    """XC-094: what the device may show of access points and proxies."""
    receiver_of(device).take(protect(FULL, SECRETS, Sec.USERPIN))
    assert [each.get("napId") or each["proxyId"] for each in device.bootstrap.connectivity] == ["NAP1", "PX1"]
    assert device.bootstrap.connectivity[1]["ports"] == [8080]
    assert "hush" not in str(device.bootstrap.connectivity)


def test_hmac_accounts_are_taken(device):
    """XC-094: AAUTHTYPE HMAC for either direction; the server's is good for notifications."""
    profile = bootstrap_profile(
        client=DmCredentials(auth_type=AuthType.MAC, name="c", secret="s", nonce=b"n"),
        server=DmCredentials(auth_type=AuthType.MAC, name="d", secret="t", nonce=b"m"),
    )
    assert receiver_of(device).take(protect(profile, SECRETS, Sec.USERPIN)) is Verdict.APPLIED
    assert device.tree.nodes.text((*DM_ACC, "1", "AppAuth", "1", "AAuthType")) == "HMAC"
    secret = server_secret(device.tree.nodes, DPF)
    assert (secret.secret, secret.nonce) == ("t", b"m")


def test_several_accounts_come_or_none(device):
    """XC-094: one document, two servers, a session with each to come; the first owns the M2M objects."""
    calls = CallQueue(device.calls, device.save)
    document = to_document(bootstrap_profile(), bootstrap_profile(OTHER))
    assert receiver_of(device, calls=calls).take(protect_document(document, SECRETS, Sec.USERPIN)) is Verdict.APPLIED
    assert server_ids(device.tree.nodes) == (DPF, OTHER)
    assert device.calls.waiting == [Call(server_id=DPF), Call(server_id=OTHER)]


def test_two_accounts_in_one_message(device):
    """XC-095: the same in the DM profile."""
    assert receiver_of(device).take(dm(bootstrap_profile(), bootstrap_profile(OTHER))) is Verdict.APPLIED
    assert server_ids(device.tree.nodes) == (DPF, OTHER)


def test_nothing_is_granted_that_the_message_does_not_say(device):
    """XC-095: an account without an ACL in its tree inherits."""
    node = replace(account_node(bootstrap_profile()), acl=None)
    item = Item(
        target="./Inbox",
        meta=Meta(format="xml", type=MediaType.TNDS_WBXML),
        data=encode_tnds(Tnds((node,)), Encoding.WBXML),
    )
    header = SyncHdr(session_id="0", msg_id="0", target="d", source="s")
    body = encode(Message(header=header, commands=(Add(cmd_id="1", items=(item,)),)), Encoding.WBXML)
    push = replace(dm(bootstrap_profile()), body=body)
    assert receiver_of(device).take(replace(push, mac=_mac(body))) is Verdict.APPLIED
    assert device.tree.nodes[(*DM_ACC, "1")].acl is None


def _mac(body: bytes) -> str:

    return compute_mac(SECRET.encode(), body)


def test_skipped_objects_are_noted(tmp_path):
    """XC-096: the log says what was not applied."""
    device, records = make_device(tmp_path)
    node = account_node(bootstrap_profile())
    other = replace(node, name="x", object_type="urn:oma:mo:oma-connmo-x:1.0", children=())
    item = Item(
        target="./Inbox",
        meta=Meta(format="xml", type=MediaType.TNDS_WBXML),
        data=encode_tnds(Tnds((other, node)), Encoding.WBXML),
    )
    header = SyncHdr(session_id="0", msg_id="0", target="d", source="s")
    body = encode(Message(header=header, commands=(Add(cmd_id="1", items=(item,)),)), Encoding.WBXML)
    assert receiver_of(device).take(replace(dm(bootstrap_profile()), body=body, mac=_mac(body))) is Verdict.APPLIED
    assert any("urn:oma:mo:oma-connmo-x:1.0" in str(each.fields) for each in records)


# -- who may replace an account ---------------------------------------------------------------------------------------

CP_NEW, DM_NEW = bootstrap_profile(name="new"), bootstrap_profile(name="newer")
REPLACED = {
    "the same": (Sec.USERPIN, protect(CP_NEW, SECRETS, Sec.USERPIN), Verdict.APPLIED),
    "the same in the other profile": (Sec.USERPIN, dm(DM_NEW), Verdict.APPLIED),
    "more": (Sec.USERPIN, protect(CP_NEW, SECRETS, Sec.USERNETWPIN), Verdict.APPLIED),
    "more than the IMSI": (Sec.NETWPIN, dm(DM_NEW, sec=DmSec.USERPIN_NETWORKID), Verdict.APPLIED),
    "less": (Sec.USERNETWPIN, protect(CP_NEW, SECRETS, Sec.USERPIN), Verdict.REFUSED),
    "less in the other profile": (Sec.USERNETWPIN, dm(DM_NEW), Verdict.REFUSED),
    "the IMSI instead of the PIN": (Sec.USERPIN, protect(CP_NEW, SECRETS, Sec.NETWPIN), Verdict.REFUSED),
    "the PIN instead of the IMSI": (Sec.NETWPIN, protect(CP_NEW, SECRETS, Sec.USERPIN), Verdict.REFUSED),
}


@pytest.mark.parametrize(("first", "push", "verdict"), REPLACED.values(), ids=REPLACED)
def test_replacing_an_account_takes_the_same_proof(tmp_path, first, push, verdict):
    """XC-094: remembered over a restart; another server may come by any kind of MAC."""
    device, _ = make_device(tmp_path)
    assert receiver_of(device).take(protect(bootstrap_profile(), SECRETS, first)) is Verdict.APPLIED
    again, _ = make_device(tmp_path)
    before = dict(again.tree.nodes.nodes)
    assert receiver_of(again).take(push) is verdict
    assert (again.tree.nodes.nodes == before) is (verdict is Verdict.REFUSED)
    assert receiver_of(again).take(protect(bootstrap_profile(OTHER), SECRETS, Sec.NETWPIN)) is Verdict.APPLIED


def test_a_typed_number_opens_one_document(device):
    """XC-094: USERPINMAC; the number goes with these octets only, and wrong ones count as wrong MACs."""
    push = protect(bootstrap_profile(), BootstrapSecrets(pin="1234"), Sec.USERPINMAC)
    typed = BootstrapSecrets(typed=typed_number("1234", push.body))
    other = replace(push, body=encode_cp(to_document(bootstrap_profile(name="other"))))
    assert receiver_of(device, typed).take(other) is Verdict.WRONG_MAC
    assert receiver_of(device, typed).take(push) is Verdict.APPLIED


def test_three_wrong_macs_lock_both_profiles(device):
    """XC-094, XC-095: counted together."""
    receiver = receiver_of(device)
    wrong = [replace(dm(CP_NEW), mac="0" * 40), replace(protect(CP_NEW, SECRETS, Sec.NETWPIN), mac="0" * 40)]
    assert [receiver.take(each) for each in (*wrong, wrong[0])] == [Verdict.WRONG_MAC] * 3
    assert receiver.take(dm(CP_NEW)) is Verdict.LOCKED


def test_a_call_is_made_with_the_account_or_not_at_all(device):
    """XC-095: all of it or nothing."""
    calls = CallQueue(device.calls, device.save)
    receiver = receiver_of(device, calls=calls)

    def fail() -> None:
        raise OSError("disk full")

    receiver._save = fail
    with pytest.raises(OSError, match="disk full"):
        receiver.take(dm(bootstrap_profile()))
    assert calls.first() is None
    assert device.bootstrap.security == {}
    assert server_ids(device.tree.nodes) == ()


# -- smart card -------------------------------------------------------------------------------------------------------

CARD_DOCUMENT = to_document(bootstrap_profile(), bootstrap_profile(OTHER))
CARD_FORMS = {"WBXML": encode_cp(CARD_DOCUMENT), "XML": encode_cp_xml(CARD_DOCUMENT)}


@pytest.mark.parametrize("document", CARD_FORMS.values(), ids=CARD_FORMS)
def test_smart_card_comes_and_goes(tmp_path, document):
    """XC-097: read at switch-on without a MAC; the same again changes nothing; without it its accounts are gone."""
    device, _ = make_device(tmp_path)
    calls = CallQueue(device.calls, device.save)
    assert receiver_of(device, calls=calls).card(document) is Verdict.APPLIED
    assert server_ids(device.tree.nodes) == (DPF, OTHER)
    again, records = make_device(tmp_path)
    before = dict(again.tree.nodes.nodes)
    assert receiver_of(again).card(document) is Verdict.UNCHANGED
    assert again.tree.nodes.nodes == before
    calls = CallQueue(again.calls, again.save)
    assert receiver_of(again, calls=calls).card(None) is Verdict.UNCHANGED
    assert server_ids(again.tree.nodes) == ()
    assert again.calls.waiting == []
    assert DPF not in str([node.acl for node in again.tree.nodes.nodes.values()])
    assert [each.fields["detail"] for each in records] == ["the smart card is gone"] * 2
    assert server_ids(make_device(tmp_path)[0].tree.nodes) == ()


def test_another_smart_card(device):
    """XC-097: what is not on it any more is removed, what is on it is put in."""
    receiver_of(device).card(encode_cp(CARD_DOCUMENT))
    new = to_document(bootstrap_profile(OTHER, name="new"))
    assert receiver_of(device).card(encode_cp(new)) is Verdict.APPLIED
    assert server_ids(device.tree.nodes) == (OTHER,)


def test_card_and_push_leave_each_other_alone(device):
    """XC-097: an account by push stays without a card and is not replaced by one, and the other way round."""
    receiver = receiver_of(device)
    receiver.take(protect(bootstrap_profile(), SECRETS, Sec.USERPIN))
    assert receiver.card(encode_cp(to_document(bootstrap_profile(name="card")))) is Verdict.REFUSED
    assert receiver.card(encode_cp(to_document(bootstrap_profile(OTHER)))) is Verdict.APPLIED
    assert receiver.take(protect(bootstrap_profile(OTHER, name="push"), SECRETS, Sec.USERNETWPIN)) is Verdict.REFUSED
    receiver.card(None)
    assert server_ids(device.tree.nodes) == (DPF,)


@pytest.mark.parametrize("document", [b"", b"<html/>", b"\x03\x0b\x6a\x00"], ids=["empty", "XML", "cut"])
def test_a_card_that_is_none(device, document):
    """XC-097: a card that cannot be read is no card that was removed."""
    receiver_of(device).card(encode_cp(CARD_DOCUMENT))
    assert receiver_of(device).card(document) is Verdict.REFUSED
    assert server_ids(device.tree.nodes) == (DPF, OTHER)


def acls(device) -> str:
    return " ".join(str(node.acl) for node in device.tree.nodes.nodes.values() if node.acl)


@pytest.mark.parametrize("well", [True, False], ids=["done", "rolled back"])
def test_a_server_that_deletes_its_account_is_forgotten(device, well):
    """OMA-TS-DM_TND-V1_2 §7.7.1.4: its identifier leaves every ACL with the account, so that nobody comes back into its
    rights under the same name; a failed Atomic takes that back, too."""
    write_account(device.tree, bootstrap_profile())
    commands = Commands(device.tree, DPF)
    before = acls(device)
    assert DPF in before
    delete = Delete(cmd_id="2", items=(Item(target="./DMAcc/1"),))
    if well:
        assert commands.execute(delete)[0].code == 200
        assert DPF not in acls(device)
        assert server_ids(device.tree.nodes) == ()
    else:
        missing = Delete(cmd_id="3", items=(Item(target="./DMAcc/none"),))
        assert commands.execute(Atomic(cmd_id="1", commands=(delete, missing)))[0].code == 507
        assert acls(device) == before
        assert server_ids(device.tree.nodes) == (DPF,)


def test_a_new_bootstrap_keeps_what_others_granted(device):
    """OMA-TS-DM_Bootstrap-V1_2 §5: an account that is renewed is not removed; its server keeps its rights elsewhere."""
    write_account(device.tree, bootstrap_profile())
    before = acls(device)
    write_account(device.tree, bootstrap_profile())
    assert acls(device) == before
