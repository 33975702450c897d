"""The M2MMobj of a device as the DPF read it: what to ask for, and a typed view of the answers (REQ-12)."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from dmserver.answers import Answers, NodeValue
from dmserver.commands import get_nodes
from mcim.vocabulary import RegistrationState
from mo_definitions import M2M_OBJECT, NodeFacts
from mo_definitions.m2m import M2MNode
from syncml.codes import Format, MediaType
from syncml.model import Command

MAX_CHAIN: Final = 4  # intermediate certificates read; a chain of ours has one
NONCE_OCTETS: Final = range(16, 65)
_UUID: Final = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")

_OVER: Final = (RegistrationState.IDLE, RegistrationState.FAILED, RegistrationState.EXPIRED)
_ROOT: Final = ""  # path of the root of the object below itself
_INTERIOR: Final = (
    _ROOT,
    M2MNode.TRE,
    M2MNode.TRE_CERT_CHAIN,
    M2MNode.REGISTRATION,
    M2MNode.ATTESTATION,
    M2MNode.STATUS,
)
_NOT_READ: Final = frozenset(
    {
        # Not for the DPF, big, of the last action, or Exec targets; their parents list them.
        *(M2MNode.PCID_EXPIRY, M2MNode.PCID, M2MNode.REGISTRATION_RENEW, M2MNode.ATTESTATION_GENERATE, M2MNode.EXT),
        *(M2MNode.ATTESTATION_EVIDENCE, M2MNode.ATTESTATION_LOG, M2MNode.STATUS_RECEIPT),
    }
)
_LEAVES: Final = tuple(node for node in M2MNode if node not in _INTERIOR and node not in _NOT_READ)


class SnapshotIncomplete(Exception):
    """The device did not give what the DPF needs; the text names the node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Facts of M2MMobj. Certificates are DER; times aware UTC."""

    m2me_id: str
    tre_id: str
    tre_type: str
    tre_version: str
    tre_state: str
    suites: tuple[str, ...]  # labels, the TRE's order of preference
    containers: tuple[str, ...]
    algorithms: tuple[str, ...]
    trust_anchors: tuple[str, ...]  # hex SubjectKeyIdentifiers
    platform_cert: bytes = field(repr=False)
    attest_cert: bytes = field(repr=False)
    cert_chain: tuple[bytes, ...] = field(default=(), repr=False)
    registration_state: int
    req_id: str
    nonce: bytes = field(repr=False)
    nonce_expiry: datetime | None
    reason: str
    sho_id: str | None  # None: none selected on the device
    next_sequence: int
    max_package: int | None  # octets
    nodes: Mapping[tuple[str, ...], NodeFacts | None]  # by path below the root; None: listed by its parent, not read

    def to_json(self) -> str:
        """For the record: facts and certificates, not the nonce and not the provisional identity."""
        return json.dumps(
            {
                "m2meId": self.m2me_id,
                "tre": {
                    "id": self.tre_id,
                    "type": self.tre_type,
                    "version": self.tre_version,
                    "state": self.tre_state,
                    "maxPackage": self.max_package,
                    "suites": self.suites,
                    "containers": self.containers,
                    "algorithms": self.algorithms,
                    "trustAnchors": self.trust_anchors,
                    "platformCert": base64.b64encode(self.platform_cert).decode(),
                    "attestCert": base64.b64encode(self.attest_cert).decode(),
                    "chain": [base64.b64encode(cert).decode() for cert in self.cert_chain],
                },
                "registration": {
                    "state": self.registration_state,
                    "reqId": self.req_id,
                    "reason": self.reason,
                    "sho": self.sho_id,
                    "nextSequence": self.next_sequence,
                },
            },
            sort_keys=True,
        )


def read_object(root: str) -> tuple[Command, ...]:
    """Gets for everything of M2MMobj that the DPF wants, the intermediate certificates only by name."""
    return get_nodes(tuple(_below(root, path) for path in (*_INTERIOR, *_LEAVES)))


def read_chain(root: str, answers: Answers) -> tuple[Command, ...]:
    """Gets for the intermediate certificates that `answers` to `read_object` list; empty when there are none."""
    names = answers.children(_below(root, M2MNode.TRE_CERT_CHAIN)) or ()
    return get_nodes(tuple(f"{root}/{M2MNode.TRE_CERT_CHAIN}/{name}" for name in _chain_order(names)))


def registration_over(root: str, answers: Answers, now: datetime, *, reopen: bool = False) -> bool:
    """Whether the registration ended on the device and a new one may be asked for; in 2 and 3 it is in use or done.

    With `reopen`, one that is done may be followed by another. An ended registration may have no nonce any more, so
    this is asked before completeness.
    """
    state = answers.number(_below(root, M2MNode.REGISTRATION_STATE))
    if reopen and state == RegistrationState.PROVISIONED:
        return True
    expiry = _time(answers.text(_below(root, M2MNode.REGISTRATION_NONCE_EXPIRY)))
    stale = expiry is not None and expiry <= now
    return state in _OVER or (state == RegistrationState.REQUESTED and stale)


def selects_nobody(root: str, answers: Answers) -> bool:
    """Whether a registration is open that names no home operator; its TRE would accept nobody's package (REQ-50)."""
    state = answers.number(_below(root, M2MNode.REGISTRATION_STATE))
    return state == RegistrationState.REQUESTED and not answers.text(_below(root, M2MNode.REGISTRATION_SHO))


def registration_open(root: str, answers: Answers) -> bool:
    """Whether a registration waits for a package."""
    return answers.number(_below(root, M2MNode.REGISTRATION_STATE)) == RegistrationState.REQUESTED


