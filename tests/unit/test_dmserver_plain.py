"""A DM server that manages devices and provisions none: what it needs, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from actor_runtime.config import load_settings
from actor_runtime.errors import ConfigError
from dmserver import cli, server
from dmserver.config import DmServerSettings
from dmserver.server import load_crls, load_rules
from tests.support_dmserver import Dpf
from tests.support_dpf_pki import M2ME_ID

PLAIN = """
server_id = "dms.example"
database_url = "sqlite:///{dir}/dms.sqlite"
seal_key = "{dir}/seal.key"
log_level = "error"
dm.plain_http = true
"""
WHOLE = """
pva_url = "https://pva.example"
tls_cert = "dms.crt"
tls_key = "dms.key"
tls_ca = "tls.pem"
manufacturer_anchors = "manufacturer.pem"
pva_anchors = "pva.pem"
"""


def settings(tmp_path: Path, more: str = "") -> DmServerSettings:
    file = tmp_path / "dms.toml"
    file.write_text(more + PLAIN.format(dir=tmp_path))
    return load_settings(DmServerSettings, file)


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Runs `dmserver` with the settings above; gives exit status and what it printed."""
    settings(tmp_path)

    def call(*args: str):
        monkeypatch.setattr("sys.argv", ["dmserver", "--config", str(tmp_path / "dms.toml"), "--json", *args])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        printed = capsys.readouterr()
        return caught.value.code or 0, printed.out, printed.err

    return call


def test_nothing_of_provisioning_is_needed(tmp_path):
    made = settings(tmp_path)
    assert made.provisioning() is None
    assert (load_crls(made), load_rules(made, None)) == (None, None)


def test_all_of_provisioning_is_known_as_such(tmp_path):
    found = settings(tmp_path, WHOLE).provisioning()
    assert found is not None
    assert (found.pva_url, found.pva_anchors) == ("https://pva.example", Path("pva.pem"))


HALVES = {
    "anchors without PVA": ('pva_anchors = "x.pem"\n', "pva_url is missing.*pva_anchors"),
    "partner listener without PVA": ("partner.port = 1\n", "pva_url is missing.*partner"),
    "operators without PVA": ('shos."sho.example" = "https://sho.example"\n', "pva_url is missing.*shos"),
    **{
        f"PVA without {name}": ("".join(line for line in WHOLE.splitlines(True) if not line.startswith(name)), name)
        for name in ("tls_cert", "tls_key", "tls_ca", "manufacturer_anchors", "pva_anchors")
    },
}


@pytest.mark.parametrize(("text", "told"), HALVES.values(), ids=HALVES)
async def test_half_of_provisioning_is_a_mistake(tmp_path, text, told):
    """A DPF that lost a line of its settings must not become a server that lets orders lie."""
    with pytest.raises(ConfigError, match=told):
        await server.run(settings(tmp_path, text))
    assert not (tmp_path / "dms.sqlite").exists()


TLS = {
    "devices": "dm.plain_http = false\n",
    "operators of another machine": 'operator.host = "0.0.0.0"\noperator.token_file = "{dir}/token"\n',
}


@pytest.mark.parametrize("changes", TLS.values(), ids=TLS)
async def test_tls_needs_certificate_and_key_and_nothing_else(tmp_path, changes):
    (tmp_path / "token").write_text("0123456789abcdef")
    text = PLAIN.replace("dm.plain_http = true\n", "") + changes if "plain_http" in changes else PLAIN + changes
    file = tmp_path / "tls.toml"
    file.write_text(text.format(dir=tmp_path))
    with pytest.raises(ConfigError, match="tls_cert is missing"):
        await server.run(load_settings(DmServerSettings, file))
    assert not (tmp_path / "dms.sqlite").exists()


def test_no_order_without_provisioning(run):
    status, _, told = run("order", "open", M2ME_ID, "--sho", "sho.example")
    assert status == 1
    assert "provisions no devices" in told
    assert "Traceback" not in told


async def test_an_order_of_former_days_opens_no_session(tmp_path):
    """REQ-13: the database has an ongoing order, the settings have no PVA any more: the device is not let in for it."""
    with_rules = Dpf(tmp_path)
    with_rules.add_device(M2ME_ID)
    with_rules.open_order()
    assert await with_rules.conductor.policy_for(M2ME_ID) is not None
    without = server.Conductor(
        store=with_rules.store, trail=with_rules.trail, partners=server.NoPartners(), rules=None, now=with_rules.clock
    )
    assert await without.policy_for(M2ME_ID) is None
    await without.tidy()  # and nothing breaks in the background
    with_rules.close()


def test_show_without_id_shows_the_newest(run):
    run("devices", "add", "--m2me-id", M2ME_ID, "--managed")
    status, _, told = run("device", M2ME_ID, "show")
    assert (status, "nothing was asked" in told) == (1, True)
    for uri in ("./DevInfo/Man", "./DevInfo/Mod"):
        run("device", M2ME_ID, "get", uri)
    shown = json.loads(run("device", M2ME_ID, "show")[1])
    assert "DevInfo/Mod" in json.dumps(shown["commands"])
    assert "DevInfo/Man" not in json.dumps(shown["commands"])
