"""What all parts of the provisioning policy share: its values, its step, and how a step becomes a `Move`.

The policy is an explicit sequence of steps over values: answers of the device and outcomes of partner calls go in, one
`Move` comes out. It does no I/O and sees no secret: the package is opaque octets. A `Move` carries the order as it must
be in the database *before* what it asks for is sent (REQ-16).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum, auto
from typing import Final, TypeAlias

from cryptography import x509

from dmserver.answers import Answers
from dmserver.asks import Ask, Outcome
from dmserver.audit import Entry, moved, note
from dmserver.discovery import Discovery
from dmserver.orders import Order, OrderEvent, advance
from dmserver.settlement import tell_sho
from dmserver.snapshot import Snapshot
from mcim.certificates import TrustAnchors
from mcim.vocabulary import ValidationMode
from mo_definitions import M2M_OBJECT, M2MSIM_OBJECT, AlertType, Ddf
from syncml.model import Command
from syncml.policy import Continue, Finish


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceAlert:
    """One Item of a generic alert (1226)."""

    type: str
    source: str | None
    data: str
    correlator: str | None = None  # of the Exec it answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the DPF is configured to trust and to demand; the same for all sessions."""

    server_id: str  # DPF id: our name towards devices, PVA and home operators
    mode: ValidationMode
    manufacturers: TrustAnchors
    pvas: TrustAnchors
    pva_id: str | None  # SAN URI the ticket's signer must have; None: any PVA below the anchors
    crls: Callable[[], tuple[x509.CertificateRevocationList, ...]]  # those at hand when it is called
    ddf: Ddf  # of M2MMobj
    crl_required: bool = False
    ticket_margin: timedelta = timedelta(seconds=30)  # a ticket that ends within it counts as aged (T17)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """What to do: persist, record, then `then`."""

    order: Order
    entries: tuple[Entry, ...]
    then: Continue | Finish | Ask
    snapshot: Snapshot | None = None  # to keep with the order
    package: bytes | None = field(default=None, repr=False)  # to keep with the order


class Step(StrEnum):
    """What the policy waits for."""

    DISCOVERY = auto()
    LOCATE = auto()
    READ = auto()
    READ_CHAIN = auto()
    RENEW = auto()
    CHALLENGE = auto()
    EVIDENCE = auto()
    TICKET = auto()
    PACKAGE = auto()
    CLEAR = auto()
    PUSH = auto()
    OPERATE = auto()
    NUDGE = auto()
    OUTCOME = auto()
    REPORT = auto()
    ATTACH = auto()
    OVER = auto()


FIRST_PAUSE: Final = timedelta(minutes=1)  # before a device is called again
LONGEST_PAUSE: Final = timedelta(hours=6)


def call_pause(calls: int) -> timedelta:
    """Pause after that many calls in a row: twice as long each time."""
    return min(FIRST_PAUSE * (1 << min(calls, 20)), LONGEST_PAUSE)


Then: TypeAlias = Continue | Finish | Ask


class PolicyBase:
    """State of the policy in one session. `package` is what is kept for the order, if anything."""

    def __init__(self, rules: Rules, order: Order, *, package: bytes | None, former_requests: frozenset[str]) -> None:
        self._rules = rules
        self._order = order
        self._package = package
        self._former = former_requests
        self._alerts: tuple[DeviceAlert, ...] = ()
        self._step = Step.OVER
        self._entries: list[Entry] = []
        self._kept_snapshot: Snapshot | None = None
        self._kept_package: bytes | None = None
        self._discovery = Discovery(frozenset({M2M_OBJECT, M2MSIM_OBJECT}))
        self._on_answers: dict[Step, Callable[[Answers, datetime], Then]] = {}
        self._on_outcome: dict[Step, Callable[[Outcome, datetime], Then]] = {}

    @property
    def order(self) -> Order:
        """The order as of the last move."""
        return self._order

    # --- the three entry points ---------------------------------------------------------------------------------------

    def begin(self, alerts: tuple[DeviceAlert, ...], now: datetime) -> Move:
        """The device is authenticated and its order is ongoing; `alerts` came with package 1."""
        self._alerts = alerts
        self._set(calls=0, call_at=None)  # it is here
        self._hear(alerts)
        return self._move(self._begin(now))

    def answered(self, answers: Answers, alerts: tuple[DeviceAlert, ...], now: datetime) -> Move:
        """The device answered the commands of the last move."""
        self._alerts += alerts
        self._hear(alerts)
        handler = self._on_answers.get(self._step)
        if handler is None:
            return self._move(Finish())
        if self._step is Step.EVIDENCE and any(alert.type == AlertType.NONCE_RENEWED for alert in alerts):
            return self._move(self._hold("the device renewed its registration in mid-session", now, step="9"))
        return self._move(handler(answers, now))

    def resumed(self, outcome: Outcome, now: datetime) -> Move:
        """A partner answered what the last move asked."""
        return self._move(self._on_outcome[self._step](outcome, now))

    def _begin(self, now: datetime) -> Then:
        """First step of a session; the last class of the chain, `Provisioning`, says it."""
        raise NotImplementedError

    def _hear(self, alerts: tuple[DeviceAlert, ...]) -> None:
        """Keep what alerts say of the order."""
        raise NotImplementedError

    def _move(self, then: Then) -> Move:
        if isinstance(then, Finish):
            self._step = Step.OVER
        move = Move(
            order=self._order,
            entries=tuple(self._entries),
            then=then,
            snapshot=self._kept_snapshot,
            package=self._kept_package,
        )
        self._entries, self._kept_snapshot, self._kept_package = [], None, None
        return move

    def stored(self, order: Order) -> None:
        """The order of the last move is in the database, as `order` with its new row version."""
        self._order = order

    # --- small change -------------------------------------------------------------------------------------------------

    def _advance(self, event: OrderEvent, now: datetime, *, step: str, detail: str = "") -> None:
        before = self._order.state
        self._order = advance(self._order, event, now, detail=detail)
        self._entries.append(moved(before, self._order.state, step=step, detail=detail or event.value))

    def _set(self, **changes: object) -> None:
        self._order = dataclasses.replace(self._order, **changes)  # type: ignore[arg-type]  # field names are ours

    def _ask_device(self, step: Step, commands_: tuple[Command, ...]) -> Continue:
        self._step = step
        return Continue(commands=commands_)

    def _ask_partner(self, step: Step, ask: Ask) -> Ask:
        self._step = step
        return ask

    def _hold_and_call(self, why: str, now: datetime, *, step: str) -> Finish:
        """End the session because somebody is not ready; the device is called when he may be."""
        self._set(call_at=now + call_pause(self._order.calls))
        return self._hold(why, now, step=step)

    def _hold(self, why: str, now: datetime, *, step: str) -> Finish:
        """End the session; the order waits as it is."""
        self._entries.append(note(why, step=step))
        self._set(detail=why, updated_at=now)
        return Finish()

    def _refuse(self, why: str, now: datetime, *, step: str) -> Then:
        """End the order (REQ-23): the device is left as it is, the home operator is told."""
        self._advance(OrderEvent.REFUSE, now, step=step, detail=why)
        self._set(report_owed=True, call_at=None, job=None, job_at=None)
        return self._ask_partner(Step.REPORT, tell_sho(self._order))

    @property
    def _m2m_root(self) -> str:
        return self._discovery.found[M2M_OBJECT]

    @property
    def _container(self) -> str:
        return f"{self._discovery.found[M2MSIM_OBJECT]}/{self._order.container}"
