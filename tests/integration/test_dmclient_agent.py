"""The device's whole life against a DPF in memory: real session engines on both sides, no socket, no sleep."""

from __future__ import annotations

import json

import pytest

from actor_runtime.trail import Trail
from dmclient.agent import Agent, ExitStatus, RetryPolicy
from dmclient.dm_account import client_account, write_account
from dmclient.http_transport import HttpAnswer, ServerNotAuthenticated, TransportFailed
from dmclient.management_session import SessionFailed, SessionSettings, run_session
from dmclient.message_trace import HIDDEN
from mcim.aka import MacFailure
from mcim.vocabulary import ContainerState, RegistrationState, ResultCode
from mo_definitions import AlertType
from syncml.codec import Encoding, decode
from syncml.codes import Format, StatusCode
from syncml.model import Exec, Get, Item, Replace, Sequence
from syncml.policy import Abort, Continue, Finish
from syncml.server_session import message_for_error
from syncml.session import CommandAnswered, SessionOpened
from syncml.values import leaf_item
from tests.support_dmclient import (
    ATTACHED,
    CHALLENGE,
    CLIENT_SECRET,
    DPF,
    DPF_URL,
    IMSI,
    SERVER_SECRET,
    FakeNetwork,
    FakeTre,
    MemoryDpf,
    alerts_of,
    bootstrap_profile,
    bootstrapped_device,
    delivery,
    make_device,
)

TREE = ("./M2MMobj/TRE/Id", "./M2MMobj/TRE/PlatformCert", "./M2MMobj/Registration/Nonce", "./M2MMobj/PCID")


class Provisioning:
    """A DPF's decisions: discover, challenge, deliver; afterwards read the receipt."""

    def __init__(self, package: bytes = b"good package") -> None:
        self.package = package
        self.answers: dict[str, object] = {}
        self.alerts: list[tuple[str, str]] = []
        self.delivered = False

    def __call__(self, session, events):
        self.alerts += alerts_of(events)
        for event in events:
            if isinstance(event, CommandAnswered):
                self.answers |= event.values()
        if any(isinstance(event, SessionOpened) for event in events):
            return self.opening()
        if self.delivered:
            return Finish()
        if "./M2MMobj/TRE/Id" not in self.answers:
            return Continue((Get(items=tuple(Item(target=uri) for uri in TREE)),))
        if "./M2MMobj/Attestation/Evidence" not in self.answers:
            challenge = leaf_item(
                "./M2MMobj/Attestation/Challenge", b"c" * 32, format=Format.BIN, type="application/octet-stream"
            )
            generate = Exec(items=(Item(target="./M2MMobj/Attestation/Generate"),))
            evidence = Get(items=(Item(target="./M2MMobj/Attestation/Evidence"),))
            return Continue((Sequence(commands=(Replace(items=(challenge,)), generate)), evidence))
        self.delivered = True
        return delivery(self.package)

    def opening(self):
        last = self.alerts[-1][0] if self.alerts else ""
        if last == "ProvisioningComplete":
            names = ("Result", "State", "Receipt")
            return Continue((Get(items=tuple(Item(target=f"./M2MSIMMobj/c1/{name}") for name in names)),))
        if last == "RegistrationRequest" and not self.delivered:
            return Continue((Get(items=(Item(target="."),)),))
        return Finish()


def agent_for(device, dpf, network, *, max_msg_size: int = 4096, **policy) -> tuple[Agent, list[float]]:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    agent = Agent(
        device=device,
        transport=dpf,
        network=network,
        settings=SessionSettings(max_msg_size=max_msg_size),
        policy=RetryPolicy(**policy),
        sleep=sleep,
    )
    return agent, slept


def attaching() -> FakeNetwork:
    return FakeNetwork([CHALLENGE, ATTACHED])


