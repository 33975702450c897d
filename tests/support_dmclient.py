"""A device for tests: a TRE that keeps the Protocol and does no cryptography, and a tree with all objects."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path as FilePath
from typing import Any

from actor_runtime.sealing import SealingKey
from actor_runtime.trail import Trail, TrailRecord
from dmclient.device import Device, DeviceProfile
from dmclient.dm_account import write_account
from dmclient.dm_device import DeviceSetup
from dmclient.http_transport import HttpAnswer
from dmclient.management_tree import ManagementTree
from dmclient.nodes import Path
from dmclient.objects.device import DeviceFacts, build_device_objects
from dmclient.objects.m2m import M2M, M2MFacts, M2MObject
from dmclient.objects.m2msim import M2MSIM, M2MSimObject
from dmclient.store.state_file import StateFile
from dmclient.tre.base import NEVER, CheckRecord, Hints, McimInfo, Outcome, Registration, TreError, TreFacts
from mcim.aka import Accepted, MacFailure, SyncFailure
from mcim.measurement_log import Measurement, encode_log
from mcim.vocabulary import (
    PACKAGE_MEDIA_TYPE,
    ContainerState,
    McimPolicy,
    Operation,
    RegistrationState,
    ResultCode,
    Suite,
    ValidationMode,
)
from syncml.accounts import DmAccount
from syncml.bootstrap.cp import encode_cp
from syncml.bootstrap.profile import DmBootstrap, DmCredentials, NapDef, to_document
from syncml.bootstrap.security import Sec, compute_mac
from syncml.codec import Encoding, decode
from syncml.codes import AuthType, Format, MediaType
from syncml.model import Add
from syncml.policy import Continue, Decision
from syncml.server_session import ServerSession
from syncml.session import AlertReceived, Event, NonceChanged, SessionOpened
from syncml.tree import Acl
from syncml.values import leaf_item, node_item
from syncml.wap_push import WapPush, build_push

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
DEVICE_ID = "urn:imei:004999010640000"
DPF = "dpf.example"
OTHER = "other.example"
MCIM_ID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
NEW_MCIM_ID = uuid.UUID(int=2)
IMSI = "001010123456789"


IDLE = Registration(
    req_id="",
    nonce=b"",
    nonce_expiry=NEVER,
    state=RegistrationState.IDLE,
    reason="initial",
    sho_id=None,
    next_sequence=1,
)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass(eq=False)
class FakeTre:
    """Keeps the TRE Protocol. A package or command `b"good…"` does what it should, any other fails with `refusal`.

    A package `b"good new…"` brings a second MCIM, which replaces the first; an Activate or Suspend takes effect.
    """

    refusal: ResultCode = ResultCode.SIGNATURE_INVALID
    initial_state: ContainerState = ContainerState.ACTIVATED
    installed: list[McimInfo] = field(default_factory=list)
    provisioned: list[tuple[bytes, Hints]] = field(default_factory=list)
    aka: list[Accepted | SyncFailure | MacFailure] = field(default_factory=list)
    last_receipt: bytes | None = None
    open_request: Registration = field(default_factory=lambda: IDLE)
    condition: str = "ok"
    max_package: int = 65536
    platform_key_id: bytes = b"\x01" * 16
    policy: McimPolicy = McimPolicy.SIGNED_LIFECYCLE
    commands: list[tuple[Operation, bytes]] = field(default_factory=list)
    fall_back_to: uuid.UUID | None = None
    confirmed: list[uuid.UUID] = field(default_factory=list)
    last: tuple[bytes, Outcome] | None = None
    log: bytes = b""

    def facts(self) -> TreFacts:
        return TreFacts(
            m2me_id=DEVICE_ID,
            tre_id="urn:m2m:tre:1",
            tre_type="software",
            version="1.0",
            vendor="test",
            state=self.condition,
            suites=(Suite.RSA_GCM_256, Suite.RSA_CBC_256),
            containers=("xml",),
            algorithms=("milenage",),
            code_formats=(),
            max_mcim=4,
            max_package=self.max_package,
            free_space=4096,
            trust_anchor_ids=("aa" * 20,),
            platform_cert=b"platform",
            attest_cert=b"attest",
            cert_chain=(b"intermediate",),
            platform_key_id=self.platform_key_id,
        )

    def registration(self, now: datetime) -> Registration:
        if self.open_request.nonce and now >= self.open_request.nonce_expiry:
            self.open_request = replace(
                self.open_request, state=RegistrationState.EXPIRED, nonce=b"", nonce_expiry=NEVER
            )
        return self.open_request

    def renew_registration(self, *, reason: str, sho_id: str | None, now: datetime) -> Registration:
        self.open_request = Registration(
            req_id=str(uuid.uuid4()),
            nonce=uuid.uuid4().bytes * 2,
            nonce_expiry=now + timedelta(hours=24),
            state=RegistrationState.REQUESTED,
            reason=reason,
            sho_id=sho_id,
            next_sequence=1,
        )
        return self.open_request

    def generate_evidence(self, challenge: bytes, mode: ValidationMode, now: datetime) -> bytes:
        if self.condition != "ok":
            raise TreError(ResultCode.TRE_STATE_NOT_OK, "not ok")
        return b"evidence over " + challenge

    def provision(self, package: bytes, hints: Hints, now: datetime) -> Outcome:
        self.provisioned.append((package, hints))
        if not package.startswith(b"good"):
            self.open_request = replace(self.open_request, state=RegistrationState.FAILED)
            return self._outcome(package, self.refusal, None)
        mcim = replace(installed(self.initial_state), policy=self.policy)
        if package.startswith(b"good new"):
            mcim = replace(mcim, mcim_id=NEW_MCIM_ID, sho_id="sho2.example", sequence=8)
        self.installed = [each for each in self.installed if each.mcim_id != mcim.mcim_id]
        self._put(mcim)
        self.open_request = replace(self.open_request, state=RegistrationState.PROVISIONED, nonce=b"")
        return self._outcome(package, ResultCode.SUCCESS, mcim)

    def _put(self, mcim: McimInfo) -> None:
        """In the place it had; the activated one suspends the others and can fall back to one."""
        if mcim.state is ContainerState.ACTIVATED:
            for index, each in enumerate(self.installed):
                if each.state is ContainerState.ACTIVATED and each.mcim_id != mcim.mcim_id:
                    self.fall_back_to = each.mcim_id
                    self.installed[index] = replace(each, state=ContainerState.SUSPENDED)
        ids = [each.mcim_id for each in self.installed]
        if mcim.mcim_id in ids:
            self.installed[ids.index(mcim.mcim_id)] = mcim
        else:
            self.installed.append(mcim)

    def _outcome(self, octets: bytes, code: ResultCode, mcim: McimInfo | None) -> Outcome:
        self.last_receipt = b"receipt " + octets[:4]
        done = code in (ResultCode.SUCCESS, ResultCode.FELL_BACK)
        check = CheckRecord(name="package-signature", passed=done, req=("REQ-50",))
        outcome = Outcome(code=code, receipt=self.last_receipt, mcim=mcim, checks=(check,))
        self.last = (hashlib.sha256(octets).digest(), outcome)
        return outcome

    def command(self, operation: Operation, command: bytes, hints: Hints, now: datetime) -> Outcome:
        self.commands.append((operation, command))
        mcim = next((each for each in self.installed if str(each.mcim_id) == hints.mcim_id), None)
        if not command.startswith(b"good") or mcim is None:
            return self._outcome(command, self.refusal, None)
        if operation is Operation.DELETE:
            self.installed.remove(mcim)
            return self._outcome(command, ResultCode.SUCCESS, None)
        state = ContainerState.ACTIVATED if operation is Operation.ACTIVATE else ContainerState.SUSPENDED
        mcim = replace(mcim, state=state)
        self._put(mcim)
        return self._outcome(command, ResultCode.SUCCESS, mcim)

    def local_command(self, operation: Operation, mcim_id: uuid.UUID, now: datetime) -> Outcome:
        if self.policy & McimPolicy.SIGNED_LIFECYCLE:
            self.commands.append((operation, b""))
            return self._outcome(b"", ResultCode.SIGNER_NOT_ACCEPTABLE, None)
        return self.command(operation, b"good local", Hints(mcim_id=str(mcim_id)), now)

    def confirm_attach(self, mcim_id: uuid.UUID, now: datetime) -> None:
        self.confirmed.append(mcim_id)
        self.fall_back_to = None

    def fall_back(self, mcim_id: uuid.UUID, now: datetime) -> Outcome | None:
        if self.fall_back_to is None:
            return None
        new = next(each for each in self.installed if each.mcim_id == mcim_id)
        old = next(each for each in self.installed if each.mcim_id == self.fall_back_to)
        self._put(replace(new, state=ContainerState.SUSPENDED))
        self._put(replace(old, state=ContainerState.ACTIVATED))
        self.fall_back_to = None
        package = self.provisioned[-1][0]
        return self._outcome(package, ResultCode.FELL_BACK, replace(new, state=ContainerState.SUSPENDED))

    def last_outcome(self) -> tuple[bytes, Outcome] | None:
        return self.last

    def supplier_command(self, octets: bytes, now: datetime) -> ResultCode:
        return ResultCode.SUCCESS

    def take_measurements(self, measurements: tuple[Measurement, ...]) -> None:
        self.log = encode_log(measurements)

    def measurement_log(self) -> bytes:
        return self.log

    def mcims(self) -> tuple[McimInfo, ...]:
        return tuple(self.installed)

    def receipt(self) -> bytes | None:
        return self.last_receipt

    def attach_identity(self, mcim_id: uuid.UUID) -> str:
        if not any(each.mcim_id == mcim_id and each.state is ContainerState.ACTIVATED for each in self.installed):
            raise TreError(ResultCode.WRONG_STATE, "not activated")
        return IMSI

    def authenticate(self, mcim_id: uuid.UUID, rand: bytes, autn: bytes) -> Accepted | SyncFailure | MacFailure:
        return self.aka.pop(0) if self.aka else Accepted(res=b"\x11" * 8, ck=b"\x22" * 16, ik=b"\x33" * 16)


def installed(state: ContainerState) -> McimInfo:
    """The MCIM the fake TRE installs."""
    return McimInfo(
        mcim_id=MCIM_ID,
        sho_id="sho.example",
        state=state,
        revision=1,
        sequence=7,
        not_after=NOW + timedelta(days=365),
        imsi_mask="00101********89",
    )


@dataclass
class DeviceTree:
    """A tree with all M2M objects, owned by `DPF`."""

    tree: ManagementTree
    m2m: M2MObject
    m2msim: M2MSimObject
    tre: FakeTre
    clock: Clock


FREE: Path = ("Test",)


def device_tree(tre: FakeTre | None = None) -> DeviceTree:
    """Build one, with a free area at ./Test that everybody may write."""
    tre, clock = tre or FakeTre(), Clock()
    tree = ManagementTree(now=clock)
    build_device_objects(tree, DeviceFacts(device_id=DEVICE_ID))
    m2msim = M2MSimObject(tree, max_package=lambda: tre.facts().max_package)
    m2m = M2MObject(tree, tre, M2MFacts(supplier="maker", pcid="001019999999999"), package_waiting=m2msim.waiting)
    tree.nodes.change(M2M, acl=Acl.parse(f"Get=*&Replace={DPF}&Exec={DPF}"))
    tree.nodes.change(M2MSIM, acl=Acl.parse(f"Add={DPF}&Delete={DPF}&Exec={DPF}&Get={DPF}&Replace={DPF}"))
    tree.free_area(FREE)
    tree.nodes.change(FREE, acl=Acl.parse("Add=*&Delete=*&Exec=*&Get=*&Replace=*"))
    return DeviceTree(tree=tree, m2m=m2m, m2msim=m2msim, tre=tre, clock=clock)


# -- a whole device, and a DPF in memory -----------------------------------------------------------------------------

SECRET = "supplier-pin-4711"
DPF_URL = "https://dpf.example/dm"
CLIENT_SECRET, SERVER_SECRET = "client-secret", "server-secret"
CLIENT_NONCE, SERVER_NONCE = b"first client nonce", b"first server nonce"


def bootstrap_profile(server_id: str = DPF, **changes: object) -> DmBootstrap:
    """The account a DPF offers."""
    profile = DmBootstrap(
        server_id=server_id,
        addr=DPF_URL,
        name="Registration operator",
        client=DmCredentials(auth_type=AuthType.MD5, name="device-1", secret=CLIENT_SECRET, nonce=CLIENT_NONCE),
        server=DmCredentials(auth_type=AuthType.MD5, name="dpf-1", secret=SERVER_SECRET, nonce=SERVER_NONCE),
        to_napids=("NAP1",),
        napdefs=(NapDef(napid="NAP1", bearers=("GSM-GPRS",), name="RO", address="ro.example", address_type="APN"),),
    )
    return replace(profile, **changes)


def bootstrap_push(profile: DmBootstrap | None = None, *, secret: str = SECRET, sec: int | None = Sec.USERPIN) -> bytes:
    """The datagram for a profile, protected with the supplier's secret."""
    body = encode_cp(to_document(profile or bootstrap_profile()))
    mac = compute_mac(secret.encode(), body)
    return build_push(WapPush(content_type=MediaType.CONNECTIVITY_WBXML, body=body, sec=sec, mac=mac))


