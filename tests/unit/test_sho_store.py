"""Store of the SHO: schema, allocation exactly once, bounds of attach sessions, command line."""

from __future__ import annotations

import json
import sys
import uuid
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import event, select

from actor_runtime import cli as actor_cli
from actor_runtime.sealing import SealingKey
from actor_runtime.store import Store
from actor_runtime.trail import Trail
from home_network.sessions import MAX_PER_IDENTITY, AttachBusy, AttachRefused
from mcim.aka import next_sqn
from mcim.milenage import MilenageConstants
from mcim.vocabulary import Container, Operation, Suite
from sho import cli
from sho.app import MIGRATIONS
from sho.auc import AuthenticationCentre, Subscriptions, _armed
from sho.store import effects, handovers, jobs, prepared, repository, tables, updates
from sho.store.handovers import NewHandover, NotPossible
from sho.store.updates import NewValues
from sho.subscriptions import Vault, generate

NOW = datetime(2026, 6, 1, tzinfo=UTC)
VAULT = Vault(SealingKey(bytes(32)))


@pytest.fixture
def store(tmp_path):
    store = Store(f"sqlite:///{tmp_path / 'sho.sqlite'}", MIGRATIONS)
    store.upgrade()
    yield store
    store.close()


def test_migrations_make_what_the_tables_say(store):
    differences = store.read_sync(lambda c: compare_metadata(MigrationContext.configure(c), tables.metadata))
    assert differences == []


def test_a_database_of_the_first_release_keeps_what_is_in_it(tmp_path):
    """REQ-16: subscriptions, hand-overs and orders are as they were, and are installs."""
    store = Store(f"sqlite:///{tmp_path / 'sho.sqlite'}", MIGRATIONS)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))

    def first_release(connection):
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        text = (
            "INSERT INTO subscription VALUES (1, x'01', x'02', x'03', x'04', 'mask', x'8000', 7, 'armed', 'm', 't', "
            "'c', NULL, NULL, '2026-01-01'); "
            "INSERT INTO sho_order VALUES ('own', 'o', 'm', 'https://d', 'initial', 'fulfilled', '2026-01-01'); "
            "INSERT INTO handover VALUES (1, 'm', 'r', 'o', 'd', 't', x'05', x'06', x'07', 3, 1, 'c', 'x', 9, "
            "'2026-01-01 00:00:00', '2027-01-01 00:00:00', 'digest', 1024, x'08', x'09', 'confirmed', 1200, x'0a', "
            "'2026-01-01')"
        )
        for statement in text.split("; "):
            connection.exec_driver_sql(statement)

    with store._writer_engine.begin() as connection:
        first_release(connection)
    store.upgrade()
    row = store.read_sync(lambda c: repository.find_handover_of_mcim(c, "c"))
    assert (row.operation, row.container, row.revision, row.package_sealed) == (
        Operation.INSTALL, Container.XML, 1, b"\x08",
    )  # fmt: skip
    subscription = store.read_sync(lambda c: repository.get_subscription(c, 1))
    assert (subscription.state, subscription.sealed.algorithm, subscription.policy) == ("armed", "milenage", None)
    assert store.read_sync(lambda c: repository.terms_of(c, "o")) == repository.Terms()
    store.close()


def fill(store, count):
    credentials = list(generate(count, "00101"))

    def add(connection):
        for credential in credentials:
            sealed = VAULT.seal(credential)
            assert repository.add_subscription(connection, sealed, imsi_mask="x", amf=b"\x80\x00", now=NOW)
            assert not repository.add_subscription(connection, sealed, imsi_mask="x", amf=b"\x80\x00", now=NOW)

    store.write_sync(add)
    return credentials


def new(m2me="m1", req="r1", *, tre=None, key=b"k" * 16, lowest=1):
    return NewHandover(
        m2me_id=m2me,
        req_id=req,
        order_id="o",
        dpf_id="d",
        tre_id=tre or f"tre-{m2me}",
        platform_key_id=key,
        attest_key_id=b"a" * 16,
        nonce=bytes(32),
        suite=Suite.RSA_GCM_256,
        next_sequence=lowest,
        mcim_id=str(uuid.uuid4()),
        transaction_id=str(uuid.uuid4()),
        not_before=NOW,
        not_after=NOW + timedelta(days=1),
        ticket_digest="0" * 64,
    )


