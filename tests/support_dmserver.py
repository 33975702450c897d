"""A DPF in memory for tests: its certificates, partners that answer as told, and a device of a few dictionaries."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import os
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding as CertEncoding
from lxml import etree

from actor_runtime.sealing import SealingKey
from actor_runtime.store import Store
from actor_runtime.trail import Trail, TrailRecord
from actor_runtime.trail_store import append_record
from dmserver.admission import Admission
from dmserver.asks import (
    Ask,
    AskChallenge,
    AskJob,
    AskPackage,
    AskTicket,
    ChallengeGiven,
    Outcome,
    PackageGiven,
    PackageLater,
    ReportAcknowledged,
    TellSho,
    TicketGiven,
)
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
from mcim.authority import Authority
from mcim.certificates import Role, TrustAnchors
from mcim.key_id import key_id_of
from mcim.package_header import PackageHeader, peek_header
from mcim.receipt import Receipt, sign_receipt
from mcim.statements import raw_signature
from mcim.ticket import Ticket, issue_ticket, ticket_digest
from mcim.vocabulary import (
    MCIM_NAMESPACE,
    ContainerState,
    RegistrationState,
    ResultCode,
    Suite,
    ValidationMode,
)
from mcim.xml_header import header_element
from mo_definitions import ALERT_ROOT, M2M_OBJECT, M2MSIM_OBJECT, load
from syncml.accounts import ClientAccount
from syncml.client_session import ClientSession, CommandResult
from syncml.codec import Encoding, decode
from syncml.codes import AlertCode, Format
from syncml.model import Add, Alert, Command, Delete, Exec, Get, Item, Meta, Replace, Sequence
from syncml.session import CommandReceived, NonceChanged
from syncml.values import item_value, leaf_item
from syncml.wap_push import WapPush

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
DPF_ID, SHO_ID, PVA_ID = "dpf.example", "sho.example", "urn:m2m:pva:example"
M2ME_ID, TRE_ID = "urn:imei:490154203237518", "urn:m2m:tre:0001"
DM_URL = "https://dpf.example/dm"
PUSH = "udp:127.0.0.1:2948"
HOLDS_MCIM = ("30", "40", "50")
OPERATIONS = {"Activate": ("30", "50"), "Suspend": ("40",), "Delete": HOLDS_MCIM}  # → states they are legal in


# --- certificates -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Pki:
    """Manufacturer and PVA, and one device's certificates. Keys are made once per process: RSA is slow."""

    manufacturer_root: Authority
    manufacturer: Authority
    platform_key: rsa.RSAPrivateKey
    attest_key: ec.EllipticCurvePrivateKey
    pva_root: Authority
    pva_key: ec.EllipticCurvePrivateKey
    pva_cert: x509.Certificate

    @property
    def manufacturers(self) -> TrustAnchors:
        return TrustAnchors((self.manufacturer_root.certificate,), "manufacturer")

    @property
    def pvas(self) -> TrustAnchors:
        return TrustAnchors((self.pva_root.certificate,), "pva")

    @property
    def chain(self) -> tuple[bytes, ...]:
        return tuple(der(certificate) for certificate in self.manufacturer.intermediates)

    def platform_cert(
        self,
        *,
        ca: Authority | None = None,
        role: Role = Role.PLATFORM,
        key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | None = None,
        tre_id: str = TRE_ID,
        m2me_id: str = M2ME_ID,
        issued: datetime = NOW - timedelta(days=30),
        life: timedelta = timedelta(days=3650),
    ) -> bytes:
        public = key or self.platform_key.public_key()
        ca = ca or self.manufacturer
        return der(ca.issue_platform(role, public, tre_id=tre_id, m2me_id=m2me_id, now=issued, life=life))

    def attest_cert(self, *, m2me_id: str = M2ME_ID) -> bytes:
        return self.platform_cert(role=Role.ATTEST, key=self.attest_key.public_key(), m2me_id=m2me_id)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(CertEncoding.DER)


@functools.cache
def pki() -> Pki:
    made = NOW - timedelta(days=60)
    root = Authority.create_root("Manufacturer root", made)
    pva_root = Authority.create_root("PVA root", made)
    pva_key = ec.generate_private_key(ec.SECP256R1())
    return Pki(
        manufacturer_root=root,
        manufacturer=root.create_subordinate("Manufacturer CA", made),
        platform_key=rsa.generate_private_key(public_exponent=65537, key_size=2048),
        attest_key=ec.generate_private_key(ec.SECP256R1()),
        pva_root=pva_root,
        pva_key=pva_key,
        pva_cert=pva_root.issue_role(Role.PVA, pva_key.public_key(), identity=PVA_ID, now=made),
    )


