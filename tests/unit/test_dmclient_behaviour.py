# ruff: noqa: E501  # a row of a table stays on one line
"""Scripted behaviour: the file, the patterns, and what the executor makes of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actor_runtime.errors import ConfigError
from dmclient.alerts import AlertQueue
from dmclient.behaviour import Behaviour, Rule, load_behaviour
from dmclient.executor import Executor, Surroundings
from dmclient.management_tree import Hooks, UndoFailed
from dmclient.nodes import NodeMap
from dmclient.nodes import Path as NodePath
from syncml.codes import AlertCode
from syncml.model import Add, Alert, Atomic, Copy, Exec, Get, Item, Meta, Replace, Sequence
from tests.support_dmclient import DPF, DeviceTree, device_tree
from tests.support_executor import Commands, codes

TEXT = Meta(format="chr", type="text/plain")

# fmt: off
PATTERNS = {
    "same": ("./A/B", "./A/B", True),
    "without ./": ("./A/B", "A/B", True),
    "escapes": ("./A%20B", "./A B", True),
    "other name": ("./A/B", "./A/C", False),
    "below": ("./A", "./A/B", False),
    "one name": ("./A/*/C", "./A/B/C", True),
    "one name is not two": ("./A/*", "./A/B/C", False),
    "any number": ("./A/**", "./A/B/C", True),
    "any number may be none": ("./A/**", "./A", True),
    "any number between": ("./A/**/D", "./A/B/C/D", True),
    "any number between, wrong end": ("./A/**/D", "./A/B/C", False),
    "everything": ("**", "./A", True),
    "root": (".", ".", True),
    "root is not everything": (".", "./A", False),
    "a property is not its node": ("./A", "./A?prop=ACL", False),
    "property": ("./A?prop=ACL", "./A?prop=ACL", True),
    "another property": ("./A?prop=ACL", "./A?prop=Name", False),
    "any query": ("./A?*", "./A?list=Struct", True),
    "malformed address": ("**", "./A//B", False),
    "no address": ("**", None, True),
    "no address and a pattern": ("./A", None, False),
}
# fmt: on


@pytest.mark.parametrize(("pattern", "uri", "fits"), PATTERNS.values(), ids=PATTERNS)
def test_patterns(pattern, uri, fits):
    assert Rule(uri=pattern).fits("Get", uri) is fits


@settings(max_examples=50)
@given(st.lists(st.sampled_from(["**", "*", "a", "b"]), max_size=40), st.lists(st.sampled_from("ab"), max_size=60))
def test_no_address_makes_matching_slow(pattern, names):
    """Many `**` against a long address: bounded by the product of the lengths."""
    Rule(uri="./" + "/".join([*pattern, "**"])).fits("Get", "./" + "/".join([*names, "x"]))


FILES = {
    "unknown key": ("[[rule]]\nuri = './A'\nstate = 3", r"rule\.0\.state: unknown key"),
    "unknown key at the top": ("rules = []", "rules: unknown key"),
    "unknown key in an alert": (
        "[[rule]]\nexec='async'\nalert={type='t', colour='x'}",
        r"rule\.0\.alert\.colour: unkn",
    ),
    "unknown command": ("[[rule]]\ncommand = 'Put'", r"rule\.0\.command\.0"),
    "status out of range": ("[[rule]]\nstatus = 700", r"rule\.0\.status"),
    "async without alert": ("[[rule]]\nexec = 'async'", "belong together"),
    "alert without async": ("[[rule]]\nalert = {type='t'}", "belong together"),
    "status and value": ("[[rule]]\nstatus = 200\nvalue = 'x'", "status excludes"),
    "execute without status": ("[[rule]]\nexecute = true", "execute without status"),
    "no address": ("[[rule]]\nuri = './A//B'", r"rule\.0\.uri"),
    "two replies": ("user='scripted'\n[[answer]]\nreply='yes'\ntext='x'", r"answer\.0: .*exactly one"),
    "answers and nobody to give them": ("[[answer]]\nreply='yes'", "answer without user"),
    "no TOML": ("rule = [", "not TOML"),
}


@pytest.mark.parametrize(("text", "fault"), FILES.values(), ids=FILES)
def test_faults_of_a_file_name_the_place(tmp_path, text, fault):
    path = tmp_path / "behaviour.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=fault):
        load_behaviour(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load_behaviour(tmp_path / "none.toml")


def behaviour(tmp_path: Path, text: str) -> Behaviour:
    path = tmp_path / "behaviour.toml"
    path.write_text(text)
    return load_behaviour(path)


def test_the_example_in_the_documentation_is_one(tmp_path):
    import dmclient.behaviour

    lines = (dmclient.behaviour.__doc__ or "").split("\n")
    example = "\n".join(line for line in lines if line.startswith("    "))
    loaded = behaviour(tmp_path, example)
    assert [each.uri for each in loaded.rule] == ["./FUMO/*/Update", "./DevDetail/**"]


@pytest.fixture
def device() -> DeviceTree:
    made = device_tree()
    made.tree.nodes.change(("M2MMobj",), acl=None)
    return made


def item(name: str, data: str = "v", *, source: str | None = None) -> Item:
    return Item(target=f"./Test/{name}", meta=TEXT, data=data, source=source)


def commands(device: DeviceTree, rules: Behaviour, **more: object) -> Commands:
    return Commands(device.tree, DPF, Surroundings(behaviour=rules, **more))


# fmt: off
RULES = {
    "constant, not done": ("[[rule]]\nuri='./Test/**'\ncommand='Add'\nstatus=420", Add(cmd_id="1", items=(item("a"),)), 420, False),
    "constant success, not done": ("[[rule]]\nuri='./Test/a'\ncommand='Add'\nstatus=200", Add(cmd_id="1", items=(item("a"),)), 200, False),
    "constant, done": ("[[rule]]\nuri='./Test/a'\ncommand='Add'\nstatus=500\nexecute=true", Add(cmd_id="1", items=(item("a"),)), 500, True),
    "constant although it cannot be done": ("[[rule]]\ncommand='Replace'\nstatus=200\nexecute=true", Replace(cmd_id="1", items=(item("a"),)), 200, False),
    "another command": ("[[rule]]\ncommand=['Get', 'Delete']\nstatus=420", Add(cmd_id="1", items=(item("a"),)), 200, True),
    "the first rule counts": ("[[rule]]\nuri='./Test/a'\n[[rule]]\nstatus=420", Add(cmd_id="1", items=(item("a"),)), 200, True),
    "XC-059 Copy not supported": ("[[rule]]\ncommand='Copy'\nstatus=406", Copy(cmd_id="1", items=(item("a", source="./DevInfo/Man"),)), 406, False),
}
# fmt: on


@pytest.mark.parametrize(("text", "command", "code", "there"), RULES.values(), ids=RULES)
def test_constant_status(tmp_path, device, text, command, code, there):
    results = commands(device, behaviour(tmp_path, text)).execute(command)
    assert [each.code for each in results] == [code]
    assert (("Test", "a") in device.tree.nodes) is there


def test_groups_and_alerts_can_be_unsupported(tmp_path, device):
    """XC-058: a client without Atomic: 406, its children are not executed."""
    rules = "[[rule]]\ncommand='Atomic'\nstatus=406\n[[rule]]\ncommand='Alert'\nalert_code=1100\nstatus=415"
    executor = commands(device, behaviour(tmp_path, rules))
    atomic = Atomic(cmd_id="1", commands=(Add(cmd_id="2", items=(item("a"),)),))
    assert codes(executor.execute(atomic)) == [("1", 406), ("2", 215)]
    assert ("Test", "a") not in device.tree.nodes
    assert codes(executor.execute(Alert(cmd_id="3", code=1100))) == [("3", 415)]
    assert codes(executor.execute(Alert(cmd_id="3", code=1101))) == [("3", 406)]
    assert codes(executor.execute(Sequence(cmd_id="4"))) == [("4", 200)]


RESULTS = {
    "wrong value": ("value='wrong'", ["wrong"]),
    "none although 200": ("results='none'", []),
    "twice": ("results='twice'", ["Example", "Example"]),
    "twice and wrong": ("results='twice'\nvalue='x'", ["x", "x"]),
}


@pytest.mark.parametrize(("rule", "data"), RESULTS.values(), ids=RESULTS)
def test_results_on_purpose(tmp_path, device, rule, data):
    """The misbehaving client: a wrong value, no Results, Results twice; rights count as ever."""
    executor = commands(device, behaviour(tmp_path, f"[[rule]]\nuri='./DevInfo/*'\ncommand='Get'\n{rule}"))
    (result,) = executor.execute(Get(cmd_id="1", items=(Item(target="./DevInfo/Man"),)))
    items = () if result.item is None else (result.item, *result.more_items)
    assert (result.code, [each.data for each in items]) == (200, data)
    (missing,) = executor.execute(Get(cmd_id="1", items=(Item(target="./DevInfo/None"),)))
    assert (missing.code, missing.item) == (404, None)


def test_a_wrong_value_of_a_binary_node_is_octets(tmp_path, device):
    rules = behaviour(tmp_path, "[[rule]]\nuri='./M2MMobj/TRE/PlatformCert'\nvalue='wrong'")
    (result,) = commands(device, rules).execute(Get(cmd_id="1", items=(Item(target="./M2MMobj/TRE/PlatformCert"),)))
    assert result.item is not None
    assert result.item.data == b"wrong"


class ByHand:
    """Decides by hand."""

    def __init__(self, *answers: int | None) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str]] = []

    async def status_for(self, command: str, uri: str) -> int | None:
        self.asked.append((command, uri))
        return self.answers.pop(0)


def test_manual_answers(tmp_path, device):
    """The tester answers, or lets the device go on; Atomic children as well."""
    tester = ByHand(403, None, 404)
    rules = behaviour(tmp_path, "[[rule]]\nuri='./Test/*'\ncommand='Add'\nanswer='manual'")
    executor = commands(device, rules, operator=tester)
    assert codes(executor.execute(Add(cmd_id="1", items=(item("a"),)))) == [("1", 403)]
    assert codes(executor.execute(Add(cmd_id="1", items=(item("a"),)))) == [("1", 200)]
    atomic = Atomic(cmd_id="1", commands=(Add(cmd_id="2", items=(item("b"),)),))
    assert codes(executor.execute(atomic)) == [("1", 507), ("2", 404)]
    assert tester.asked == [("Add", "./Test/a"), ("Add", "./Test/a"), ("Add", "./Test/b")]


# -- Exec now and alert later ---------------------------------------------------------------------------------------

ASYNC = """
[[rule]]
uri = './M2MMobj/Registration/Renew'
exec = 'async'
alert = { when = '%s', type = 'org.example.done', format = 'int', data = '200', mark = 'critical' }
"""
RENEW = "./M2MMobj/Registration/Renew"


def run_exec(correlator: str | None = "c1") -> Exec:
    return Exec(cmd_id="1", correlator=correlator, items=(Item(target=RENEW),))


@pytest.fixture
def granted(device) -> DeviceTree:
    from syncml.tree import Acl

    device.tree.nodes.change(("M2MMobj",), acl=Acl.parse("Exec=*&Get=*"))
    return device


@pytest.mark.parametrize(("when", "urgent"), [("now", 1), ("later", 0)])
def test_asynchronous_exec(tmp_path, granted, when, urgent):
    """XC-060: 202 now; Alert 1226 with the Exec's Correlator in this session or a later one; nothing is run."""
    alerts = AlertQueue()
    executor = commands(granted, behaviour(tmp_path, ASYNC % when), alerts=alerts)
    request = granted.tre.open_request
    assert codes(executor.execute(run_exec())) == [("1", 202)]
    assert granted.tre.open_request is request
    assert len(alerts.take_urgent()) == urgent
    assert alerts.take_urgent() == ()
    restarted = AlertQueue()
    restarted.restore(alerts.dump())
    expected = Alert(
        code=AlertCode.GENERIC_ALERT,
        correlator="c1",
        items=(Item(source=RENEW, meta=Meta(format="int", type="org.example.done", mark="critical"), data="200"),),
    )
    assert restarted.alerts() == (expected,)
    assert restarted.forget(expected) == "org.example.done"
    assert len(restarted) == 0


