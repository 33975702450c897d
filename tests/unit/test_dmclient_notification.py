"""Package 0 at the device: what starts a session, what is dropped in silence, what is remembered."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmclient.bootstrap_receiver import BootstrapReceiver
from dmclient.calls import MAX_SEEN, MAX_WAITING, Call, CallMemory, CallQueue, Consent
from dmclient.dm_account import server_ids, store_nonce
from dmclient.notification_receiver import NotificationReceiver, NotificationVerdict
from dmclient.push_receiver import MALFORMED, NOT_OURS, PushReceiver
from mo_definitions.standard import SRVCRED
from syncml.bootstrap import BootstrapSecrets, DmSec, Sec, protect, protect_document, to_document
from syncml.bootstrap.dm_profile import protect_message
from syncml.codes import MediaType
from syncml.http_push import build_nested
from syncml.notification import Notification, UiMode, build_notification, notification_push
from syncml.wap_push import WapPush, build_push, http_content_type
from tests.support_dmclient import (
    DEVICE_ID,
    DPF,
    SECRET,
    SERVER_NONCE,
    SERVER_SECRET,
    bootstrap_profile,
    bootstrap_push,
    bootstrapped_device,
    make_device,
)

ZERO = bytes(4)


def trigger(session_id: int = 0xAF, *, server_id: str = DPF, secret: str = SERVER_SECRET,
            nonce: bytes = SERVER_NONCE, ui_mode: UiMode = UiMode.BACKGROUND) -> bytes:  # fmt: skip
    notification = Notification(session_id=session_id, server_id=server_id, ui_mode=ui_mode)
    return build_notification(notification, secret=secret, nonce=nonce)


class Ears:
    """A device's receivers around its memory."""

    def __init__(self, device, **changes):
        self.device = device
        self.calls = CallQueue(device.calls, device.save)
        self.notifications = NotificationReceiver(
            tree=device.tree,
            calls=self.calls,
            previous_nonce=device.previous_nonces.get,
            trail=device.trail,
            save=device.save,
            **changes,
        )
        self.bootstraps = BootstrapReceiver(
            tree=device.tree,
            memory=device.bootstrap,
            secrets=BootstrapSecrets(pin=SECRET, imsi="001010123456789"),
            trail=device.trail,
            save=device.save,
            calls=self.calls,
        )
        self.pushes = PushReceiver(bootstraps=self.bootstraps, notifications=self.notifications)

    def receive(self, octets: bytes) -> NotificationVerdict:
        return self.notifications.receive(octets)


@pytest.fixture
def device(tmp_path):
    return bootstrapped_device(tmp_path)[0]


@pytest.fixture
def ears(device):
    return Ears(device)


def test_a_right_digest_calls(ears):
    """XC-090, XC-002: the id of the trigger in hexadecimal, upper case, no leading zeros; nothing of an address."""
    assert ears.receive(trigger()) is NotificationVerdict.CALLED
    assert ears.calls.first() == Call(server_id=DPF, session_id="AF", ui_mode=UiMode.BACKGROUND)


DROPPED = {
    "XC-091 wrong nonce": (trigger(nonce=b"x"), NotificationVerdict.WRONG_DIGEST),
    "XC-091 wrong secret": (trigger(secret="x"), NotificationVerdict.WRONG_DIGEST),
    "XC-091 wrong secret under the special nonce": (
        trigger(secret="x", nonce=ZERO), NotificationVerdict.WRONG_DIGEST),
    "XC-091 changed trigger": (trigger()[:-1] + b"X", NotificationVerdict.UNKNOWN_SERVER),
    "XC-091 vendor octets added": (trigger() + b"X", NotificationVerdict.WRONG_DIGEST),
    "XC-091 unknown server": (trigger(server_id="nobody"), NotificationVerdict.UNKNOWN_SERVER),
    "XC-091 malformed": (trigger()[:20], NotificationVerdict.MALFORMED),
    "XC-091 nothing": (b"", NotificationVerdict.MALFORMED),
}  # fmt: skip


@pytest.mark.parametrize(("octets", "verdict"), DROPPED.values(), ids=DROPPED)
def test_dropped_in_silence(device, octets, verdict):
    """XC-091: no session, no trace but a verdict; a good one is taken afterwards."""
    ears = Ears(device)
    device.save()
    state = device.calls.dump()
    assert ears.receive(octets) is verdict
    assert device.calls.dump() == state
    assert ears.calls.first() is None
    assert ears.receive(trigger()) is NotificationVerdict.CALLED


