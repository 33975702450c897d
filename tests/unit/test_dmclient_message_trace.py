"""Messages in the trail: what is in them can be followed, what must not be told is not there (REQ-71)."""

from __future__ import annotations

import pytest

from dmclient.message_trace import HIDDEN, MAX_SUMMARY, redacted, summary
from syncml.model import (
    Add,
    Alert,
    Atomic,
    Chal,
    Cred,
    Get,
    Item,
    Message,
    Meta,
    Replace,
    Results,
    Sequence,
    Status,
    SyncHdr,
    UnknownCommand,
)

HEADER = SyncHdr(
    session_id="1", msg_id="2", target="https://dpf.example/dm", source="urn:imei:1",
    cred=Cred(type="syncml:auth-md5", data="Q1JFREVOVElBTA=="),
)  # fmt: skip
SECRET = "c2VjcmV0"


def message(*commands) -> Message:
    numbered = tuple(type(each)(**{**{n: getattr(each, n) for n in _fields(each)}, "cmd_id": str(number)})
                     for number, each in enumerate(commands, 1))  # fmt: skip
    return Message(header=HEADER, commands=numbered, final=True)


def _fields(value) -> list[str]:
    return [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]


def leaf(uri: str, data: str | bytes, **meta) -> Item:
    return Item(target=uri, meta=Meta(**meta), data=data)


REDACTED = {
    "credential leaf": Replace(items=(leaf("./DMAcc/1/AppAuth/1/AAuthSecret", SECRET),)),
    "nonce leaf, escaped query": Get(items=(leaf("./M2MMobj/Registration/Nonce?prop=Size", SECRET),)),
    "PCID in Results": Results(cmd_ref="1", items=(Item(source="./M2MMobj/PCID", data=SECRET),)),
    "PCID by reference": Results(cmd_ref="1", source_ref="./M2MMobj/PCID", items=(Item(data=SECRET),)),
    "binary": Add(items=(leaf("./M2MSIMMobj/c/Package", SECRET, format="b64"),)),
    "binary by the command's Meta": Add(meta=Meta(format="b64"), items=(Item(target="./X", data=SECRET),)),
    "octets": Add(items=(leaf("./X", SECRET.encode(), format="bin"),)),
    "long text": Add(items=(leaf("./X", SECRET * 40),)),
    "inside a Sequence": Sequence(commands=(Replace(cmd_id="9", items=(leaf("./M2MSIMMobj/c/NonceEcho", SECRET),)),)),
    "challenge": Status(
        msg_ref="1", cmd_ref="0", cmd="SyncHdr", code=212, chal=Chal(type="syncml:auth-md5", next_nonce=b"secret")
    ),
    "alert": Alert(code=1226, items=(Item(source="./M2MMobj/PCID", meta=Meta(type="t", format="chr"), data=SECRET),)),
}


@pytest.mark.parametrize("command", REDACTED.values(), ids=REDACTED)
def test_what_is_not_shown(command):
    """Credentials, nonces, PCID, packages: not in the body, not in the summary."""
    shown = redacted(message(command))
    assert SECRET not in shown
    assert "Q1JFREVOVElBTA" not in shown
    assert HIDDEN in shown
    assert SECRET not in summary(message(command))


def test_what_is_shown():
    """Short text values, statuses and structure stay readable."""
    shown = redacted(message(Add(items=(leaf("./Test/leaf", "plain"),)), Status(
        msg_ref="1", cmd_ref="2", cmd="Get", code=404, target_refs=("./Test/none",))))  # fmt: skip
    assert "plain" in shown
    assert "./Test/none" in shown


def test_summary():
    """One line: number, commands with their first target, how many more, chunks, groups, Final."""
    alert = Alert(code=1226, items=(Item(meta=Meta(type="urn:oma:at:x:NetworkAttach"), data="1200"),))
    group = Atomic(commands=(Add(cmd_id="9", items=(Item(target="./A"),)),))
    chunk = Replace(items=(Item(target="./P", data="x", more_data=True),))
    many = Get(items=(Item(target="./A"), Item(target="./B"), Item(target="./C")))
    assert summary(message(alert, group, chunk, many, UnknownCommand(element="Put"))) == (
        "#2 Alert 1226 NetworkAttach; Atomic{Add ./A}; Replace ./P …; Get ./A +2; Put; final"
    )
    assert len(summary(message(*[many] * 50))) == MAX_SUMMARY


LOOSE = {
    "not a name": UnknownCommand(element="not a name"),
    "a control character": Add(items=(leaf("./X", "a\x01b", format="chr"),)),
}


@pytest.mark.parametrize("command", LOOSE.values(), ids=LOOSE)
def test_a_message_that_cannot_be_written_is_shown_as_it_was_read(command):
    """A tester needs just that message; what is secret is blanked in it as well (REQ-71)."""
    secrets = [each for each in REDACTED.values() if not isinstance(each, Atomic)]
    shown = redacted(message(command, *secrets))
    assert shown.startswith("[not to be written as XML: ")
    assert any(told in shown for told in ('"element":"not a name"', '"data":"a\\u0001b"'))
    assert SECRET not in shown
    assert "Q1JFREVOVElBTA" not in shown
    assert "secret" not in shown
