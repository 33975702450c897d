"""M2MSIMMobj: the states of a container, what each allows, and what survives a power cut."""

from __future__ import annotations

import hashlib

import pytest

from dmclient.objects.m2msim import LIFE_CYCLE, M2MSIM
from dmclient.tre.base import Outcome
from mcim.vocabulary import Container, ContainerState, ResultCode
from syncml.model import Add, Delete, Exec, Get, Item, Meta, Replace
from tests.support_dmclient import DPF, MCIM_ID, NOW, DeviceTree, device_tree
from tests.support_executor import Commands

CONTAINER = "./M2MSIMMobj/c1"
NODE, CHR, BIN = Meta(format="node"), Meta(format="chr"), Meta(format="b64")


class Server:
    """Short hand for what the DPF does."""

    def __init__(self, device: DeviceTree) -> None:
        self.device = device
        self.executor = Commands(device.tree, DPF)

    def add(self, name: str, data: str | bytes | None = None, meta: Meta = CHR) -> int:
        uri = f"{CONTAINER}/{name}" if name else CONTAINER
        return self.executor.execute(Add(cmd_id="1", items=(Item(target=uri, meta=meta, data=data),)))[0].code

    def replace(self, name: str, data: str | bytes, meta: Meta = CHR) -> int:
        return self.executor.execute(
            Replace(cmd_id="1", items=(Item(target=f"{CONTAINER}/{name}", meta=meta, data=data),))
        )[0].code

    def delete(self) -> int:
        return self.executor.execute(Delete(cmd_id="1", items=(Item(target=CONTAINER),)))[0].code

    def execute(self, name: str, correlator: str | None = None) -> int:
        uri = f"{CONTAINER}/Operations/{name}"
        return self.executor.execute(Exec(cmd_id="1", correlator=correlator, items=(Item(target=uri),)))[0].code

    def get(self, name: str) -> str | bytes | None:
        (result,) = self.executor.execute(Get(cmd_id="1", items=(Item(target=f"{CONTAINER}/{name}"),)))
        return result.item.data if result.item is not None else None

    def push(self, package: bytes = b"good package") -> None:
        """A whole container, as the DPF delivers it."""
        assert self.add("", meta=NODE) == 200
        assert self.add("MCIMId", str(MCIM_ID)) == 200
        assert self.add("SHOId", "sho.example") == 200
        assert self.add("ReqId", "req") == 200
        assert self.add("NonceEcho", b"n" * 32, BIN) == 200
        assert self.add("ContentType", "application/vnd.m2m.mcim+xml") == 200
        assert self.add("Package", package, BIN) == 200

    def provision(self) -> Outcome:
        """What the agent does after the session."""
        (name,) = self.device.m2msim.ready()
        job = self.device.m2msim.begin(name)
        outcome = self.device.tre.provision(job.octets, job.hints, NOW)
        self.device.m2msim.finish(name, job.operation, outcome)
        self.device.m2msim.show_states(self.device.tre.mcims())
        return outcome

    def obey(self) -> Outcome:
        """The same for a life-cycle operation."""
        (name,) = self.device.m2msim.commanded()
        job = self.device.m2msim.begin(name)
        outcome = self.device.tre.command(LIFE_CYCLE[job.operation], job.octets, job.hints, NOW)
        self.device.m2msim.finish(name, job.operation, outcome)
        self.device.m2msim.show_states(self.device.tre.mcims())
        return outcome


@pytest.fixture
def server() -> Server:
    return Server(device_tree())


def in_state(server: Server, state: ContainerState) -> None:
    """Bring the container into a state from outside."""
    server.push()
    server.device.tree.nodes.change((*M2MSIM, "c1", "State"), value=str(int(state)))


def test_a_complete_package_is_received_and_ready(server):
    """REQ-63: presence is enough; the hash of what arrived is shown, the package is not."""
    server.push()
    assert server.get("State") == "20"
    assert server.get("PackageHash") == hashlib.sha256(b"good package").digest()
    assert server.device.m2msim.ready() == ["c1"]
    assert server.device.m2msim.waiting()


def test_provisioning_with_success(server):
    """REQ-63, REQ-67: state, result, receipt and facts of the MCIM are there, the package is gone."""
    server.push()
    server.provision()
    seen = {name: server.get(name) for name in ("State", "Result", "Receipt", "Revision", "Sequence", "IMSIMask")}
    assert seen == {
        "State": "40",
        "Result": "1200",
        "Receipt": b"receipt good",
        "Revision": "1",
        "Sequence": "7",
        "IMSIMask": "00101********89",
    }
    assert server.get("NotAfter") == "2027-11-24T12:00:00Z"
    assert (*M2MSIM, "c1", "Package") not in server.device.tree.nodes
    _, hints = server.device.tre.provisioned[0]
    assert (hints.mcim_id, hints.sho_id, hints.req_id, hints.nonce) == (str(MCIM_ID), "sho.example", "req", b"n" * 32)