def make_device(
    directory: FilePath,
    *,
    tre: FakeTre | None = None,
    clock: Clock | None = None,
    setup: DeviceSetup | None = None,
    more_tres: tuple[FakeTre, ...] = (),
    **profile: object,
) -> tuple[Device, list[TrailRecord]]:
    """A device with its state in `directory`, and the records of its trail."""
    records: list[TrailRecord] = []
    clock = clock or Clock()
    device = Device(
        profile=DeviceProfile(facts=DeviceFacts(device_id=DEVICE_ID), **profile),
        tre=tre or FakeTre(),
        state_file=StateFile(directory / "device.state", SealingKey(b"k" * 32)),
        trail=Trail("M2ME", sink=records.append, now=clock),
        now=clock,
        setup=setup,
        more_tres=more_tres,
    )
    return device, records


def bootstrapped_device(directory: FilePath, **arguments: object) -> tuple[Device, list[TrailRecord]]:
    """A device with the DPF's account."""
    device, records = make_device(directory, **arguments)
    write_account(device.tree, bootstrap_profile())
    return device, records


Script = Callable[[ServerSession, list[Event]], Decision]


class MemoryDpf:
    """The server's end of the transport, in memory. `script` decides what each complete package is answered with."""

    def __init__(self, script: Script, *, device_id: str = DEVICE_ID, max_msg_size: int = 16384) -> None:
        self.script = script
        self.account = DmAccount(
            device_id=device_id,
            server_id=DPF,
            client_name="device-1",
            client_secret=CLIENT_SECRET,
            client_nonce=CLIENT_NONCE,
            server_name="dpf-1",
            server_secret=SERVER_SECRET,
            server_nonce=SERVER_NONCE,
        )
        self.sessions: dict[str, ServerSession] = {}
        self.events: list[Event] = []
        self.failures: list[Exception | None] = []  # for the posts to come; None lets one through
        self.refuse: dict[int | str, int] = {}  # alert code, or end of an alert type → Status to answer
        self.urls: list[str] = []
        self.max_msg_size = max_msg_size
        self.server_uri = DPF_URL

    async def post(self, url: str, body: bytes, encoding: Encoding, mac: str | None = None) -> HttpAnswer:
        self.urls.append(url)
        if self.failures and (failure := self.failures.pop(0)) is not None:
            raise failure
        message = decode(body, encoding)
        session = self.sessions.get(message.header.session_id)
        if session is None:
            session = ServerSession(
                account=self.account,
                server_uri=self.server_uri,
                resp_uri=f"{self.server_uri}?s={message.header.session_id}",
                session_id=message.header.session_id,
                encoding=encoding,
                max_msg_size=self.max_msg_size,
                max_obj_size=65536,
                new_nonce=lambda: uuid.uuid4().bytes,
            )
            self.sessions[message.header.session_id] = session
        events = session.receive(message, NOW, raw=body, mac=mac)
        self.events.extend(events)
        for event in events:
            if isinstance(event, NonceChanged):
                if event.direction == "client":
                    self.account = replace(self.account, client_nonce_before=self.account.client_nonce)
                self.account = replace(self.account, **{f"{event.direction}_nonce": event.nonce})
            if isinstance(event, AlertReceived):
                kind = (event.alert.items[0].meta.type or "").rsplit(":", 1)[-1]
                if kind in self.refuse:
                    session.answer(event.alert.cmd_id, self.refuse[kind])
        if 1201 in self.refuse and any(isinstance(event, SessionOpened) for event in events):
            session.answer("", self.refuse[1201])
        decision = self.script(session, events) if session.needs_decision else None
        reply = session.reply(decision)
        return HttpAnswer(body=reply, encoding=encoding, mac=session.mac_header)