def rules(mode: ValidationMode = ValidationMode.SEMI_AUTONOMOUS, **changes: object) -> Rules:
    plain = Rules(
        server_id=DPF_ID,
        mode=mode,
        manufacturers=pki().manufacturers,
        pvas=pki().pvas,
        pva_id=PVA_ID,
        crls=tuple,
        ddf=load("M2MMobj"),
    )
    return dataclasses.replace(plain, **changes)


# --- partners ---------------------------------------------------------------------------------------------------------


def ticket_for(ask: AskTicket, now: datetime = NOW, **changes: object) -> str:
    """What the PVA signs; `changes` make it wrong."""
    platform_key = x509.load_der_x509_certificate(ask.platform_cert).public_key()
    attest_key = x509.load_der_x509_certificate(ask.attest_cert).public_key()
    ticket = Ticket(
        issuer=PVA_ID,
        audience=ask.audience,
        tre_id=ask.tre_id,
        m2me_id=ask.m2me_id,
        req_id=ask.req_id,
        nonce=ask.nonce,
        platform_key_id=key_id_of(platform_key),
        attest_key_id=key_id_of(attest_key),
        mode=ask.mode,
        tre_type="software",
        tre_version="1.0",
        issued_at=now,
        expires_at=now + timedelta(minutes=30),
        ticket_id=str(uuid.uuid4()),
    )
    return issue_ticket(dataclasses.replace(ticket, **changes), pki().pva_key, [pki().pva_cert])


def package_for(ask: AskPackage, now: datetime = NOW, *, filling: int = 2000, **changes: object) -> PackageGiven:
    """A package with a right header and random octets for the rest: all a DPF can see. `changes` make it wrong."""
    header = PackageHeader(
        transaction_id=uuid.uuid4(),
        sequence=ask.next_sequence,
        registration_nonce=ask.nonce,
        m2me_id=ask.m2me_id,
        tre_id=ask.tre_id,
        platform_key_id=key_id_of(pki().platform_key.public_key()),
        sho_id=ask.sho_id,
        dpf_id=ask.dpf_id,
        operation=ask.operation,
        mcim_id=uuid.UUID(ask.mcim_id) if ask.mcim_id else uuid.uuid4(),
        suite=Suite.RSA_GCM_256,
        not_before=now,
        not_after=now + timedelta(days=1),
        ticket_digest=ticket_digest(ask.ticket),
    )
    header = dataclasses.replace(header, **changes)
    root = etree.Element(f"{{{MCIM_NAMESPACE}}}M2MSIMPackage", nsmap={None: MCIM_NAMESPACE}, version="1")
    root.append(header_element(header))
    etree.SubElement(root, "Opaque").text = base64.b64encode(os.urandom(filling)).decode()
    package = etree.tostring(root)
    return PackageGiven(
        package=package,
        mcim_id=str(header.mcim_id),
        sequence=header.sequence,
        package_hash=hashlib.sha256(package).hexdigest(),
        operation=header.operation.label,
    )


@dataclass
class FakePartners:
    """PVA and home operator. `answers` replaces what is said to one kind of ask; every ask is kept."""

    clock: Callable[[], datetime] = lambda: NOW
    answers: dict[type, Callable[[Ask], Outcome]] = field(default_factory=dict)
    asked: list[Ask] = field(default_factory=list)

    async def ask(self, ask: Ask) -> Outcome:
        return self.answer(ask)

    def answer(self, ask: Ask) -> Outcome:
        self.asked.append(ask)
        if type(ask) in self.answers:
            return self.answers[type(ask)](ask)
        match ask:
            case AskChallenge():
                return ChallengeGiven(challenge=os.urandom(32), expires_at=self.clock() + timedelta(minutes=5))
            case AskTicket():
                return TicketGiven(ticket=ticket_for(ask, self.clock()))
            case AskPackage():
                return package_for(ask, self.clock())
            case AskJob():
                return PackageLater(job=ask.job, retry_after_s=30)
            case TellSho():
                return ReportAcknowledged(subscription="armed" if ask.receipt else "none")

    def kinds(self) -> list[str]:
        return [type(ask).__name__ for ask in self.asked]


# --- a device ---------------------------------------------------------------------------------------------------------


