"""The plain DM device: accounts from the settings, sessions, alerts of asynchronous Execs, exit statuses."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from typer.testing import CliRunner

from actor_runtime.errors import ConfigError, StoreError
from actor_runtime.trail import Trail
from dmclient import cli, cli_common
from dmclient.alerts import PendingAlert
from dmclient.config import ClientSettings
from dmclient.dm_sessions import SessionStatus, open_dm_device, run_sessions, sessions_over_http
from dmclient.http_transport import TransportFailed
from dmclient.management_session import SessionSettings, run_session
from dmclient.store.state_file import exclusive
from syncml.model import Exec, Get, Item
from syncml.policy import Continue, Decision, Finish
from syncml.session import AlertReceived, CommandAnswered
from tests.support_dmclient import (
    CLIENT_NONCE,
    CLIENT_SECRET,
    DEVICE_ID,
    DPF,
    DPF_URL,
    SERVER_NONCE,
    SERVER_SECRET,
    Clock,
    MemoryDpf,
    alerts_of,
)

VECTORS = Path(__file__).parents[1] / "vectors" / "ddf"
RESET = "./Device/Vendor/Example/Gadget/Reset"


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """The log set-up of a process is not for this one."""
    monkeypatch.setattr(cli_common, "configure_logs", lambda **_: None)


def account(tmp_path: Path, **changes: object) -> dict[str, object]:
    (tmp_path / "client").write_text(CLIENT_SECRET + "\n")
    (tmp_path / "server").write_text(SERVER_SECRET + "\n")
    return {
        "server_id": DPF,
        "url": DPF_URL,
        "client_name": "device-1",
        "client_secret_file": tmp_path / "client",
        "client_nonce": base64.b64encode(CLIENT_NONCE),
        "server_name": "dpf-1",
        "server_secret_file": tmp_path / "server",
        "server_nonce": base64.b64encode(SERVER_NONCE),
        **changes,
    }


def settings(tmp_path: Path, *accounts: dict[str, object], **more: object) -> ClientSettings:
    return ClientSettings(
        m2me_id=DEVICE_ID, state_dir=tmp_path, seal_key_file=tmp_path / "seal.key", account=accounts, **more
    )


class Once:
    """A server that sends its commands in the first session alone; keeps what it heard."""

    def __init__(self, *commands: Get | Exec) -> None:
        self.commands = commands
        self.alerts: list[tuple[str, str | None, str]] = []  # session, Correlator, Data
        self.sent = False

    def __call__(self, session, events) -> Decision:
        for event in events:
            if isinstance(event, AlertReceived):
                data = str(event.alert.items[0].data)
                self.alerts.append((session.session_id, event.alert.correlator, data))
        if self.sent:
            return Finish()
        self.sent = True
        return Continue(self.commands)


async def test_a_session_without_trusted_environment(tmp_path):
    """XC-001, XC-049: mutual authentication with the account of the settings; commands on the described objects."""
    made = settings(tmp_path, account(tmp_path), ddf_files=(VECTORS / "csp-style-gadget.xml",))
    device = open_dm_device(made, Trail("M2ME"), now=Clock())
    dpf = MemoryDpf(Once(Get(items=(Item(target="./Device/Vendor/Example/Gadget"),))))
    assert await run_sessions(device, (DPF,), dpf, made.session_settings()) == (SessionStatus.DONE, "done")
    answers = [event for event in dpf.events if isinstance(event, CommandAnswered)]
    found = [item.data for answer in answers for results in answer.results for item in results.items]
    assert found == ["Enabled/Reset/Profiles/Level"]


@pytest.mark.parametrize("when", ["now", "later"])
async def test_alert_of_an_asynchronous_exec(tmp_path, when):
    """XC-060: 202, then Alert 1226 with the Correlator: in the session under way, or in the next, over a restart."""
    behaviour = tmp_path / "behaviour.toml"
    behaviour.write_text(
        f"[[rule]]\nuri = '{RESET}'\nexec = 'async'\n"
        f"alert = {{ when = '{when}', type = 'org.example.reset', format = 'int', data = '200' }}\n"
    )
    gadget = VECTORS / "csp-style-gadget.xml"
    made = settings(tmp_path, account(tmp_path), ddf_files=(gadget,), behaviour_file=behaviour)
    device = open_dm_device(made, Trail("M2ME"), now=Clock())
    script = Once(Exec(correlator="c-7", items=(Item(target=RESET),)))
    dpf = MemoryDpf(script)
    await run_session(device, DPF, dpf, made.session_settings(), step="7")
    first = next(iter(dpf.sessions))
    assert script.alerts == ([(first, "c-7", "200")] if when == "now" else [])
    restarted = open_dm_device(made, Trail("M2ME"), now=Clock())
    assert len(restarted.alerts) == (0 if when == "now" else 1)
    assert await run_sessions(restarted, (DPF,), dpf, made.session_settings()) == (SessionStatus.DONE, "done")
    assert [(correlator, data) for _, correlator, data in script.alerts] == [("c-7", "200")]
    assert len(restarted.alerts) == 0


async def test_an_alert_answered_with_202_is_taken(tmp_path):
    """XC-100: the server accepts the alert and says no more (202); it does not hear it again."""
    device = open_dm_device(settings(tmp_path, account(tmp_path)), Trail("M2ME"), now=Clock())
    device.alerts.push(PendingAlert(type="org.example:event", source="./DevInfo", format="chr", data="x"))
    dpf = MemoryDpf(lambda session, events: Finish())
    dpf.refuse = {"event": 202}
    report = await run_session(device, DPF, dpf, SessionSettings(), step="7")
    assert report.taken == ["org.example:event"]
    assert len(device.alerts) == 0


async def test_the_end_of_an_exec_is_told_to_its_server_alone(tmp_path):
    """XC-060: another server that the device meets first hears nothing of it, and cannot take it away."""
    device = open_dm_device(settings(tmp_path, account(tmp_path)), Trail("M2ME"), now=Clock())
    told = PendingAlert(type="org.example:end", source="./DevInfo", format="chr", data="x", server_id="another")
    device.alerts.push(told)
    dpf = MemoryDpf(lambda session, events: Finish())
    await run_session(device, DPF, dpf, SessionSettings(), step="7")
    assert alerts_of(dpf.events) == []
    again = open_dm_device(settings(tmp_path, account(tmp_path)), Trail("M2ME"), now=Clock())
    assert again.alerts.alerts("another") == (told.to_alert(),)


async def test_statuses_tell_what_happened(tmp_path):
    """Nobody answers: 1. The server does not accept us: 2."""
    made = settings(tmp_path, account(tmp_path))
    dpf = MemoryDpf(lambda session, events: Finish())
    dpf.failures = [TransportFailed("no route")]
    device = open_dm_device(made, Trail("M2ME"), now=Clock())
    status, reason = await run_sessions(device, (DPF,), dpf, made.session_settings())
    assert (status, reason) == (SessionStatus.UNREACHABLE, f"{DPF}: no route")
    (tmp_path / "wrong").mkdir()
    other = settings(tmp_path / "wrong", account(tmp_path / "wrong"))
    (tmp_path / "wrong" / "client").write_text("something else")
    stranger = open_dm_device(other, Trail("M2ME"), now=Clock())
    status, _ = await run_sessions(stranger, (DPF,), dpf, other.session_settings())
    assert status is SessionStatus.REFUSED


def test_the_tree_counts_once_the_account_is_there(tmp_path):
    """XC-066: what a server changed in its account is not overwritten by the settings at the next start."""
    made = settings(tmp_path, account(tmp_path))
    device = open_dm_device(made, Trail("M2ME"), now=Clock())
    path = ("DMAcc", "1", "Name")
    device.tree.nodes.create(path, device.tree.described(path))
    device.save()
    assert path in open_dm_device(made, Trail("M2ME"), now=Clock()).tree.nodes


FAULTS = {
    "no URL": ({"url": "ftp://x"}, "account"),
    "no secret of the server": ({"server_secret_file": None}, "server_secret_file"),
    "secret not there": ({"client_secret_file": Path("/nonexistent")}, "cannot be read"),
}


@pytest.mark.parametrize(("changes", "fault"), FAULTS.values(), ids=FAULTS)
def test_faults_of_an_account(tmp_path, changes, fault):
    with pytest.raises(ConfigError, match=fault):
        open_dm_device(settings(tmp_path, account(tmp_path, **changes)), Trail("M2ME"), now=Clock())


async def test_an_account_that_is_not_there(tmp_path):
    made = settings(tmp_path, account(tmp_path))
    with pytest.raises(ConfigError, match="no account for nobody"):
        await sessions_over_http(made, open_dm_device(made, Trail("M2ME"), now=Clock()), "nobody")


def configured(tmp_path: Path) -> str:
    account(tmp_path)
    (tmp_path / "m2me.toml").write_text(f"""m2me_id = "{DEVICE_ID}"
