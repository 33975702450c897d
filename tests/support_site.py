"""A DPF that listens on loopback, a device that knows it, and everything that goes between them."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from dmclient.device import Device
from dmclient.dm_account import write_account
from dmclient.dm_device import DeviceSetup
from dmclient.http_transport import HttpTransport
from dmclient.management_session import SessionReport, SessionSettings, run_session
from dmserver.app import dm_application
from dmserver.operator_commands import parse_request
from dmserver.operator_outcomes import show_request
from dmserver.operator_service import queue_request, request_of
from dmserver.store.accounts import Account, put_account
from syncml.bootstrap import DmBootstrap, DmCredentials
from syncml.codec import Encoding, decode
from syncml.codes import AuthType
from syncml.model import Message, Status
from tests.support_dmclient import DEVICE_ID, make_device
from tests.support_dmserver import DPF_ID, Dpf

MESSAGE_SIZE = 4096  # octets announced by both sides


@dataclass(frozen=True)
class Exchanged:
    """One message as it went over the wire."""

    sender: str
    content_type: str
    mac: str | None
    octets: bytes = field(repr=False)

    @property
    def message(self) -> Message:
        encoding = Encoding.WBXML if self.content_type.endswith("wbxml") else Encoding.XML
        return decode(self.octets, encoding)


@dataclass
class Site:
    """A DPF that listens, a device that knows it, and everything that went between them."""

    dpf: Dpf
    device: Device
    encoding: Encoding
    port: int = 0  # of the DPF
    wire: list[Exchanged] = field(default_factory=list)

    def queue(self, *commands: dict[str, Any], **options: object) -> str:
        request = parse_request({"commands": list(commands), **options})
        queued = self.dpf.store.write_sync(
            lambda c: queue_request(c, self.dpf.key, DEVICE_ID, request, self.dpf.clock())
        )
        return queued[0].request_id

    def outcome(self, request_id: str) -> dict[str, Any]:
        return show_request(self.dpf.store.read_sync(lambda c: request_of(c, self.dpf.key, DEVICE_ID, request_id)))

    async def session(self) -> SessionReport:
        settings = SessionSettings(encoding=self.encoding, max_msg_size=MESSAGE_SIZE)
        async with HttpTransport(
            ssl_context=ssl.create_default_context(), timeout_s=20, max_answer=MESSAGE_SIZE, allow_plain_http=True
        ) as transport:
            return await run_session(self.device, DPF_ID, transport, settings, step="7")

    def header_codes(self, sender: str) -> list[int]:
        """What that side said of the other's headers, in its order."""
        return [
            command.code
            for each in self.wire
            if each.sender == sender
            for command in each.message.commands
            if isinstance(command, Status) and command.cmd_ref == "0"
        ]


@asynccontextmanager
async def site(
    directory: Path,
    encoding: Encoding = Encoding.XML,
    auth: AuthType = AuthType.MD5,
    setup: DeviceSetup | None = None,
) -> AsyncIterator[Site]:
    dpf = Dpf(directory, max_message=MESSAGE_SIZE, max_object=512 * 1024)
    dpf.add_device(DEVICE_ID, with_account=False)
    account = Account(
        device_id=DEVICE_ID,
        profile=1,
        client_name="device",
        client_secret="client-secret",
        client_nonce=b"first client nonce",
        client_auth=auth,
        server_name="dpf",
        server_secret="server-secret",
        server_nonce=b"first server nonce",
        server_auth=auth,
    )
    dpf.store.write_sync(lambda c: put_account(c, dpf.key, account, dpf.clock()))
    device, _ = make_device(directory, setup=setup or DeviceSetup(scratch_node="Scratch"))
    made = Site(dpf, device, encoding)

    @web.middleware
    async def record(request: web.Request, handler: Any) -> web.StreamResponse:
        mac = request.headers.get("x-syncml-hmac")
        made.wire.append(Exchanged("device", request.content_type, mac, await request.read()))
        answer = await handler(request)
        mac = answer.headers.get("x-syncml-hmac")
        made.wire.append(Exchanged("server", answer.content_type, mac, answer.body))
        return answer

    app = dm_application(dpf.endpoint, dm_url=lambda port: f"http://127.0.0.1:{port}/dm")
    app.middlewares.append(record)
    async with TestServer(app, host="127.0.0.1") as server:
        known = DmBootstrap(
            server_id=DPF_ID,
            addr=f"http://127.0.0.1:{server.port}/dm",
            client=DmCredentials(auth_type=auth, name="device", secret="client-secret", nonce=b"first client nonce"),
            server=DmCredentials(auth_type=auth, name="dpf", secret="server-secret", nonce=b"first server nonce"),
        )
        write_account(device.tree, known)
        made.port = int(server.port or 0)
        try:
            yield made
        finally:
            dpf.close()


def add(uri: str, value: str) -> dict[str, Any]:
    return {"command": "add", "uri": uri, "value": value}


def own(uri: str) -> tuple[dict[str, Any], ...]:
    """XS-039: a new interior node, and the rights that keep it usable for the server that made it."""
    rights = "&".join(f"{each}={DPF_ID}" for each in ("Add", "Delete", "Get", "Replace"))
    return {"command": "add", "uri": uri, "node": True}, {
        "command": "replace",
        "uri": f"{uri}?prop=ACL",
        "value": rights,
    }


def get(*uris: str) -> dict[str, Any]:
    return {"command": "get", "uris": list(uris)}
