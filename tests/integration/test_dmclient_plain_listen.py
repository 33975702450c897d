"""`dmclient listen` as a plain DM device: which device it is, who is asked, and what ends it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from actor_runtime.errors import ConfigError
from actor_runtime.trail import Trail
from dmclient import cli, cli_common
from dmclient.called_sessions import CalledSessions, RetryPolicy
from dmclient.calls import Call, CallQueue, Consent
from dmclient.console import Console
from dmclient.dm_account import server_ids
from dmclient.dm_sessions import PlainService, listen_plainly, open_dm_device, sessions_over_http
from dmclient.http_transport import TransportFailed
from syncml.model import Exec, Get, Item
from syncml.notification import UiMode
from syncml.policy import Decision, Finish
from syncml.session import SessionOpened
from tests.integration.test_dmclient_plain_device import Once, account, settings
from tests.support_dmclient import DPF, SECRET, Clock, MemoryDpf, bootstrap_profile, bootstrap_push

VECTORS = Path(__file__).parents[1] / "vectors" / "ddf"
RESET = "./Device/Vendor/Example/Gadget/Reset"


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """The log set-up of a process is not for this one."""
    monkeypatch.setattr(cli_common, "configure_logs", lambda **_: None)


async def no_pause(seconds: float) -> None:
    """Patience without time."""


def service(made, device, dpf, consent: Consent | None = None) -> tuple[PlainService, CallQueue]:
    calls = CallQueue(device.calls, device.save)
    sessions = CalledSessions(
        device=device,
        transport=dpf,
        settings=made.session_settings(),
        policy=RetryPolicy(attempts=2),
        sleep=no_pause,
        calls=calls,
        consent=consent,
    )
    return PlainService(device, dpf, made.session_settings(), sessions), calls


async def serve(plain: PlainService, calls: CallQueue, call: Call) -> str:
    calls.add(call)
    return await plain.serve(call)


async def test_a_call_gets_its_session(tmp_path):
    """XC-090, XC-002: Alert 1200 with the SessionID of the trigger, and the call is done with."""
    made = settings(tmp_path, account(tmp_path))
    device = open_dm_device(made, Trail("M2ME"), now=Clock())
    dpf = MemoryDpf(Once(Get(items=(Item(target="./DevInfo/Man"),))))
    plain, calls = service(made, device, dpf)
    assert await serve(plain, calls, Call(server_id=DPF, session_id="AF")) == ""
    opened = [event for event in dpf.events if isinstance(event, SessionOpened)]
    assert "AF" in dpf.sessions
    assert [event.alert_code for event in opened] == [1200]
    assert calls.first() is None


async def test_alerts_that_wait_are_told_in_a_session_of_their_own(tmp_path):
    """XC-060: an Exec that ends later is told without another call of the server."""
    behaviour = tmp_path / "behaviour.toml"
    behaviour.write_text(
        f"[[rule]]\nuri = '{RESET}'\nexec = 'async'\n"
        "alert = { when = 'later', type = 'org.example.reset', format = 'int', data = '200' }\n"
    )
    made = settings(
        tmp_path, account(tmp_path), ddf_files=(VECTORS / "csp-style-gadget.xml",), behaviour_file=behaviour
    )
    device = open_dm_device(made, Trail("M2ME"), now=Clock())
    script = Once(Exec(correlator="c-7", items=(Item(target=RESET),)))
    plain, calls = service(made, device, MemoryDpf(script))
    assert await serve(plain, calls, Call(server_id=DPF, session_id="1")) == ""
    assert [(correlator, data) for _, correlator, data in script.alerts] == [("c-7", "200")]
    assert len(device.alerts) == 0


async def test_a_server_that_is_away_may_call_again(tmp_path):
    """XC-012: tried as often as the settings say; then the same trigger is welcome once more."""
    made = settings(tmp_path, account(tmp_path))
    device = open_dm_device(made, Trail("M2ME"), now=Clock())
    dpf = MemoryDpf(lambda session, events: Finish())
    dpf.failures = [TransportFailed("no route"), TransportFailed("still none")]
    plain, calls = service(made, device, dpf)
    call = Call(server_id=DPF, session_id="5")
    assert await serve(plain, calls, call) == "still none"
    assert not calls.seen(call)
    assert await serve(plain, calls, call) == ""
    assert calls.seen(call)


class Typed:
    """What somebody types, line by line."""

    def __init__(self, lines: list[str | None]) -> None:
        self._lines = lines

    async def read(self, *, hidden: bool = False) -> str | None:
        return self._lines.pop(0)


ANSWERS: dict[str, tuple[list[str | None], bool, bool]] = {
    "yes": (["yes"], False, True),
    "no": (["n"], True, False),
    "something else first": (["perhaps", "", "Y"], False, True),
    "end of the input, setting says yes": ([None], True, True),
    "end of the input, setting says no": ([None], False, False),
}


@pytest.mark.parametrize(("lines", "setting", "held"), ANSWERS.values(), ids=ANSWERS)
async def test_the_user_at_the_terminal_is_asked(tmp_path, lines, setting, held):
    """XC-090: ui-mode "user interaction" puts the question on the terminal; without an answer the setting counts."""
    made = settings(tmp_path, account(tmp_path))
    device = open_dm_device(made, Trail("M2ME"), now=Clock())

    def decide(session: Any, events: Any) -> Decision:
        return Finish()

    dpf, out = MemoryDpf(decide), []
    consent = Consent(Console(Typed(lines), write=out.append).confirm, default=setting)
    plain, calls = service(made, device, dpf, consent)
    assert await serve(plain, calls, Call(server_id=DPF, session_id="9", ui_mode=UiMode.USER_INTERACTION)) == ""
    assert bool(dpf.sessions) is held
    assert calls.first() is None
    assert DPF in out[0]


async def test_a_bootstrap_that_is_refused_ends_it(tmp_path):
    """XC-094: `listen` and `session` alike, and no account comes of it."""
    (tmp_path / "secret").write_text("12345678\n")
    made = settings(tmp_path, bootstrap_secret_file=tmp_path / "secret")
    device = open_dm_device(made, Trail("M2ME"), now=Clock())
    with pytest.raises(ConfigError, match="refused"):
        await listen_plainly(made, device, stop=asyncio.Event(), bootstrap=b"no push at all")
    status, reason = await sessions_over_http(made, device, None, bootstrap=b"no push at all")
    assert (int(status), reason) == (2, "the bootstrap was refused: malformed: not a push PDU")


async def test_a_bootstrap_in_a_file_is_used_at_once(tmp_path):
    """XC-094: the session that a new account asks for is the one of this command; no call is left for the next."""
    (tmp_path / "secret").write_text(SECRET + "\n")
    made = settings(tmp_path, bootstrap_secret_file=tmp_path / "secret")
    device = open_dm_device(made, Trail("M2ME"), now=Clock())
    nowhere = bootstrap_push(bootstrap_profile(addr="https://127.0.0.1:1/dm"))
    status, reason = await sessions_over_http(made, device, None, bootstrap=nowhere)
    assert (int(status), reason.partition(":")[0]) == (1, DPF)
    again = open_dm_device(made, Trail("M2ME"), now=Clock())
    assert server_ids(again.tree.nodes) == (DPF,)
    assert again.calls.waiting == []


async def test_it_stops_when_told(tmp_path):
    made = settings(tmp_path, account(tmp_path), ready_file=tmp_path / "ready.json")
    stop = asyncio.Event()
    stop.set()
    device = open_dm_device(made, Trail("M2ME"), now=Clock())
    await asyncio.wait_for(listen_plainly(made, device, stop=stop), 10)
    assert not (tmp_path / "ready.json").exists()


CHOICES = {
    "nothing manufactured": ([], False, "plain"),
    "manufactured": ([], True, "m2me"),
    "manufactured, but plain": (["--plain"], True, "plain"),
    "nothing manufactured, but M2ME": (["--m2me"], False, "error"),
}


@pytest.mark.parametrize(("options", "manufactured", "kind"), CHOICES.values(), ids=CHOICES)
def test_which_device_listens(tmp_path, monkeypatch, options, manufactured, kind):
    """A device without a TRE is a plain one, unless the M2ME is insisted on."""
    config = tmp_path / "m2me.toml"
    config.write_text(
        f'm2me_id = "urn:imei:004999010640000"\nstate_dir = "{tmp_path / "state"}"\n'
        f'seal_key_file = "{tmp_path / "seal.key"}"\ntre.key_type = "ec"\n'
    )
    begin = ["--config", str(config)]
    if manufactured:
        assert CliRunner().invoke(cli.app, [*begin, "manufacture"]).exit_code == 0
    elif kind == "error":
        (tmp_path / "seal.key").unlink(missing_ok=True)
    listened: list[str] = []

    def as_kind(name: str):
        async def listen(*_: object, **__: object) -> None:
            listened.append(name)

        return listen

    monkeypatch.setattr(cli, "listen_plainly", as_kind("plain"))
    monkeypatch.setattr(cli, "listen_device", as_kind("m2me"))
    result = CliRunner().invoke(cli.app, [*begin, "listen", *options])
    if kind == "error":
        assert isinstance(result.exception, ConfigError)
        assert listened == []
    else:
        assert listened == [kind], result.output
