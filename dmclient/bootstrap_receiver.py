"""Bootstrap messages: from a datagram or file to a DM account, or nowhere (OMA-TS-DM_Bootstrap-V1_2 §5; REQ-07, 08).

Nothing is ever answered. Whoever does not know the supplier's secret gets nothing applied, is counted, and after
some failures nobody is listened to for a while.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import structlog

from actor_runtime.trail import Trail
from dmclient.dm_account import account_path, write_account
from dmclient.management_tree import ManagementTree
from syncml.bootstrap.cp import decode_cp
from syncml.bootstrap.errors import BootstrapReason, BootstrapRefused
from syncml.bootstrap.profile import DmBootstrap, from_document
from syncml.bootstrap.security import BootstrapSecrets, Sec, verify_mac
from syncml.codes import MediaType
from syncml.wap_push import MalformedPush, WapPush, parse_push

STEP: Final = "7"
MAX_BOOTSTRAP: Final = 8192  # octets of a datagram: what a long concatenated short message could carry
MAX_HISTORY: Final = 64  # digests of applied documents kept, newest last

_log = structlog.get_logger(__name__)


class Verdict(StrEnum):
    """What became of a bootstrap message."""

    APPLIED = "applied"
    UNCHANGED = "unchanged"  # the profile in force, once more
    OUTDATED = "outdated"  # a profile that was in force before the present one
    REFUSED = "refused"  # malformed, oversized, unprotected or unusable
    WRONG_MAC = "wrong-mac"
    LOCKED = "locked"  # not even looked at


@dataclass(slots=True)
class BootstrapMemory:
    """What the receiver keeps across restarts."""

    failures: int = 0  # wrong MACs since the last right one or the last lock-out
    locked_until: datetime | None = None  # UTC
    history: list[str] = field(default_factory=list)  # "<server id> <SHA-256 of the document>", newest last
    connectivity: list[dict[str, Any]] = field(default_factory=list)  # network access points of the last document

    def dump(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "failures": self.failures,
            "lockedUntil": None if self.locked_until is None else self.locked_until.isoformat(),
            "history": list(self.history),
            "connectivity": list(self.connectivity),
        }

    @classmethod
    def load(cls, data: dict[str, Any]) -> BootstrapMemory:
        """What `dump` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        until = data["lockedUntil"]
        return cls(
            failures=int(data["failures"]),
            locked_until=None if until is None else datetime.fromisoformat(until).astimezone(UTC),
            history=[str(each) for each in data["history"]],
            connectivity=list(data["connectivity"]),
        )


