"""Prepared objects of the SHO (REQ-65, REQ-66): in bulk, killed and resumed, used at the hand-over, dropped."""

from __future__ import annotations

import base64
import json
import os
import signal
import sqlite3
import subprocess
import sys
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from actor_runtime import cli as actor_cli
from actor_runtime.http import PartnerRefused, to_base64
from mcim.certificates import Role
from mcim.errors import CertificateRefused
from mcim.vocabulary import BindMode, ResultCode
from sho import cli
from sho.app import build
from sho.store import prepared, repository, tokens
from sho.store.tokens import TokenRow
from sho.subscriptions import Credential, generate
from tests.support_operators import M2ME_ID, TRE_ID, Device, Pki, ec_key, rsa_key
from tests.support_sho import CREDENTIALS, OFFER, Exchange, fill, order, serving, sho_settings, states

DEVICES = 12


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def device(pki):
    return Device(pki)


def register(sho, device, **changes):
    certificates = [device.platform_cert.public_bytes(Encoding.DER)]
    return sho.preparation.register(certificates, **OFFER | changes)


def prepare(sho):
    job = sho.preparation.start()
    for _ in sho.preparation.run(job):
        pass
    return job, sho.store.read_sync(lambda c: prepared.progress(c, job))


@pytest.fixture
async def world(pki, tmp_path, device):
    """An SHO with stock, and an object prepared for the device."""
    async with serving(sho_settings(pki, tmp_path), pki) as (sho, dpf):
        await fill(sho)
        assert register(sho, device)
        assert prepare(sho)[1]["prepared"] == 1
        yield sho, dpf


async def objects(sho):
    rows = await sho.store.read(lambda c: c.execute(prepared.prepared_objects.select()).all())
    return [(row.state, row.object) for row in rows]


async def test_only_the_header_is_signed_at_the_hand_over(world, pki, device):
    """REQ-65, scheme, prepared objects: no nonce and no transaction inside; the stored object is what is delivered."""
    sho, dpf = world
    assert await states(sho) == ["prepared", "free"]
    ((_, sealed),) = await objects(sho)
    exchange = Exchange(pki, device)
    answer = await exchange.hand_over(dpf, nextSequence=1)
    header, content = exchange.open()
    assert content.bind_mode is BindMode.PREPARED
    assert (content.registration_nonce, content.transaction_id) == (None, None)
    assert (header.registration_nonce, header.sequence) == (exchange.nonce, 1)
    assert (str(content.mcim_id), content.sequence) == (answer["mcimId"], 1) == (str(header.mcim_id), header.sequence)
    assert (content.not_before, content.not_after) == (header.not_before, header.not_after)
    assert content.imsi == CREDENTIALS[0].imsi
    assert exchange.mcim_object == sealed
    assert await states(sho) == ["allocated", "free"]
    assert await exchange.finish(dpf, counter=2) == "armed"


async def test_a_renewed_nonce_gets_a_new_header_over_the_same_object(world, pki, device):
    """REQ-25, REQ-65."""
    _, dpf = world
    first, second = Exchange(pki, device), Exchange(pki, device)
    await first.hand_over(dpf, nextSequence=1)
    await second.hand_over(dpf, nextSequence=1)
    second.open()
    first.open()
    assert first.mcim_object == second.mcim_object
    assert first.package != second.package
    assert (first.answer["mcimId"], first.answer["sequence"]) == (second.answer["mcimId"], second.answer["sequence"])
    assert second.verify().header.registration_nonce == second.nonce
    with pytest.raises(PartnerRefused):
        await first.hand_over(dpf, nextSequence=1)
    again = await second.hand_over(dpf, nextSequence=1)
    assert base64.b64decode(again["package"]) == second.package
    assert await second.finish(dpf, counter=2) == "armed"


ON_DEMAND = {
    "sequence is used": ({"nextSequence": 2}, {}),
    "suite is not offered any more": ({}, {"suites": ["MCIM-RSA-CBC-256"]}),
}


