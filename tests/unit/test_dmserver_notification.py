"""Package 0 and bootstraps as the DPF makes them: ids, nonces, kinds of MAC, documents to be fetched, commands."""

from __future__ import annotations

import dataclasses
import json
import socket
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from actor_runtime.errors import ActorError
from dmserver import cli
from dmserver.bootstrap import BootstrapForm, BootstrapNotAllowed, MacKey, Profile, prepare_bootstrap
from dmserver.bootstrap_pull import offer, pull_url, take
from dmserver.notification import Call, NotificationNotAllowed, prepare_notification
from dmserver.push import FileDestination, HttpDestination, UdpDestination, destination_of
from dmserver.store.accounts import clear_resync, set_nonce
from dmserver.store.tables import bootstrap_pulls, devices
from syncml.bootstrap import (
    BootstrapSecrets,
    DmSec,
    Sec,
    authenticated,
    parse_push,
    read_accounts,
    read_cp,
    typed_number,
)
from syncml.bootstrap.dm_profile import read_message
from syncml.codes import AuthType, MediaType
from syncml.errors import LocalProtocolError
from syncml.notification import Initiator, UiMode, parse_notification
from tests.support_dmserver import DM_URL, Dpf, empty_database
from tests.support_dpf_pki import DPF_ID, M2ME_ID, NOW, SHO_ID

IMSI = "001010123456789"


@pytest.fixture
def dpf(tmp_path):
    made = Dpf(tmp_path)
    made.add_device()
    yield made
    made.close()


def notify(dpf: Dpf, **call):
    return dpf.store.write_sync(lambda c: prepare_notification(c, dpf.key, M2ME_ID, Call(**call), server_id=DPF_ID))


def test_notification_of_an_account(dpf):
    """XS-032: version 11, our ServerID, the account's secret and server nonce; sent as codes 44 and 07."""
    made = notify(dpf, ui_mode=UiMode.INFORMATIVE, initiator=Initiator.CLIENT, vendor=b"v")
    received = parse_notification(made.octets)
    assert received.notification.version == 11
    assert (received.notification.server_id, received.notification.session_id) == (DPF_ID, 1)
    assert (received.notification.ui_mode, received.notification.initiator) == (UiMode.INFORMATIVE, Initiator.CLIENT)
    assert received.notification.vendor == b"v"
    account = dpf.account()
    assert received.is_from(account.server_secret, account.server_nonce)
    assert made.push.content_type == MediaType.NOTIFICATION
    assert made.push.application_id == 7
    assert account.server_secret not in repr(made)


def test_session_ids_differ(dpf):
    """XS-032: one more each time, over restarts, round again after FFFF; never 0."""
    assert [notify(dpf).session_id for _ in range(3)] == [1, 2, 3]
    dpf.restart()
    assert notify(dpf).session_id == 4
    assert notify(dpf, session_id=0xFFFF).session_id == 0xFFFF
    assert notify(dpf).session_id == 1


def test_the_same_id_only_on_request(dpf):
    """XS-032: a repetition is meant as one."""
    with pytest.raises(NotificationNotAllowed, match="never notified"):
        notify(dpf, repeat=True)
    first = notify(dpf)
    assert notify(dpf, repeat=True).octets == first.octets
    with pytest.raises(NotificationNotAllowed, match="was used"):
        notify(dpf, session_id=first.session_id)
    with pytest.raises(LocalProtocolError):
        notify(dpf, session_id=0x10000)
    assert dpf.account().notified == first.session_id


def test_session_ids_outlive_a_bootstrap(dpf):
    """XS-032: the device remembers the ids it has seen."""
    notify(dpf)
    dpf.open_order()
    prepare(dpf)
    assert notify(dpf).session_id == 2


def test_nonce_is_that_of_the_last_session(dpf):
    """XS-032: package 0 renews no nonce; a session does."""
    dpf.store.write_sync(lambda c: set_nonce(c, M2ME_ID, "server", b"fresh"))
    account = dpf.account()
    for _ in range(2):
        assert parse_notification(notify(dpf).octets).is_from(account.server_secret, b"fresh")


