"""A device for tests: a TRE that keeps the Protocol and does no cryptography, and a tree with all objects."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from dmclient.management_tree import ManagementTree
from dmclient.nodes import Path
from dmclient.objects.device import DeviceFacts, build_device_objects
from dmclient.objects.m2m import M2M, M2MFacts, M2MObject
from dmclient.objects.m2msim import M2MSIM, M2MSimObject
from dmclient.tre.base import NEVER, CheckRecord, Hints, McimInfo, Outcome, Registration, TreError, TreFacts
from mcim.aka import Accepted, MacFailure, SyncFailure
from mcim.vocabulary import ContainerState, RegistrationState, ResultCode, Suite, ValidationMode
from syncml.tree import Acl

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
DEVICE_ID = "urn:imei:004999010640000"
DPF = "dpf.example"
OTHER = "other.example"
MCIM_ID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
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


@dataclass
class FakeTre:
    """Keeps the TRE Protocol. A package `b"good…"` installs, any other fails with `refusal`."""

    refusal: ResultCode = ResultCode.SIGNATURE_INVALID
    initial_state: ContainerState = ContainerState.ACTIVATED
    installed: list[McimInfo] = field(default_factory=list)
    provisioned: list[tuple[bytes, Hints]] = field(default_factory=list)
    aka: list[Accepted | SyncFailure | MacFailure] = field(default_factory=list)
    last_receipt: bytes | None = None
    open_request: Registration = field(default_factory=lambda: IDLE)
    condition: str = "ok"
    max_package: int = 65536

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
            platform_key_id=b"\x01" * 16,
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
        self.last_receipt = b"receipt " + package[:4]
        if not package.startswith(b"good"):
            self.open_request = replace(self.open_request, state=RegistrationState.FAILED)
            refused = CheckRecord(name="package-signature", passed=False, req=("REQ-50",))
            return Outcome(code=self.refusal, receipt=self.last_receipt, mcim=None, checks=(refused,))
        mcim = installed(self.initial_state)
        self.installed.append(mcim)
        self.open_request = replace(self.open_request, state=RegistrationState.PROVISIONED, nonce=b"")
        passed = CheckRecord(name="package-signature", passed=True, req=("REQ-50",))
        return Outcome(code=ResultCode.SUCCESS, receipt=self.last_receipt, mcim=mcim, checks=(passed,))

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
