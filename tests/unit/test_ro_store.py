"""The RO's database, its vault, its command line, and the rules of discovery."""

from __future__ import annotations

import errno
import json
import os
import sys
from base64 import b64decode
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from actor_runtime import cli as actor_cli
from actor_runtime.errors import ConfigError, UnsealError
from actor_runtime.sealing import SealingKey
from actor_runtime.store import Store
from ro import cli
from ro.app import MIGRATIONS, build, open_vault
from ro.config import RoSettings
from ro.discovery import Found, Hints, find_sho
from ro.identities import IdentityError, ProvisionalIdentity, Vault, new_identity, new_keys
from ro.store import registration_rows, repository, tables
from ro.store.registration_rows import Registration, State

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
VAULT = Vault(SealingKey(bytes(32)))


@pytest.fixture
def store(tmp_path):
    made = Store(f"sqlite:///{tmp_path / 'ro.sqlite'}", MIGRATIONS)
    made.upgrade()
    yield made
    made.close()


def add(store, *, days=30):
    identity = new_identity("00101")
    number = store.write_sync(
        lambda c: repository.add_identity(
            c, VAULT.seal(identity, 1), mask=identity.mask, not_after=NOW + timedelta(days=days), supplier=None, now=NOW
        )
    )
    return number, identity


def test_migrations_make_the_tables(store):
    differences = store.read_sync(lambda c: compare_metadata(MigrationContext.configure(c), tables.metadata))
    assert differences == []


# --- identities -----------------------------------------------------------------------------------------


def test_an_identity_opens_with_its_key_in_its_place_and_generation_alone():
    """REQ-42, REQ-72: keys of an earlier generation, put back into the row, do not open."""
    identity = new_identity("26201")
    sealed = VAULT.seal(identity, 3)
    assert VAULT.open_imsi(sealed) == identity.imsi
    assert VAULT.open_keys(sealed, 3) == identity.keys
    other = VAULT.seal(new_identity("26201"), 3)
    for vault, spoiled, generation in (
        (VAULT, sealed, 4),
        (Vault(SealingKey(bytes([1]) * 32)), sealed, 3),
        (VAULT, replace(sealed, keys_sealed=other.keys_sealed), 3),
        (VAULT, replace(sealed, imsi_index=other.imsi_index), 3),
    ):
        with pytest.raises(UnsealError):
            vault.open_keys(spoiled, generation)
    assert identity.imsi not in repr((identity, sealed))
    assert identity.keys.k.hex() not in repr(identity)
    assert identity.mask == f"26201********{identity.imsi[-2:]}"


@pytest.mark.parametrize("plmn", ["", "0010", "0010101", "00201", "abcde", "10101", "00101\n"])
def test_a_network_code_that_is_none(plmn):
    with pytest.raises(IdentityError):
        new_identity(plmn)


def test_the_limit_on_attaches_forgets_what_is_older_than_an_hour(store):
    """T7, T12: the table holds no more than the window."""
    number, _ = add(store)
    for minutes in (0, 10, 59):
        store.write_sync(lambda c, m=minutes: repository.note_attach(c, number, NOW + timedelta(minutes=m)))
    now = NOW + timedelta(minutes=69)
    assert store.read_sync(lambda c: repository.attaches_since(c, number, now - repository.WINDOW)) == 2
    store.write_sync(lambda c: repository.note_attach(c, number, now + timedelta(seconds=1)))
    assert store.read_sync(lambda c: c.execute(text("SELECT count(*) FROM pcid_attach")).scalar_one()) == 3


def test_expired_tokens_do_not_stay(store):
    """T12"""
    (one, _), (two, _) = add(store), add(store)
    for number, digest, now in ((one, "a", NOW), (two, "b", NOW), (two, "c", NOW + timedelta(hours=1))):
        row = store.read_sync(lambda c, n=number: repository.get_identity(c, n))
        store.write_sync(
            lambda c, r=row, d=digest, t=now: repository.put_token(
                c, r, digest=d, m2me_id=None, vno="x", expires_at=t + timedelta(minutes=10), now=t
            )
        )
    assert store.read_sync(lambda c: c.execute(text("SELECT digest FROM access_token")).scalars().all()) == ["c"]