@pytest.mark.parametrize("size", [100, 3000, 9000, 30000], ids="{} octets".format)
async def test_from_empty_to_attached(tmp_path, size):
    """REQ-12, 18, 32, 63, 67, 69: three sessions, a package in one chunk or many, and the attach at the end."""
    package = b"good" + bytes(index % 251 for index in range(size))
    tre = FakeTre()
    device, records = bootstrapped_device(tmp_path, tre=tre)
    policy = Provisioning(package)
    dpf = MemoryDpf(policy)
    agent, slept = agent_for(device, dpf, attaching())
    result = await agent.run(DPF)
    assert (result.status, result.imsi_mask) == (ExitStatus.ATTACHED, "00101********89")
    assert [kind for kind, _ in policy.alerts] == ["RegistrationRequest", "ProvisioningComplete", "NetworkAttach"]
    assert [data for _, data in policy.alerts][1:] == ["1200", "1200"]
    assert tre.provisioned[0][0] == package
    assert policy.answers["./M2MMobj/Attestation/Evidence"] == b"evidence over " + b"c" * 32
    assert policy.answers["./M2MSIMMobj/c1/Receipt"] == b"receipt good"
    assert (policy.answers["./M2MSIMMobj/c1/State"], policy.answers["./M2MSIMMobj/c1/Result"]) == ("40", "1200")
    assert len(dpf.sessions) == 3
    assert slept == []
    assert all(record.fields.get("passed", True) for record in records)


async def test_trail_tells_the_story_and_no_secret(tmp_path):
    """REQ-71: checks with their requirement; no credential, nonce, IMSI, PCID or package in any record."""
    device, records = bootstrapped_device(tmp_path)
    agent, _ = agent_for(device, MemoryDpf(Provisioning()), attaching())
    await agent.run(DPF)
    checks = {record.fields["name"]: record.fields["req"] for record in records if record.kind == "check"}
    assert {"tls-server-authenticated", "dm-server-authenticated", "package-signature", "aka-network-authentic"} <= set(
        checks
    )
    assert checks["tls-server-authenticated"] == ["REQ-09"]
    told = "\n".join(record.to_json() for record in records)
    assert HIDDEN in told
    account = client_account(device.tree.nodes, DPF, tls=True)
    nonce = device.tre.open_request.nonce
    for secret in (CLIENT_SECRET, SERVER_SECRET, IMSI, "001019999999999", "good package"):
        assert secret not in told
    for octets in (account.client_nonce, account.server_nonce, nonce or b"none"):
        assert octets.hex() not in told
    steps = [record.step for record in records if record.kind == "message"]
    assert {"7", "14", "16"} <= set(steps)


async def test_next_session_uses_the_new_nonces(tmp_path):
    """XC-022: both sides keep the nonces of the last session; no challenge is needed in the next one."""
    device, _ = bootstrapped_device(tmp_path)
    dpf = MemoryDpf(lambda session, events: Finish())
    await run_session(device, DPF, dpf, SessionSettings(), step="7")
    first = client_account(device.tree.nodes, DPF, tls=True)
    again, _ = make_device(tmp_path)  # from the state file
    assert client_account(again.tree.nodes, DPF, tls=True) == first
    posts = len(dpf.urls)
    await run_session(again, DPF, dpf, SessionSettings(), step="7")
    assert len(dpf.urls) == posts + 1
    assert first.client_nonce == dpf.sessions[sorted(dpf.sessions)[0]]._client.nonce


async def test_stale_nonce_is_recovered(tmp_path):
    """XC-020, XC-030: a challenge with a new nonce, and the session goes on."""
    device, _ = bootstrapped_device(tmp_path)
    policy = Provisioning()
    dpf = MemoryDpf(policy)
    dpf.account = type(dpf.account)(
        **{
            **{name: getattr(dpf.account, name) for name in dpf.account.__slots__},
            "client_nonce": b"another",
            "server_nonce": b"another",
        }
    )
    agent, _ = agent_for(device, dpf, attaching())
    assert (await agent.run(DPF)).status is ExitStatus.ATTACHED


async def test_resp_uri_is_followed(tmp_path):
    """XC-006: the second message goes where RespURI says; the next session starts at the account's address."""
    device, _ = bootstrapped_device(tmp_path)
    dpf = MemoryDpf(Provisioning())
    agent, _ = agent_for(device, dpf, attaching())
    await agent.run(DPF)
    assert dpf.urls[0] == DPF_URL
    assert dpf.urls[1].startswith(f"{DPF_URL}?s=")
    assert dpf.urls.count(DPF_URL) == 3