@dataclass
class Node:
    value: str | bytes
    format: str = Format.CHR
    type: str = "text/plain"


@dataclass
class StubDevice:
    """Management tree in a dictionary, and a TRE that says what it is told to."""

    nodes: dict[str, Node] = field(default_factory=dict)
    renewals: int = 0
    generate_code: int = 200
    install: ResultCode | None = ResultCode.SUCCESS  # None: the package stays received
    seen: list[Command] = field(default_factory=list)
    refuse: dict[str, int] = field(default_factory=dict)  # end of a node's path → Status to any command on it
    log: bytes = b""  # measurement log, made with the evidence
    at_once: bool = False  # life-cycle operations are done when the Exec is answered
    states: dict[str, str] = field(default_factory=dict)  # container → state before an update came
    pending: list[tuple[str, str, str | None]] = field(default_factory=list)  # container, operation, correlator
    correlator: str | None = None  # of the last Exec
    m2m: str = "M2MMobj"
    sim: str = "M2MSIMMobj"

    def __post_init__(self) -> None:
        self.put("DevInfo/DevId", M2ME_ID)
        leaves: dict[str, str | bytes] = {
            "M2MEId": M2ME_ID,
            "TRE/Id": TRE_ID,
            "TRE/Type": "software",
            "TRE/Version": "1.0",
            "TRE/State": "ok",
            "TRE/Suites": "MCIM-RSA-GCM-256 MCIM-RSA-CBC-256",
            "TRE/Containers": "xml",
            "TRE/Algorithms": "milenage",
            "TRE/TrustAnchors": "aa" * 20,
            "TRE/PlatformCert": pki().platform_cert(),
            "TRE/AttestCert": pki().attest_cert(),
            "TRE/CertChain/0": pki().chain[0],
            "Registration/Reason": "initial",
            "Registration/SHO": "",
            "Attestation/Mode": "semi-autonomous",
            "Attestation/Challenge": b"",
            "PCID": "001019876543210",
        }
        for path, value in leaves.items():
            self.put(f"{self.m2m}/{path}", value)
        for path, number in {"Registration/NextSequence": 1, "Status/Result": 0, "Status/MCIMCount": 0}.items():
            self.put(f"{self.m2m}/{path}", str(number), Format.INT)
        for path in ("Registration/Renew", "Attestation/Generate"):
            self.put(f"{self.m2m}/{path}", "", Format.NULL)
        self.new_request()
        for root, identifier in ((self.sim, M2MSIM_OBJECT), (self.m2m, M2M_OBJECT)):
            self.put(root, "", Format.NODE)
            self.nodes[root] = Node("", Format.NODE, identifier)

    def put(self, path: str, value: str | bytes, format: str | None = None) -> None:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            self.nodes.setdefault("/".join(parts[:depth]), Node("", Format.NODE, ""))
        octets = isinstance(value, bytes)
        kind = "application/pkix-cert" if path.split("/")[-1].endswith("Cert") or "CertChain" in path else ""
        self.nodes[path] = Node(
            value, format or (Format.BIN if octets else Format.CHR), kind or ("" if octets else "text/plain")
        )

    def new_request(self) -> None:
        self.put(f"{self.m2m}/Registration/ReqId", str(uuid.uuid4()))
        self.put(f"{self.m2m}/Registration/Nonce", os.urandom(32))
        self.put(f"{self.m2m}/Registration/State", str(int(RegistrationState.REQUESTED)), Format.INT)

    def value(self, path: str) -> str | bytes:
        return self.nodes[f"{self.m2m}/{path}"].value

    def containers(self) -> list[str]:
        below = len(self.sim) + 1
        return sorted({path[below:].split("/")[0] for path in self.nodes if path.startswith(f"{self.sim}/")})

    # -- commands

    def execute(self, command: Command) -> list[CommandResult]:
        self.seen.append(command)
        if isinstance(command, Sequence):
            return [CommandResult(cmd_id=command.cmd_id, code=200)] + [
                result for child in command.commands for result in self.execute(child)
            ]
        results = []
        for item in getattr(command, "items", ()):
            results.append(self._one(command, item))
        return results

    def _one(self, command: Command, item: Item) -> CommandResult:
        uri, _, query = (item.target or "").partition("?")
        path = uri.removeprefix("./")
        found: Item | None = None
        refused = next((code for end, code in self.refuse.items() if path.endswith(end)), None)
        code = refused or 200
        if refused is None:
            match command:
                case Get():
                    code, found = self._get(item.target or "", path, query)
                case Add():
                    code = self._add(path, item, command.meta)
                case Replace():
                    code = self._replace(path, item, command.meta)
                case Delete():
                    code = 200 if path in self.nodes else 404
                    self.nodes = {k: v for k, v in self.nodes.items() if k != path and not k.startswith(f"{path}/")}
                case Exec():
                    self.correlator = command.correlator
                    code = self._exec(path)
        return CommandResult(cmd_id=command.cmd_id, code=code, target=item.target, item=found)

    def _get(self, target: str, path: str, query: str) -> tuple[int, Item | None]:
        if path == ".":
            names = dict.fromkeys(key.split("/")[0] for key in self.nodes)
            return 200, self._results(target, "/".join(names), Format.NODE)
        node = self.nodes.get(path)
        if node is None:
            return 404, None
        if query == "prop=Type":
            return 200, self._results(target, node.type, Format.CHR)
        if node.format == Format.NULL or path.endswith(("/Package", "/Command")):
            return 405, None
        if node.format == Format.NODE:
            below = [key[len(path) + 1 :] for key in self.nodes if key.startswith(f"{path}/")]
            names = dict.fromkeys(key.split("/")[0] for key in below)
            return 200, self._results(target, "/".join(names), Format.NODE)
        return 200, self._results(target, node.value, node.format, node.type)

    @staticmethod
    def _results(target: str, value: str | bytes, format: str, type: str = "text/plain") -> Item:
        item = leaf_item(target, value, format=Format(format), type=type or "text/plain")
        return dataclasses.replace(item, target=None, source=target)

    def _add(self, path: str, item: Item, meta: Meta | None) -> int:
        if path in self.nodes:
            return 418
        if path.rpartition("/")[0] not in self.nodes:
            return 404
        if item.meta is not None and item.meta.format == Format.NODE:
            self.put(f"{path}/State", "0", Format.INT)
            self.put(f"{path}/Result", "0", Format.INT)
            for name in ("Provision", *OPERATIONS):
                self.put(f"{path}/Operations/{name}", "", Format.NULL)
            return 200
        self.put(path, item_value(item, meta), item.meta.format if item.meta else None)
        self._arrived(path)
        return 200

    def _arrived(self, path: str) -> None:
        if path.endswith("/Package"):
            container = path.rpartition("/")[0]
            state = self.nodes[f"{container}/State"]
            if str(state.value) in HOLDS_MCIM:
                self.states[container] = str(state.value)
            state.value = str(int(ContainerState.RECEIVED))

    def _replace(self, path: str, item: Item, meta: Meta | None) -> int:
        if path not in self.nodes:
            return 404
        self.nodes[path].value = item_value(item, meta)
        self._arrived(path)
        return 200

    def _exec(self, path: str) -> int:
        container, _, operation = path.partition("/Operations/")
        if operation in OPERATIONS:
            if path not in self.nodes:
                return 404
            if str(self.nodes[f"{container}/State"].value) not in OPERATIONS[operation]:
                self.nodes[f"{container}/Result"].value = str(int(ResultCode.WRONG_STATE))
                return 405
            self.nodes[f"{container}/Result"].value = str(int(ResultCode.RUNNING))
            self.pending.append((container, operation, self.correlator))
            if self.at_once:
                self.operate()
                return 200
            return 202
        if path.endswith("/Renew"):
            self.renewals += 1
            self.new_request()
        elif path.endswith("/Generate") and self.generate_code == 200:
            self.put(f"{self.m2m}/Attestation/Evidence", b"evidence")
            if self.log:
                self.put(f"{self.m2m}/Attestation/Log", self.log)
        elif path.endswith("/Provision"):
            self.provision()
            return 202
        return self.generate_code if path.endswith("/Generate") else 200

    # -- the TRE

    def provision(self, **changes: object) -> Alert | None:
        """What the device does by itself after a session with a complete package in it; the alert to send."""
        for name in self.containers():
            container = f"{self.sim}/{name}"
            if self.install is None or self.nodes[f"{container}/State"].value != str(int(ContainerState.RECEIVED)):
                continue
            success = self.install in (ResultCode.SUCCESS, ResultCode.ALREADY_DONE)
            before = self.states.pop(container, str(int(ContainerState.ACTIVATED)))
            self.nodes[f"{container}/State"].value = before if success else str(int(ContainerState.FAILED))
            self.nodes[f"{container}/Result"].value = str(int(self.install))
            self.put(f"{container}/Receipt", self.receipt(name, **({"result": self.install} | changes)))
            if success:
                self._consumed(container, "Package")
            return alert("ProvisioningComplete", str(int(self.install)), f"./{container}/Operations/Provision")
        return None

    def operate(self, **changes: object) -> Alert | None:
        """Life-cycle operations that were accepted, as they are done after a session; the last alert."""
        told = None
        while self.pending:
            container, operation, correlator = self.pending.pop(0)
            result = self.install or ResultCode.SUCCESS
            done = {"Activate": ContainerState.ACTIVATED, "Suspend": ContainerState.SUSPENDED}
            made = self.receipt(container.rpartition("/")[2], "Command", **({"result": result} | changes))
            self.put(f"{container}/Receipt", made)
            self.nodes[f"{container}/Result"].value = str(int(result))
            if result in (ResultCode.SUCCESS, ResultCode.ALREADY_DONE):
                self.nodes[f"{container}/State"].value = str(int(done.get(operation, ContainerState.DELETED)))
                self._consumed(container, "Command")
            told = alert("LifecycleComplete", str(int(result)), f"./{container}/Operations/{operation}")
            told = dataclasses.replace(told, correlator=correlator)
        return told

    def _consumed(self, container: str, leaf: str) -> None:
        """The TRE took it: its nonce and sequence number are used up, the registration has served."""
        sequence = header_of(self.nodes[f"{container}/{leaf}"].value).sequence
        self.put(f"{self.m2m}/Registration/NextSequence", str(sequence + 1), Format.INT)
        self.put(f"{self.m2m}/Registration/State", str(int(RegistrationState.PROVISIONED)), Format.INT)
        del self.nodes[f"{container}/{leaf}"]

    def receipt(self, name: str, leaf: str = "Package", **changes: object) -> bytes:
        container = f"{self.sim}/{name}"
        package = self.nodes[f"{container}/{leaf}"].value
        header = header_of(package)
        assert isinstance(package, bytes)
        made = Receipt(
            tre_id=TRE_ID,
            operation=header.operation,
            mcim_id=header.mcim_id,
            sho_id=header.sho_id,
            sequence=header.sequence,
            nonce=header.registration_nonce,
            revision=1,
            package_hash=hashlib.sha256(package).digest(),
            result=ResultCode.SUCCESS,
            counter=1,
            time=NOW,
        )
        return signed_receipt(dataclasses.replace(made, **changes))