def test_resynchronisation(dpf):
    """XS-033: four zero octets, remembered until the session; an ordinary notification takes it back."""
    made = notify(dpf, resync=True)
    assert parse_notification(made.octets).is_from(dpf.account().server_secret, b"\0\0\0\0")
    assert dpf.account().resync
    notify(dpf)
    assert not dpf.account().resync
    notify(dpf, resync=True)
    dpf.store.write_sync(lambda c: clear_resync(c, M2ME_ID))
    assert not dpf.account().resync


def test_no_account_no_notification(dpf):
    """XS-032: a device that was never bootstrapped cannot be called."""
    with pytest.raises(NotificationNotAllowed, match="no account"):
        dpf.store.write_sync(lambda c: prepare_notification(c, dpf.key, "urn:x", Call(), server_id=DPF_ID))


# -- bootstraps -------------------------------------------------------------------------------------------------------


def prepare(dpf: Dpf, form: BootstrapForm | None = None):
    return dpf.store.write_sync(
        lambda c: prepare_bootstrap(
            c, dpf.key, M2ME_ID, server_id=DPF_ID, dm_url=DM_URL, per_hour=9, now=NOW, form=form
        )
    )


SECRETS = BootstrapSecrets(pin="supplier-secret", imsi=IMSI)
FORMS = {
    "CP USERPIN": (BootstrapForm(), Sec.USERPIN),
    "CP NETWPIN": (BootstrapForm(mac_key=MacKey.NETWPIN, imsi=IMSI), Sec.NETWPIN),
    "CP USERNETWPIN": (BootstrapForm(mac_key=MacKey.USERNETWPIN, imsi=IMSI), Sec.USERNETWPIN),
    "CP as XML": (BootstrapForm(as_xml=True), Sec.USERPIN),
    "DM USERPIN": (BootstrapForm(profile=Profile.DM), DmSec.USERPIN),
    "DM NETWORKID": (BootstrapForm(profile=Profile.DM, mac_key=MacKey.NETWPIN, imsi=IMSI), DmSec.NETWORKID),
    "DM USERPIN_NETWORKID": (
        BootstrapForm(profile=Profile.DM, mac_key=MacKey.USERNETWPIN, imsi=IMSI), DmSec.USERPIN_NETWORKID),
}  # fmt: skip


@pytest.mark.parametrize(("form", "sec"), FORMS.values(), ids=FORMS)
def test_forms_of_a_bootstrap(dpf, form, sec):
    """XS-034, XS-035: the account that is kept, under the MAC that was asked for; no answer is waited for."""
    dpf.open_order()
    form = dataclasses.replace(form, client_auth=AuthType.MAC, server_auth=AuthType.BASIC)
    push = parse_push(prepare(dpf, form).datagram)
    assert authenticated(push, SECRETS) is sec
    if isinstance(sec, DmSec):
        (account,) = (each.account for each in read_message(push.body).offers)
    else:
        (account,) = read_accounts(read_cp(push))
    kept = dpf.account()
    assert (account.server_id, account.server_url) == (DPF_ID, DM_URL)
    assert (account.client.auth_type, account.client.secret, account.client.nonce) == (
        AuthType.MAC,
        kept.client_secret,
        kept.client_nonce,
    )
    assert (account.server.auth_type, account.server.secret) == (AuthType.BASIC, kept.server_secret)
    assert (kept.client_auth, kept.server_auth) == (AuthType.MAC, AuthType.BASIC)


def test_key_of_the_imsi_as_text(dpf):
    """Interop: for devices that take the digits for the key."""
    dpf.open_order()
    push = prepare(dpf, BootstrapForm(mac_key=MacKey.NETWPIN, imsi=IMSI, imsi_text=True)).push
    assert authenticated(push, dataclasses.replace(SECRETS, imsi_text=True)) is Sec.NETWPIN