def test_account_without_server_credentials_hears_nothing(tmp_path):
    """XC-091: there is nothing to check the digest with."""
    device, _ = make_device(tmp_path)
    ears = Ears(device)
    ears.bootstraps.receive(bootstrap_push(bootstrap_profile(server=None)))
    assert ears.receive(trigger(secret="")) is NotificationVerdict.UNKNOWN_SERVER


@pytest.mark.parametrize("nonce", [ZERO, b"0x00000000"], ids=["four octets", "ten characters"])
def test_special_nonce_is_tried_second(ears, nonce):
    """XC-092: after the stored nonce failed; the session then knows that it is one of resynchronisation."""
    assert ears.receive(trigger(nonce=nonce)) is NotificationVerdict.RESYNC
    assert ears.calls.first().resync


def test_special_nonce_that_is_the_stored_one_is_no_resync(device, ears):
    """XC-092: only after a failed normal check."""
    store_nonce(device.tree.nodes, DPF, SRVCRED, ZERO)
    assert ears.receive(trigger(nonce=ZERO)) is NotificationVerdict.CALLED


def test_special_nonce_can_be_switched_off(device):
    """XC-092: it is a SHOULD; whoever fears replays leaves it out."""
    assert Ears(device, resync=False).receive(trigger(nonce=ZERO)) is NotificationVerdict.WRONG_DIGEST


def test_nonce_before_the_present_one(device, ears):
    """XC-090: the server may not have got our last nonce; its notification is still one."""
    device.previous_nonces[DPF] = b"before"
    assert ears.receive(trigger(nonce=b"before")) is NotificationVerdict.CALLED
    assert not ears.calls.first().resync


def test_the_same_trigger_starts_one_session(tmp_path, device, ears):
    """XC-012, XC-090: repeated, before and after its session, and after a restart."""
    ears.receive(trigger())
    assert ears.receive(trigger()) is NotificationVerdict.SEEN
    ears.calls.done(ears.calls.first())
    assert ears.receive(trigger()) is NotificationVerdict.SEEN
    again = Ears(make_device(tmp_path)[0])
    assert again.calls.first() is None
    assert again.receive(trigger()) is NotificationVerdict.SEEN
    assert again.receive(trigger(0xB0)) is NotificationVerdict.CALLED


def test_a_trigger_whose_session_failed_is_welcome_again(ears):
    """XC-012: the server repeats it because nobody came."""
    ears.receive(trigger())
    ears.calls.failed(ears.calls.first())
    assert ears.receive(trigger()) is NotificationVerdict.CALLED


def test_a_call_survives_a_restart(tmp_path, ears):
    """XC-090: accepted is on disk before anything else happens."""
    ears.receive(trigger(nonce=ZERO))
    again, _ = make_device(tmp_path)
    assert CallQueue(again.calls, again.save).first() == replace(ears.calls.first())


def test_a_call_that_cannot_be_saved_is_not_taken(device, ears):
    """XC-012: otherwise a restart would answer it a second time."""

    def fail() -> None:
        raise OSError("disk full")

    ears.notifications._save = fail
    with pytest.raises(OSError, match="disk full"):
        ears.receive(trigger())
    assert ears.calls.first() is None
    assert device.calls.seen == []


def test_state_of_the_version_before(tmp_path):
    """A state file without calls and kinds of MAC is read."""
    device, _ = bootstrapped_device(tmp_path)
    data = {"failures": 0, "lockedUntil": None, "history": [], "connectivity": []}
    assert type(device.bootstrap).load(data).security == {}
    device._state_file.save({key: value for key, value in _saved(device).items() if key != "calls"})
    assert make_device(tmp_path)[0].calls == CallMemory()


def _saved(device):
    device.save()
    return {key: value for key, value in device._state_file.load().items() if key != "format"}


def test_memory_is_bounded(device, ears):
    """XC-091: whoever knows the secret cannot fill it either."""
    for number in range(1, MAX_SEEN + 20):
        ears.receive(trigger(number))
        if ears.calls.full:
            assert ears.receive(trigger(0x1000 + number)) is NotificationVerdict.BUSY
            for _ in range(MAX_WAITING):
                ears.calls.done(ears.calls.first())
    assert len(device.calls.seen) == MAX_SEEN


def test_a_new_account_forgets_the_old_ones_triggers(device, ears):
    """XC-012: with another secret they cannot come again, and the new server may start with the same id."""
    ears.receive(trigger())
    ears.bootstraps.receive(bootstrap_push(bootstrap_profile(name="new")))
    assert ears.calls.first() == Call(server_id=DPF)
    assert ears.receive(trigger()) is NotificationVerdict.CALLED