async def test_server_without_order_for_us(tmp_path):
    """No open order: 403 on the request; exit status 2 with the reason; the request stays for another day."""
    device, _ = bootstrapped_device(tmp_path)
    dpf = MemoryDpf(lambda session, events: Finish())
    dpf.refuse = {"RegistrationRequest": 403}
    agent, _ = agent_for(device, dpf, attaching())
    result = await agent.run(DPF)
    assert (result.status, "403" in result.reason) == (ExitStatus.REFUSED, True)
    assert device.alerts.waits(AlertType.REGISTRATION_REQUEST)
    assert device.tre.open_request.state is RegistrationState.REQUESTED


async def test_server_refuses_the_session(tmp_path):
    """403 on Alert 1201 ends it as well."""
    device, _ = bootstrapped_device(tmp_path)
    dpf = MemoryDpf(lambda session, events: Finish())
    dpf.refuse = {1201: 403}
    agent, _ = agent_for(device, dpf, attaching())
    assert (await agent.run(DPF)).status is ExitStatus.REFUSED


async def test_server_that_never_delivers(tmp_path):
    """Sessions are asked for a bounded number of times, each time with more patience."""
    device, _ = bootstrapped_device(tmp_path)
    dpf = MemoryDpf(lambda session, events: Finish())
    agent, slept = agent_for(device, dpf, attaching(), polls=4)
    result = await agent.run(DPF)
    assert (result.status, result.reason) == (
        ExitStatus.REFUSED,
        "the server ended its sessions without a package",
    )
    assert slept == [1.0, 2.0, 4.0]


async def test_package_that_the_tre_refuses(tmp_path):
    """REQ-50, REQ-67: reported with its code, then exit status 2; nothing attaches."""
    device, records = bootstrapped_device(tmp_path, tre=FakeTre(refusal=ResultCode.SIGNATURE_INVALID))
    policy = Provisioning(b"bad package")
    network = attaching()
    agent, _ = agent_for(device, MemoryDpf(policy), network)
    result = await agent.run(DPF)
    assert (result.status, result.reason) == (ExitStatus.REFUSED, "the package was refused: 1411 signature_invalid")
    assert policy.alerts[-1] == ("ProvisioningComplete", "1411")
    assert network.posts == []
    assert [r.fields["name"] for r in records if r.kind == "check" and not r.fields["passed"]] == ["package-signature"]


async def test_mcim_that_is_not_activated(tmp_path):
    """Installed but not activated: nothing to attach with, and the reason says so."""
    device, _ = bootstrapped_device(tmp_path, tre=FakeTre(initial_state=ContainerState.PROVISIONED))
    agent, _ = agent_for(device, MemoryDpf(Provisioning()), attaching(), polls=2)
    result = await agent.run(DPF)
    assert (result.status, result.reason) == (ExitStatus.REFUSED, "an MCIM is installed, but not activated")


async def test_attach_that_fails_is_reported(tmp_path):
    """REQ-69, REQ-72: wrong network: alert with the cause, PCID kept, exit status 2."""
    device, _ = bootstrapped_device(tmp_path, tre=FakeTre(aka=[MacFailure()]))
    policy = Provisioning()
    agent, _ = agent_for(device, MemoryDpf(policy), FakeNetwork([CHALLENGE, {}]))
    result = await agent.run(DPF)
    assert result.status is ExitStatus.REFUSED
    assert policy.alerts[-1] == ("NetworkAttach", "20")
    assert device.m2m.pcid_dropped is False
    assert device.announced == []


async def test_attach_is_tried_again_when_the_network_does_not_answer(tmp_path):
    """Bounded; the PCID is dropped once it worked (REQ-72)."""
    device, _ = bootstrapped_device(tmp_path)
    network = FakeNetwork([{"session": "s"}, CHALLENGE, ATTACHED])
    agent, slept = agent_for(device, MemoryDpf(Provisioning()), network)
    assert (await agent.run(DPF)).status is ExitStatus.ATTACHED
    assert slept == [1.0]
    assert device.m2m.pcid_dropped


async def test_already_provisioned_device_attaches_again(tmp_path):
    """A second run needs no session when nothing is to be told."""
    device, _ = bootstrapped_device(tmp_path)
    agent, _ = agent_for(device, MemoryDpf(Provisioning()), attaching())
    await agent.run(DPF)
    again, _ = make_device(tmp_path, tre=device.tre)
    dpf = MemoryDpf(Provisioning())
    agent, _ = agent_for(again, dpf, attaching())
    assert (await agent.run(DPF)).status is ExitStatus.ATTACHED
    assert dpf.urls == []