def test_a_token_is_of_one_generation(store):
    """T7: should one be left over when the identity is given out again, it opens nothing."""
    number, _ = add(store)
    row = store.read_sync(lambda c: repository.get_identity(c, number))
    store.write_sync(
        lambda c: repository.put_token(
            c, row, digest="a", m2me_id=None, vno="x", expires_at=NOW + timedelta(minutes=10), now=NOW
        )
    )
    assert store.read_sync(lambda c: repository.find_token(c, "a", NOW)) is not None
    store.write_sync(lambda c: c.execute(text("UPDATE pcid SET generation = 2")))
    assert store.read_sync(lambda c: repository.find_token(c, "a", NOW)) is None


def test_two_operators_who_give_an_identity_out_at_once_give_it_once(store):
    """REQ-72: each made keys for the second generation; one of them wins, also when that is over again."""
    number, identity = add(store, days=1)
    now = NOW + timedelta(days=1)

    def reissue():
        sealed = VAULT.seal(ProvisionalIdentity(imsi=identity.imsi, keys=new_keys()), 2)
        return store.write_sync(
            lambda c: repository.reissue_identity(
                c, number, sealed, generation=2, not_after=now, supplier=None, now=now
            )
        )

    assert [reissue(), reissue()] == [True, False]


# --- discovery ------------------------------------------------------------------------------------------

PARTNERS = frozenset({"a", "b"})
RULES = {
    "operator above all": (Hints(operator="a", subscriber="b"), Found(sho_id="a", decided_by="operator")),
    "operator names a stranger": (Hints(operator="x", default="a"), Found(sho_id=None, decided_by="operator")),
    "subscriber": (Hints(subscriber="b", device_route="a"), Found(sho_id="b", decided_by="subscriber")),
    "nobody gets another than he chose": (
        Hints(subscriber="x", device_route="a", default="a"), Found(sho_id=None, decided_by="subscriber")
    ),
    "device": (Hints(device_route="a", supplier_route="b"), Found(sho_id="a", decided_by="device")),
    "supplier": (Hints(supplier_route="b", default="a"), Found(sho_id="b", decided_by="supplier")),
    "a dead route is passed over": (Hints(device_route="x", default="a"), Found(sho_id="a", decided_by="default")),
    "default": (Hints(default="a"), Found(sho_id="a", decided_by="default")),
    "nobody": (Hints(), Found(sho_id=None, decided_by="nobody")),
}  # fmt: skip


@pytest.mark.parametrize(("hints", "found"), RULES.values(), ids=RULES)
def test_who_decides_on_the_home_operator(hints, found):
    """TR 33.812 §5.1.3.7.1 step 8"""
    assert find_sho(hints, PARTNERS) == found


# --- settings -------------------------------------------------------------------------------------------


def settings(tmp_path, **changes):
    values = {
        "ro_id": "ro.example",
        "database_url": f"sqlite:///{tmp_path / 'ro.sqlite'}",
        "seal_key": tmp_path / "seal.key",
        "tls_cert": tmp_path / "none",
        "tls_key": tmp_path / "none",
        "tls_ca": tmp_path / "none",
    }
    return RoSettings(**values | changes)


WRONG = {
    "no TLS": ({}, "none"),
    "default is no partner": ({"default_sho": "sho9"}, "default_sho"),
    "gate without PVA": ({"validation_gates_attach": True}, "pva_url"),
    "gate without roots": ({"validation_gates_attach": True, "pva_url": "https://p"}, "pva_anchors"),
    "gate that asks for nothing": (
        {"validation_gates_attach": True, "pva_url": "https://p", "pva_anchors": "x", "validation_mode": "autonomous"},
        "autonomous",
    ),
    "roots that are not there": (
        {"validation_gates_attach": True, "pva_url": "https://p", "pva_anchors": "/nowhere/x"}, "/nowhere/x"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "named"), WRONG.values(), ids=WRONG)
