"""Everything a TRE remembers, as one frozen value; it turns into JSON only on its way into the seal."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from dmclient.tre.base import NEVER, McimInfo, Registration
from dmclient.tre.profiles import ALGORITHMS
from dmclient.tre.provisional import Provisional
from dmclient.tre.token import TokenVerifier
from mcim.aka import UsimState
from mcim.network_keys import NetworkKeys
from mcim.vocabulary import AlgorithmId, Container, ContainerState, RegistrationState, Suite

FORMAT: Final = 2
_THREE_DIGIT_MNC: Final = frozenset({"302", "334", *(str(mcc) for mcc in range(310, 317))})  # ITU-T E.212, America
OPEN_STATES: Final = (RegistrationState.REQUESTED, RegistrationState.PACKAGE_RECEIVED)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMcim:
    """An installed MCIM with its secrets."""

    mcim_id: UUID
    sho_id: str
    state: ContainerState
    revision: int
    sequence: int
    not_after: datetime
    imsi: str = field(repr=False)
    keys: NetworkKeys = field(repr=False)
    usim: UsimState = field(repr=False)

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
        )


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
    registration: RegistrationRecord = RegistrationRecord()
    sequences: tuple[tuple[str, int], ...] = ()  # highest sequence accepted, by SHO id
    mcims: tuple[StoredMcim, ...] = ()
    counter_limit: int = 0  # no statement with a counter above this has left; see `Tre`
    last_receipt: bytes | None = field(default=None, repr=False)
    token: TokenVerifier | None = None
    provisional: Provisional | None = None  # PCID

    def next_sequence(self, sho_id: str | None) -> int:
        """Lowest sequence number accepted from that SHO (REQ-53)."""
        return dict(self.sequences).get(sho_id or "", 0) + 1

    def mcim(self, mcim_id: UUID) -> StoredMcim | None:
        """The MCIM of that id."""
        return next((each for each in self.mcims if each.mcim_id == mcim_id), None)

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
        """Install or replace; at most one MCIM is activated, so an activated newcomer suspends the other."""
        others = tuple(each for each in self.mcims if each.mcim_id != mcim.mcim_id)
        if mcim.state is ContainerState.ACTIVATED:
            others = tuple(
                replace(each, state=ContainerState.SUSPENDED) if each.state is ContainerState.ACTIVATED else each
                for each in others
            )
        sequences = {**dict(self.sequences), mcim.sho_id: mcim.sequence}
        return replace(self, mcims=(*others, mcim), sequences=tuple(sorted(sequences.items())))

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
        "provisional": state.provisional and state.provisional.dump(),
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
        "mcims": [
            {
                "mcimId": str(each.mcim_id),
                "shoId": each.sho_id,
                "state": each.state,
                "revision": each.revision,
                "sequence": each.sequence,
                "notAfter": int(each.not_after.timestamp()),
                "imsi": each.imsi,
                **_plain_keys(each.keys),
                "seq": list(each.usim.seq),
            }
            for each in state.mcims
        ],
        "counterLimit": state.counter_limit,
        "lastReceipt": _text(state.last_receipt),
        "token": token and {"salt": _text(token.salt), "digest": _text(token.digest), "triesLeft": token.tries_left},
    }


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
    provisional = entry.get("provisional")  # not in stores of versions before
    return TreState(
        provisional=provisional and Provisional.load(provisional),
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
        mcims=tuple(
            StoredMcim(
                mcim_id=UUID(each["mcimId"]),
                sho_id=each["shoId"],
                state=ContainerState(each["state"]),
                revision=each["revision"],
                sequence=each["sequence"],
                not_after=_moment(each["notAfter"]),
                imsi=each["imsi"],
                keys=_keys(each),
                usim=UsimState(seq=tuple(each["seq"])),
            )
            for each in entry["mcims"]
        ),
        counter_limit=entry["counterLimit"],
        last_receipt=_octets(entry["lastReceipt"]),
        token=token
        and TokenVerifier(
            salt=_present(token["salt"]), digest=_present(token["digest"]), tries_left=token["triesLeft"]
        ),
    )