def allocate(store, wanted, now=NOW):
    return store.write_sync(lambda c: handovers.allocate(c, wanted, sqn_ahead=1024, now=now))


def test_one_subscription_for_one_request_until_there_is_none(store):
    fill(store, 2)
    first = allocate(store, new())
    assert allocate(store, new()) == first
    second = allocate(store, new("m2"))
    assert second.subscription_id != first.subscription_id
    assert allocate(store, new("m3")) is None
    assert (first.sqn_init, first.sequence) == (1024, 1)


def test_sequences_rise_for_each_tre(store):
    fill(store, 2)
    numbers = [allocate(store, new(req=f"r{n}", lowest=lowest)).sequence for n, lowest in enumerate((1, 1, 9, 2))]
    assert numbers == [1, 2, 9, 10]
    assert allocate(store, new("m2")).sequence == 1


def test_what_a_dpf_names_cannot_use_up_the_sequence_numbers(store):
    """T12: 2**32 above the last one at most, and no number that the database does not hold."""
    fill(store, 1)
    allocate(store, new(lowest=2**32))
    with pytest.raises(NotPossible, match="after 4294967296"):
        allocate(store, new(req="r2", lowest=2**33 + 1))
    assert allocate(store, new(req="r2", lowest=2**33)).sequence == 2**33
    store.write_sync(lambda c: c.execute(tables.tres.update().values(sequence=2**63 - 1)))
    with pytest.raises(NotPossible) as caught:
        allocate(store, new(req="r3", lowest=1))
    assert caught.value.code == "sequence-out-of-range"


USED_UP = {
    "sqn-used-up": tables.subscriptions.update().values(sqn=2**48 - 1),
    "revision-used-up": tables.handovers.update().values(revision=0xFFFF),
}


@pytest.mark.parametrize("code", USED_UP)
def test_numbers_that_are_used_up(store, code):
    """REQ-36, REQ-53: a typed refusal, and nothing is recorded."""
    fill(store, 1)
    row = allocate(store, new())
    store.write_sync(lambda c: effects.arm(c, row))
    store.write_sync(lambda c: handovers.set_state(c, row.id, repository.CONFIRMED))
    store.write_sync(lambda c: c.execute(USED_UP[code]))
    subscription = store.read_sync(lambda c: repository.get_subscription(c, row.subscription_id))
    fresh = replace(next(generate(1, "00101")), imsi=VAULT.open(subscription.sealed).imsi)
    values = NewValues(
        sealed=VAULT.seal(fresh), imsi_mask="x", amf=b"\x80\x00", policy=None, changes=frozenset({"keys"})
    )
    store.write_sync(lambda c: updates.plan(c, subscription, values, now=NOW))
    wanted = replace(new(req="r2"), operation=Operation.UPDATE, mcim_id=row.mcim_id)
    with pytest.raises(NotPossible) as caught:
        allocate(store, wanted)
    assert caught.value.code == code
    assert store.read_sync(lambda c: repository.find_handover(c, "m1", "r2")) is None


def locked(store, work):
    """Tables of which `work` reads rows that no other writer may change before it has ended."""
    found = set()

    def unit(connection):
        def note(_connection, statement, *_):
            if getattr(statement, "_for_update_arg", None) is not None:
                found.update(each.name for each in statement.get_final_froms() if hasattr(each, "name"))

        event.listen(connection, "before_execute", note)
        work(connection)

    store.write_sync(unit)
    return found


