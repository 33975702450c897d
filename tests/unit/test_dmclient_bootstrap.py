"""Bootstrap messages at the device: only the supplier's secret opens it, and a replay does no harm."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmclient.bootstrap_receiver import MAX_BOOTSTRAP, BootstrapReceiver, Verdict
from dmclient.calls import CallQueue
from dmclient.dm_account import DM_ACC, client_account, server_ids, store_nonce
from dmclient.notification_receiver import NotificationReceiver
from dmclient.objects.m2msim import M2MSIM
from dmclient.push_listeners import udp_listener
from dmclient.push_receiver import PushReceiver
from mo_definitions import check_tree, load
from mo_definitions.standard import CLCRED, SRVCRED
from syncml.bootstrap.cp import CpDocument, encode_cp
from syncml.bootstrap.profile import DmCredentials, to_document
from syncml.bootstrap.security import BootstrapSecrets, Sec, compute_mac
from syncml.codes import AuthType, MediaType
from syncml.model import Add, Get, Item, Meta, Replace
from syncml.wap_push import WapPush, build_push
from tests.support_dmclient import (
    CLIENT_NONCE,
    CLIENT_SECRET,
    DPF,
    DPF_URL,
    OTHER,
    SECRET,
    SERVER_NONCE,
    Clock,
    bootstrap_profile,
    bootstrap_push,
    make_device,
)
from tests.support_executor import Commands


def receiver_of(device, **changes) -> BootstrapReceiver:
    arguments = {"secrets": BootstrapSecrets(pin=SECRET), "save": device.save, "max_failures": 3, "lockout_s": 60.0}
    return BootstrapReceiver(tree=device.tree, memory=device.bootstrap, trail=device.trail, **(arguments | changes))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def device(tmp_path, clock):
    return make_device(tmp_path, clock=clock)[0]


def get(device, server, uri):
    (result,) = Commands(device.tree, server).execute(Get(cmd_id="1", items=(Item(target=uri),)))
    return result


def test_account_is_written(device):
    """XC-094, REQ-07: address, identifiers and connectivity are there; the tree follows the DDF."""
    receiver = receiver_of(device)
    assert receiver.receive(bootstrap_push()) is Verdict.APPLIED
    assert receiver.applied.is_set()
    account = client_account(device.tree.nodes, DPF, tls=True)
    assert (account.server_uri, account.client_auth, account.client_name) == (DPF_URL, AuthType.MD5, "device-1")
    assert (account.client_secret, account.client_nonce) == (CLIENT_SECRET, CLIENT_NONCE)
    assert (account.server_auth, account.server_name, account.server_nonce) == (AuthType.MD5, "dpf-1", SERVER_NONCE)
    assert get(device, DPF, "./DMAcc/1/PrefConRef").item.data == "NAP1"
    assert device.bootstrap.connectivity[0]["address"] == "ro.example"
    assert check_tree(load("DMAcc"), device.tree.facts(DM_ACC)) == []


def test_secrets_of_the_account_are_not_readable(device):
    """AAuthSecret and AAuthData have no Get, not even for the server they belong to; they can be replaced (XC-066)."""
    receiver_of(device).receive(bootstrap_push())
    for leaf in ("AAuthSecret", "AAuthData"):
        assert get(device, DPF, f"./DMAcc/1/AppAuth/1/{leaf}").code == 405
        assert get(device, DPF, f"./DMAcc/1/AppAuth/1/{leaf}?prop=Size").code == 405
    secret = Item(target="./DMAcc/1/AppAuth/1/AAuthSecret", meta=Meta(format="chr"), data="renewed")
    assert Commands(device.tree, DPF).execute(Replace(cmd_id="1", items=(secret,)))[0].code == 200
    assert client_account(device.tree.nodes, DPF, tls=True).client_secret == "renewed"


def test_the_first_server_owns_the_m2m_objects(device):
    """REQ-05: a second account reads M2MMobj, and gets 425 for M2MSIMMobj and for the first one's account."""
    receiver = receiver_of(device)
    receiver.receive(bootstrap_push())
    assert receiver.receive(bootstrap_push(bootstrap_profile(OTHER))) is Verdict.APPLIED
    assert server_ids(device.tree.nodes) == (DPF, OTHER)
    container = Add(cmd_id="1", items=(Item(target="./M2MSIMMobj/c1", meta=Meta(format="node")),))
    assert Commands(device.tree, OTHER).execute(container)[0].code == 425
    assert Commands(device.tree, DPF).execute(container)[0].code == 200
    assert get(device, OTHER, "./M2MMobj/TRE/Id").code == 200
    assert get(device, OTHER, "./DMAcc/1/AppAddr/1/Addr").code == 425


def test_account_survives_a_restart(device, tmp_path):
    """The account and its rights come back from the sealed file; no secret stands in it in clear."""
    receiver_of(device).receive(bootstrap_push())
    again, _ = make_device(tmp_path)
    assert client_account(again.tree.nodes, DPF, tls=True) == client_account(device.tree.nodes, DPF, tls=True)
    assert again.tree.nodes[M2MSIM].acl == device.tree.nodes[M2MSIM].acl
    assert CLIENT_SECRET.encode() not in (tmp_path / "device.state").read_bytes()