def test_provisioning_with_failure(server):
    """A refused package is dropped, its result and receipt are shown; a new one may come."""
    server.push(b"bad")
    server.provision()
    assert (server.get("State"), server.get("Result"), server.get("Receipt")) == ("70", "1411", b"receipt bad")
    assert (*M2MSIM, "c1", "Package") not in server.device.tree.nodes
    assert server.execute("Provision") == 405
    assert server.add("Package", b"good", BIN) == 200
    assert server.get("State") == "20"


@pytest.mark.parametrize("code", [ResultCode.STORAGE_FAILURE, ResultCode.TRE_BUSY])
def test_package_stays_when_it_was_not_at_fault(server, code):
    """Retry with the same nonce: it was not consumed."""
    server.device.tre.refusal = code
    server.push(b"bad")
    server.provision()
    assert server.get("State") == "70"
    assert server.execute("Provision", "again") == 202
    assert server.device.m2msim.ready() == ["c1"]


def test_without_auto_provision_the_device_waits_for_exec(server):
    """AutoProvision false: nothing happens until Exec, whose Correlator comes back."""
    server.push()
    assert server.add("AutoProvision", "false", Meta(format="bool")) == 200
    assert server.device.m2msim.ready() == []
    assert server.execute("Provision", "order-17") == 202
    assert server.get("Result") == "1202"
    assert server.device.m2msim.begin(server.device.m2msim.ready()[0]).correlator == "order-17"
    assert server.get("State") == "25"


PACKAGE_BY_STATE = {0: 200, 10: 200, 20: 200, 25: 409, 30: 200, 40: 200, 50: 200, 60: 405, 70: 200}
COMMAND_BY_STATE = {0: 405, 10: 405, 20: 405, 25: 409, 30: 200, 40: 200, 50: 200, 60: 200, 70: 405}
DELETE_BY_STATE = {0: 200, 10: 200, 20: 200, 25: 405, 30: 405, 40: 405, 50: 405, 60: 200, 70: 200}
EXEC_BY_STATE = {
    "Provision": {0: 405, 10: 405, 20: 202, 25: 405, 30: 202, 40: 202, 50: 202, 60: 405, 70: 202},
    "Abort": {0: 405, 10: 200, 20: 200, 25: 405, 30: 405, 40: 405, 50: 405, 60: 405, 70: 405},
    "Activate": {0: 405, 10: 405, 20: 405, 25: 405, 30: 202, 40: 405, 50: 202, 60: 405, 70: 405},
    "Suspend": {0: 405, 10: 405, 20: 405, 25: 405, 30: 405, 40: 202, 50: 405, 60: 405, 70: 405},
    "Delete": {0: 405, 10: 405, 20: 405, 25: 405, 30: 202, 40: 202, 50: 202, 60: 405, 70: 405},
}


@pytest.mark.parametrize(("state", "code"), PACKAGE_BY_STATE.items())
def test_replace_of_the_package_by_state(server, state, code):
    """flows F9: a package may come in 0, 10, 20 and 70, and as an update in 30, 40 and 50, whose state stays."""
    in_state(server, ContainerState(state))
    assert server.replace("Package", b"other", BIN) == code
    if state in (30, 40, 50):
        assert server.get("State") == str(state)
        assert server.device.m2msim.ready() == ["c1"]


@pytest.mark.parametrize(("state", "code"), COMMAND_BY_STATE.items())
def test_a_command_by_state(server, state, code):
    """REQ-70, REQ-04: a command is taken where there is an MCIM, or was one; nobody reads it back."""
    in_state(server, ContainerState(state))
    assert server.add("Command", b"good command", BIN) == code
    assert server.get("Command") is None


@pytest.mark.parametrize(("state", "code"), DELETE_BY_STATE.items())
def test_delete_of_the_container_by_state(server, state, code):
    """REQ-70: a container with an MCIM goes by the signed operation only."""
    in_state(server, ContainerState(state))
    assert server.delete() == code


@pytest.mark.parametrize(
    ("operation", "state", "code"), [(o, s, c) for o, row in EXEC_BY_STATE.items() for s, c in row.items()]
)
def test_exec_by_state(server, operation, state, code):
    """Exec in a wrong state: 405 and Result 1405."""
    in_state(server, ContainerState(state))
    assert server.execute(operation) == code
    if code == 405:
        assert server.get("Result") == "1405"


def test_abort_drops_the_package(server):
    """20 → Abort → 0: nothing is left of the package."""
    server.push()
    assert server.execute("Abort") == 200
    assert (server.get("State"), server.get("Result")) == ("0", "1408")
    assert server.get("PackageHash") is None
    assert server.device.m2msim.ready() == []


