"""A device of a few dictionaries: its tree, what it does by itself, the receipts and alerts it sends."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import uuid
from dataclasses import dataclass, field

from dmserver.orders import Order
from mcim.package_header import PackageHeader, peek_header
from mcim.receipt import Receipt, sign_receipt
from mcim.statements import raw_signature
from mcim.vocabulary import (
    ContainerState,
    RegistrationState,
    ResultCode,
)
from mo_definitions import ALERT_ROOT, M2M_OBJECT, M2MSIM_OBJECT
from syncml.client_session import CommandResult
from syncml.codes import AlertCode, Format
from syncml.model import Add, Alert, Command, Delete, Exec, Get, Item, Meta, Replace, Sequence
from syncml.values import item_value, leaf_item
from tests.support_dpf_pki import M2ME_ID, NOW, TRE_ID, pki

HOLDS_MCIM = ("30", "40", "50")
OPERATIONS = {"Activate": ("30", "50"), "Suspend": ("40",), "Delete": HOLDS_MCIM}  # → states they are legal in


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