def test_nonces_are_kept_for_the_next_session(device):
    """One nonce for each direction."""
    receiver_of(device).receive(bootstrap_push())
    store_nonce(device.tree.nodes, DPF, CLCRED, b"c2")
    store_nonce(device.tree.nodes, DPF, SRVCRED, b"s2")
    store_nonce(device.tree.nodes, "nobody", CLCRED, b"x")
    account = client_account(device.tree.nodes, DPF, tls=True)
    assert (account.client_nonce, account.server_nonce) == (b"c2", b"s2")


def test_replay_of_the_profile_in_force_changes_nothing(device):
    """REQ-10: idempotent; above all the nonces do not go back."""
    receiver = receiver_of(device)
    receiver.receive(bootstrap_push())
    store_nonce(device.tree.nodes, DPF, CLCRED, b"moved on")
    before = dict(device.tree.nodes.nodes)
    assert receiver.receive(bootstrap_push()) is Verdict.UNCHANGED
    assert device.tree.nodes.nodes == before


def test_replay_of_a_replaced_profile_is_refused(device, tmp_path):
    """REQ-10: an old address of the DPF does not come back, also after a restart."""
    receiver = receiver_of(device)
    old, new = bootstrap_push(), bootstrap_push(bootstrap_profile(addr="https://new.example/dm"))
    assert [receiver.receive(each) for each in (old, new)] == [Verdict.APPLIED] * 2
    again, records = make_device(tmp_path)
    assert receiver_of(again).receive(old) is Verdict.OUTDATED
    assert client_account(again.tree.nodes, DPF, tls=True).server_uri == "https://new.example/dm"
    assert {"name": "bootstrap-not-outdated", "passed": False}.items() <= records[-1].fields.items()
    assert len(device.tree.nodes.children(DM_ACC)) == 1


def _tampered() -> bytes:
    datagram = bytearray(bootstrap_push())
    datagram[-1] ^= 1
    return bytes(datagram)


def _raw(body: bytes, **changes) -> bytes:
    push = {"content_type": MediaType.CONNECTIVITY_WBXML, "sec": 1, "mac": compute_mac(SECRET.encode(), body)} | changes
    return build_push(WapPush(body=body, **push))


NO_MAC = bootstrap_profile(client=DmCredentials(auth_type=AuthType.MD5, name="n", secret="s"))
REJECTED = {
    "REQ-08 wrong secret": (bootstrap_push(secret="guess"), Verdict.WRONG_MAC),
    "REQ-08 body changed": (_tampered(), Verdict.WRONG_MAC),
    "REQ-08 no MAC": (_raw(encode_cp(to_document(NO_MAC)), mac=None), Verdict.REFUSED),
    "REQ-08 no SEC": (_raw(encode_cp(to_document(NO_MAC)), sec=None), Verdict.REFUSED),
    "REQ-08 MAC of a SIM we have not": (bootstrap_push(sec=Sec.NETWPIN), Verdict.REFUSED),
    "REQ-08 MAC typed by a user": (bootstrap_push(sec=Sec.USERPINMAC), Verdict.REFUSED),
    "unknown SEC": (bootstrap_push(sec=9), Verdict.REFUSED),
    "REQ-07 oversized": (bootstrap_push() + b"\0" * MAX_BOOTSTRAP, Verdict.REFUSED),
    "REQ-07 empty": (b"", Verdict.REFUSED),
    "REQ-07 not a push": (b"\x01\x05\x00", Verdict.REFUSED),
    "REQ-07 truncated": (bootstrap_push()[:20], Verdict.REFUSED),
    "REQ-07 other content": (_raw(b"x", content_type=MediaType.NOTIFICATION), Verdict.REFUSED),
    "REQ-07 not WBXML": (_raw(b"<wap-provisioningdoc/>"), Verdict.REFUSED),
    "REQ-07 no account": (_raw(encode_cp(CpDocument(characteristics=()))), Verdict.REFUSED),
}


@pytest.mark.parametrize(("datagram", "verdict"), REJECTED.values(), ids=REJECTED)
def test_what_is_not_accepted_leaves_no_trace(device, datagram, verdict):
    """XC-094: rejected, nothing changed, nothing raised; good messages are still taken afterwards."""
    receiver = receiver_of(device)
    before = dict(device.tree.nodes.nodes)
    assert receiver.receive(datagram) is verdict
    assert device.tree.nodes.nodes == before
    assert not receiver.applied.is_set()
    assert receiver.receive(bootstrap_push()) is Verdict.APPLIED