READ_THEN_WRITTEN = {
    "the SQN of a vector": (
        lambda c, s, h: _armed(c, s.sealed.imsi_index, for_update=True), {"subscription"},
    ),
    "a sequence number": (lambda c, s, h: repository.next_sequence(c, h.tre_id, 1), {"tre"}),
    "a free subscription": (lambda c, s, h: repository.choose_free(c, ("milenage",), NOW), {"subscription"}),
    "a hand-over of the same device": (
        lambda c, s, h: handovers.allocate(c, new(req="r2"), sqn_ahead=1024, now=NOW), {"subscription", "tre"},
    ),
    "the next revision": (
        lambda c, s, h: handovers.allocate(
            c, replace(new(req="r3"), operation=Operation.SUSPEND, mcim_id=h.mcim_id), sqn_ahead=0, now=NOW
        ),
        {"subscription", "tre"},
    ),
    "new values": (
        lambda c, s, h: updates.plan(
            c, s, NewValues(sealed=s.sealed, imsi_mask="x", amf=b"\x90\x00", policy=None, changes=frozenset({"amf"})),
            now=NOW,
        ),
        {"subscription"},
    ),
    "an item of a bulk job": (lambda c, s, h: prepared.next_item(c, "job", for_update=True), {"prepare_item"}),
}  # fmt: skip


@pytest.mark.parametrize(("work", "tables_locked"), READ_THEN_WRITTEN.values(), ids=READ_THEN_WRITTEN)
def test_what_is_read_to_be_written_is_locked(store, work, tables_locked):
    """REQ-69, REQ-53: SQLite has one writer; a database with several must not give one number twice."""
    fill(store, 2)
    row = allocate(store, new())
    assert store.write_sync(lambda c: effects.arm(c, row))
    store.write_sync(lambda c: handovers.set_state(c, row.id, repository.CONFIRMED))
    subscription = store.read_sync(lambda c: repository.get_subscription(c, row.subscription_id))
    assert locked(store, lambda c: work(c, subscription, row)) == tables_locked


def test_two_dpfs_may_use_one_request_id(store):
    """REQ-67: each reports on its own hand-over."""
    fill(store, 2)
    mine = allocate(store, new())
    others = allocate(store, replace(new("m2"), dpf_id="d2"))
    for row in (mine, others):
        names = frozenset({row.dpf_id})
        assert store.read_sync(lambda c, names=names: repository.find_reported_handover(c, "o", "r1", names)) == row


def test_another_platform_key_never_gets_a_credential_that_left_for_the_first(store):
    fill(store, 2)
    first = allocate(store, new())
    second = allocate(store, new(req="r2", key=b"K" * 16))
    assert second.subscription_id != first.subscription_id


def test_a_failed_subscription_waits_before_another_device_gets_it(store):
    """REQ-68, T4: the package may still be installed while its nonce lives."""
    fill(store, 1)
    first = allocate(store, new())
    later = NOW + timedelta(hours=24)
    assert store.write_sync(lambda c: effects.release(c, first, available_from=later))
    assert not store.write_sync(lambda c: effects.release(c, first, available_from=later))
    assert allocate(store, new("m2"), NOW + timedelta(hours=23)) is None
    assert allocate(store, new("m2"), later).subscription_id == first.subscription_id
    assert not store.write_sync(lambda c: effects.arm(c, first))  # too late for the first device


def test_the_first_package_stays(store):
    fill(store, 1)
    row = allocate(store, new())
    for octets in (b"one", b"two"):
        kept = store.write_sync(
            lambda c, octets=octets: handovers.keep_package(c, row.id, sealed=octets, digest=octets * 8)
        )
    assert (kept.package_sealed, kept.state) == (b"one", "packaged")


# --- attach sessions --------------------------------------------------------------------------------


@pytest.fixture
def armed(store):
    credential = fill(store, 1)[0]
    row = allocate(store, new())
    assert store.write_sync(lambda c: effects.arm(c, row))
    return credential


async def test_attach_sessions_are_bounded_in_number_and_time(store, armed):
    clock = [0.0]
    trail = Trail("SHO")
    auc = AuthenticationCentre(
        store=store, vault=VAULT, trail=trail, session_ttl_s=30, max_sessions=2, clock=lambda: clock[0]
    )
    first = await auc.start(armed.imsi)
    await auc.start(armed.imsi)
    with pytest.raises(AttachBusy):
        await auc.start(armed.imsi)
    clock[0] = 30.0
    with pytest.raises(AttachRefused):
        await auc.respond(first.session, armed.functions().f2(first.rand), NOW)
    second = await auc.start(armed.imsi)
    assert (await auc.respond(second.session, armed.functions().f2(second.rand), NOW)).imsi_mask == "x"


