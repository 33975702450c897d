"""REQ-28: the DPF has nothing of the MCIM but an opaque package: not on disk, not in logs, not in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from m2m_demo.secret_search import (
    forms_of_digits,
    forms_of_key,
    search,
    search_files,
    search_memory,
    semi_octets,
)
from m2m_demo.stage import M2ME_ID, Stage
from m2m_demo.world import DPF_ID

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process from /proc"),
]

IMSI = "001017300946218"
HOLDER = """
import base64, sys, time
key = bytes.fromhex(sys.stdin.readline())
kept = [key * 1, base64.b64encode(b"x" + key + b"yz")]
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def key() -> bytes:
    """Made here, so that no test file or other process has it."""
    return os.urandom(16)


@pytest.fixture
def secrets(key: bytes) -> dict[str, bytes]:
    opc = bytes(octet ^ 0xA5 for octet in key)
    return forms_of_key("K", key) | forms_of_key("OPc", opc) | forms_of_digits("IMSI", IMSI)


def test_dpf_never_holds_k_opc_or_imsi(
    stage_of_its_own: Stage, tmp_path: Path, key: bytes, secrets: dict[str, bytes]
) -> None:
    """REQ-28."""
    stage = stage_of_its_own
    opc = bytes(octet ^ 0xA5 for octet in key)
    stock = tmp_path / "subscriptions.csv"
    stock.write_text(f"imsi,k,opc\n{IMSI},{key.hex()},{opc.hex()}\n")
    stage.set_up(subscriptions=stock)
    stage.start_servers()
    device = stage.start_device()
    stage.open_order()
    stage.wait_ready(device)
    stage.bootstrap()
    code, reason = stage.device_result(device)
    assert (code, reason) == (0, "attached")

    dpf = next(process for process in stage.supervisor.processes() if process.name == "dpf")
    assert dpf.exit_code() is None
    assert search_memory(dpf.pid, secrets) == set()
    assert search_files(stage.world.home("dpf"), secrets) == set()  # database with its WAL, trace, settings
    logs = b"".join(path.read_bytes() for path in stage.world.logs.iterdir() if path.stem != "subscription")
    assert search(logs, secrets) == set()
    for actor in ("m2me", "pva", "sho"):  # at rest, nobody holds them in clear
        assert search_files(stage.world.home(actor), secrets) == set()

    # The same search finds what must be there, so it can fail.
    known = {"server id": DPF_ID.encode(), "device": M2ME_ID.encode()}
    assert search_memory(dpf.pid, known) == set(known)
    assert {line.rpartition(": ")[2] for line in search_files(stage.world.home("dpf"), known)} == set(known)
    package = {"package": b"<xenc:EncryptedData"}
    assert search_files(stage.world.home("dpf"), package)
    assert search_memory(dpf.pid, package)
    stock_forms = search(stock.read_bytes(), secrets)
    assert stock_forms == {"K, hex", "OPc, hex", "IMSI, digits"}


def test_the_memory_search_finds_a_key_that_is_there(key: bytes) -> None:
    """Positive control for REQ-28: another process holds the key, raw and inside Base64 text."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(key.hex() + "\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "ready\n"
        found = search_memory(holder.pid, forms_of_key("K", key))
        holder.kill()
    assert {"K, raw", "K, Base64 at 1"} <= found


PLACES = {
    "raw": lambda key: b"..." + key + b"...",
    "hex": lambda key: key.hex().encode(),
    "HEX": lambda key: key.hex().upper().encode(),
    **{
        f"Base64 after {offset}": lambda key, offset=offset: __import__("base64").b64encode(b"ab"[:offset] + key + b"z")
        for offset in range(3)
    },
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_every_form_of_a_key_is_found(place: object, key: bytes) -> None:
    assert callable(place)
    assert search(place(key), forms_of_key("K", key))
    assert not search(place(os.urandom(16)), forms_of_key("K", key))


@pytest.mark.parametrize("nibbles", [IMSI, "9" + IMSI], ids=["TBCD", "EF_IMSI"])
def test_semi_octets_of_an_imsi_are_found(nibbles: str) -> None:
    """TS 24.008 §10.5.1.4: the first digit is in the low half."""
    assert semi_octets("12345") == bytes.fromhex("2143f5")
    assert search(b"\x08" + semi_octets(nibbles), forms_of_digits("IMSI", IMSI))