def test_log_and_trail_hold_no_secret(tmp_path):
    """XC-090: what is recorded is the id, the mode and that the digest was right."""
    device, records = bootstrapped_device(tmp_path)
    Ears(device).receive(trigger(ui_mode=UiMode.USER_INTERACTION))
    assert [each.fields.get("summary") or each.fields.get("name") for each in records] == [
        "package 0: SessionID AF, user interaction",
        "notification-digest",
    ]
    assert SERVER_SECRET not in str([each.fields for each in records])


# -- the queue --------------------------------------------------------------------------------------------------------


async def test_wait_gives_the_oldest_call(ears):
    """XC-090: one that comes while a session runs starts one afterwards."""
    waiting = asyncio.create_task(ears.calls.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    ears.receive(trigger(1))
    ears.receive(trigger(2))
    assert (await asyncio.wait_for(waiting, 60)).session_id == "1"
    ears.calls.done(ears.calls.first())
    assert (await ears.calls.wait()).session_id == "2"


async def test_a_call_ends_a_pause(ears):
    """XC-090: a device that would sleep does not."""
    pause = asyncio.create_task(ears.calls.pause(3600))
    await asyncio.sleep(0)
    ears.receive(trigger())
    await asyncio.wait_for(pause, 60)
    await asyncio.wait_for(ears.calls.pause(3600), 60)
    ears.calls.done(ears.calls.first())
    await asyncio.wait_for(ears.calls.pause(0.001), 60)


# -- the user ---------------------------------------------------------------------------------------------------------


async def _yes(_: str) -> bool:
    return True


async def _no(_: str) -> bool:
    return False


async def _silent(_: str) -> None:
    return None


async def _slow(_: str) -> bool:
    await asyncio.sleep(3600)
    return True


CONSENT = {
    "user says yes": (UiMode.USER_INTERACTION, _yes, False, True),
    "user says no": (UiMode.USER_INTERACTION, _no, True, False),
    "user says nothing": (UiMode.USER_INTERACTION, _silent, False, False),
    "user is slow": (UiMode.USER_INTERACTION, _slow, True, True),
    "no user, policy accepts": (UiMode.USER_INTERACTION, None, True, True),
    "no user, policy refuses": (UiMode.USER_INTERACTION, None, False, False),
    "informative asks nobody": (UiMode.INFORMATIVE, _no, False, True),
    "background asks nobody": (UiMode.BACKGROUND, _no, False, True),
    "not specified asks nobody": (UiMode.NOT_SPECIFIED, _no, False, True),
}


@pytest.mark.parametrize(("mode", "confirm", "policy", "given_"), CONSENT.values(), ids=CONSENT)
async def test_consent(mode, confirm, policy, given_):
    """XC-090: the mode is a recommendation that we follow: the user is asked, or the setting decides."""
    consent = Consent(confirm, default=policy, wait_s=0.01)
    assert await consent.given(Call(server_id=DPF, session_id="1", ui_mode=mode)) is given_


# -- one entrance -----------------------------------------------------------------------------------------------------

MATTER = trigger()
CP = protect(bootstrap_profile(), BootstrapSecrets(pin=SECRET), Sec.USERPIN)
CP_XML = protect_document(to_document(bootstrap_profile()), BootstrapSecrets(pin=SECRET), Sec.USERPIN, as_xml=True)
DM = protect_message(bootstrap_profile(), device_id=DEVICE_ID, secrets=BootstrapSecrets(pin=SECRET), sec=DmSec.USERPIN)
PACKAGE_0 = WapPush(content_type=MediaType.NOTIFICATION, application_id=7, body=MATTER)


def _headers(octets: str, body: bytes) -> bytes:
    raw = bytes.fromhex(octets)
    return bytes((0, 6, len(raw))) + raw + body


def _text(value: str) -> str:
    return value.encode().hex() + "00"


ROUTED = {
    "XC-093 codes": (notification_push(MATTER), "called"),
    "XC-093 content type as text": (_headers(_text(MediaType.NOTIFICATION) + "af87", MATTER), "called"),
    "XC-093 long form with charset": (_headers("040144" + "81ea" + "af87", MATTER), "called"),
    "XC-093 general form with charset": (_headers("03c481ea" + "af87", MATTER), "called"),
    "XC-093 code as long integer": (_headers("020144" + "af87", MATTER), "called"),
    "XC-093 application id as text": (_headers("c4af" + _text("x-wap-application:syncml.dm"), MATTER), "called"),
    "XC-093 application id in capitals": (_headers("c4af" + _text("X-WAP-APPLICATION:SYNCML.DM"), MATTER), "called"),
    "XC-093 application id, header as text": (
        _headers("c4" + _text("X-Wap-Application-Id") + _text("x-wap-application:syncml.dm"), MATTER), "called"),
    "XC-093 no application id": (_headers("c4", MATTER), "called"),
    "XC-093 for Data Synchronization": (_headers("c4af85", MATTER), NOT_OURS),
    "XC-093 for DRM": (_headers("c4af88", MATTER), NOT_OURS),
    "XC-093 for somebody else": (_headers("c4af" + _text("x-wap-application:wml.ua"), MATTER), NOT_OURS),
    "XC-093 another content type": (_headers("83", MATTER), NOT_OURS),
    "XC-093 not a push": (b"\0\5\0", MALFORMED),
    "XC-094 CP document": (build_push(CP), "applied"),
    "XC-094 CP document for DM": (build_push(replace(CP, application_id=7)), "applied"),
    "XC-094 CP document as XML": (build_push(CP_XML), "applied"),
    "XC-095 DM document": (build_push(DM), "applied"),
    "XC-095 DM document, SEC as CP has it": (build_push(replace(DM, sec=1)), "refused"),
    "XC-095 DM document, wrong MAC": (build_push(replace(DM, mac="0" * 40)), "wrong-mac"),
}  # fmt: skip


@pytest.mark.parametrize(("datagram", "verdict"), ROUTED.values(), ids=ROUTED)
def test_datagrams(ears, datagram, verdict):
    """XC-093, XC-094, XC-095: told apart by content type and application id."""
    assert ears.pushes.datagram(datagram) == verdict
    assert ears.pushes.counts == {verdict: 1}


HTTP = {
    "XC-093 plain body": (MediaType.NOTIFICATION, MATTER, None, "called"),
    "XC-093 plain body, with its application": (
        MediaType.NOTIFICATION, MATTER, "x-wap-application:syncml.dm", "called"),
    "XC-093 nested response": ("application/http", build_nested(PACKAGE_0), None, "called"),
    "XC-093 nested response, parameters": ("Application/HTTP; msgtype=response", build_nested(PACKAGE_0), None,
                                           "called"),
    "XC-093 nested rubbish": ("application/http", b"x", None, MALFORMED),
    "XC-093 another application": (MediaType.NOTIFICATION, MATTER, "x-wap-application:wml.ua", NOT_OURS),
    "XC-093 no content type": ("", MATTER, None, NOT_OURS),
    "XC-094 CP document": (http_content_type(CP), CP.body, None, "applied"),
    "XC-094 CP document, nested": ("application/http", build_nested(CP), None, "applied"),
    "XC-094 CP document as XML": (http_content_type(CP_XML), CP_XML.body, None, "applied"),
    "XC-094 SEC twice": (f"{MediaType.CONNECTIVITY_WBXML}; SEC=1; SEC=1", CP.body, None, MALFORMED),
    "XC-095 DM document": (http_content_type(DM), DM.body, None, "applied"),
    "XC-095 DM document, nested": ("application/http", build_nested(DM), None, "applied"),
}  # fmt: skip


@pytest.mark.parametrize(("content_type", "body", "application", "verdict"), HTTP.values(), ids=HTTP)
def test_http_bodies(ears, content_type, body, application, verdict):
    """XC-093, XC-094, XC-095: the same over HTTP."""
    assert ears.pushes.http(content_type, body, application) == verdict


@settings(max_examples=60, deadline=None)
@given(
    octets=st.binary(max_size=120) | st.binary(max_size=60).map(lambda junk: bytes((0, 6, 3)) + b"\xc4\xaf\x87" + junk)
)
def test_no_octets_raise(tmp_path_factory, octets):
    """XC-091: any octets give a verdict and none a call."""
    device, _ = bootstrapped_device(tmp_path_factory.getbasetemp() / "fuzz")
    device.save = lambda: None
    ears = Ears(device)
    assert ears.pushes.datagram(octets)
    assert ears.pushes.http("application/http", octets)
    assert ears.pushes.http(MediaType.NOTIFICATION, octets)
    assert ears.calls.first() is None
    assert server_ids(device.tree.nodes) == (DPF,)