def test_number_to_type(dpf):
    """XS-034: USERPINMAC gives the number the user has to type, and wants a secret of digits."""
    dpf.open_order()
    with pytest.raises(BootstrapNotAllowed, match="cannot be typed"):
        prepare(dpf, BootstrapForm(mac_key=MacKey.USERPINMAC))
    sealed = dpf.key.seal(b"12345678", f"dmserver|devices|bootstrap_secret|{M2ME_ID}".encode())
    dpf.store.write_sync(lambda c: c.execute(update(devices).values(bootstrap_secret=sealed)))
    made = prepare(dpf, BootstrapForm(mac_key=MacKey.USERPINMAC))
    assert made.typed == typed_number("12345678", made.push.body)
    assert made.push.mac is None
    assert made.typed not in repr(made)


WRONG = {
    "no IMSI": (BootstrapForm(mac_key=MacKey.NETWPIN), LocalProtocolError),
    "no IMSI, DM": (BootstrapForm(profile=Profile.DM, mac_key=MacKey.NETWPIN), LocalProtocolError),
    "DM as XML": (BootstrapForm(profile=Profile.DM, as_xml=True), BootstrapNotAllowed),
    "DM with a typed number": (BootstrapForm(profile=Profile.DM, mac_key=MacKey.USERPINMAC), BootstrapNotAllowed),
}


@pytest.mark.parametrize(("form", "error"), WRONG.values(), ids=WRONG)
def test_bootstraps_that_cannot_be_made(dpf, form, error):
    """XS-034: the account that is there stays in force."""
    dpf.open_order()
    before = dpf.account()
    with pytest.raises(error):
        prepare(dpf, form)
    assert dpf.account() == before


def test_a_managed_device_needs_no_order(dpf):
    """XS-034: for operator commands and for tests."""
    with pytest.raises(BootstrapNotAllowed, match="no ongoing order"):
        prepare(dpf)
    dpf.store.write_sync(lambda c: c.execute(update(devices).values(managed=True)))
    assert prepare(dpf).order_id is None


def test_a_device_that_came_without_a_secret(dpf):
    """XS-034: there is nothing to make a MAC key of but the IMSI."""
    dpf.open_order()
    dpf.store.write_sync(lambda c: c.execute(update(devices).values(bootstrap_secret=b"")))
    with pytest.raises(BootstrapNotAllowed, match="without a secret"):
        prepare(dpf)
    push = prepare(dpf, BootstrapForm(mac_key=MacKey.NETWPIN, imsi=IMSI)).push
    assert authenticated(push, SECRETS) is Sec.NETWPIN


# -- documents to be fetched ------------------------------------------------------------------------------------------


def test_a_document_is_fetched_once(dpf):
    """XS-034: sealed at rest, under a token of which only a digest is kept, gone after the first time."""
    dpf.open_order()
    push = prepare(dpf).push
    token = dpf.store.write_sync(lambda c: offer(c, dpf.key, M2ME_ID, push, lifetime_s=60, now=NOW))
    row = dpf.store.read_sync(lambda c: c.execute(select(bootstrap_pulls)).one())
    assert token not in str(row)
    assert push.body not in row.body
    found = dpf.store.write_sync(lambda c: take(c, dpf.key, token, NOW))
    assert (found.body, found.device_id) == (push.body, M2ME_ID)
    assert found.content_type == f"application/vnd.wap.connectivity-wbxml; SEC=1; MAC={push.mac}"
    assert dpf.store.write_sync(lambda c: take(c, dpf.key, token, NOW)) is None


def test_a_document_does_not_wait_for_ever(dpf):
    """XS-034: expired is gone; a new one withdraws the one before; other tokens open nothing."""
    dpf.open_order()
    push = prepare(dpf).push

    def make(lifetime_s: int) -> str:
        return dpf.store.write_sync(lambda c: offer(c, dpf.key, M2ME_ID, push, lifetime_s=lifetime_s, now=NOW))

    first, second = make(60), make(60)
    assert len({first, second}) == 2
    assert dpf.store.write_sync(lambda c: take(c, dpf.key, first, NOW)) is None
    assert dpf.store.write_sync(lambda c: take(c, dpf.key, "x" * len(second), NOW + timedelta(seconds=59))) is None
    assert dpf.store.write_sync(lambda c: take(c, dpf.key, second, NOW + timedelta(seconds=60))) is None
    assert dpf.store.read_sync(lambda c: c.execute(select(bootstrap_pulls)).all()) == []