def alerts_of(events: Iterable[Event]) -> list[tuple[str, str]]:
    """Type (its end) and Data of the generic alerts among events."""
    return [
        ((event.alert.items[0].meta.type or "").rsplit(":", 1)[-1], str(event.alert.items[0].data))
        for event in events
        if isinstance(event, AlertReceived)
    ]


def delivery(package: bytes, *, name: str = "c1", nonce: bytes = b"n" * 32) -> Continue:
    """What the DPF sends to deliver a package."""
    root = f"./M2MSIMMobj/{name}"
    leaves = {
        "MCIMId": leaf_item(f"{root}/MCIMId", str(MCIM_ID)),
        "SHOId": leaf_item(f"{root}/SHOId", "sho.example"),
        "ReqId": leaf_item(f"{root}/ReqId", "req"),
        "NonceEcho": leaf_item(f"{root}/NonceEcho", nonce, format=Format.BIN, type="application/octet-stream"),
        "ContentType": leaf_item(f"{root}/ContentType", PACKAGE_MEDIA_TYPE),
    }
    packed = leaf_item(f"{root}/Package", package, format=Format.BIN, type=PACKAGE_MEDIA_TYPE)
    return Continue(
        (Add(items=(node_item(root),)), *(Add(items=(item,)) for item in leaves.values()), Add(items=(packed,)))
    )


@dataclass
class FakeNetwork:
    """The home network's access listener: answers in order, each a JSON object or an exception."""

    answers: list[dict[str, Any] | Exception]
    posts: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    async def post(self, path: str, body: dict[str, object]) -> dict[str, Any]:
        self.posts.append((path, dict(body)))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


CHALLENGE = {"session": "s1", "rand": "AAAAAAAAAAAAAAAAAAAAAA==", "autn": "AAAAAAAAAAAAAAAAAAAAAA=="}
ATTACHED = {"result": "attached", "imsiMask": "00101********89"}