@pytest.mark.parametrize(("members", "offer"), ON_DEMAND.values(), ids=ON_DEMAND)
async def test_what_does_not_fit_any_more_is_made_on_demand(world, pki, device, members, offer):
    """REQ-66, REQ-53: the object is dropped, its subscription stays with the device."""
    sho, dpf = world
    exchange = Exchange(pki, device, offer=OFFER | offer)
    await exchange.hand_over(dpf, **{"nextSequence": 1} | members)
    content = exchange.open()[1]
    assert (content.bind_mode, content.registration_nonce) == (BindMode.NONCE, exchange.nonce)
    assert content.imsi == CREDENTIALS[0].imsi
    assert await objects(sho) == [("dropped", None)]
    assert await states(sho) == ["allocated", "free"]


async def test_an_algorithm_that_is_not_offered_any_more(pki, tmp_path, device):
    """REQ-30, REQ-65."""
    tuak = next(generate(1, "00101", "tuak128"))
    async with serving(sho_settings(pki, tmp_path), pki) as (sho, dpf):
        await fill(sho, [CREDENTIALS[0], tuak])
        register(sho, device, algorithms=["milenage"])
        prepare(sho)
        exchange = Exchange(pki, device, offer=OFFER | {"algorithms": ["tuak128"]})
        await exchange.hand_over(dpf, nextSequence=1)
        assert exchange.open()[1].keys == tuak.keys
        assert await states(sho) == ["free", "allocated"]


async def test_validity_and_token_are_looked_at_again(world, pki, device):
    """REQ-61, REQ-65: the user gave the token after the object was made."""
    sho, dpf = world
    row = TokenRow(m2me_id=M2ME_ID, token_ref="ref", sealed=sho.vault.seal_token(b"token", "ref"))
    await sho.store.write(lambda c: tokens.put(c, row, now=datetime.now(UTC)))
    exchange = Exchange(pki, device)
    await exchange.hand_over(dpf, nextSequence=1)
    assert exchange.open()[1].auth_token == b"token"
    await exchange.finish(dpf, counter=2)


async def test_a_token_known_when_preparing_is_inside(pki, tmp_path, device):
    """REQ-61, REQ-62: and it is erased after the success."""
    async with serving(sho_settings(pki, tmp_path), pki) as (sho, dpf):
        await fill(sho)
        row = TokenRow(m2me_id=M2ME_ID, token_ref="ref", sealed=sho.vault.seal_token(b"token", "ref"))
        await sho.store.write(lambda c: tokens.put(c, row, now=datetime.now(UTC)))
        register(sho, device)
        prepare(sho)
        exchange = Exchange(pki, device)
        answer = await exchange.hand_over(dpf, nextSequence=1)
        header, content = exchange.open()
        assert (header.auth_mode, content.auth_token, answer["tokenRef"]) == ("token", b"token", "ref")
        assert content.bind_mode is BindMode.PREPARED
        await exchange.finish(dpf, counter=2)
        assert await sho.store.read(lambda c: tokens.find(c, M2ME_ID)) is None


async def test_an_object_of_another_key_or_after_its_time_is_not_used(pki, tmp_path, device):
    """REQ-65, T4: exactly the platform key it was made for; not after NOT_AFTER."""
    other = Device(pki, platform_key=rsa_key(3072))  # the same TRE with another key, certified anew
    now = datetime.now(UTC)
    early = sho_settings(pki, tmp_path, mcim_validity_days=1)
    sho = build(early, now=lambda: now - timedelta(days=2))
    await fill(sho)
    register(sho, device)
    prepare(sho)
    await sho.close()
    async with serving(sho_settings(pki, tmp_path), pki) as (sho, dpf):
        exchange = Exchange(pki, device)
        await exchange.hand_over(dpf, nextSequence=1)
        assert exchange.open()[1].bind_mode is BindMode.NONCE
        await exchange.finish(dpf, counter=2)
        register(sho, device)
        prepare(sho)
        renewed = Exchange(pki, other, order_id=await order(sho, "o-2"))
        await renewed.hand_over(dpf, nextSequence=1)
        header, content = renewed.open()
        assert header.platform_key_id == other.platform_key_id
        assert content.bind_mode is BindMode.NONCE
        assert [state for state, _ in await objects(sho)] == ["dropped", "dropped"]


