"""A DPF that listens on loopback, a device that knows it, and everything that goes between them."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web
from aiohttp.test_utils import TestServer

from dmclient.device import Device
from dmclient.dm_account import write_account
from dmclient.dm_device import DeviceSetup
from dmclient.http_transport import HttpTransport
from dmclient.management_session import SessionReport, SessionSettings, run_session
from dmserver.app import dm_application
from dmserver.endpoint import Answer, DmEndpoint, Request
from dmserver.operator_commands import parse_request
from dmserver.operator_outcomes import show_request
from dmserver.operator_service import queue_request, request_of
from dmserver.store.accounts import Account, change_device, put_account
from syncml.bootstrap import DmBootstrap, DmCredentials
from syncml.codec import Encoding, decode
from syncml.codes import AuthType
from syncml.model import Alert, Command, Message, Replace, Results, Status, walk
from tests.support_dmclient import DEVICE_ID, FakeTre, make_device
from tests.support_dmserver import Dpf
from tests.support_dpf_pki import DPF_ID

AnyCommand = TypeVar("AnyCommand", bound=Command)

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
    message_size: int = MESSAGE_SIZE  # octets the device announces
    object_size: int = 524288  # octets of one large object it announces
    wire: list[Exchanged] = field(default_factory=list)
    loses: set[int] = field(default_factory=set)  # exchanges (from 1, of all sessions) whose answer gets lost
    exchanges: int = 0
    loses_answer: Callable[[Message], bool] = lambda _: False  # whether an answer of the server gets lost

    def queue(self, *commands: dict[str, Any], **options: object) -> str:
        request = parse_request({"commands": list(commands), **options})
        queued = self.dpf.store.write_sync(
            lambda c: queue_request(c, self.dpf.key, DEVICE_ID, request, self.dpf.clock())
        )
        return queued[0].request_id

    def outcome(self, request_id: str) -> dict[str, Any]:
        return show_request(self.dpf.store.read_sync(lambda c: request_of(c, self.dpf.key, DEVICE_ID, request_id)))

    async def session(self) -> SessionReport:
        settings = SessionSettings(
            encoding=self.encoding, max_msg_size=self.message_size, max_obj_size=self.object_size
        )
        async with HttpTransport(
            ssl_context=ssl.create_default_context(), timeout_s=20, max_answer=self.message_size, allow_plain_http=True
        ) as transport:
            return await run_session(self.device, DPF_ID, transport, settings, step="7")

    async def ask(self, *commands: dict[str, Any], **options: object) -> dict[str, Any]:
        """Queue a request, hold a session, and return the outcome."""
        request_id = self.queue(*commands, **options)
        report = await self.session()
        assert report.failure == ""
        return self.outcome(request_id)

    def sent(self, sender: str, kind: type[AnyCommand]) -> list[AnyCommand]:
        """Commands of one kind that left that side, those in groups included, in their order."""
        messages = [each.message for each in self.wire if each.sender == sender]
        return [command for message in messages for command in walk(message.commands) if isinstance(command, kind)]

    def change_account(self, **changes: Any) -> None:
        """What the DPF believes to be the account of the device."""
        changed = replace(self.dpf.account(DEVICE_ID), **changes)
        self.dpf.store.write_sync(lambda c: put_account(c, self.dpf.key, changed, self.dpf.clock()))

    def only_what_a_client_sends(self) -> bool:
        """XC-013: Replace for DevInfo, Results, Alert, Status, and nothing else."""
        return all(
            isinstance(command, Results | Alert | Status)
            or (
                isinstance(command, Replace)
                and all((item.source or "").startswith("./DevInfo/") for item in command.items)
            )
            for each in self.wire
            if each.sender == "device"
            for command in each.message.commands
        )

    def header_codes(self, sender: str) -> list[int]:
        """What that side said of the other's headers, in its order."""
        return [
            command.code
            for each in self.wire
            if each.sender == sender
            for command in each.message.commands
            if isinstance(command, Status) and command.cmd_ref == "0"
        ]


class _Present(DmEndpoint):
    """The endpoint that the DPF has now: a restart gives it another one."""

    def __init__(self, dpf: Dpf) -> None:
        self._dpf = dpf
        self.announced = dpf.endpoint.announced

    async def handle(self, request: Request) -> Answer:
        return await self._dpf.endpoint.handle(request)


@asynccontextmanager
async def site(
    directory: Path,
    encoding: Encoding = Encoding.XML,
    auth: AuthType = AuthType.MD5,
    setup: DeviceSetup | None = None,
    *,
    profile: str | None = None,
    message_size: int = MESSAGE_SIZE,
    server_size: int = MESSAGE_SIZE,
    tre: FakeTre | None = None,
) -> AsyncIterator[Site]:
    dpf = Dpf(directory, max_message=server_size, max_object=512 * 1024)
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
    if profile is not None:
        dpf.store.write_sync(lambda c: change_device(c, DEVICE_ID, peer_profile=profile))
    device, _ = make_device(directory, tre=tre, setup=setup or DeviceSetup(scratch_node="Scratch"))
    made = Site(dpf, device, encoding, message_size=message_size)

    @web.middleware
    async def record(request: web.Request, handler: Any) -> web.StreamResponse:
        mac = request.headers.get("x-syncml-hmac")
        made.wire.append(Exchanged("device", request.content_type, mac, await request.read()))
        made.exchanges += 1
        answer = await handler(request)
        mac = answer.headers.get("x-syncml-hmac")
        made.wire.append(Exchanged("server", answer.content_type, mac, answer.body))
        lost = made.exchanges in made.loses or made.loses_answer(made.wire[-1].message)
        if lost and request.transport is not None:
            request.transport.abort()
        return answer

    app = dm_application(_Present(dpf), dm_url=lambda port: f"http://127.0.0.1:{port}/dm")
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
            assert made.only_what_a_client_sends()
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