# -- what goes wrong on the way ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", range(8))
async def test_connection_lost_at_any_message(tmp_path, position):
    """REQ-67: whichever answer is lost, the device gets there, and no alert is lost with it."""
    device, _ = bootstrapped_device(tmp_path)
    policy = Provisioning()
    dpf = MemoryDpf(policy)
    dpf.failures = [None] * position + [TransportFailed("connection lost")]
    agent, slept = agent_for(device, dpf, attaching())
    assert (await agent.run(DPF)).status is ExitStatus.ATTACHED
    assert slept in ([1.0], [1.0, 2.0])  # the second when the server missed its new nonce and had nothing to ask
    assert [kind for kind, _ in policy.alerts][-1] == "NetworkAttach"


class Restarted(MemoryDpf):
    """A DPF that knows nothing of its session any more when the device answers what was asked after its report."""

    def __init__(self, script) -> None:
        super().__init__(script)
        self.forgot = False

    async def post(self, url, body, encoding, mac=None):
        header = decode(body, encoding).header
        if not self.forgot and ("ProvisioningComplete", "1200") in self.script.alerts:
            self.forgot = True
            gone = message_for_error(
                session_id=header.session_id,
                msg_id="2",
                device_id=header.source,
                server_uri=DPF_URL,
                msg_ref=header.msg_id,
                code=StatusCode.REQUEST_TIMEOUT,
                encoding=encoding,
            )
            return HttpAnswer(body=gone, encoding=encoding)
        return await super().post(url, body, encoding, mac)


async def test_a_dpf_that_forgets_the_session_has_not_read_the_receipt(tmp_path):
    """REQ-67, REQ-68: Status 408 is no good end, and before a session went well nobody attaches: no AuC is armed."""
    device, _ = bootstrapped_device(tmp_path)
    policy, network = Provisioning(), attaching()
    agent, slept = agent_for(device, dpf := Restarted(policy), network)
    receipt = "./M2MSIMMobj/c1/Receipt"
    seen = []
    post = network.post

    async def attach(path, body):
        seen.append(receipt in policy.answers)
        return await post(path, body)

    network.post = attach
    assert (await agent.run(DPF)).status is ExitStatus.ATTACHED
    assert dpf.forgot
    assert seen[0], "attached before the DPF had the receipt"
    assert len(slept) == 1


async def test_nobody_answers(tmp_path):
    """Bounded retries with backoff, then exit status 1; the request stays queued."""
    device, _ = bootstrapped_device(tmp_path)
    dpf = MemoryDpf(Provisioning())
    dpf.failures = [TransportFailed("no route")] * 20
    agent, slept = agent_for(device, dpf, attaching(), attempts=4, max_delay_s=3.0)
    result = await agent.run(DPF)
    assert (result.status, result.reason) == (ExitStatus.UNREACHABLE, "no route")
    assert slept == [1.0, 2.0, 3.0]
    assert device.alerts.waits(AlertType.REGISTRATION_REQUEST)


async def test_rogue_server_gets_nothing(tmp_path):
    """REQ-09: TLS refuses the server; no retry, exit status 2, and the failed check is in the trail."""
    device, records = bootstrapped_device(tmp_path)
    dpf = MemoryDpf(Provisioning())
    dpf.failures = [ServerNotAuthenticated("certificate verify failed")]
    agent, _ = agent_for(device, dpf, attaching())
    result = await agent.run(DPF)
    assert result.status is ExitStatus.REFUSED
    assert len(dpf.urls) == 1
    assert {"name": "tls-server-authenticated", "passed": False}.items() <= records[-1].fields.items()


async def test_server_that_does_not_know_its_secret(tmp_path):
    """XC-024, XC-025, REQ-09: 401 with a challenge, nothing executed, the session ends, bounded."""
    device, records = bootstrapped_device(tmp_path)
    policy = Provisioning()
    dpf = MemoryDpf(policy)
    dpf.account = type(dpf.account)(
        **{**{name: getattr(dpf.account, name) for name in dpf.account.__slots__}, "server_secret": "guess"}
    )
    before = dict(device.tree.nodes.nodes)
    agent, _ = agent_for(device, dpf, attaching(), attempts=2)
    result = await agent.run(DPF)
    assert result.status is ExitStatus.UNREACHABLE
    assert policy.answers == {}
    assert set(device.tree.nodes.nodes) == set(before)
    assert "dm-server-authenticated" not in [record.fields.get("name") for record in records]


