"""`dmserver devices` and `dmserver device DEVICE`: what is said, what is refused, and no secret in arguments."""

from __future__ import annotations

import base64
import io
import json
from types import SimpleNamespace

import pytest

from actor_runtime.config import load_settings
from actor_runtime.sealing import SealingKey
from dmserver import cli
from dmserver.bootstrap_pull import offer
from dmserver.config import DmServerSettings
from dmserver.operator_commands import OperatorRequest
from dmserver.operator_outcomes import settle
from dmserver.server import open_store
from dmserver.store.accounts import find_account
from dmserver.store.operator_commands import find_request, mark_sent, next_request, settle_request
from syncml.codes import AuthType
from syncml.model import Item, Results, Status
from syncml.session import CommandAnswered
from syncml.wap_push import WapPush
from tests.support_dpf_pki import NOW, SHO_ID
from tests.unit.test_dmserver_cli import SETTINGS

DEVICE = "urn:imei:004999010640000"


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Runs `dmserver` with a settings file; gives exit status and what it printed."""
    config = tmp_path / "dmserver.toml"
    config.write_text(SETTINGS.format(dir=tmp_path))
    (tmp_path / "client").write_text("client-secret\n")
    (tmp_path / "server").write_text("server-secret\n")

    def call(*args: str, json_output: bool = True, stdin: bytes = b""):
        options = ["--config", str(config)] + (["--json"] if json_output else [])
        monkeypatch.setattr("sys.argv", ["dmserver", *options, *(arg.replace("{dir}", str(tmp_path)) for arg in args)])
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as caught:
            cli.main()
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return caught.value.code or 0, printed.out, printed.err

    return call


@pytest.fixture
def store(tmp_path, run):
    run("devices", "add", "--m2me-id", DEVICE, "--managed", "--peer-profile", "windows")
    opened = open_store(load_settings(DmServerSettings, tmp_path / "dmserver.toml"))
    yield opened
    opened.close()


@pytest.fixture
def key(store, tmp_path):
    return SealingKey.load(tmp_path / "seal.key")


ACCOUNT = (
    "devices", "account", DEVICE, "--client-name", "dev", "--client-secret-file", "{dir}/client",
    "--server-secret-file", "{dir}/server",
)  # fmt: skip


def test_a_device_without_bootstrap_gets_its_account_by_hand(run, store, key):
    """XS-013: an account of its own for each device, with two secrets that differ."""
    nonce = base64.b64encode(b"first-nonce").decode()
    status, out, _ = run(
        *ACCOUNT, "--client-auth", "hmac", "--server-auth", "basic", "--server-name", "us",
        "--client-nonce", nonce, "--server-nonce", nonce, "--per-message",
    )  # fmt: skip
    assert (status, json.loads(out)["clientAuth"]) == (0, "hmac")
    account = store.read_sync(lambda c: find_account(c, key, DEVICE))
    assert account is not None
    assert (account.client_auth, account.server_auth, account.per_message) == (AuthType.MAC, AuthType.BASIC, True)
    assert (account.client_name, account.client_secret, account.client_nonce) == (
        "dev",
        "client-secret",
        b"first-nonce",
    )
    assert (account.server_name, account.server_secret, account.server_nonce) == ("us", "server-secret", b"first-nonce")
    assert account.peer.name == "windows"
    shown = json.loads(run("devices", "show", DEVICE)[1])
    assert (shown["managed"], shown["peerProfile"], shown["clientAuth"]) == (True, "windows", "syncml:auth-MAC")
    assert "secret" not in json.dumps(shown)


def test_a_secret_may_come_on_standard_input(run, store, key):
    args = [arg if arg != "{dir}/client" else "-" for arg in ACCOUNT]
    assert run(*args, stdin=b"from-standard-input\n")[0] == 0
    account = store.read_sync(lambda c: find_account(c, key, DEVICE))
    assert account is not None
    assert account.client_secret == "from-standard-input"


def test_changing_and_removing_devices(run, store, key):
    assert run("devices", "set", DEVICE, "--no-managed", "--peer-profile", "small")[0] == 0
    row = json.loads(run("devices", "list")[1])[0]
    assert (row["m2meId"], row["managed"], row["peerProfile"]) == (DEVICE, False, "small")
    run("device", DEVICE, "get", "./A")
    assert run(*ACCOUNT)[0] == 0
    waiting = WapPush(content_type="application/vnd.wap.connectivity-wbxml", body=b"document", sec=1, mac="00" * 20)
    store.write_sync(lambda c: offer(c, key, DEVICE, waiting, lifetime_s=60, now=NOW))
    assert run("devices", "remove", DEVICE)[0] == 0
    assert json.loads(run("devices", "list")[1]) == []
    assert run("devices", "remove", DEVICE)[0] == 1


def test_a_device_with_orders_stays(run, store):
    run("order", "open", DEVICE, "--sho", SHO_ID)
    status, _, err = run("devices", "remove", DEVICE)
    assert (status, "has orders" in err, "hint:" in err) == (1, True, True)


def queued(run, store, key, *args: str, **options: object) -> OperatorRequest:
    status, out, err = run("device", DEVICE, *args, **options)
    assert status == 0, err
    found = store.read_sync(lambda c: find_request(c, key, DEVICE, json.loads(out)["id"]))
    assert found is not None
    return found


def shape(request: OperatorRequest) -> list[tuple[object, ...]]:
    return [
        (
            record.command.name,
            *(
                (item.source, item.target, item.meta.format if item.meta else None, item.data)
                for item in record.command.items
            ),
        )
        for record in request.commands
    ]


WRITTEN = {
    "get": (("get", "./A", "./B"), b"", ("Get", (None, "./A", None, None), (None, "./B", None, None))),
    "add text": (("add", "./A", "--value", "x"), b"", ("Add", (None, "./A", "chr", "x"))),
    "add number": (("add", "./A", "--value", "5", "--format", "int"), b"", ("Add", (None, "./A", "int", "5"))),
    "add node": (("add", "./A", "--node"), b"", ("Add", (None, "./A", "node", None))),
    "add octets": (("add", "./A", "--value-file", "-"), b"\0\xff", ("Add", (None, "./A", "bin", b"\0\xff"))),
    "replace by text file": (
        ("replace", "./A", "--value-file", "-", "--format", "chr"), b"text\n",
        ("Replace", (None, "./A", "chr", "text\n")),
    ),
    "sub-tree in XML": (
        ("add", "./A", "--tnds", "-"), b"<MgmtTree/>", ("Add", (None, "./A", "xml", "<MgmtTree/>")),
    ),
    "sub-tree in WBXML": (("add", "./A", "--tnds", "-"), b"\x03\1\x6a", ("Add", (None, "./A", "bin", b"\x03\1\x6a"))),
    "delete": (("delete", "./A"), b"", ("Delete", (None, "./A", None, None))),
    "exec": (("exec", "./A", "--data", "go"), b"", ("Exec", (None, "./A", "chr", "go"))),
    "copy": (("copy", "./A", "./B"), b"", ("Copy", ("./A", "./B", None, None))),
    "confirm": (
        ("alert", "confirm", "Now?", "--max-display-s", "30", "--default", "1"), b"",
        ("Alert", (None, None, None, "MAXDT=30&DR=1"), (None, None, None, "Now?")),
    ),
    "choice": (
        ("alert", "choice", "Which?", "a", "b"), b"",
        ("Alert", *((None, None, None, text) for text in ("", "Which?", "a", "b"))),
    ),
    "password": (
        ("alert", "input", "PIN", "--password"), b"", ("Alert", (None, None, None, "ET=P"), (None, None, None, "PIN")),
    ),
    "display": (("alert", "display", "Hello"), b"", ("Alert", (None, None, None, ""), (None, None, None, "Hello"))),
}  # fmt: skip


@pytest.mark.parametrize(("args", "stdin", "command"), WRITTEN.values(), ids=WRITTEN)
def test_what_is_typed_is_queued(run, store, key, args, stdin, command):
    assert shape(queued(run, store, key, *args, stdin=stdin)) == [command]


@pytest.mark.parametrize("suffix", ["json", "toml"])
@pytest.mark.parametrize(("option", "grouping"), [("--atomic", "atomic"), ("--sequence", "sequence"), (None, "none")])
def test_several_commands_come_from_a_file(run, store, key, tmp_path, suffix, option, grouping):
    texts = {
        "json": '{"commands": [{"command": "get", "uris": ["./A"]}, {"command": "exec", "uri": "./B"}]}',
        "toml": '[[commands]]\ncommand = "get"\nuris = ["./A"]\n[[commands]]\ncommand = "exec"\nuri = "./B"\n',
    }
    (tmp_path / f"c.{suffix}").write_text(texts[suffix])
    args = ("run", f"{{dir}}/c.{suffix}", "--idempotent", "--expires-in-s", "60", *([option] if option else []))
    request = queued(run, store, key, *args)
    assert [record.command.name for record in request.commands] == ["Get", "Exec"]
    assert (request.grouping, request.idempotent) == (grouping, True)
    assert (request.expires_at - request.created_at).total_seconds() == 60


def settle_next(store, key, code: int, value: str = "7.1") -> None:
    """The device answers."""
    request = store.read_sync(lambda c: next_request(c, key, DEVICE, NOW))
    sent = store.write_sync(lambda c: mark_sent(c, request))
    command = sent.commands[0].command
    event = CommandAnswered(
        command=command,
        code=code,
        statuses=(Status(msg_ref="1", cmd_ref="2", cmd="Get", code=code),),
        results=(Results(items=(Item(source="./A", data=value),)),),
    )
    store.write_sync(lambda c: settle_request(c, key, settle(sent, [event])))


def test_showing_listing_and_cancelling(run, store, key):
    first = queued(run, store, key, "get", "./A")
    settle_next(store, key, 200, "7.1\x1b[2J")
    status, out, _ = run("device", DEVICE, "show", first.request_id, "--wait")
    assert (status, json.loads(out)["commands"][0]["results"][0]["value"]) == (0, "7.1\x1b[2J")
    status, out, _ = run("device", DEVICE, "show", first.request_id, json_output=False)
    assert "7.1\\x1b[2J" in out
    assert "\x1b" not in out
    second = queued(run, store, key, "delete", "./A")
    assert json.loads(run("device", DEVICE, "cancel", second.request_id)[1])["state"] == "cancelled"
    rows = json.loads(run("device", DEVICE, "list")[1])
    assert [(row["id"], row["state"]) for row in rows] == [(second.request_id, "cancelled"), (first.request_id, "done")]
    status, _, err = run("device", DEVICE, "cancel", second.request_id)
    assert status == 0  # cancelled it is already
    status, _, err = run("device", DEVICE, "cancel", first.request_id)
    assert (status, "the request is done" in err) == (1, True)


def test_a_request_that_failed_ends_with_status_1(run, store, key):
    request = queued(run, store, key, "get", "./A")
    settle_next(store, key, 404)
    status, out, _ = run("device", DEVICE, "show", request.request_id)
    assert (status, json.loads(out)["code"]) == (1, 404)


def test_waiting_ends_in_time_and_the_request_goes_on(run, store, key):
    status, out, err = run("device", DEVICE, "get", "./A", "--wait", "--wait-s", "0")
    assert (status, out) == (1, "")
    assert "is queued after 0 seconds" in err
    assert f"dmserver device {DEVICE} show" in err


REFUSED = {
    "not managed and no secret": (("devices", "add", "--m2me-id", "urn:x"), "needs its bootstrap secret"),
    "unknown profile": (("devices", "set", DEVICE, "--peer-profile", "fax"), "no peer profile"),
    "nothing to change": (("devices", "set", DEVICE), "nothing to change"),
    "unknown device": (("devices", "show", "urn:x"), "is not known"),
    "set an unknown device": (("devices", "set", "urn:x", "--managed"), "is not known"),
    "command for an unknown device": (("device", "urn:x", "get", "./A"), "is not known"),
    "list of an unknown device": (("device", "urn:x", "list"), "is not known"),
    "account of an unknown device": (("devices", "account", "urn:x", *ACCOUNT[3:]), "is not known"),
    "the same secret twice": ((*ACCOUNT[:-1], "{dir}/client"), "are the same"),
    "no secret file": ((*ACCOUNT[:-1], "{dir}/none"), "No such file"),
    "no Base64": ((*ACCOUNT, "--client-nonce", "!"), "no Base64"),
    "nonce too long": ((*ACCOUNT, "--server-nonce", "QUFB" * 40), "octets"),
    "a colon in a basic name": ((*ACCOUNT[:4], "a:b", *ACCOUNT[5:], "--client-auth", "basic"), "colon"),
    "unknown request": (("device", DEVICE, "show", "x"), "no such request"),
    "two values": (("device", DEVICE, "add", "./A", "--value", "x", "--node"), "more than one value"),
    "two groupings": (("device", DEVICE, "run", "{dir}/c.json", "--atomic", "--sequence"), "exclude each other"),
    "no file": (("device", DEVICE, "run", "{dir}/none.json"), "No such file"),
    "no JSON": (("device", DEVICE, "run", "{dir}/client"), "neither JSON nor TOML"),
    "bad command": (("device", DEVICE, "run", "{dir}/bad.json"), "commands.0"),
    "life too long": (("device", DEVICE, "get", "./A", "--expires-in-s", "999999999"), "expiresIn"),
    "text that is none": (("device", DEVICE, "add", "./A", "--value-file", "{dir}/octets", "--format", "chr"), "UTF-8"),
}


@pytest.mark.parametrize(("args", "told"), REFUSED.values(), ids=REFUSED)
def test_mistakes_end_with_a_sentence(run, store, tmp_path, args, told):
    (tmp_path / "c.json").write_text('[{"command": "get", "uris": ["./A"]}]')
    (tmp_path / "bad.json").write_text('[{"command": "get"}]')
    (tmp_path / "octets").write_bytes(b"\xff")
    status, _, err = run(*args)
    assert status == 1
    assert told in err
