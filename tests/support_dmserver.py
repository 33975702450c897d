"""A DPF in memory for tests: store, conductor and endpoint on a database file, and sessions of a device with it."""

from __future__ import annotations

import dataclasses
import functools
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from actor_runtime.sealing import SealingKey
from actor_runtime.store import Store
from actor_runtime.trail import Trail, TrailRecord
from actor_runtime.trail_store import append_record
from dmserver.admission import Admission
from dmserver.bootstrap import new_account
from dmserver.callback import CallBack
from dmserver.conductor import Conductor
from dmserver.conversation import Conversation
from dmserver.endpoint import Announced, DmEndpoint, Request
from dmserver.news import AlertRules
from dmserver.orders import Order
from dmserver.policy import Rules
from dmserver.push import Destination, PushFailed
from dmserver.registration import OrderRequest, register_order
from dmserver.sessions import SessionRegistry
from dmserver.store import MIGRATIONS, tables
from dmserver.store.accounts import Account, add_device, find_account, put_account
from dmserver.store.orders import find_order
from dmserver.unreadable import UnreadableTrace
from syncml.accounts import ClientAccount
from syncml.client_session import ClientSession
from syncml.codec import Encoding, decode
from syncml.codes import AlertCode
from syncml.model import Alert
from syncml.session import CommandReceived, NonceChanged
from syncml.wap_push import WapPush
from tests.support_dpf_pki import DPF_ID, M2ME_ID, NOW, PVA_ID, SHO_ID, TRE_ID, Pki, der, pki, rules
from tests.support_fake_partners import FakePartners, package_for, ticket_for
from tests.support_stub_device import StubDevice, alert, attach_alert, fall_back_receipt, registration_alert

# The parts of others that stand here too: a test of a whole DPF needs most of them.
__all__ = [
    "DM_URL", "DPF_ID", "M2ME_ID", "NOW", "PUSH", "PVA_ID", "SHO_ID", "TRE_ID", "Clock", "Dpf", "FakePartners", "Pki",
    "StubDevice", "alert", "attach_alert", "der", "fall_back_receipt", "package_for", "pki",
    "registration_alert", "rules", "ticket_for",
]  # fmt: skip

DM_URL = "https://dpf.example/dm"
PUSH = "udp:127.0.0.1:2948"


@dataclass
class Clock:
    now: datetime = NOW
    monotonic: float = 1000.0

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.monotonic += seconds