def test_address_of_a_document():
    """XS-034: at the DM listener, whatever the path of DM is."""
    assert pull_url("https://dpf.example:8443/dm/x?y", "T") == "https://dpf.example:8443/bootstrap/T"


# -- command line -----------------------------------------------------------------------------------------------------

DESTINATIONS = {
    "udp": ({"udp": "127.0.0.1:2948"}, UdpDestination(host="127.0.0.1", port=2948)),
    "udp IPv6": ({"udp": "[::1]:2948"}, UdpDestination(host="::1", port=2948)),
    "http": ({"http": "http://h/wappush"}, HttpDestination(url="http://h/wappush")),
}


@pytest.mark.parametrize(("options", "destination"), DESTINATIONS.values(), ids=DESTINATIONS)
def test_destinations(options, destination):
    """XS-032: where a push goes."""
    assert destination_of(**({"udp": None, "http": None, "file": None} | options)) == destination


BAD = [{}, {"udp": "a:1", "http": "http://h/"}, {"udp": "a"}, {"udp": ":1"}, {"udp": "a:0"}, {"udp": "a:65536"},
       {"http": "ftp://h/"}, {"http": "http:///"}, {"http": "http://[x/"},
       {"http": "http://h/" + "a" * 3000}]  # fmt: skip


@pytest.mark.parametrize("options", BAD, ids=str)
def test_what_is_no_destination(options):
    """XS-032: said with a hint."""
    with pytest.raises(ActorError) as caught:
        destination_of(**({"udp": None, "http": None, "file": None} | options))
    assert caught.value.hint