# --- revocation -------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["tre", "key"])
async def test_a_revoked_platform_loses_its_object_and_gets_no_other(world, pki, device, what):
    """REQ-65: revoked meanwhile; the subscription never left and is free for others."""
    sho, dpf = world
    subject = TRE_ID if what == "tre" else device.platform_key_id.hex()
    assert await sho.store.write(lambda c: prepared.revoke(c, subject, now=datetime.now(UTC))) == 1
    assert await sho.store.write(lambda c: prepared.revoke(c, subject, now=datetime.now(UTC))) == 0
    assert await objects(sho) == [("dropped", None)]
    assert await states(sho) == ["free", "free"]
    with pytest.raises(PartnerRefused, match="platform-revoked"):
        await Exchange(pki, device).hand_over(dpf, nextSequence=1)
    assert prepare(sho)[1] == {"waiting": 0, "prepared": 0, "skipped": 0, "failed": 1}
    assert await states(sho) == ["free", "free"]


async def test_a_package_under_way_keeps_its_subscription_when_its_platform_is_revoked(world, pki, device):
    """REQ-65, T4: the key inside may be on the device already."""
    sho, dpf = world
    await Exchange(pki, device).hand_over(dpf, nextSequence=1)
    await sho.store.write(lambda c: prepared.revoke(c, TRE_ID, now=datetime.now(UTC)))
    assert await states(sho) == ["allocated", "free"]


@pytest.mark.parametrize("how", ["at the hand-over", "when preparing again", "when looking"])
async def test_a_certificate_on_a_list_drops_the_object(pki, tmp_path, how):
    """REQ-20, REQ-65: revoked by the manufacturer between preparation and delivery."""
    device = Device(pki)
    async with serving(sho_settings(pki, tmp_path), pki) as (sho, _):
        await fill(sho)
        register(sho, device)
        prepare(sho)
    crl = tmp_path / "list.pem"
    crl.write_bytes(pki.manufacturer.crl(device.platform_cert))
    async with serving(sho_settings(pki, tmp_path, crl_files=(crl,)), pki) as (sho, dpf):
        if how == "at the hand-over":
            with pytest.raises(PartnerRefused, match="platform-certificate-refused"):
                await Exchange(pki, device).hand_over(dpf, nextSequence=1)
        elif how == "when looking":
            assert sho.preparation.drop_refused() == 1
        else:
            job, progress = prepare(sho)
            assert progress["failed"] == 1
            (failure,) = sho.store.read_sync(lambda c: prepared.failures(c, job))
            assert (failure["treId"], "revoked" in failure["reason"]) == (TRE_ID, True)
        assert await objects(sho) == [("dropped", None)]
        assert await states(sho) == ["free", "free"]


async def test_a_bad_certificate_is_not_registered(pki, tmp_path, device):
    """REQ-20, REQ-65."""
    async with serving(sho_settings(pki, tmp_path), pki) as (sho, _):
        for certificate in (device.attest_cert, pki.sho.issue_role(device.platform_key, Role.PLATFORM, TRE_ID)):
            with pytest.raises(CertificateRefused):
                sho.preparation.register([certificate.public_bytes(Encoding.DER)], **OFFER)
        nameless = pki.manufacturer.issue_role(device.platform_key, Role.PLATFORM, TRE_ID)
        with pytest.raises(CertificateRefused):
            sho.preparation.register([nameless.public_bytes(Encoding.DER)], **OFFER)
        assert register(sho, device)
        assert not register(sho, device)


async def test_policy_may_leave_objects_alone(pki, tmp_path, device):
    """REQ-66: the choice is the operator's."""
    async with serving(sho_settings(pki, tmp_path, preparation="never"), pki) as (sho, dpf):
        await fill(sho)
        register(sho, device)
        prepare(sho)
        exchange = Exchange(pki, device)
        await exchange.hand_over(dpf, nextSequence=1)
        assert exchange.open()[1].bind_mode is BindMode.NONCE