def test_power_cut_before_the_tre_was_done(server):
    """REQ-56: rolled back by the TRE; State 70, Result 1501, the package may be tried again."""
    server.push()
    server.execute("Provision", "order-17")
    server.device.m2msim.begin("c1")
    other = (b"x" * 32, server.device.tre._outcome(b"other", ResultCode.SUCCESS, None))
    failed = [("c1", "Provision", ResultCode.STORAGE_FAILURE, "order-17")]
    assert server.device.m2msim.recover([other]) == failed
    assert (server.get("State"), server.get("Result")) == ("70", "1501")
    assert server.execute("Provision") == 202


@pytest.mark.parametrize("package", [b"good package", b"bad package"])
def test_power_cut_after_the_tre_was_done(server, package):
    """REQ-56: the TRE has decided, only the note of it was lost."""
    server.push(package)
    job = server.device.m2msim.begin("c1")
    outcome = server.device.tre.provision(job.octets, job.hints, NOW)
    last = server.device.tre.last_outcome()
    assert server.device.m2msim.recover([last]) == [("c1", "Provision", outcome.code, None)]
    state = "40" if package.startswith(b"good") else "70"
    assert (server.get("State"), server.get("Receipt")) == (state, outcome.receipt)
    assert server.get("Result") == str(int(outcome.code))
    assert server.device.m2msim.recover([last]) == []


COMMANDS = {
    "Activate": (ContainerState.PROVISIONED, "40"),
    "Suspend": (ContainerState.ACTIVATED, "50"),
    "Delete": (ContainerState.ACTIVATED, "60"),
}


def provisioned(server, state):
    """A container whose MCIM the TRE has, in that state."""
    server.device.tre.initial_state = state
    server.push()
    server.provision()


@pytest.mark.parametrize(("operation", "before", "after"), [(o, *v) for o, v in COMMANDS.items()])
def test_a_signed_command(server, operation, before, after):
    """REQ-70, flows F5: Command, Exec, 202, then done: state, result, receipt; the command is gone."""
    provisioned(server, before)
    assert server.add("Command", b"good command", BIN) == 200
    assert server.execute(operation, "order-18") == 202
    assert (server.get("Result"), server.device.m2msim.waiting()) == ("1202", True)
    assert server.add("Package", b"good", BIN) == 409
    assert server.replace("Command", b"good other", BIN) == 409
    assert server.execute(operation) == 409
    assert server.delete() == 405
    server.obey()
    assert (server.get("State"), server.get("Result"), server.get("Receipt")) == (after, "1200", b"receipt good")
    assert (*M2MSIM, "c1", "Command") not in server.device.tree.nodes
    assert server.device.m2msim.commanded() == []
    assert server.delete() == (200 if after == "60" else 405)


@pytest.mark.parametrize("operation", COMMANDS)
def test_a_repeated_signed_command_reaches_the_tre(server, operation):
    """REQ-68: what is so already is for the TRE to say, when a new command is there; without one it is 405."""
    provisioned(server, ContainerState.ACTIVATED)
    before = {"Activate": "40", "Suspend": "50", "Delete": "60"}[operation]
    server.device.tree.nodes.change((*M2MSIM, "c1", "State"), value=before)
    assert server.execute(operation) == 405
    assert server.add("Command", b"good command", BIN) == 200
    assert server.execute(operation) == 202


def test_a_refused_command_changes_nothing(server):
    """REQ-70: state as before, result and receipt of the refusal."""
    provisioned(server, ContainerState.ACTIVATED)
    assert server.add("Command", b"bad command", BIN) == 200
    assert server.execute("Delete") == 202
    server.obey()
    assert (server.get("State"), server.get("Result"), server.get("Receipt")) == ("40", "1411", b"receipt bad ")


@pytest.mark.parametrize("done", [False, True])
def test_power_cut_in_a_command(server, done):
    """REQ-56, REQ-67: the TRE knows whether it was done; the Correlator is not lost, and a command not done stays."""
    provisioned(server, ContainerState.ACTIVATED)
    server.add("Command", b"good command", BIN)
    server.execute("Suspend", "order-18")
    job = server.device.m2msim.begin("c1")
    if done:
        server.device.tre.command(LIFE_CYCLE[job.operation], job.octets, job.hints, NOW)
    again = device_tree(server.device.tre)
    again.tree.restore(server.device.tree.dump())
    again.m2msim.restore_requests(server.device.m2msim.dump_requests())
    code = ResultCode.SUCCESS if done else ResultCode.STORAGE_FAILURE
    assert again.m2msim.recover([again.tre.last_outcome()]) == [("c1", "Suspend", code, "order-18")]
    again.m2msim.show_states(again.tre.mcims())
    now = Server(again)
    assert (now.get("State"), now.get("Result")) == (("50", "1200") if done else ("40", "1501"))
    assert now.execute("Suspend") == (405 if done else 202)