SETTINGS = """
server_id = "dpf.example"
public_dm_url = "https://dpf.example:8443/dm"
database_url = "sqlite:///{dir}/dpf.sqlite"
seal_key = "{dir}/seal.key"
tls_cert = "{dir}/dpf.crt"
tls_key = "{dir}/dpf.key"
tls_ca = "{dir}/tls.pem"
manufacturer_anchors = "{dir}/manufacturer.pem"
pva_anchors = "{dir}/pva.pem"
pva_url = "https://pva.example"
log_level = "error"

[shos]
"sho.example" = "https://sho.example"
"""


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Runs `dmserver` with a settings file; gives exit status and what it printed."""
    config = tmp_path / "dmserver.toml"
    config.write_text(SETTINGS.format(dir=tmp_path))
    (tmp_path / "dpf.sqlite").write_bytes(empty_database())
    (tmp_path / "secret").write_text("12345678\n")
    (tmp_path / "imsi").write_text(IMSI + "\n")

    def call(*args: str):
        monkeypatch.setattr("sys.argv", ["dmserver", "--config", str(config), "--json", *args])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        printed = capsys.readouterr()
        return caught.value.code or 0, printed.out, printed.err

    assert call("devices", "add", "--m2me-id", M2ME_ID, "--bootstrap-secret-file", str(tmp_path / "secret"))[0] == 0
    assert call("order", "open", M2ME_ID, "--sho", SHO_ID)[0] == 0
    return call


def test_bootstrap_command(run, tmp_path):
    """XS-034: profile, kind of MAC and authentication types by option."""
    file = tmp_path / "b"
    options = ("--profile", "dm", "--sec", "usernetwpin", "--imsi-file", str(tmp_path / "imsi"),
               "--client-auth", "hmac", "--server-auth", "basic", "--file", str(file))  # fmt: skip
    status, out, err = run("bootstrap", M2ME_ID, *options)
    assert (status, err) == (0, "")
    assert json.loads(out)["octets"] == len(file.read_bytes())
    push = parse_push(file.read_bytes())
    assert authenticated(push, BootstrapSecrets(pin="12345678", imsi=IMSI)) is DmSec.USERPIN_NETWORKID
    (offered,) = read_message(push.body).offers
    assert offered.account.client.auth_type is AuthType.MAC
    assert offered.account.client.secret not in out


def test_bootstrap_to_be_typed_and_to_be_fetched(run, tmp_path):
    """XS-034: the number for the user, the URL for the device."""
    status, out, _ = run("bootstrap", M2ME_ID, "--sec", "userpinmac", "--xml", "--pull")
    printed = json.loads(out)
    assert status == 0
    assert len(printed["typedNumber"]) == 16
    assert printed["pullUrl"].startswith("https://dpf.example:8443/bootstrap/")


def test_notify_command(run, tmp_path):
    """XS-032: over UDP, with the id it says."""
    run("bootstrap", M2ME_ID, "--file", str(tmp_path / "b"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        device.bind(("127.0.0.1", 0))
        device.settimeout(5)
        where = f"127.0.0.1:{device.getsockname()[1]}"
        status, out, _ = run("notify", M2ME_ID, "--udp", where, "--ui-mode", "user-interaction", "--session-id", "af")
        datagram = device.recv(65536)
    assert (status, json.loads(out)["sessionId"]) == (0, "AF")
    notification = parse_notification(parse_push(datagram).body).notification
    assert (notification.session_id_text, notification.ui_mode) == ("AF", UiMode.USER_INTERACTION)
    assert json.loads(run("notify", M2ME_ID, "--file", str(tmp_path / "n"))[1])["sessionId"] == "B0"
    assert json.loads(run("notify", M2ME_ID, "--file", str(tmp_path / "n"), "--repeat")[1])["sessionId"] == "B0"


MISTAKES = {
    "no account": (("notify", M2ME_ID, "--file", "{dir}/n"), "has no account"),
    "no destination": (("notify", M2ME_ID), "say where it goes"),
    "no SessionID": (("notify", M2ME_ID, "--file", "{dir}/n", "--session-id", "10000"), "no SessionID"),
    "SessionID 0": (("notify", M2ME_ID, "--file", "{dir}/n", "--session-id", "0"), "no SessionID"),
    "pull and push": (("bootstrap", M2ME_ID, "--pull", "--file", "{dir}/n"), "say where the bootstrap goes"),
    "no IMSI": (("bootstrap", M2ME_ID, "--sec", "netwpin", "--file", "{dir}/n"), "no secret for NETWPIN"),
    "IMSI that is none": (("bootstrap", M2ME_ID, "--imsi-file", "{dir}/secret.txt", "--file", "{dir}/n"), "No such"),
    "DM as XML": (("bootstrap", M2ME_ID, "--profile", "dm", "--xml", "--file", "{dir}/n"), "WBXML only"),
    "listener that is not there": (
        ("bootstrap", M2ME_ID, "--http", "http://127.0.0.1:1/wappush"), "could not be sent"),
    "file that cannot be written": (("bootstrap", M2ME_ID, "--file", "{dir}/no/n"), "No such file"),
}  # fmt: skip


@pytest.mark.parametrize(("args", "told"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_end_with_a_sentence(run, tmp_path, args, told):
    """XS-032, XS-034: exit status 1 and no traceback."""
    status, _, err = run(*(arg.replace("{dir}", str(tmp_path)) for arg in args))
    assert status == 1
    assert told in err
    assert "Traceback" not in err


def test_imsi_file(run, tmp_path):
    """XS-034: what is no IMSI is said without repeating it."""
    (tmp_path / "wrong").write_text("12345")
    status, _, err = run("bootstrap", M2ME_ID, "--imsi-file", str(tmp_path / "wrong"), "--file", str(tmp_path / "n"))
    assert (status, "no IMSI" in err, "12345" in err) == (1, True, False)
    (tmp_path / "wrong").write_bytes(b"\xff")
    assert run("bootstrap", M2ME_ID, "--imsi-file", str(tmp_path / "wrong"), "--file", str(tmp_path / "n"))[0] == 1


def test_a_file_is_for_its_owner(run, tmp_path):
    """XS-034: a bootstrap holds credentials."""
    run("bootstrap", M2ME_ID, "--file", str(tmp_path / "b"))
    assert (tmp_path / "b").stat().st_mode & 0o077 == 0
    assert isinstance(destination_of(udp=None, http=None, file=tmp_path / "b"), FileDestination)