async def test_a_failed_prepared_object_is_not_tried_again(world, pki, device):
    """REQ-65: the TRE has judged it."""
    _, dpf = world
    first, second = Exchange(pki, device), Exchange(pki, device)
    await first.hand_over(dpf, nextSequence=1)
    assert await first.finish(dpf, counter=2, result=ResultCode.CONTENT_INVALID) == "free"
    await second.hand_over(dpf, nextSequence=1)
    assert second.open()[1].bind_mode is BindMode.NONCE
    assert second.answer["sequence"] == 2


# --- bulk -------------------------------------------------------------------------------------------


def write_settings(path, settings):
    keys = (
        "sho_id", "database_url", "seal_key", "trace_file", "tls_cert", "tls_key", "tls_ca", "signing_cert",
        "signing_key", "manufacturer_anchors", "pva_anchors", "pva_id",
    )  # fmt: skip
    lines = [f'{key} = "{getattr(settings, key)}"' for key in keys]
    path.write_text("\n".join([*lines, f"allowed_clients = {json.dumps(sorted(settings.allowed_clients))}", ""]))
    return path


@pytest.fixture
def fleet(pki, tmp_path, monkeypatch, capsys):
    """Certificates of many platforms in a directory, as many subscriptions, and the command line."""
    directory = tmp_path / "platforms"
    directory.mkdir()
    for number in range(DEVICES):
        device = Device(pki, platform_key=ec_key(), m2me_id=f"urn:imei:{number}", tre_id=f"urn:m2m:tre:{number:04}")
        (directory / f"{number:04}.pem").write_bytes(device.platform_cert.public_bytes(Encoding.PEM))
    settings = sho_settings(pki, tmp_path)
    for key in (settings.tls_key, settings.signing_key):
        key.chmod(0o600)  # else the command line warns
    config = write_settings(tmp_path / "sho.toml", settings)
    monkeypatch.setattr(actor_cli, "configure_logs", lambda **_: None)

    def run(*arguments, fails=False):
        monkeypatch.setattr(sys, "argv", ["sho", "--config", str(config), *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        assert bool(caught.value.code) is fails, captured.err
        return captured.err if fails else captured.out

    run("subscription", "generate", "--count", str(DEVICES))
    assert run("platform", "register", "--directory", str(directory)).startswith(f"{DEVICES} platforms added")
    return Fleet(run, tmp_path, [sys.executable, "-m", "sho", "--config", str(config)])


@dataclass(frozen=True)
class Fleet:
    run: Any  # a command in this process: gives its output, or its error text
    directory: Path
    process: list[str]  # arguments that start the command line as a process


def test_a_killed_bulk_job_goes_on_and_prepares_every_platform_exactly_once(fleet):
    """REQ-65: kill -9 in the middle; no subscription, MCIM id or sequence number is used twice."""
    run, directory = fleet.run, fleet.directory
    process = subprocess.Popen(
        [*fleet.process, "prepare", "start", "--all", "--json"], stdout=subprocess.PIPE, text=True
    )
    lines = []
    with process:
        for line in process.stdout:
            lines.append(json.loads(line))
            if lines[-1]["prepared"] == 3:
                os.kill(process.pid, signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    (job,) = json.loads(run("prepare", "status", "--json"))
    assert job["job"] == lines[0]["job"]
    assert 3 <= job["prepared"] < DEVICES
    assert job["prepared"] + job["waiting"] == DEVICES
    steps = [json.loads(line) for line in run("prepare", "resume", job["job"], "--json").splitlines()]
    assert len(steps) == job["waiting"]
    assert steps[-1] == {"job": job["job"], "waiting": 0, "prepared": DEVICES, "skipped": 0, "failed": 0}
    assert len(run("prepare", "resume", job["job"], "--json").splitlines()) == 1  # nothing is left
    with sqlite3.connect(directory / "sho.sqlite") as database:
        query = "SELECT count(*), count(DISTINCT platform_key_id), count(DISTINCT subscription_id), state FROM %s"
        assert database.execute(query % "prepared_object").fetchall() == [(DEVICES, DEVICES, DEVICES, "ready")]
        assert database.execute("SELECT DISTINCT state, count(*) FROM subscription").fetchall() == [
            ("prepared", DEVICES)
        ]
    database.close()
    assert run("prepare", "start", "--all").endswith(f"0 prepared, {DEVICES} there already, 0 failed\n")


def test_prepared_secrets_are_nowhere_in_clear(pki, tmp_path, device):
    """REQ-65, REQ-28: never plaintext, neither in the database nor in its journal nor in the trace."""
    secret = Credential(imsi="001019876543210", k=b"secret-k-of-mine", opc=b"secret-o-of-mine")
    sho = build(sho_settings(pki, tmp_path))
    now = datetime.now(UTC)
    sealed = sho.vault.seal(secret)
    sho.store.write_sync(
        lambda c: repository.add_subscription(c, sealed, imsi_mask=secret.imsi_mask, amf=b"\x80\x00", now=now)
    )
    register(sho, device)
    assert prepare(sho)[1]["prepared"] == 1
    dumps = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.name != "seal.key")
    sho.store.close()
    sho.trail.close()
    for value in (secret.k, secret.opc, secret.imsi.encode()):
        for form in (value, value.hex().encode(), to_base64(value).encode()):
            assert form not in dumps


def test_when_subscriptions_run_out_the_rest_fails_and_says_why(fleet):
    """REQ-65."""
    run, directory = fleet.run, fleet.directory
    with sqlite3.connect(directory / "sho.sqlite") as database:
        database.execute("DELETE FROM subscription WHERE id > 2")
    database.close()
    assert run("prepare", "start", "--all").endswith(f"2 prepared, 0 there already, {DEVICES - 2} failed\n")
    (job,) = json.loads(run("prepare", "status", "--json"))
    failures = json.loads(run("prepare", "status", job["job"], "--json"))
    assert len(failures) == DEVICES - 2
    assert {failure["reason"] for failure in failures} == {"no subscription is free with an algorithm of the TRE"}


def test_a_list_of_platforms_and_revocation_by_command_line(fleet):
    """REQ-65: `sho prepare start --list`, `sho revoke`."""
    run, directory = fleet.run, fleet.directory
    platforms = json.loads(run("platform", "list", "--json"))
    assert [platform["treId"] for platform in platforms] == [f"urn:m2m:tre:{number:04}" for number in range(DEVICES)]
    wanted = directory / "keys.txt"
    wanted.write_text("\n".join(platform["keyId"] for platform in platforms[:2]))
    run("prepare", "start", "--list", str(wanted))
    assert run("revoke", "--key-id", platforms[0]["keyId"]) == "revoked; 1 prepared objects dropped\n"
    assert run("revoke", "--tre", platforms[1]["treId"]) == "revoked; 1 prepared objects dropped\n"
    listed = json.loads(run("subscription", "list", "--json"))
    assert {row["state"] for row in listed} == {"free"}
    assert [platform["revoked"] for platform in json.loads(run("platform", "list", "--json"))][:3] == [
        True, True, False,
    ]  # fmt: skip
    wanted.write_text("00" * 16)
    assert "no platform with key" in run("prepare", "start", "--list", str(wanted), fails=True)
    assert "no job" in run("prepare", "resume", str(uuid.uuid4()), fails=True)
    assert "exactly one" in run("revoke", fails=True)


def test_platforms_from_a_list_with_offers_of_their_own(fleet):
    """REQ-47, REQ-65: `sho platform register --csv`."""
    run, directory = fleet.run, fleet.directory
    table = directory / "platforms.csv"
    table.write_text(
        "certificate,suites,containers,algorithms\n"
        "platforms/0000.pem,MCIM-EC-CBC-256,cms xml,tuak256 milenage\nplatforms/0001.pem,,,\n"
    )
    assert run("platform", "register", "--csv", str(table)) == "0 platforms added, 2 renewed\n"
    first, second, *_ = json.loads(run("platform", "list", "--json"))
    assert (first["suites"], first["containers"], first["algorithms"]) == (
        "MCIM-EC-CBC-256", "cms xml", "tuak256 milenage",
    )  # fmt: skip
    assert (second["containers"], second["algorithms"]) == ("xml", "milenage")
    table.write_text("certificate\nplatforms\n")
    assert "cannot be read" in run("platform", "register", "--csv", str(table), fails=True)
    table.write_text("certificate\nplatforms.csv\n")
    assert "no PEM" in run("platform", "register", "--csv", str(table), fails=True)