def test_update_that_is_refused_leaves_the_mcim_in_use(server):
    """flows F4: the container is that of the MCIM again, with the result of the refusal; it cannot be deleted."""
    provisioned(server, ContainerState.ACTIVATED)
    assert server.add("Package", b"bad update", BIN) == 200
    assert server.delete() == 405
    server.provision()
    assert (server.get("State"), server.get("Result"), server.get("Revision")) == ("40", "1411", "1")
    assert server.device.m2msim.ready() == []


def test_update_after_a_fault_of_the_tre_waits_for_exec(server):
    """1501: the package stays and is tried again when the server says so, not over and over."""
    provisioned(server, ContainerState.ACTIVATED)
    server.device.tre.refusal = ResultCode.STORAGE_FAILURE
    server.add("Package", b"bad update", BIN)
    server.provision()
    assert (server.get("State"), server.get("Result")) == ("40", "1501")
    assert (server.device.m2msim.ready(), server.device.m2msim.waiting()) == ([], False)
    assert server.execute("Provision") == 202
    assert server.device.m2msim.ready() == ["c1"]


def test_package_larger_than_the_tre_takes_leaves_nothing(server):
    """413 and no partial state."""
    server.device.tre.max_package = 8
    assert server.add("", meta=NODE) == 200
    assert server.add("Package", b"x" * 9, BIN) == 413
    assert (server.get("State"), server.get("PackageHash")) == ("0", None)


def test_requests_survive_a_restart(server):
    """An Exec that was accepted is not forgotten."""
    server.push()
    server.execute("Provision", "order-17")
    again = device_tree()
    again.tree.restore(server.device.tree.dump())
    again.m2msim.restore_requests(server.device.m2msim.dump_requests())
    assert again.m2msim.begin("c1").correlator == "order-17"
    again.m2msim.restore_requests({"c1": "order-16", "c2": None})  # as the first version wrote them
    assert again.m2msim.begin("c1").correlator == "order-16"


def test_registration_shows_that_a_package_waits(server):
    """M2MMobj/Registration/State 2, and no Renew while a package uses the nonce."""
    device = server.device
    device.tre.renew_registration(reason="initial", sho_id=None, now=NOW)
    state = Get(cmd_id="1", items=(Item(target="./M2MMobj/Registration/State"),))
    renew = Exec(cmd_id="1", items=(Item(target="./M2MMobj/Registration/Renew"),))
    assert server.executor.execute(state)[0].item.data == "1"
    server.push()
    assert server.executor.execute(state)[0].item.data == "2"
    before = device.tre.open_request.req_id
    assert server.executor.execute(renew)[0].code == 405
    server.execute("Abort")
    assert server.executor.execute(renew)[0].code == 200
    assert device.tre.open_request.req_id != before


@pytest.mark.parametrize(
    ("media_type", "fits"),
    [(Container.XML.media_type, True), (Container.CMS.media_type, True), ("application/octet-stream", False)],
)
@pytest.mark.parametrize("node", ["Package", "Command"])
def test_the_media_type_of_every_container_fits(node: str, media_type: str, fits: bool) -> None:
    """REQ-31: what the DPF calls a package, as XML or as CMS, is what the device's description has."""
    server = Server(device_tree())
    assert server.add("", meta=NODE) == 200
    status = server.add(node, b"octets", Meta(format="b64", type=media_type))
    assert (status != 415) is fits  # a command for a container without MCIM is refused for another reason


@pytest.mark.parametrize("operation", ["Provision", "Delete"])
def test_a_container_with_something_to_do_stays(server, operation):
    """T12, REQ-70: a server that asks for something and takes the container away leaves nothing half done."""
    if operation == "Provision":
        server.push()
        assert server.execute("Provision") == 202
    else:
        in_state(server, ContainerState.DELETED)
        assert server.add("Command", b"good command", BIN) == 200
        assert server.execute("Delete") == 202
    deletion = Delete(cmd_id="1", items=(Item(target=CONTAINER),))
    assert server.executor.execute(deletion)[0].code == 405
    assert server.device.m2msim.ready() + server.device.m2msim.commanded() == ["c1"]


def test_a_request_without_its_container_is_none(server):
    """T12: one that was renamed away, or is not in the state file any more."""
    in_state(server, ContainerState.ACTIVATED)
    assert server.add("Command", b"good command", BIN) == 200
    assert server.execute("Suspend") == 202
    server.device.tree.nodes.remove((*M2MSIM, "c1"))
    assert server.device.m2msim.commanded() == []
    assert not server.device.m2msim.waiting()
    assert server.device.m2msim.dump_requests() == {}