async def test_client_with_wrong_secret(tmp_path):
    """XC-021: limited retries, then stop."""
    device, _ = bootstrapped_device(tmp_path)
    dpf = MemoryDpf(Provisioning())
    dpf.account = type(dpf.account)(
        **{**{name: getattr(dpf.account, name) for name in dpf.account.__slots__}, "client_secret": "other"}
    )
    agent, _ = agent_for(device, dpf, attaching(), attempts=2)
    result = await agent.run(DPF)
    assert result.status is ExitStatus.UNREACHABLE
    assert "credentials" in result.reason


async def test_server_that_aborts(tmp_path):
    """XC-009: Alert 1223 ends the session without an answer; it counts as a failed one."""
    device, _ = bootstrapped_device(tmp_path)
    dpf = MemoryDpf(lambda session, events: Abort("test"))
    agent, _ = agent_for(device, dpf, attaching(), attempts=2)
    result = await agent.run(DPF)
    assert (result.status, result.reason) == (ExitStatus.UNREACHABLE, "the server aborted the session")
    assert len(dpf.urls) == 2


async def test_server_that_never_ends(tmp_path):
    """A session has a bound."""
    device, _ = bootstrapped_device(tmp_path)
    dpf = MemoryDpf(lambda session, events: Continue((Get(items=(Item(target="./DevInfo/Man"),)),)))
    with pytest.raises(SessionFailed):
        await run_session(device, DPF, dpf, SessionSettings(), step="7")


async def test_account_without_any_proof_of_the_server(tmp_path):
    """REQ-09: neither TLS nor server credentials: no session is opened, no data sent."""
    device, _ = make_device(tmp_path)
    write_account(device.tree, bootstrap_profile(addr="http://dpf.example/dm", server=None))
    dpf = MemoryDpf(Provisioning())
    with pytest.raises(ServerNotAuthenticated):
        await run_session(device, DPF, dpf, SessionSettings(), step="7")
    with pytest.raises(SessionFailed, match="no usable account"):
        await run_session(device, "nobody", dpf, SessionSettings(), step="7")
    assert dpf.urls == []


async def test_alert_the_server_will_never_take(tmp_path):
    """415 for an alert type: it is not sent for ever."""
    device, _ = bootstrapped_device(tmp_path)
    policy = Provisioning()
    dpf = MemoryDpf(policy)
    dpf.refuse = {"NetworkAttach": 415}
    agent, _ = agent_for(device, dpf, attaching())
    assert (await agent.run(DPF)).status is ExitStatus.ATTACHED
    assert len(device.alerts) == 0


async def test_alert_stays_until_200(tmp_path):
    """REQ-67: 500 for the report: sent again in every session, until the device gives up asking; still queued."""
    device, _ = bootstrapped_device(tmp_path)
    policy = Provisioning()
    dpf = MemoryDpf(policy)
    dpf.refuse = {"ProvisioningComplete": 500}
    network = attaching()
    agent, _ = agent_for(device, dpf, network, polls=3)
    result = await agent.run(DPF)
    assert result.status is ExitStatus.REFUSED
    assert policy.alerts.count(("ProvisioningComplete", "1200")) == 3
    assert device.alerts.waits(AlertType.PROVISIONING_COMPLETE)
    assert network.posts == []
    dpf.refuse = {}
    again, _ = make_device(tmp_path, tre=device.tre)
    agent, _ = agent_for(again, dpf, attaching())
    assert (await agent.run(DPF)).status is ExitStatus.ATTACHED


async def test_202_is_not_enough_for_the_report(tmp_path):
    """REQ-67: a server that answers 202 to the report of a package has not taken it yet; it is told again."""
    device, _ = bootstrapped_device(tmp_path)
    policy = Provisioning()
    dpf = MemoryDpf(policy)
    dpf.refuse = {"ProvisioningComplete": 202}
    agent, _ = agent_for(device, dpf, attaching(), polls=2)
    assert (await agent.run(DPF)).status is ExitStatus.REFUSED
    assert policy.alerts.count(("ProvisioningComplete", "1200")) == 2
    assert device.alerts.waits(AlertType.PROVISIONING_COMPLETE)