def test_lock_out_after_wrong_macs(device, clock, tmp_path):
    """REQ-08: after N wrong MACs not even the right one is looked at, for a while, also after a restart."""
    receiver = receiver_of(device)
    wrong = bootstrap_push(secret="guess")
    assert [receiver.receive(wrong) for _ in range(3)] == [Verdict.WRONG_MAC] * 3
    assert receiver.receive(bootstrap_push()) is Verdict.LOCKED
    again, _ = make_device(tmp_path, clock=clock)
    assert receiver_of(again).receive(bootstrap_push()) is Verdict.LOCKED
    clock.advance(60)
    assert receiver_of(again).receive(bootstrap_push()) is Verdict.APPLIED


def test_a_right_mac_resets_the_count(device):
    """REQ-08: failures in a row count."""
    receiver = receiver_of(device)
    wrong = bootstrap_push(secret="guess")
    receiver.receive(wrong)
    receiver.receive(wrong)
    receiver.receive(bootstrap_push())
    assert receiver.receive(wrong) is Verdict.WRONG_MAC
    assert receiver.receive(wrong) is Verdict.WRONG_MAC
    assert receiver.receive(bootstrap_push()) is Verdict.UNCHANGED


def test_without_secret_nothing_is_accepted(device):
    """REQ-08: unauthenticated bootstrap does not exist here."""
    assert receiver_of(device, secrets=BootstrapSecrets()).receive(bootstrap_push()) is Verdict.REFUSED


def test_an_account_that_cannot_be_saved_is_not_used(device):
    """All or nothing: without a save there is no account."""

    def fail() -> None:
        raise OSError("disk full")

    before = dict(device.tree.nodes.nodes)
    with pytest.raises(OSError, match="disk full"):
        receiver_of(device, save=fail).receive(bootstrap_push())
    assert device.tree.nodes.nodes == before
    assert device.bootstrap.history == []


def test_account_without_server_credentials_needs_tls(device):
    """REQ-09: TLS may stand for the server's credentials; without TLS a server that has none cannot pass."""
    receiver_of(device).receive(bootstrap_push(bootstrap_profile(server=None)))
    assert client_account(device.tree.nodes, DPF, tls=True).server_auth is None
    assert client_account(device.tree.nodes, DPF, tls=False).server_auth is AuthType.MD5


def test_account_with_hmac(device):
    """XC-027: HMAC credentials of a bootstrap are credentials of sessions."""
    client = DmCredentials(auth_type=AuthType.MAC, name="n", secret="s", nonce=b"n")
    receiver_of(device).receive(bootstrap_push(bootstrap_profile(client=client)))
    account = client_account(device.tree.nodes, DPF, tls=True)
    assert (account.client_auth, account.client_name, account.client_nonce) == (AuthType.MAC, "n", b"n")


def test_account_that_no_session_can_use(device):
    """An account without credentials we can present is no account to start with."""
    receiver_of(device).receive(bootstrap_push(bootstrap_profile(client=None)))
    assert client_account(device.tree.nodes, DPF, tls=True) is None
    assert client_account(device.tree.nodes, "nobody", tls=True) is None


def test_several_connections(device):
    """Two TO-NAPIDs become ToConRef."""
    receiver_of(device).receive(bootstrap_push(bootstrap_profile(to_napids=("NAP1", "INTERNET"))))
    assert get(device, DPF, "./DMAcc/1/ToConRef/2/ConRef").item.data == "INTERNET"
    assert check_tree(load("DMAcc"), device.tree.facts(DM_ACC)) == []


@settings(max_examples=100, deadline=None)
@given(datagram=st.one_of(st.binary(max_size=300), st.binary(max_size=60).map(lambda junk: bootstrap_push() + junk)))
def test_no_datagram_raises(tmp_path_factory, datagram):
    """REQ-07, REQ-08: any octets give a verdict, and none but the right ones an account."""
    device, _ = make_device(tmp_path_factory.getbasetemp() / "fuzz")
    device.save = lambda: None
    verdict = receiver_of(device).receive(datagram)
    assert (verdict is Verdict.APPLIED) == bool(server_ids(device.tree.nodes))
    assert verdict is not Verdict.APPLIED or datagram == bootstrap_push()


async def test_bootstrap_over_udp(device):
    """The listener takes datagrams, answers none, and goes on after rubbish."""
    receiver = receiver_of(device)
    calls = CallQueue(device.calls, device.save)
    notifications = NotificationReceiver(
        tree=device.tree, calls=calls, previous_nonce=lambda _: None, trail=device.trail, save=device.save
    )
    pushes = PushReceiver(bootstraps=receiver, notifications=notifications)
    answers: list[bytes] = []

    class Sender(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            answers.append(data)

    loop = asyncio.get_running_loop()
    async with udp_listener(pushes, "127.0.0.1", 0) as port:
        sender, _ = await loop.create_datagram_endpoint(Sender, remote_addr=("127.0.0.1", port))
        try:
            for datagram in (b"rubbish", bootstrap_push(secret="guess"), bootstrap_push()):
                sender.sendto(datagram)
            await asyncio.wait_for(receiver.applied.wait(), 60)
        finally:
            sender.close()
    assert server_ids(device.tree.nodes) == (DPF,)
    assert answers == []
    assert pushes.counts == {"malformed-push": 1, "wrong-mac": 1, "applied": 1}