def header_of(package: str | bytes) -> PackageHeader:
    assert isinstance(package, bytes)
    return peek_header(package)


def signed_receipt(receipt: Receipt) -> bytes:
    return sign_receipt(receipt, functools.partial(raw_signature, pki().attest_key))


def fall_back_receipt(order: Order, **changes: object) -> bytes:
    """What the TRE says of the package of an order when the network did not take the MCIM in it."""
    made = Receipt(
        tre_id=TRE_ID,
        operation=order.operation,
        mcim_id=uuid.UUID(order.mcim_id),
        sho_id=order.sho_id,
        sequence=order.sequence,
        nonce=order.nonce,
        revision=1,
        package_hash=bytes.fromhex(order.package_hash or ""),
        result=ResultCode.FELL_BACK,
        counter=9,
        time=NOW,
    )
    return signed_receipt(dataclasses.replace(made, **changes))


def alert(name: str, data: str, source: str) -> Alert:
    """A generic alert of the device."""
    meta = Meta(format="chr", type=f"{ALERT_ROOT}:{name}", mark="informational")
    return Alert(code=AlertCode.GENERIC_ALERT, items=(Item(source=source, meta=meta, data=data),))


def registration_alert(device: StubDevice) -> Alert:
    return alert("RegistrationRequest", str(device.value("Registration/ReqId")), "./M2MMobj/Registration")


def attach_alert(device: StubDevice, code: int = 1200, container: str | None = None) -> Alert:
    """About the newest container, when no other is named."""
    name = container or (device.containers() or ["none"])[-1]
    return alert("NetworkAttach", str(code), f"./{device.sim}/{name}")


# --- the DPF ----------------------------------------------------------------------------------------------------------


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

        self.trail = Trail("DPF", sink=keep, now=self.clock)
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
        return await self.run(device, self.client(device, *alerts, session_id=session_id, **options))  # type: ignore[arg-type]  # options of `client`
