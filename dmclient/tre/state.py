"""Everything a TRE remembers, as one frozen value; it turns into JSON only on its way into the seal."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from dmclient.tre.base import NEVER, McimInfo, Registration
from dmclient.tre.keys import KeyBlobs
from dmclient.tre.profiles import ALGORITHMS
from dmclient.tre.token import TokenVerifier
from mcim.aka import EPS_AMF, UsimState
from mcim.network_keys import NetworkKeys
from mcim.vocabulary import (
    AlgorithmId,
    Container,
    ContainerState,
    McimPolicy,
    Operation,
    RegistrationState,
    ResultCode,
    Suite,
)

FORMAT: Final = 3
MAX_TOMBSTONES: Final = 256  # the oldest goes first; its package is still held off by the home operator's sequence
_THREE_DIGIT_MNC: Final = frozenset({"302", "334", *(str(mcc) for mcc in range(310, 317))})  # ITU-T E.212, America
OPEN_STATES: Final = (RegistrationState.REQUESTED, RegistrationState.PACKAGE_RECEIVED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The package that gave an MCIM its present values: the receipt of a fall-back repeats it."""

    operation: Operation
    sequence: int
    nonce: bytes = field(repr=False)
    package_hash: bytes  # SHA-256


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMcim:
    """An installed MCIM with its secrets."""

    mcim_id: UUID
    sho_id: str
    state: ContainerState
    revision: int
    sequence: int  # of the last package or command accepted for it
    not_after: datetime
    imsi: str = field(repr=False)
    keys: NetworkKeys = field(repr=False)
    usim: UsimState = field(repr=False)
    origin: Origin
    amf: bytes = EPS_AMF
    policy: McimPolicy = McimPolicy.SIGNED_LIFECYCLE
    previous: StoredMcim | None = field(default=None, repr=False)  # values before an update that no attach proved yet
    fall_back_to: UUID | None = None  # the one that was active before, until an attach with this one succeeded
    released_to: str | None = None  # home operator that may delete it, by a release token of its own one

    @property
    def confirmed(self) -> bool:
        """Whether there is nothing left to go back to."""
        return self.previous is None and self.fall_back_to is None

    def info(self) -> McimInfo:
        """What may be shown of it."""
        return McimInfo(
            mcim_id=self.mcim_id,
            sho_id=self.sho_id,
            state=self.state,
            revision=self.revision,
            sequence=self.sequence,
            not_after=self.not_after,
            imsi_mask=mask_imsi(self.imsi),
            policy=self.policy,
            confirmed=self.confirmed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """What is kept of a deleted MCIM, so that it cannot come back (REQ-70)."""

    mcim_id: UUID
    sho_id: str
    sequence: int  # highest accepted for it
    released_to: str | None = None  # see `StoredMcim`


@dataclass(frozen=True, slots=True, kw_only=True)
class LastAction:
    """What became of the last package or command; its receipt is `TreState.last_receipt`."""

    digest: bytes  # SHA-256 of it
    code: ResultCode
    mcim_id: UUID | None = None  # the MCIM it made or changed


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationRecord:
    """The request and its nonce. The nonce is public towards the SHO, and still nobody needs it in a log."""

    req_id: str = ""
    nonce: bytes = field(default=b"", repr=False)
    nonce_expiry: datetime = NEVER
    state: RegistrationState = RegistrationState.IDLE
    reason: str = "initial"
    sho_id: str | None = None
    crypto_failures: int = 0  # packages that did not open under this nonce

    @property
    def is_open(self) -> bool:
        """Whether its nonce can still be used, apart from expiry."""
        return self.state in OPEN_STATES

    def closed(self, state: RegistrationState) -> RegistrationRecord:
        """The record after its nonce is consumed or worthless."""
        return replace(self, state=state, nonce=b"", nonce_expiry=NEVER)


@dataclass(frozen=True, slots=True, kw_only=True)
class TreState:
    """The whole state. One write replaces all of it, so no two parts can disagree after a power cut."""

    m2me_id: str
    tre_id: str
    tre_type: str
    version: str
    vendor: str
    condition: str = "ok"  # M2MMobj/TRE/State
    suites: tuple[Suite, ...]
    containers: tuple[Container, ...] = (Container.XML,)
    algorithms: tuple[str, ...] = ALGORITHMS
    code_formats: tuple[str, ...] = ()
    max_package: int = 64 * 1024  # octets
    max_mcim: int
    key_store: str = "software"  # name of the back-end that can read the next two
    platform_key: bytes = field(repr=False)  # see `dmclient.tre.keys.KeyBlobs`
    attest_key: bytes = field(repr=False)
    platform_cert: bytes | None = field(default=None, repr=False)
    attest_cert: bytes | None = field(default=None, repr=False)
    cert_chain: tuple[bytes, ...] = field(default=(), repr=False)
    sho_anchors: tuple[bytes, ...] = field(default=(), repr=False)
    supplier_anchors: tuple[bytes, ...] = field(default=(), repr=False)  # roots for supplier commands
    supplier_counter: int = 0  # of the last supplier command
    registration: RegistrationRecord = RegistrationRecord()
    sequences: tuple[tuple[str, int], ...] = ()  # highest sequence accepted, by SHO id
    mcims: tuple[StoredMcim, ...] = ()
    tombstones: tuple[Tombstone, ...] = ()  # oldest first
    generation: int = 0  # goes up with every write; the key store's counter follows it (T3)
    counter_limit: int = 0  # no statement with a counter above this has left; see `TreMemory`
    last_receipt: bytes | None = field(default=None, repr=False)
    last_action: LastAction | None = None
    token: TokenVerifier | None = None
    next_keys: KeyBlobs | None = None  # of a re-keying under way, see `dmclient.tre.rekeying`

    def next_sequence(self, sho_id: str | None) -> int:
        """Lowest sequence number accepted from that SHO (REQ-53)."""
        return dict(self.sequences).get(sho_id or "", 0) + 1

    def mcim(self, mcim_id: UUID) -> StoredMcim | None:
        """The MCIM of that id."""
        return next((each for each in self.mcims if each.mcim_id == mcim_id), None)

    def active(self) -> StoredMcim | None:
        """The MCIM used for network access."""
        return next((each for each in self.mcims if each.state is ContainerState.ACTIVATED), None)

    def tombstone(self, mcim_id: UUID) -> Tombstone | None:
        """What is left of a deleted MCIM."""
        return next((each for each in self.tombstones if each.mcim_id == mcim_id), None)

    def registration_view(self) -> Registration:
        """The request as M2MMobj shows it."""
        record = self.registration
        return Registration(
            req_id=record.req_id,
            nonce=record.nonce,
            nonce_expiry=record.nonce_expiry,
            state=record.state,
            reason=record.reason,
            sho_id=record.sho_id,
            next_sequence=self.next_sequence(record.sho_id),
        )

    def with_mcim(self, mcim: StoredMcim) -> TreState:
        """With a new or changed MCIM; at most one is activated, so an activated one suspends the other."""
        others = tuple(each for each in self.mcims if each.mcim_id != mcim.mcim_id)
        if mcim.state is ContainerState.ACTIVATED:
            others = tuple(
                replace(each, state=ContainerState.SUSPENDED) if each.state is ContainerState.ACTIVATED else each
                for each in others
            )
        return replace(self, mcims=(*others, mcim))

    def without_mcim(self, mcim: StoredMcim) -> TreState:
        """With the secrets of an MCIM gone and its tombstone set; nobody falls back to it any more."""
        stone = Tombstone(
            mcim_id=mcim.mcim_id, sho_id=mcim.sho_id, sequence=mcim.sequence, released_to=mcim.released_to
        )
        others = tuple(
            replace(each, fall_back_to=None) if each.fall_back_to == mcim.mcim_id else each
            for each in self.mcims
            if each.mcim_id != mcim.mcim_id
        )
        return replace(self, mcims=others, tombstones=(*self.tombstones, stone)[-MAX_TOMBSTONES:])

    def with_command(self, mcim_id: UUID, sho_id: str, sequence: int) -> TreState:
        """With the sequence number of a command noted at the MCIM it is for, if its own home operator signed it."""
        mcim = self.mcim(mcim_id)
        if mcim is None or mcim.sho_id != sho_id:
            return self
        return self.with_mcim(replace(mcim, sequence=sequence))

    def with_sequence(self, sho_id: str, sequence: int) -> TreState:
        """With a sequence number of that home operator used up (REQ-53)."""
        highest = max(sequence, dict(self.sequences).get(sho_id, 0))
        return replace(self, sequences=tuple(sorted({**dict(self.sequences), sho_id: highest}.items())))

    def dump(self) -> bytes:
        """The state as octets; only a seal may take them."""
        return json.dumps({"format": FORMAT, **_plain(self)}).encode()

    @classmethod
    def load(cls, octets: bytes) -> TreState:
        """Reverse of `dump`.

        Raises:
            ValueError: not what `dump` writes; the seal vouches for the octets, so this is another version's file.
        """
        try:
            entry = json.loads(octets)
            if entry.pop("format") != FORMAT:
                raise ValueError("format")
            return _state(entry)
        except (KeyError, TypeError, AttributeError, ValueError):
            # Not the text of the cause: it could quote the plaintext.
            raise ValueError("the TRE store has an unknown format") from None


def mask_imsi(imsi: str) -> str:
    """MCC and MNC, stars, and the last two digits, for example 00101********89; at least four digits are hidden."""
    head = 6 if imsi[:3] in _THREE_DIGIT_MNC else 5
    head = max(min(head, len(imsi) - 6), 0)
    return imsi[:head] + "*" * (len(imsi) - head - 2) + imsi[-2:]


def _text(octets: bytes | None) -> str | None:
    return None if octets is None else base64.b64encode(octets).decode("ascii")


def _octets(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text, validate=True)


def _present(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _plain(state: TreState) -> dict[str, Any]:
    registration, token = state.registration, state.token
    return {
        "m2meId": state.m2me_id,
        "treId": state.tre_id,
        "treType": state.tre_type,
        "version": state.version,
        "vendor": state.vendor,
        "condition": state.condition,
        "suites": list(state.suites),
        "containers": list(state.containers),
        "algorithms": list(state.algorithms),
        "codeFormats": list(state.code_formats),
        "maxPackage": state.max_package,
        "keyStore": state.key_store,
        "maxMcim": state.max_mcim,
        "platformKey": _text(state.platform_key),
        "attestKey": _text(state.attest_key),
        "platformCert": _text(state.platform_cert),
        "attestCert": _text(state.attest_cert),
        "certChain": [_text(each) for each in state.cert_chain],
        "shoAnchors": [_text(each) for each in state.sho_anchors],
        "registration": {
            "reqId": registration.req_id,
            "nonce": _text(registration.nonce),
            "nonceExpiry": int(registration.nonce_expiry.timestamp()),
            "state": registration.state,
            "reason": registration.reason,
            "shoId": registration.sho_id,
            "cryptoFailures": registration.crypto_failures,
        },
        "sequences": dict(state.sequences),
        "supplierAnchors": [_text(each) for each in state.supplier_anchors],
        "supplierCounter": state.supplier_counter,
        "mcims": [_plain_mcim(each) for each in state.mcims],
        "tombstones": [
            {
                "mcimId": str(each.mcim_id),
                "shoId": each.sho_id,
                "sequence": each.sequence,
                "releasedTo": each.released_to,
            }
            for each in state.tombstones
        ],
        "generation": state.generation,
        "counterLimit": state.counter_limit,
        "lastReceipt": _text(state.last_receipt),
        "lastAction": state.last_action
        and {
            "digest": _text(state.last_action.digest),
            "code": state.last_action.code,
            "mcimId": _id_text(state.last_action.mcim_id),
        },
        "nextKeys": state.next_keys
        and {"platform": _text(state.next_keys.platform), "attest": _text(state.next_keys.attest)},
        "token": token and {"salt": _text(token.salt), "digest": _text(token.digest), "triesLeft": token.tries_left},
    }


def _id_text(mcim_id: UUID | None) -> str | None:
    return None if mcim_id is None else str(mcim_id)


def _id(text: str | None) -> UUID | None:
    return None if text is None else UUID(text)


def _plain_mcim(mcim: StoredMcim) -> dict[str, Any]:
    origin = mcim.origin
    return {
        "mcimId": str(mcim.mcim_id),
        "shoId": mcim.sho_id,
        "state": mcim.state,
        "revision": mcim.revision,
        "sequence": mcim.sequence,
        "notAfter": int(mcim.not_after.timestamp()),
        "imsi": mcim.imsi,
        **_plain_keys(mcim.keys),
        "seq": list(mcim.usim.seq),
        "amf": _text(mcim.amf),
        "policy": int(mcim.policy),
        "origin": {
            "operation": origin.operation,
            "sequence": origin.sequence,
            "nonce": _text(origin.nonce),
            "packageHash": _text(origin.package_hash),
        },
        "previous": mcim.previous and _plain_mcim(mcim.previous),
        "fallBackTo": _id_text(mcim.fall_back_to),
        "releasedTo": mcim.released_to,
    }


def _mcim(entry: dict[str, Any]) -> StoredMcim:
    origin = entry["origin"]
    return StoredMcim(
        mcim_id=UUID(entry["mcimId"]),
        sho_id=entry["shoId"],
        state=ContainerState(entry["state"]),
        revision=entry["revision"],
        sequence=entry["sequence"],
        not_after=_moment(entry["notAfter"]),
        imsi=entry["imsi"],
        keys=_keys(entry),
        usim=UsimState(seq=tuple(entry["seq"])),
        amf=_present(entry["amf"]),
        policy=McimPolicy(entry["policy"]),
        origin=Origin(
            operation=Operation(origin["operation"]),
            sequence=origin["sequence"],
            nonce=_present(origin["nonce"]),
            package_hash=_present(origin["packageHash"]),
        ),
        previous=entry["previous"] and _mcim(entry["previous"]),
        fall_back_to=_id(entry["fallBackTo"]),
        released_to=entry["releasedTo"],
    )


def _plain_keys(keys: NetworkKeys) -> dict[str, Any]:
    return {
        "algorithm": keys.algorithm,
        "k": _text(keys.k),
        "opc": _text(keys.opc),
        "constants": _text(keys.constants),
    }


def _keys(entry: dict[str, Any]) -> NetworkKeys:
    return NetworkKeys(
        algorithm=AlgorithmId(entry["algorithm"]),
        k=_present(entry["k"]),
        opc=_present(entry["opc"]),
        constants=_present(entry["constants"]),
    )


def _state(entry: dict[str, Any]) -> TreState:
    registration, token = entry["registration"], entry["token"]
    last, keys = entry["lastAction"], entry["nextKeys"]
    return TreState(
        m2me_id=entry["m2meId"],
        tre_id=entry["treId"],
        tre_type=entry["treType"],
        version=entry["version"],
        vendor=entry["vendor"],
        condition=entry["condition"],
        suites=tuple(Suite(each) for each in entry["suites"]),
        containers=tuple(Container(each) for each in entry["containers"]),
        algorithms=tuple(entry["algorithms"]),
        code_formats=tuple(entry["codeFormats"]),
        max_package=entry["maxPackage"],
        key_store=entry["keyStore"],
        max_mcim=entry["maxMcim"],
        platform_key=_present(entry["platformKey"]),
        attest_key=_present(entry["attestKey"]),
        platform_cert=_octets(entry["platformCert"]),
        attest_cert=_octets(entry["attestCert"]),
        cert_chain=tuple(_present(each) for each in entry["certChain"]),
        sho_anchors=tuple(_present(each) for each in entry["shoAnchors"]),
        registration=RegistrationRecord(
            req_id=registration["reqId"],
            nonce=_present(registration["nonce"]),
            nonce_expiry=_moment(registration["nonceExpiry"]),
            state=RegistrationState(registration["state"]),
            reason=registration["reason"],
            sho_id=registration["shoId"],
            crypto_failures=registration["cryptoFailures"],
        ),
        sequences=tuple(sorted(entry["sequences"].items())),
        supplier_anchors=tuple(_present(each) for each in entry["supplierAnchors"]),
        supplier_counter=entry["supplierCounter"],
        mcims=tuple(_mcim(each) for each in entry["mcims"]),
        tombstones=tuple(
            Tombstone(
                mcim_id=UUID(each["mcimId"]),
                sho_id=each["shoId"],
                sequence=each["sequence"],
                released_to=each["releasedTo"],
            )
            for each in entry["tombstones"]
        ),
        generation=entry["generation"],
        counter_limit=entry["counterLimit"],
        last_receipt=_octets(entry["lastReceipt"]),
        last_action=last
        and LastAction(digest=_present(last["digest"]), code=ResultCode(last["code"]), mcim_id=_id(last["mcimId"])),
        next_keys=keys and KeyBlobs(platform=_present(keys["platform"]), attest=_present(keys["attest"])),
        token=token
        and TokenVerifier(
            salt=_present(token["salt"]), digest=_present(token["digest"]), tries_left=token["triesLeft"]
        ),
    )
