"""What a device may answer, and what the policy sees of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dmserver.answers import Answers, NodeValue, node_key, read_answers
from dmserver.discovery import MAX_NODES, Discovery
from dmserver.redaction import redacted_body, summary
from syncml.model import (
    Add,
    Alert,
    Chal,
    Cred,
    Exec,
    Get,
    Item,
    Message,
    Meta,
    Replace,
    Results,
    Sequence,
    Status,
    SyncHdr,
)
from syncml.session import CommandAnswered

B64 = Meta(format="b64", type="application/octet-stream")


def status(cmd: str, code: int, *refs: str, cmd_ref: str = "1") -> Status:
    return Status(msg_ref="1", cmd_ref=cmd_ref, cmd=cmd, code=code, target_refs=refs)


def results(uri: str, data: str, meta: Meta | None = None) -> Results:
    return Results(items=(Item(source=uri, meta=meta, data=data),))


GET = Get(items=(Item(target="./A/B"), Item(target="./A/C")))


def test_node_keys():
    for same in ("./A/B", "A/B", " A/B ", "./A/%42"):
        assert node_key(same) == "A/B"
    assert node_key(".") == node_key("./") == "."
    assert node_key("./A?prop=Type") == "A?prop=Type"


def test_one_status_for_all_items():
    event = CommandAnswered(command=GET, code=200, statuses=(status("Get", 200),), results=(results("./A/B", "x"),))
    answers = read_answers([event])
    assert (answers.code("A/B"), answers.code("./A/C"), answers.text("./A/B")) == (200, 200, "x")
    assert answers.text("./A/C") is None


def test_a_status_for_each_item_wins():
    event = CommandAnswered(
        command=GET, code=404, statuses=(status("Get", 404, "A/C"), status("Get", 200, "./A/B")), results=()
    )
    answers = read_answers([event])
    assert (answers.code("./A/B"), answers.code("./A/C")) == (200, 404)
    assert answers.ok("A/B")
    assert not answers.ok("A/C")


def test_results_without_status_count_as_done():
    answers = read_answers([CommandAnswered(command=GET, code=200, results=(results("./A/B", "x"),))])
    assert answers.ok("./A/B")


def test_children_of_a_sequence_are_told_apart_by_name_when_the_device_names_no_target():
    sequence = Sequence(
        commands=(
            Replace(items=(Item(target="./A/Challenge", data="x"),)),
            Exec(items=(Item(target="./A/Generate"),)),
        )
    )
    event = CommandAnswered(
        command=sequence,
        code=202,
        statuses=(status("Sequence", 200), status("Replace", 200, cmd_ref="2"), status("Exec", 202, cmd_ref="3")),
    )
    answers = read_answers([event])
    assert (answers.code("./A/Challenge"), answers.code("./A/Generate")) == (200, 202)


def test_refused_by_ourselves_counts_for_every_item():
    answers = read_answers([CommandAnswered(command=GET, code=413)])
    assert (answers.code("./A/B"), answers.code("./A/C")) == (413, 413)


def test_values_come_as_their_format_says():
    event = CommandAnswered(
        command=GET,
        code=200,
        results=(
            results("./A/B", "AAEC", B64),
            results("./A/C", "not base64!", B64),
            results("./A/D", " 42 ", Meta(format="int")),
            results("./A/E", "x/y%20z/", Meta(format="node")),
        ),
    )
    answers = read_answers([event])
    assert answers.octets("./A/B") == b"\x00\x01\x02"
    assert answers.node("./A/C") is None
    assert answers.number("./A/D") == 42
    assert answers.children("./A/E") == ("x", "y%20z")
    assert answers.children("./A/B") is None
    assert answers.octets("./A/D") is None


@given(st.text(max_size=40))
def test_any_text_is_a_number_or_none(text):
    answers = Answers(nodes={"A": NodeValue(value=text, format="int")})
    number = answers.number("A")
    assert number is None or isinstance(number, int)


@given(st.binary(max_size=40))
def test_octets_that_are_no_text_are_none(octets):
    text = Answers(nodes={"A": NodeValue(value=octets, format="bin")}).text("A")
    assert text is None or isinstance(text, str)


def test_discovery_is_bounded():
    search = Discovery(frozenset({"urn:a"}))
    search.next(None)
    names = "/".join(f"n{number}" for number in range(10 * MAX_NODES))
    asked = search.next(Answers(nodes={".": NodeValue(value=names, format="node")}))
    assert sum(len(getattr(command, "items", ())) for command in asked) == MAX_NODES
    rounds = 0
    commands = asked
    while commands:
        rounds += 1
        targets = [item.target or "" for command in commands for item in getattr(command, "items", ())]
        nodes = {
            node_key(uri): NodeValue(value="" if "?" in uri else names, format="chr" if "?" in uri else "node")
            for uri in targets
        }
        commands = search.next(Answers(nodes=nodes))
    assert rounds < 8
    assert not search.complete


# --- what the trail shows ---------------------------------------------------------------------------------------------

HEADER = SyncHdr(
    session_id="1",
    msg_id="1",
    target="https://dpf.example/dm?s=bearer-token",
    source="urn:imei:1",
    resp_uri="https://dpf.example/dm?s=bearer-token",
    cred=Cred(type="syncml:auth-md5", data="c2VjcmV0LWRpZ2VzdA=="),
)


def test_redaction_takes_out_what_is_secret():
    message = Message(
        header=HEADER,
        commands=(
            Status(
                cmd_id="1",
                msg_ref="1",
                cmd_ref="0",
                cmd="SyncHdr",
                code=212,
                chal=Chal(type="syncml:auth-md5", next_nonce=b"next-nonce"),
                target_refs=("https://dpf.example/dm?s=bearer-token",),
            ),
            Add(cmd_id="2", items=(Item(target="./S/x/Package", meta=B64, data="UEFDS0FHRQ=="),)),
            Sequence(
                cmd_id="3",
                commands=(Replace(cmd_id="4", items=(Item(target="./M/Attestation/Challenge", data="Q0hBTA=="),)),),
            ),
            Results(cmd_id="5", items=(Item(source="./M/PCID", data="001019876543210"),)),
            Results(cmd_id="6", items=(Item(source="./M/TRE/Type", data="software"),)),
            Results(cmd_id="7", items=(Item(source="./M/TRE/PlatformCert", meta=B64, data="QUJD" * 200),)),
        ),
        final=True,
    )
    shown = redacted_body(message)
    for secret in (
        "bearer-token",
        "c2VjcmV0",
        "next-nonce",
        "bmV4dC1ub25jZQ",
        "UEFDS0FHRQ",
        "Q0hBTA",
        "0010198",
        "QUJDQUJD",
    ):
        assert secret not in shown, secret
    assert "software" in shown
    assert "./S/x/Package" in shown


def test_a_message_that_is_no_strict_one_is_not_shown_and_does_no_harm():
    assert "<" not in redacted_body(Message(header=HEADER, commands=(Get(items=(Item(target="."),)),)))


def test_summary_names_commands_counts_and_alert_types():
    alert = Alert(code=1226, items=(Item(meta=Meta(type="urn:oma:at:x:0.1:NetworkAttach"), data="1200"),))
    message = Message(
        header=HEADER, commands=(status("SyncHdr", 212, cmd_ref="0"), status("Get", 200), status("Get", 200), alert)
    )
    assert summary(message) == "Status SyncHdr 212, Status 200 ×2, Alert 1226 NetworkAttach (to be continued)"