def test_each_correlator_has_its_alert(tmp_path, granted):
    """XC-060: two Execs of one node are told apart by their Correlators; one without has none."""
    alerts = AlertQueue()
    executor = commands(granted, behaviour(tmp_path, ASYNC % "later"), alerts=alerts)
    for correlator in ("c1", "c2", None, "c2"):
        executor.execute(run_exec(correlator))
    assert [each.correlator for each in alerts.alerts()] == ["c1", None, "c2"]


def test_asynchronous_exec_needs_the_right(tmp_path, device):
    """XC-060: checks of the tree come first, and then nothing is announced."""
    alerts = AlertQueue()
    executor = commands(device, behaviour(tmp_path, ASYNC % "now"), alerts=alerts)
    assert codes(executor.execute(run_exec())) == [("1", 425)]
    assert len(alerts) == 0


BROKEN_ALERTS = {
    "missing key": {"type": "t", "source": "s", "format": "chr", "data": ""},
    "no text": {"type": 1, "source": "s", "format": "chr", "data": "", "mark": "m", "correlator": None},
    "no correlator": {"type": "t", "source": "s", "format": "chr", "data": "", "mark": "m", "correlator": 5},
}


@pytest.mark.parametrize("data", BROKEN_ALERTS.values(), ids=BROKEN_ALERTS)
def test_restoring_something_else(data):
    with pytest.raises((KeyError, TypeError)):
        AlertQueue().restore([data])