def selected_sho(root: str, answers: Answers) -> str | None:
    """The home operator that the registration names, open or not."""
    return answers.text(_below(root, M2MNode.REGISTRATION_SHO)) or None


def take_snapshot(root: str, answers: Answers, chain_answers: Answers | None) -> Snapshot:
    """The snapshot out of the answers to `read_object` and `read_chain`.

    Raises:
        SnapshotIncomplete: a node without which provisioning cannot go on is missing or no value of its kind.
    """
    view = _View(root, answers)
    chain = []
    chain_names = _chain_order(answers.children(_below(root, M2MNode.TRE_CERT_CHAIN)) or ())
    if chain_answers is not None:
        for name in chain_names:
            certificate = chain_answers.octets(f"{root}/{M2MNode.TRE_CERT_CHAIN}/{name}")
            if certificate is None:
                raise SnapshotIncomplete(f"TRE/CertChain/{name}")
            chain.append(certificate)
    nonce = view.octets(M2MNode.REGISTRATION_NONCE)
    if len(nonce) not in NONCE_OCTETS:
        raise SnapshotIncomplete(M2MNode.REGISTRATION_NONCE)
    req_id = view.text(M2MNode.REGISTRATION_REQ_ID)
    if not _UUID.fullmatch(req_id):
        raise SnapshotIncomplete(M2MNode.REGISTRATION_REQ_ID)
    return Snapshot(
        m2me_id=view.text(M2MNode.M2ME_ID),
        tre_id=view.text(M2MNode.TRE_ID),
        tre_type=view.text(M2MNode.TRE_TYPE),
        tre_version=view.text(M2MNode.TRE_VERSION),
        tre_state=view.text(M2MNode.TRE_STATE),
        suites=view.words(M2MNode.TRE_SUITES),
        containers=view.words(M2MNode.TRE_CONTAINERS),
        algorithms=view.words(M2MNode.TRE_ALGORITHMS),
        trust_anchors=view.words(M2MNode.TRE_TRUST_ANCHORS),
        platform_cert=view.octets(M2MNode.TRE_PLATFORM_CERT),
        attest_cert=view.octets(M2MNode.TRE_ATTEST_CERT),
        cert_chain=tuple(chain),
        registration_state=view.number(M2MNode.REGISTRATION_STATE),
        req_id=req_id,
        nonce=nonce,
        nonce_expiry=_time(answers.text(_below(root, M2MNode.REGISTRATION_NONCE_EXPIRY))),
        reason=view.text(M2MNode.REGISTRATION_REASON),
        sho_id=answers.text(_below(root, M2MNode.REGISTRATION_SHO)) or None,
        next_sequence=view.number(M2MNode.REGISTRATION_NEXT_SEQUENCE),
        max_package=answers.number(_below(root, M2MNode.TRE_MAX_PACKAGE)),
        nodes=_seen(root, answers, chain_answers),
    )


def _below(root: str, path: str) -> str:
    return f"{root}/{path}" if path else root


def _chain_order(names: tuple[str, ...]) -> tuple[str, ...]:
    """Leaf-most first: nodes are called 0, 1, 2… (numeric names in numeric order, others after them)."""
    numeric = sorted((name for name in names if name.isascii() and name.isdigit()), key=lambda name: int(name[:9]))
    return tuple([*numeric, *sorted(set(names) - set(numeric))][:MAX_CHAIN])


def _time(text: str | None) -> datetime | None:
    """YYYY-MM-DDThh:mm:ssZ; anything else counts as not given, because the node is optional."""
    try:
        return datetime.strptime(text or "", "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def _seen(root: str, answers: Answers, chain_answers: Answers | None) -> dict[tuple[str, ...], NodeFacts | None]:
    seen: dict[tuple[str, ...], NodeFacts | None] = {}
    for path in _INTERIOR:
        for name in answers.children(_below(root, path)) or ():
            seen[*_segments(path), name] = None
    for path in (*_INTERIOR, *_LEAVES):
        if (node := answers.node(_below(root, path))) is not None:
            seen[_segments(path)] = _facts(path, node)
    for segments in tuple(seen):
        path = "/".join(segments)
        if chain_answers is not None and (node := chain_answers.node(_below(root, path))) is not None:
            seen[segments] = _facts(path, node)
    return seen


def _segments(path: str) -> tuple[str, ...]:
    return tuple(path.split("/")) if path else ()


def _facts(path: str, node: NodeValue) -> NodeFacts:
    if node.format == Format.NODE:
        # What a Get of an interior node carries as Type is that of the list of names; the root was found by its own.
        return NodeFacts(format=node.format, type=M2M_OBJECT if path == _ROOT else "", is_interior=True)
    # text/plain is the default of Meta/Type and says nothing (OMA-TS-SyncML_MetaInfo-V1_2 §5).
    return NodeFacts(format=node.format, type="" if node.type in (None, MediaType.TEXT) else str(node.type))


class _View:
    """Required leaves below a root."""

    def __init__(self, root: str, answers: Answers) -> None:
        self._root, self._answers = root, answers

    def text(self, path: str) -> str:
        value = self._answers.text(_below(self._root, path))
        if not value:
            raise SnapshotIncomplete(path)
        return value

    def words(self, path: str) -> tuple[str, ...]:
        return tuple(self.text(path).split())

    def octets(self, path: str) -> bytes:
        value = self._answers.octets(_below(self._root, path))
        if not value:
            raise SnapshotIncomplete(path)
        return value

    def number(self, path: str) -> int:
        value = self._answers.number(_below(self._root, path))
        if value is None:
            raise SnapshotIncomplete(path)
        return value