state_dir = "{tmp_path}"
seal_key_file = "{tmp_path / "seal.key"}"
[[account]]
server_id = "{DPF}"
url = "https://127.0.0.1:1/dm"
client_secret_file = "{tmp_path / "client"}"
server_auth = "none"
""")
    return str(tmp_path / "m2me.toml")


def test_the_command_line(tmp_path):
    """`dmclient session`: exit status 1 when nobody listens; no manufacture, no roots, no network are needed."""
    result = CliRunner().invoke(cli.app, ["--config", configured(tmp_path), "session", "--json"])
    assert result.exit_code == 1
    assert '"result": "unreachable"' in result.output


@pytest.mark.parametrize("command", [["session"], ["listen", "--plain"]], ids=lambda command: command[0])
def test_one_process_at_a_time_has_the_state(tmp_path, command):
    """REQ-10: two processes would write nonces and calls over each other. The second is refused before it reads
    anything, and as soon as the first has ended, however it did, the next may go on."""
    config = configured(tmp_path)
    state = tmp_path / "dm-device.state"
    with exclusive(state):
        result = CliRunner().invoke(cli.app, ["--config", config, *command])
        assert isinstance(result.exception, StoreError)
        assert "another process" in str(result.exception)
        assert not state.exists()
    assert CliRunner().invoke(cli.app, ["--config", config, "session"]).exit_code == 1
    with exclusive(state):
        assert state.exists()