@functools.cache
def empty_database() -> bytes:
    """A migrated database without content: migrating is done once per process."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "empty.sqlite"
        store = Store(f"sqlite:///{file}", MIGRATIONS)
        store.upgrade()
        store.close()
        return file.read_bytes()


@dataclass
class Dpf:
    """Store, conductor and endpoint on a database file; `restart` makes new ones on the same file."""

    directory: Path
    partners: FakePartners = field(default_factory=FakePartners)
    clock: Clock = field(default_factory=Clock)
    rules: Rules = field(default_factory=rules)
    max_sessions: int = 100
    alert_rules: AlertRules = field(default_factory=AlertRules)
    max_message: int = 64 * 1024  # octets announced
    max_object: int = 256 * 1024  # octets announced
    records: list[TrailRecord] = field(default_factory=list)
    pushed: list[tuple[WapPush, Destination]] = field(default_factory=list)  # package 0 and where it went
    push_fails: bool = False
    notifications_per_hour: int = 100
    trace_file: Path | None = None
    trace_octets: bool = False

    def __post_init__(self) -> None:
        self.partners.clock = self.clock
        self.key = SealingKey(bytes(32))
        file = self.directory / "dpf.sqlite"
        if not file.exists():
            file.write_bytes(empty_database())
        self.store = Store(f"sqlite:///{file}", MIGRATIONS)
        self._start()

    def _start(self) -> None:
        def keep(record: TrailRecord) -> None:
            self.records.append(record)
            self.store.post(lambda connection: append_record(connection, tables.trail, record))

        self.trail = Trail("DPF", sink=keep, trace_file=self.trace_file, now=self.clock)
        call_back = CallBack(
            store=self.store,
            seal_key=self.key,
            trail=self.trail,
            server_id=DPF_ID,
            per_hour=self.notifications_per_hour,
            send=self._push,
        )
        self.conductor = Conductor(
            store=self.store,
            trail=self.trail,
            partners=self.partners,
            rules=self.rules,
            call_back=call_back,
            now=self.clock,
        )
        self.registry = SessionRegistry(
            max_sessions=self.max_sessions, idle_s=300, dead_s=10, clock=lambda: self.clock.monotonic
        )
        conversation = Conversation(
            registry=self.registry,
            admission=Admission(conductor=self.conductor, store=self.store, seal_key=self.key),
            store=self.store,
            seal_key=self.key,
            trail=self.trail,
            alerts=self.alert_rules,
        )
        self.endpoint = DmEndpoint(
            announced=Announced(server_id=DPF_ID, max_message=self.max_message, max_object=self.max_object),
            registry=self.registry,
            conversation=conversation,
            store=self.store,
            seal_key=self.key,
            unreadable=UnreadableTrace(self.trail, octets=self.trace_octets, clock=lambda: self.clock.monotonic),
        )

    async def _push(self, push: WapPush, destination: Destination) -> int:
        if self.push_fails:
            raise PushFailed("no route")
        self.pushed.append((push, destination))
        return len(push.body)

    def restart(self) -> None:
        """The process died and came back: nothing of the memory is left."""
        self.store.close()
        self.store = Store(f"sqlite:///{self.directory / 'dpf.sqlite'}", MIGRATIONS)
        self._start()

    def close(self) -> None:
        self.trail.close()
        self.store.close()

    def add_device(self, device_id: str = M2ME_ID, *, with_account: bool = True, push: str | None = None) -> None:
        self.store.write_sync(lambda c: add_device(c, self.key, device_id, b"supplier-secret", self.clock(), push=push))
        if with_account:
            account = new_account(device_id, DPF_ID, 1)
            self.store.write_sync(lambda c: put_account(c, self.key, account, self.clock()))

    def open_order(self, device_id: str = M2ME_ID, *, lifetime_s: int = 86400, **wanted: str) -> str:
        """`wanted`: what of an `OrderRequest` is not as in a first installation."""
        return self.store.write_sync(
            lambda c: register_order(
                c,
                OrderRequest(device_id=device_id, **{"sho_id": SHO_ID} | wanted),
                lifetime_s=lifetime_s,
                now=self.clock(),
            )
        ).order_id

    def order(self, order_id: str) -> Order:
        order = self.store.read_sync(lambda c: find_order(c, order_id))
        assert order is not None
        return order

    def account(self, device_id: str = M2ME_ID) -> Account:
        account = self.store.read_sync(lambda c: find_account(c, self.key, device_id))
        assert account is not None
        return account

    def checks(self, *, passed: bool | None = None) -> list[str]:
        return [
            str(record.fields["name"])
            for record in self.records
            if record.kind == "check" and (passed is None or record.fields["passed"] is passed)
        ]

    # -- sessions of a device

    def client(
        self,
        device: StubDevice,
        *alerts: Alert,
        session_id: str = "1",
        device_id: str = M2ME_ID,
        max_msg_size: int = 16 * 1024,
        **changes: object,
    ) -> ClientSession:
        """A client session with the device's present credentials; `changes` make the account wrong."""
        held = self.account() if device_id == M2ME_ID else new_account(device_id, DPF_ID, 1)
        account = ClientAccount(
            server_id=DPF_ID,
            server_uri=DM_URL,
            client_name=held.client_name,
            client_secret=held.client_secret,
            client_nonce=held.client_nonce,
            server_name=held.server_name,
            server_secret=held.server_secret,
            server_nonce=held.server_nonce,
        )
        return ClientSession(
            account=dataclasses.replace(account, **changes),
            device_id=device_id,
            session_id=session_id,
            dev_info={"./DevInfo/DevId": device_id, "./DevInfo/DmV": "1.2"},
            start=AlertCode.CLIENT_INITIATED_MGMT,
            max_msg_size=max_msg_size,
            max_obj_size=256 * 1024,
            encoding=Encoding.XML,
            new_nonce=lambda: os.urandom(8).hex().encode(),
            alerts=alerts,
        )

    async def post(self, session: ClientSession, body: bytes) -> tuple[int, bytes]:
        token = session.target_uri.partition("?s=")[2]
        answer = await self.endpoint.handle(
            Request(body=body, content_type="application/vnd.syncml.dm+xml", server_uri=DM_URL, token=token)
        )
        return answer.status, answer.body

    async def run(
        self, device: StubDevice, session: ClientSession, *, stop: Callable[[StubDevice], bool] = lambda _: False
    ) -> list[object]:
        """Talk until the session is over, or `stop` says that the device falls silent. Events of the client."""
        events: list[object] = []
        body: bytes | None = session.start()
        while body is not None:
            status, answer = await self.post(session, body)
            assert status == 200, status
            message = decode(answer, Encoding.XML)
            new = session.receive(message, self.clock())
            events.extend(new)
            for event in new:
                if isinstance(event, CommandReceived):
                    session.answer(event.command, device.execute(event.command))
            if stop(device):
                return events
            body = session.reply()
        assert not any(isinstance(event, NonceChanged) and not event.nonce for event in events)
        return events

    async def session(
        self, device: StubDevice, *alerts: Alert, session_id: str = "1", **options: object
    ) -> list[object]:
        return await self.run(
            device, self.client(device, *alerts, session_id=session_id, **options)
        )  # options of `client`