async def test_attached_though_the_dpf_cannot_be_told(tmp_path):
    """The attach counts; the alert waits for the next run."""
    device, _ = bootstrapped_device(tmp_path)
    dpf = MemoryDpf(Provisioning())
    dpf.refuse = {"NetworkAttach": 500}
    agent, _ = agent_for(device, dpf, attaching(), polls=2)
    assert (await agent.run(DPF)).status is ExitStatus.ATTACHED
    assert device.alerts.waits(AlertType.NETWORK_ATTACH)


async def test_attach_command(tmp_path):
    """`dmclient attach`: no session; refused without an MCIM."""
    device, _ = bootstrapped_device(tmp_path)
    agent, _ = agent_for(device, MemoryDpf(Provisioning()), attaching())
    assert (await agent.attach()).status is ExitStatus.REFUSED
    await agent.run(DPF)
    agent, _ = agent_for(device, MemoryDpf(Provisioning()), FakeNetwork([CHALLENGE, ATTACHED]))
    assert (await agent.attach()).status is ExitStatus.ATTACHED
    agent, _ = agent_for(device, MemoryDpf(Provisioning()), FakeNetwork([{}]), attach_attempts=1)
    assert (await agent.attach()).status is ExitStatus.UNREACHABLE


async def test_discovery_by_identifier(tmp_path):
    """REQ-02: child names of the root, then the Type of each, lead to both objects."""
    device, _ = bootstrapped_device(tmp_path)
    found: dict[str, object] = {}

    def script(session, events):
        for event in events:
            if isinstance(event, CommandAnswered):
                found.update(event.values())
        if "." not in found:
            return Continue((Get(items=(Item(target="."),)),))
        if len(found) == 1:
            names = str(found["."]).split("/")
            return Continue((Get(items=tuple(Item(target=f"./{name}?prop=Type") for name in names)),))
        return Finish()

    await run_session(device, DPF, MemoryDpf(script), SessionSettings(), step="7")
    assert found["./M2MMobj?prop=Type"] == "urn:oma:mo:ext-3gpp-m2m:0.1"
    assert found["./M2MSIMMobj?prop=Type"] == "urn:oma:mo:ext-3gpp-m2msim:0.1"


UNREADABLE = {
    "no XML": (b"<SyncML><Cred><Data>hidden</Data>", Encoding.XML, "MalformedXml: line 1", "<Data>hidden</Data>"),
    "no WBXML": (b"\x02\xa4\x01\x6ahidden", Encoding.WBXML, "MalformedWbxml: ", "02 a4 01 6a 68 69"),
    "too long": (b"hidden" * 2000, Encoding.XML, "MessageTooLarge: ", "hidden"),
}


@pytest.mark.parametrize("octets", [False, True], ids=["by default", "trace_octets"])
@pytest.mark.parametrize(("body", "encoding", "why", "shown"), UNREADABLE.values(), ids=UNREADABLE)
async def test_an_answer_that_is_no_message_is_traced(tmp_path, body, encoding, why, shown, octets):
    """REQ-71: whoever tests a server needs just that answer; its octets stand there only where a setting says so."""

    class Broken:
        async def post(self, url, body_, encoding_, mac=None) -> HttpAnswer:
            return HttpAnswer(body=body, encoding=encoding)

    device, _ = bootstrapped_device(tmp_path)
    device.trail = Trail("M2ME", trace_file=tmp_path / "trace.jsonl")
    with pytest.raises(SessionFailed, match="broke the protocol"):
        await run_session(device, DPF, Broken(), SessionSettings(trace_octets=octets), step="7")
    device.trail.close()
    traced = json.loads((tmp_path / "trace.jsonl").read_text().splitlines()[-1])
    assert traced["summary"].startswith(why)
    assert (traced["octets"], traced["contentType"]) == (len(body), encoding.media_type)
    assert (shown in traced.get("received", "")) is octets
    assert len(traced.get("received", "")) < 16_000