async def test_one_identity_cannot_use_up_the_sessions_of_all(store, armed):
    auc = AuthenticationCentre(store=store, vault=VAULT, trail=Trail("SHO"), session_ttl_s=30, max_sessions=6)
    first = await auc.start(armed.imsi)
    others = [await auc.start(armed.imsi) for _ in range(10)]
    with pytest.raises(AttachRefused):  # its oldest sessions made room for its newest
        await auc.respond(first.session, armed.functions().f2(first.rand), NOW)
    for challenge in others[-MAX_PER_IDENTITY:]:
        assert await auc.respond(challenge.session, armed.functions().f2(challenge.rand), NOW)


async def test_other_vectors_under_way_are_not_begun_anew(store, armed):
    """REQ-69, T3: a device that resynchronises gets what follows the AuC's SQN, if it takes that."""
    subscribers = Subscriptions(store, VAULT)
    index = VAULT.index(armed.imsi)
    given = [(await subscribers.use_next_sqn(index, after=None)).sqn for _ in range(4)]
    assert (await subscribers.use_next_sqn(index, after=given[0])).sqn == next_sqn(given[-1])


# --- command line -----------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    config = tmp_path / "sho.toml"
    paths = "".join(
        f'{key} = "/nowhere/{key}"\n'
        for key in (
            "tls_cert",
            "tls_key",
            "tls_ca",
            "signing_cert",
            "signing_key",
            "manufacturer_anchors",
            "pva_anchors",
        )
    )
    config.write_text(
        f'sho_id = "sho.example"\nallowed_clients = ["dpf.example"]\nseal_key = "{tmp_path}/seal.key"\n'
        f'database_url = "sqlite:///{tmp_path}/sho.sqlite"\n{paths}'
    )

    def run(*arguments):
        monkeypatch.setattr(actor_cli, "configure_logs", lambda **_: None)
        monkeypatch.setattr(sys, "argv", ["sho", "--config", str(config), *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        return caught.value.code or 0, captured.out, captured.err

    return run


def test_subscriptions_by_command_line(run, tmp_path):
    """K never on a command line; masks only in lists."""
    assert run("subscription", "generate", "--count", "3", "--plmn", "00101")[:2] == (0, "3 subscriptions added\n")
    line = tmp_path / "one.csv"
    line.write_text(f"001010123456789,{'0a' * 16},{'0b' * 16}\n")
    assert run("subscription", "add", "--file", str(line))[0] == 0
    code, _, err = run("subscription", "add", "--file", str(line))
    assert (code, "00101********89 is there already" in err) == (1, True)
    code, out, _ = run("subscription", "list", "--json")
    rows = json.loads(out)
    assert [row["state"] for row in rows] == ["free"] * 4
    assert rows[3]["imsi"] == "00101********89"
    assert "0a0a" not in out
    many = tmp_path / "many.csv"
    many.write_text(f"imsi,k,op\n001010000000001,{'0c' * 16},{'0d' * 16}\n")
    assert run("subscription", "import", str(many))[1] == "1 subscriptions added\n"
    (tmp_path / "seal.key").unlink()
    code, _, err = run("subscription", "generate")
    assert (code, "is missing" in err) == (1, True)
    SealingKey.generate(tmp_path / "seal.key")
    code, _, err = run("subscription", "generate")
    assert (code, "is not the one that the subscriptions" in err) == (1, True)


def test_barring_by_command_line(run, tmp_path):
    """REQ-68: at once, once, by id, with its reason on the trail."""
    run("subscription", "generate")
    assert run("subscription", "bar", "1", "--reason", "stolen, case 4711")[:2] == (0, "1: barred\n")
    assert run("subscription", "bar", "1")[0] == 1
    assert json.loads(run("subscription", "list", "--json")[1])[0]["barred"]
    assert run("subscription", "unbar", "1")[:2] == (0, "1: not barred\n")
    assert "not barred already" in run("subscription", "unbar", "1")[2]
    assert json.loads(run("subscription", "list", "--json")[1])[0]["barred"] is None
    assert "no subscription 2" in run("subscription", "bar", "2")[2]
    with closing(Store(f"sqlite:///{tmp_path / 'sho.sqlite'}", MIGRATIONS)) as store:
        found = store.read_sync(lambda c: c.execute(select(tables.trail.c.fields).order_by(tables.trail.c.id)).all())
    assert [json.loads(row.fields)["detail"] for row in found] == [
        "subscription 1, free: stolen, case 4711", "subscription 1, free",
    ]  # fmt: skip


def test_updates_by_command_line(run, tmp_path):
    """REQ-36, REQ-70: a subscription without a device has its new values at once; nothing secret is shown."""
    run("subscription", "generate", "--count", "2", "--algorithm", "tuak256")
    assert "applied: keys" in run("subscription", "update", "1", "--new-keys")[1]
    assert "applied: policy" in run("subscription", "update", "1", "--policy", "signed-lifecycle,release-required")[1]
    line = tmp_path / "new.csv"
    line.write_text("imsi,amf\n001019999999999,9000\n")
    assert "applied: amf, imsi" in run("subscription", "update", "1", "--file", str(line))[1]
    code, _, err = run("subscription", "update", "2", "--file", str(line))
    assert (code, "another subscription" in err) == (1, True)
    line.write_text(f"k\n{'0a' * 16}\n")
    code, _, err = run("subscription", "update", "1", "--file", str(line))
    assert (code, "0a0a" in err) == (1, False)
    for arguments in (["9"], ["1"], ["1", "--policy", "x"], ["1", "--file", "/nowhere"]):
        assert run("subscription", "update", *arguments)[0] == 1
    rows = json.loads(run("subscription", "list", "--json")[1])
    assert (rows[0]["imsi"], rows[0]["algorithm"]) == ("00101********99", "tuak256")


OWN = MilenageConstants(rotations=(8, 72, 40, 104, 24)).encode().hex()
UPDATES = {
    "constants alone": (f"constants\n{OWN}", [], "applied: constants"),
    "constants with random keys": (f"constants\n{OWN}", ["--new-keys"], "applied: keys"),
    "constants and an AMF": (f"constants,amf\n{OWN},9000", [], "an update of their own"),
    "the defaults written out": (f"constants\n{MilenageConstants().encode().hex()}", [], "nothing changes"),
    "constants of another length": ("constants\n0102", [], "the constants do not fit milenage"),
    "parameters of another algorithm": ("tuak\n0108081010", [], "tuak: not with milenage"),
    "a column that nobody knows": ("konstants\n00", [], "columns: only"),
    "OPc without K": (f"opc\n{'0b' * 16}", [], "opc: only together with k"),
    "K given and drawn": (f"k,opc\n{'0a' * 16},{'0b' * 16}", ["--new-keys"], "k: either"),
}


@pytest.mark.parametrize(("line", "options", "said"), UPDATES.values(), ids=UPDATES)
def test_what_one_update_changes(run, tmp_path, line, options, said):
    """REQ-30, REQ-36: what an operator asks for is done or refused, never passed over."""
    run("subscription", "generate")
    (tmp_path / "new.csv").write_text(line + "\n")
    code, out, err = run("subscription", "update", "1", "--file", str(tmp_path / "new.csv"), *options)
    assert said in out + err
    assert code == (0 if said.startswith("applied") else 1)


def test_new_keys_leave_the_constants_of_the_algorithm(run, tmp_path):
    """REQ-36: columns that are not there do not change; a new algorithm begins with its defaults."""
    run("subscription", "generate")
    file = tmp_path / "new.csv"
    for line, algorithm, constants in (
        (f"constants\n{OWN}", "milenage", OWN),
        (f"k,opc\n{'0a' * 16},{'0b' * 16}", "milenage", OWN),
        (f"algorithm,k,topc\ntuak128,{'0a' * 16},{'0b' * 32}", "tuak128", ""),
    ):
        file.write_text(line + "\n")
        assert run("subscription", "update", "1", "--file", str(file))[0] == 0
        with closing(Store(f"sqlite:///{tmp_path}/sho.sqlite", MIGRATIONS)) as store:
            sealed = store.read_sync(lambda c: repository.get_subscription(c, 1)).sealed
        credential = Vault(SealingKey.load(tmp_path / "seal.key")).open(sealed)
        assert (credential.keys.label, credential.constants.hex()) == (algorithm, constants)


def test_tokens_by_command_line(run, tmp_path):
    """REQ-62: from a file or standard input; lists show a reference, never the token."""
    file = tmp_path / "token"
    for length, code in ((0, 1), (1, 0), (64, 0), (65, 1)):
        file.write_bytes(b"t" * length + b"\n")
        assert run("token", "set", "--m2me-id", "urn:imei:1", "--file", str(file))[0] == code
    (row,) = json.loads(run("token", "list", "--json")[1])
    assert (row["m2meId"], "tttt" in json.dumps(row)) == ("urn:imei:1", False)
    dumps = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path != file)
    assert b"t" * 64 not in dumps
    assert run("token", "drop", "--m2me-id", "urn:imei:1")[0] == 0
    assert run("token", "drop", "--m2me-id", "urn:imei:1")[0] == 1


def test_packages_by_command_line(run, tmp_path):
    """REQ-26: lists are there before anything is; what is not there is said."""
    for words in (["package", "list"], ["package", "jobs"], ["platform", "list"], ["prepare", "status"]):
        assert json.loads(run(*words, "--json")[1]) == []
    for words in (["package", "show", "1"], ["package", "approve", "x"], ["package", "refuse", "x"]):
        assert run(*words)[0] == 1
    store = Store(f"sqlite:///{tmp_path}/sho.sqlite", MIGRATIONS)
    fill(store, 1)
    row = allocate(store, new())
    certificates = ("AAAA",)
    store.write_sync(
        lambda c: jobs.add(
            c, handover_id=row.id, dpf_id="d", certificates=certificates, state=jobs.APPROVAL, due_at=NOW, now=NOW
        )
    )
    store.close()
    (job,) = json.loads(run("package", "jobs", "--json")[1])
    shown = json.loads(run("package", "show", "1", "--json")[1])
    assert (shown["operation"], shown["job"], shown["jobState"]) == ("install", job["job"], "approval")
    assert run("package", "approve", job["job"])[1] == "approved\n"
    assert run("package", "refuse", job["job"])[1] == "refused\n"
    assert run("package", "refuse", job["job"])[0] == 1
    assert json.loads(run("subscription", "list", "--json")[1])[0]["state"] == "free"


def test_orders_of_operations_by_command_line(run):
    """REQ-70: what cannot be ordered is refused before the DPF is asked."""
    address = ["--m2me-id", "urn:imei:1", "--dpf", "https://127.0.0.1:1"]
    for words in (
        ["--operation", "explode"],
        ["--operation", "suspend"],
        ["--operation", "replace"],
        ["--operation", "replace", "--replaces", str(uuid.uuid4()), "--release-token", "/nowhere/token"],
        ["--mcim", str(uuid.uuid4())],
    ):
        assert run("order", "open", *address, *words)[0] == 1
    assert json.loads(run("order", "list", "--json")[1]) == []


def test_orders_by_command_line(run):
    assert json.loads(run("order", "list", "--json")[1]) == []
    code, _, err = run("order", "show", "none")
    assert (code, "no order none" in err) == (1, True)
    code, _, err = run("order", "open", "--m2me-id", "urn:imei:1", "--dpf", "https://127.0.0.1:1")
    assert (code, "/nowhere/tls_ca" in err) == (1, True)
    code, out, err = run("audit", "none", "--json")
    assert (code, out, "no order none" in err) == (1, "", True)