# -- effects outside the tree -----------------------------------------------------------------------------------------


class Lamp:
    """Follows a node; once it is broken it stays as it is."""

    def __init__(self) -> None:
        self.state = "off"
        self.broken = False

    def follow(self, nodes: NodeMap, path: NodePath):
        before, self.state = self.state, nodes.text(path)

        def undo() -> None:
            if self.broken:
                raise UndoFailed("the switch is broken")
            self.state = before

        return undo


def test_atomic_takes_effects_back_or_says_that_it_cannot(device):
    """XC-056: 216 for what was undone, 516 for what stayed; the tree then shows what the world is like."""
    lamp = Lamp()
    device.tree.hook(("Test", "lamp"), Hooks(effect=lamp.follow))
    executor = Commands(device.tree, DPF)
    executor.execute(Add(cmd_id="1", items=(item("lamp", "off"),)))
    atomic = Atomic(
        cmd_id="1",
        commands=(
            Add(cmd_id="2", items=(item("a"),)),
            Replace(cmd_id="3", items=(item("lamp", "on"),)),
            Replace(cmd_id="4", items=(item("none"),)),
        ),
    )
    assert codes(executor.execute(atomic)) == [("1", 507), ("2", 216), ("3", 216), ("4", 404)]
    assert (lamp.state, device.tree.nodes.text(("Test", "lamp"))) == ("off", "off")
    lamp.broken = True
    assert codes(executor.execute(atomic)) == [("1", 507), ("2", 216), ("3", 516), ("4", 404)]
    assert (lamp.state, device.tree.nodes.text(("Test", "lamp"))) == ("on", "on")
    assert ("Test", "a") not in device.tree.nodes


