"""Wireshark reads what our two roles say to each other: a WBXML session captured on loopback, without an error."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from syncml.codec import Encoding
from syncml.codes import AuthType
from syncml.model import walk
from tests.support_site import Site, add, get, own, site

TSHARK = shutil.which("tshark")
PATIENCE_S = 30
FAULTS = "_ws.malformed || _ws.expert.severity >= 0x600000"  # warnings and errors, of any protocol

pytestmark = pytest.mark.skipif(TSHARK is None, reason="needs tshark (Debian: tshark)")


async def _run(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        str(TSHARK), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode == 0, errors.decode()
    return output.decode()


class Capture:
    """A capture that is known to run before anything is sent, and known to have everything before it ends."""

    def __init__(self, port: int, file: Path) -> None:
        self._port, self._file = port, file

    async def __aenter__(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            str(TSHARK), "-i", "lo", "-f", f"tcp port {self._port}", "-w", str(self._file), "-P", "-l",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stderr is not None
        errors = b""
        async with asyncio.timeout(PATIENCE_S):
            while b"Capturing on" not in errors:
                line = await self._process.stderr.readline()
                errors += line
                if not line:
                    pytest.skip(f"no right to capture: {errors.decode()[-200:]}")
        await self._probe()

    async def _probe(self) -> None:
        """Knock until the capture shows it: the message above comes a moment before the first packet is taken."""
        assert self._process.stdout is not None
        seen = asyncio.ensure_future(self._process.stdout.readline())
        async with asyncio.timeout(PATIENCE_S):
            while not seen.done():
                _, writer = await asyncio.open_connection("127.0.0.1", self._port)
                writer.close()
                await asyncio.wait({seen}, timeout=0.2)

    async def __aexit__(self, *_: object) -> None:
        """End when a connection of our own shows up: all that came before it is in the file."""
        assert self._process.stdout is not None
        _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        number = writer.get_extra_info("sockname")[1]
        async with asyncio.timeout(PATIENCE_S):
            while not re.search(rb"\b%d\b" % number, await self._process.stdout.readline()):
                pass
        writer.close()
        self._process.terminate()
        await self._process.communicate()


async def _captured_session(here: Site, file: Path) -> None:
    here.queue(
        get("./DevDetail/SwV", "./DevInfo?prop=Format"),
        *own("./Scratch/n"),
        add("./Scratch/n/a", "<value> & more"),
        add("./Scratch/n/large", "v" * 9000),
        get("./Scratch/n/large", "./Scratch/none"),
    )
    here.queue(add("./Scratch/n/b", "two"), get("./Scratch/n/b"), grouping="sequence")
    async with Capture(here.port, file):
        assert (await here.session()).failure == ""


def _tags(packet: str) -> list[str]:
    """Start and end tags of a dissected document, in its order."""
    return re.findall(r"\| +(</?[A-Za-z]+(?: /)?>)$", packet, re.MULTILINE)


@pytest.mark.parametrize("auth", [AuthType.MD5, AuthType.MAC], ids=lambda each: each.name)
async def test_a_captured_session_in_wbxml(tmp_path: Path, auth: AuthType) -> None:
    """XS-027: every message of a captured session is dissected to its end, with the tags that we meant."""
    async with site(tmp_path, Encoding.WBXML, auth) as here:
        file = tmp_path / "session.pcapng"
        await _captured_session(here, file)
        as_http = ("-d", f"tcp.port=={here.port},http")
        told = await _run("-r", str(file), *as_http, "-Y", "wbxml", "-O", "wbxml")
        packets = [packet for packet in re.split(r"^Frame \d+:", told, flags=re.MULTILINE) if packet.strip()]
        assert len(packets) == len(here.wire)
        for packet, exchanged in zip(packets, here.wire, strict=True):
            assert "Public Identifier (known): -//SYNCML//DTD SyncML 1.2//EN" in packet
            tags = _tags(packet)
            assert (tags[0], tags[-1]) == ("<SyncML>", "</SyncML>")  # closed where the octets end
            wanted = Counter(command.name for command in walk(exchanged.message.commands))
            assert {name: tags.count(f"<{name}>") for name in wanted} == wanted
            assert {name: tags.count(f"</{name}>") for name in wanted} == wanted
        faults = await _run("-r", str(file), *as_http, "-Y", FAULTS, "-T", "fields",
                            "-e", "frame.number", "-e", "_ws.expert.message")  # fmt: skip
        assert faults == ""
