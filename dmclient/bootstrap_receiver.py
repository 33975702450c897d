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
from dmclient.calls import Call, CallQueue
from dmclient.dm_account import account_path, write_account
from dmclient.management_tree import ManagementTree
from syncml.bootstrap import (
    CP_TYPES,
    DmBootstrap,
    DmSec,
    Sec,
    authenticated,
    decode_cp,
    decode_cp_xml,
    read_accounts,
    read_cp,
)
from syncml.bootstrap.dm_profile import read_message
from syncml.bootstrap.errors import BootstrapReason, BootstrapRefused
from syncml.bootstrap.security import BootstrapSecrets, at_least
from syncml.codes import MediaType
from syncml.tree import Acl
from syncml.wap_push import MalformedPush, WapPush, parse_push

STEP: Final = "7"
MAX_BOOTSTRAP: Final = 8192  # octets of a datagram: what a long concatenated short message could carry
MAX_HISTORY: Final = 64  # digests of applied documents kept, newest last

CARD: Final = "CARD"
"""Kind of an account that came from the smart card."""

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
    connectivity: list[dict[str, Any]] = field(default_factory=list)  # access points and proxies of the last document
    security: dict[str, str] = field(default_factory=dict)  # server id → kind of MAC its account came under, or CARD

    def dump(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "failures": self.failures,
            "lockedUntil": None if self.locked_until is None else self.locked_until.isoformat(),
            "history": list(self.history),
            "connectivity": list(self.connectivity),
            "security": dict(self.security),
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
            security={str(server): str(kind) for server, kind in data.get("security", {}).items()},
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
        calls: CallQueue | None = None,
        max_failures: int = 3,
        lockout_s: float = 300.0,
    ) -> None:
        self._tree = tree
        self._memory = memory
        self._secrets = secrets
        self._trail = trail
        self._save = save
        self._calls = calls  # gets a session for each new account
        self._max_failures = max_failures
        self._lockout = timedelta(seconds=lockout_s)
        self.detail = ""  # more about the last verdict
        self.applied = asyncio.Event()  # there is an account that a message of this run brought or confirmed

    def receive(self, datagram: bytes) -> Verdict:
        """Take one WAP push datagram. Whatever it is, this returns: nothing of a sender's making raises."""
        if self._locked():
            return self._ended(Verdict.LOCKED, "locked after wrong MACs")
        if len(datagram) > MAX_BOOTSTRAP:
            return self._ended(Verdict.REFUSED, f"{len(datagram)} octets")
        try:
            return self.take(parse_push(datagram))
        except MalformedPush as error:
            return self._ended(Verdict.REFUSED, f"malformed: {error}")

    def take(self, push: WapPush) -> Verdict:
        """Take one push, however it came: first the MAC, then the document, then the account."""
        if self._locked():
            return self._ended(Verdict.LOCKED, "locked after wrong MACs")
        try:
            if len(push.body) > MAX_BOOTSTRAP:
                raise BootstrapRefused(BootstrapReason.OVERSIZED, f"{len(push.body)} octets")
            profile = "DM" if push.content_type == MediaType.DM_WBXML else "CP"
            if profile == "CP" and push.content_type not in CP_TYPES:
                raise BootstrapRefused(BootstrapReason.MALFORMED, "not a bootstrap document")
            self._trail.message(
                step=STEP, direction="DPF→M2ME", summary=f"{profile} bootstrap (WAP push)", octets=len(push.body)
            )
            kind = self._authenticated(push)
            offers = self._offers(push)
        except BootstrapRefused as refusal:
            if refusal.reason is BootstrapReason.WRONG_MAC:
                return self._wrong_mac(self._tree.now())
            return self._ended(Verdict.REFUSED, str(refusal))
        return self._apply(offers, hashlib.sha256(push.body).hexdigest(), kind.name)

    def _offers(self, push: WapPush) -> tuple[_Offer, ...]:
        if push.content_type != MediaType.DM_WBXML:
            return tuple(_Offer(each) for each in read_accounts(read_cp(push)))
        content = read_message(push.body)
        for each in content.skipped:
            self._trail.note(f"bootstrap: object {each[:64] or 'without identifier'} is not supported", step=STEP)
        return tuple(_Offer(each.account, each.acl) for each in content.offers)

    def _locked(self) -> bool:
        until = self._memory.locked_until
        return until is not None and self._tree.now() < until

    def _authenticated(self, push: WapPush) -> Sec | DmSec:
        """The kind of MAC that proved right; unprotected messages are not accepted at all."""
        try:
            kind = authenticated(push, self._secrets)
        except BootstrapRefused as refusal:
            if refusal.reason is BootstrapReason.WRONG_MAC:
                self._trail.check("bootstrap-mac", False, req=("REQ-08",), step=STEP)
            raise
        self._trail.check("bootstrap-mac", True, req=("REQ-08",), step=STEP)
        self._memory.failures = 0
        return kind

    def _wrong_mac(self, now: datetime) -> Verdict:
        self._memory.failures += 1
        if self._memory.failures >= self._max_failures:
            self._memory.locked_until = now + self._lockout
            self._memory.failures = 0
            self._trail.note("bootstrap locked: too many wrong MACs", step=STEP)
        self._save()
        return self._ended(Verdict.WRONG_MAC, "dropped without an answer")

    def _apply(self, offers: tuple[_Offer, ...], digest: str, kind: str) -> Verdict:
        """Replay rules (REQ-10): the profile in force changes nothing, one that was replaced stays replaced.

        Nonces have moved on since a document was sent, so even the present one is not applied twice. An account is
        replaced only by who proves at least what its sender proved.
        """
        fresh = []
        for offer in offers:
            server_id = offer.account.server_id
            entry = f"{server_id} {digest}"
            held = account_path(self._tree.nodes, server_id) is not None
            known = [each for each in self._memory.history if each.split(" ", 1)[0] == server_id]
            if held and entry in known and known[-1] != entry:
                self._trail.check("bootstrap-not-outdated", False, req=("REQ-10",), step=STEP)
                return self._ended(Verdict.OUTDATED, "a profile that was replaced since")
            if held and entry in known:
                continue
            if held and not self._may_replace(server_id, kind):
                self._trail.check("bootstrap-same-security", False, req=("REQ-08",), step=STEP)
                return self._ended(Verdict.REFUSED, f"{kind} is less than the account of {server_id} came under")
            fresh.append(offer)
        if not fresh:
            self.applied.set()
            return self._ended(Verdict.UNCHANGED, "the profile in force")
        self._write(fresh, digest, kind)
        self.applied.set()
        return self._ended(Verdict.APPLIED, ", ".join(offer.account.server_id for offer in fresh))

    def card(self, document: bytes | None) -> Verdict:
        """At switch-on: take what the smart card brings, None without a card (OMA-TS-DM_Bootstrap-V1_2 §5.2.2).

        A card that can be read is trusted without a MAC. Accounts that came from a card and are not on it any more are
        removed; those that came by push stay, and a card does not replace them.
        """
        offers: tuple[_Offer, ...] = ()
        digest = ""
        if document is not None:
            try:
                as_xml = document.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
                read = decode_cp_xml(document) if as_xml else decode_cp(document)
                offers = tuple(_Offer(each) for each in read_accounts(read))
            except BootstrapRefused as refusal:
                return self._ended(Verdict.REFUSED, f"smart card: {refusal}")
            digest = hashlib.sha256(document).hexdigest()
        self._remove_card_accounts(keep={offer.account.server_id for offer in offers})
        if not offers:
            return self._ended(Verdict.UNCHANGED, "no smart card")
        return self._apply(offers, digest, CARD)

    def _remove_card_accounts(self, keep: set[str]) -> None:
        gone = [each for each, kind in self._memory.security.items() if kind == CARD and each not in keep]
        for server_id in gone:
            path = account_path(self._tree.nodes, server_id)
            if path is not None:
                self._tree.nodes.remove(path)
                self._tree.forget_server(server_id)
            del self._memory.security[server_id]
            self._memory.history = [each for each in self._memory.history if each.split(" ", 1)[0] != server_id]
            if self._calls is not None:
                self._calls.forget_server(server_id)
            self._trail.state("account", server_id, "none", step=STEP, detail="the smart card is gone")
        if gone:
            self._save()

    def _may_replace(self, server_id: str, kind: str) -> bool:
        held = self._memory.security.get(server_id)
        if CARD in (held, kind):
            return held == kind
        kinds = {each.name: each for each in (*DmSec, *Sec)}
        return held not in kinds or at_least(kinds[kind], kinds[held])

    def _write(self, offers: list[_Offer], digest: str, kind: str) -> None:
        """All accounts of a document, or none of them."""
        before, memory = self._tree.nodes, self._memory
        history, connectivity, security = list(memory.history), list(memory.connectivity), dict(memory.security)
        take_back = self._calls.checkpoint() if self._calls is not None else None
        self._tree.nodes = before.copy()
        written: list[tuple[str, str]] = []
        try:
            for offer in offers:
                server_id = offer.account.server_id
                path = write_account(self._tree, offer.account, acl=offer.acl)
                written.append((server_id, f"./{'/'.join(path)}"))
                entry = f"{server_id} {digest}"
                memory.history = [*(each for each in memory.history if each != entry), entry][-MAX_HISTORY:]
                memory.security[server_id] = kind
            memory.connectivity = _connections(offers[-1].account)
            if self._calls is not None:
                for server_id, _ in written:
                    self._calls.forget_server(server_id)
                    self._calls.add(Call(server_id=server_id))
            self._save()
        except BaseException:  # all of it or nothing
            self._tree.nodes = before
            memory.history, memory.connectivity, memory.security = history, connectivity, security
            if take_back is not None:
                take_back()
            raise
        for server_id, place in written:
            self._trail.state("account", "none", server_id, step=STEP, detail=place)

    def _ended(self, verdict: Verdict, detail: str) -> Verdict:
        self.detail = detail
        _log.info("bootstrap", verdict=verdict.value, detail=detail)
        return verdict


@dataclass(frozen=True, slots=True)
class _Offer:
    """An account that a document brings. `acl` None: what the CP profile grants its server."""

    account: DmBootstrap
    acl: Acl | None = None


def _connections(account: DmBootstrap) -> list[dict[str, Any]]:
    """Access points and proxies, as they may be shown: without passwords."""
    naps: list[dict[str, Any]] = [
        {
            "napId": each.napid,
            "bearers": list(each.bearers),
            "name": each.name,
            "address": each.address,
            "addressType": each.address_type,
        }
        for each in account.napdefs
    ]
    return naps + [
        {
            "proxyId": each.proxy_id,
            "name": each.name,
            "addresses": [physical.address for physical in each.physical],
            "ports": [port.number for physical in each.physical for port in (*each.ports, *physical.ports)],
        }
        for each in account.proxies
    ]