def test_effects_are_taken_back_in_reverse(device):
    """XC-056: two changes of one node end where they began."""
    lamp = Lamp()
    device.tree.hook(("Test", "lamp"), Hooks(effect=lamp.follow))
    parts = tuple(Replace(cmd_id=str(n), items=(item("lamp", f"{n}"),)) for n in (3, 4))
    atomic = Atomic(cmd_id="1", commands=(Add(cmd_id="2", items=(item("lamp"),)), *parts, Add(cmd_id="5")))
    assert codes(Commands(device.tree, DPF).execute(atomic)) == [
        ("1", 507), ("2", 216), ("3", 216), ("4", 216), ("5", 412),
    ]  # fmt: skip
    assert lamp.state == "off"


def test_a_rollback_that_fails_by_script(tmp_path, device):
    """XC-056: `undo = "fails"` makes a device that cannot roll back, and shows so."""
    rules = behaviour(tmp_path, "[[rule]]\nuri='./Test/a'\nundo='fails'")
    atomic = Atomic(
        cmd_id="1",
        commands=(Add(cmd_id="2", items=(item("a"), item("b"))), Replace(cmd_id="3", items=(item("none"),))),
    )
    assert codes(commands(device, rules).execute(atomic)) == [("1", 507), ("2", 516), ("2", 216), ("3", 404)]
    assert device.tree.nodes.children(("Test",)) == ["a"]


async def test_a_cancelled_session_leaves_no_transaction_open(tmp_path, device):
    """A session that is given up while a tester thinks does not block the next one."""

    class Thinking:
        async def status_for(self, command: str, uri: str) -> int | None:
            await asyncio.Event().wait()
            return None

    rules = behaviour(tmp_path, "[[rule]]\nuri='./Test/b'\nanswer='manual'")
    executor = Executor(device.tree, DPF, Surroundings(behaviour=rules, operator=Thinking()))
    atomic = Atomic(cmd_id="1", commands=(Add(cmd_id="2", items=(item("a"), item("b"))),))
    task = asyncio.ensure_future(executor.execute(atomic))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert codes(await executor.execute(Add(cmd_id="2", items=(item("a"),)))) == [("2", 200)]