def test_settings_that_cannot_be_used_are_named_before_anything_is_opened(tmp_path, monkeypatch, changes, named):
    """REQ-17, REQ-43"""
    if changes:
        monkeypatch.setattr("ro.app.client_context", lambda *_, **__: None)
    with pytest.raises(ConfigError) as refused:
        build(settings(tmp_path, **changes))
    assert named in str(refused.value)
    assert not (tmp_path / "ro.sqlite").exists()


def test_a_lost_sealing_key_is_not_made_anew(tmp_path, store):
    """REQ-42: identities sealed with the old one would be lost without a word."""
    add(store)
    with pytest.raises(ConfigError, match="is missing"):
        open_vault(settings(tmp_path), store)


def test_another_sealing_key_is_told_at_the_start(tmp_path, store):
    """REQ-42: with it every device would be a stranger, and new identities would be under another key than the old."""
    add(store)
    SealingKey.generate(settings(tmp_path).seal_key)
    with pytest.raises(ConfigError, match="not the one that the identities"):
        open_vault(settings(tmp_path), store)


# --- command line ---------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    config = tmp_path / "ro.toml"
    config.write_text(
        f'ro_id = "ro.example"\nseal_key = "{tmp_path}/seal.key"\ndatabase_url = "sqlite:///{tmp_path}/ro.sqlite"\n'
        'tls_cert = "/x"\ntls_key = "/x"\ntls_ca = "/x"\n[shos]\n"sho.example" = "https://sho.example"\n'
    )

    def run(*arguments):
        monkeypatch.setattr(actor_cli, "configure_logs", lambda **_: None)
        monkeypatch.setattr(sys, "argv", ["ro", "--config", str(config), *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        return caught.value.code or 0, captured.out, captured.err

    return run


def test_identities_by_command_line(run, tmp_path, monkeypatch):
    """REQ-72: issued to a file for the owner alone, masks in lists, given out again after the end and not before."""
    out, again = tmp_path / "pcid.json", tmp_path / "again.json"
    assert run("pcid", "issue", "--count", 2, "--plmn", "26201", "--valid-days", 2, "--out", out)[0] == 0
    assert out.stat().st_mode & 0o777 == 0o600
    issued = json.loads(out.read_text())["identities"]
    assert len({each["pcid"] for each in issued}) == len({each["k"] for each in issued}) == 2
    code, listed, _ = run("pcid", "list", "--json")
    rows = json.loads(listed)
    assert [(row["state"], row["generation"]) for row in rows] == [("issued", 1)] * 2
    for each in issued:
        assert not any(each[name] in listed for name in ("pcid", "k", "opc"))
    assert json.loads(run("pcid", "show", 1, "--json")[1])["pcid"] == rows[0]["pcid"]

    code, _, err = run("pcid", "issue", "--out", out)
    assert (code, "pcid.json" in err) == (1, True)  # keys already there are not overwritten
    code, _, err = run("pcid", "reissue", 1, "--out", again)
    assert (code, "is valid until" in err, again.exists()) == (1, True, False)
    assert run("pcid", "withdraw", 1)[0] == 0
    assert run("pcid", "reissue", 1, "--out", again)[0] == 1
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    monkeypatch.setattr(cli, "_now", lambda: later)
    assert [row["state"] for row in json.loads(run("pcid", "list", "--json")[1])] == ["withdrawn", "expired"]
    assert run("pcid", "reissue", 1, "--valid-days", 5, "--supplier", "maker", "--out", again)[0] == 0
    (heir,) = json.loads(again.read_text())["identities"]
    assert heir["pcid"] == issued[0]["pcid"]
    assert (heir["k"], heir["opc"]) != (issued[0]["k"], issued[0]["opc"])
    row = json.loads(run("pcid", "show", 1, "--json")[1])
    assert (row["state"], row["generation"], row["supplier"]) == ("issued", 2, "maker")
    assert heir["algorithm"] == "milenage"
    for name in ("show", "withdraw"):
        code, _, err = run("pcid", name, 9)
        assert (code, "no identity 9" in err) == (1, True)
    assert run("pcid", "issue", "--plmn", "1", "--out", tmp_path / "x")[0] == 1
    assert not (tmp_path / "x").exists()
    assert json.loads(run("visits", "--json")[1]) == json.loads(run("alarms", "--json")[1]) == []


def test_identities_whose_file_cannot_be_written_are_not_issued(run, tmp_path, monkeypatch):
    """REQ-72: a full disk: keys that nobody got belong to no identity, and the old ones stay."""
    assert run("pcid", "issue", "--valid-days", 1, "--out", tmp_path / "first.json")[0] == 0
    before = run("pcid", "list", "--json")[1]

    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    later = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        for command in (["issue"], ["reissue", 1]):
            patched.setattr(cli, "_now", lambda: later)
            code, _, err = run("pcid", *command, "--out", tmp_path / "none.json")
            assert (code, "No space" in err, (tmp_path / "none.json").exists()) == (1, True, False)
    assert run("pcid", "list", "--json")[1] == before


@pytest.mark.parametrize(
    ("algorithm", "name", "lengths"), [("tuak128", "tuak", (16, 32)), ("tuak256", "tuak", (32, 32))]
)
def test_identities_for_tuak_by_command_line(run, tmp_path, monkeypatch, algorithm, name, lengths):
    """REQ-69, REQ-72: an identity given out again keeps its algorithm unless another is asked for."""

    def made(command, *options):
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
        assert run("pcid", *command, "--valid-days", 1, "--out", out, *options)[0] == 0
        (identity,) = json.loads(out.read_text())["identities"]
        return identity["algorithm"], len(b64decode(identity["k"])), len(b64decode(identity["opc"]))

    assert made(["issue"], "--algorithm", algorithm) == (name, *lengths)
    later = datetime.now(UTC).replace(microsecond=0)
    for days, options, found in (
        (2, (), (name, *lengths)),
        (4, ("--algorithm", "milenage"), ("milenage", 16, 16)),
        (6, (), ("milenage", 16, 16)),
    ):
        monkeypatch.setattr(cli, "_now", lambda days=days: later + timedelta(days=days))
        assert made(["reissue", 1], *options) == found
    assert run("pcid", "issue", "--algorithm", "xor-test", "--out", tmp_path / "none.json")[0] == 2


def test_routes_by_command_line(run):
    """TR 33.812 §5.1.3.7.1 step 8: supplier data."""
    assert run("route", "add", "--m2me-id", "urn:x:1", "--sho", "sho.example")[0] == 0
    assert run("route", "add", "--m2me-id", "urn:x:1", "--sho", "sho.example")[0] == 0  # the same again
    assert run("route", "add", "--supplier", "maker", "--sho", "sho.example")[0] == 0
    assert [(row["kind"], row["value"]) for row in json.loads(run("route", "list", "--json")[1])] == [
        ("m2me", "urn:x:1"),
        ("supplier", "maker"),
    ]
    for arguments in (
        ("add", "--m2me-id", "urn:x:1", "--sho", "sho9.example"),
        ("add", "--sho", "sho.example"),
        ("add", "--m2me-id", "urn:x:1", "--supplier", "maker", "--sho", "sho.example"),
        ("remove", "--supplier", "nobody"),
    ):
        assert run("route", *arguments)[0] == 1
    assert run("route", "remove", "--supplier", "maker")[0] == 0


def put(store, state):
    """A registration in that state with a new identity."""
    number, _ = add(store)
    row = Registration(
        id="r-1", m2me_id="urn:x:1", tre_id="urn:t:1", pcid_id=number, generation=1, supplier=None, wanted_sho=None,
        reason="initial", push="udp:192.0.2.1:2948", state=state, created_at=NOW, updated_at=NOW,
    )  # fmt: skip
    store.write_sync(lambda c: registration_rows.put_registration(c, row))
    return row


@pytest.mark.parametrize("state", State)
def test_a_registration_refused_by_command_line(run, store, state):
    """REQ-72: what waits goes no further, with the reason on the trail; what is done or replaced is not undone."""
    row = put(store, state)
    code, _, err = run("registration", "refuse", "r-1", "--reason", "stolen")
    now = store.read_sync(lambda c: registration_rows.get_registration(c, "r-1"))
    if state not in (*registration_rows.WAITING, State.REFUSED):
        assert (code, now, state.value in err) == (1, row, True)
        return
    assert (code, now.state, now.detail) == (0, State.DENIED, "refused by operator: stolen")
    (record,) = json.loads(run("audit", "r-1", "--json")[1])
    assert (record["old"], record["new"], record["detail"]) == (state.value, "denied", "refused by operator: stolen")
    assert run("registration", "refuse", "none")[0] == 1


@pytest.mark.parametrize("state", State)
def test_a_withdrawn_identity_ends_what_waits_with_it(run, store, state):
    """REQ-72: a home operator is not asked any more for who holds it."""
    row = put(store, state)
    waits = state in registration_rows.WAITING
    assert run("pcid", "withdraw", row.pcid_id)[:2] == (
        0,
        f"{row.pcid_id}: withdrawn, {int(waits)} registrations ended\n",
    )
    now = store.read_sync(lambda c: registration_rows.get_registration(c, "r-1"))
    if not waits:
        assert now == row
        return
    assert (now.state, now.detail) == (State.REFUSED, "identity withdrawn")
    (record,) = json.loads(run("audit", "r-1", "--json")[1])
    assert (record["old"], record["new"], record["detail"]) == (state.value, "refused", "withdrawn")


@pytest.mark.parametrize("state", State)
def test_registrations_by_command_line(run, store, state):
    """TR 33.812 §5.1.3.7.1 step 8: what nobody could route is shown, and an operator routes it."""
    row = put(store, state)
    (shown,) = json.loads(run("registration", "list", "--state", state.value, "--json")[1])
    assert (shown["id"], shown["state"], shown["sho"]) == ("r-1", state.value, None)
    code, _, err = run("registration", "route", "r-1", "--sho", "sho.example")
    now = store.read_sync(lambda c: registration_rows.get_registration(c, "r-1"))
    if state not in (State.PENDING, State.REFUSED, State.DENIED):
        assert (code, now) == (1, row)
        assert state.value in err
        return
    assert (code, now.state, now.sho_id, now.tries) == (0, State.ROUTED, "sho.example", 1)
    (record,) = json.loads(run("audit", "r-1", "--json")[1])
    assert (record["step"], record["old"], record["new"]) == ("8", state.value, "routed")
    code, _, err = run("audit", "none")
    assert (code, "no registration none" in err) == (1, True)
    assert run("registration", "route", "none", "--sho", "sho.example")[0] == 1
    assert run("registration", "route", "r-1", "--sho", "sho9.example")[0] == 1


def test_identities_are_found_by_their_keyed_index_alone(store):
    """REQ-42: no PCID in the database."""
    number, identity = add(store)
    found = store.read_sync(lambda c: repository.find_identity(c, VAULT.index(identity.imsi)))
    assert found.id == number
    again = ProvisionalIdentity(imsi=identity.imsi, keys=new_keys())
    assert (
        store.write_sync(
            lambda c: repository.add_identity(c, VAULT.seal(again, 1), mask="x", not_after=NOW, supplier=None, now=NOW)
        )
        is None
    )