class BootstrapReceiver:
    """Judges bootstrap messages and applies the good ones."""

    def __init__(
        self,
        *,
        tree: ManagementTree,
        memory: BootstrapMemory,
        secrets: BootstrapSecrets,
        trail: Trail,
        save: Callable[[], None],
        max_failures: int = 3,
        lockout_s: float = 300.0,
    ) -> None:
        self._tree = tree
        self._memory = memory
        self._secrets = secrets
        self._trail = trail
        self._save = save
        self._max_failures = max_failures
        self._lockout = timedelta(seconds=lockout_s)
        self.applied = asyncio.Event()  # there is an account that a message of this run brought or confirmed

    def receive(self, datagram: bytes) -> Verdict:
        """Take one message. Whatever it is, this returns: nothing of a sender's making raises."""
        now = self._tree.now()
        until = self._memory.locked_until
        if until is not None and now < until:
            return self._ended(Verdict.LOCKED, "locked after wrong MACs")
        try:
            push = _push(datagram)
            self._trail.message(
                step=STEP, direction="DPF→M2ME", summary="CP bootstrap (WAP push)", octets=len(datagram)
            )
            key = self._key(push)
            right = verify_mac(key, push.body, push.mac or "")
            self._trail.check("bootstrap-mac", right, req=("REQ-08",), step=STEP)
            if not right:
                return self._wrong_mac(now)
            self._memory.failures = 0
            bootstrap = from_document(decode_cp(push.body))
        except BootstrapRefused as refusal:
            return self._ended(Verdict.REFUSED, str(refusal))
        except MalformedPush as error:
            return self._ended(Verdict.REFUSED, f"malformed: {error}")
        return self._apply(bootstrap, hashlib.sha256(push.body).hexdigest())

    def _key(self, push: WapPush) -> bytes:
        """MAC key for the kind of protection the sender chose; unprotected messages are not accepted at all."""
        if push.sec not in tuple(Sec) or push.mac is None:
            raise BootstrapRefused(BootstrapReason.UNPROTECTED, "no SEC and MAC that we know")
        key = self._secrets.key(Sec(push.sec))
        if key is None:
            raise BootstrapRefused(BootstrapReason.UNPROTECTED, "no secret for this kind of MAC")
        return key

    def _wrong_mac(self, now: datetime) -> Verdict:
        self._memory.failures += 1
        if self._memory.failures >= self._max_failures:
            self._memory.locked_until = now + self._lockout
            self._memory.failures = 0
            self._trail.note("bootstrap locked: too many wrong MACs", step=STEP)
        self._save()
        return self._ended(Verdict.WRONG_MAC, "dropped without an answer")

    def _apply(self, bootstrap: DmBootstrap, digest: str) -> Verdict:
        """Replay rules (REQ-10): the profile in force changes nothing, one that was replaced stays replaced.

        Nonces have moved on since a document was sent, so even the present one is not applied twice.
        """
        entry = f"{bootstrap.server_id} {digest}"
        known = [each for each in self._memory.history if each.split(" ", 1)[0] == bootstrap.server_id]
        if entry in known and account_path(self._tree.nodes, bootstrap.server_id) is not None:
            if known[-1] == entry:
                self.applied.set()
                return self._ended(Verdict.UNCHANGED, "the profile in force")
            self._trail.check("bootstrap-not-outdated", False, req=("REQ-10",), step=STEP)
            return self._ended(Verdict.OUTDATED, "a profile that was replaced since")
        before, memory = self._tree.nodes, self._memory
        history, connectivity = list(memory.history), list(memory.connectivity)
        self._tree.nodes = before.copy()
        try:
            account = write_account(self._tree, bootstrap)
            memory.history = [*(each for each in history if each != entry), entry][-MAX_HISTORY:]
            memory.connectivity = [
                {
                    "napId": each.napid,
                    "bearers": list(each.bearers),
                    "name": each.name,
                    "address": each.address,
                    "addressType": each.address_type,
                }
                for each in bootstrap.napdefs
            ]
            self._save()
        except BaseException:  # all of it or nothing
            self._tree.nodes = before
            memory.history, memory.connectivity = history, connectivity
            raise
        self._trail.state("account", "none", bootstrap.server_id, step=STEP, detail=f"./{'/'.join(account)}")
        self.applied.set()
        return self._ended(Verdict.APPLIED, bootstrap.server_id)

    def _ended(self, verdict: Verdict, detail: str) -> Verdict:
        _log.info("bootstrap", verdict=verdict.value, detail=detail)
        return verdict


def _push(datagram: bytes) -> WapPush:
    if len(datagram) > MAX_BOOTSTRAP:
        raise BootstrapRefused(BootstrapReason.OVERSIZED, f"{len(datagram)} octets")
    push = parse_push(datagram)
    if push.content_type != MediaType.CONNECTIVITY_WBXML:
        raise BootstrapRefused(BootstrapReason.MALFORMED, "not a CP document")
    return push


class BootstrapListener(asyncio.DatagramProtocol):
    """Gives datagrams to the receiver. Never sends."""

    def __init__(self, receiver: BootstrapReceiver) -> None:
        self._receiver = receiver

    def datagram_received(self, data: bytes, addr: object) -> None:
        """One datagram is one message."""
        try:
            self._receiver.receive(data)
        except Exception:  # the only one here: the loop must go on listening whatever is wrong with our disk
            _log.exception("bootstrap.failed")


async def listen(receiver: BootstrapReceiver, host: str, port: int) -> tuple[asyncio.DatagramTransport, int]:
    """Open the UDP socket; returns the transport, to be closed, and the port (the system's choice when 0).

    Raises:
        OSError: the address cannot be bound.
    """
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: BootstrapListener(receiver), local_addr=(host, port))
    return transport, int(transport.get_extra_info("sockname")[1])
