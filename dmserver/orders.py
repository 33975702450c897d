"""The order: what is durable about one provisioning of one device (sessions come and go).

States and arrows are a table. Whoever moves an order commits the new value before the message that depends on it
leaves, so that after a crash the database never knows less than the device (REQ-16).
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from mcim.vocabulary import Container, ContainerState, Operation


class OrderState(StrEnum):
    """How far an order is."""

    OPEN = "OPEN"  # a home operator asked for the device
    CONTACTED = "CONTACTED"  # the device opened an authenticated session
    TREE_READ = "TREE_READ"  # its M2MMobj was read and is acceptable
    CHALLENGED = "CHALLENGED"  # the PVA's challenge may be at the device
    VALIDATED = "VALIDATED"  # the PVA's ticket is verified and kept
    HANDED_OVER = "HANDED_OVER"  # the home operator may have the credential and the ticket
    PACKAGE_READY = "PACKAGE_READY"  # its package is kept here, the device has nothing of it
    DELIVERING = "DELIVERING"  # the device may have the package, or a part of it: ask before pushing
    DELIVERED = "DELIVERED"  # the device has it whole, or has dealt with it
    REPORTED = "REPORTED"  # the home operator acknowledged a receipt of success
    CLOSED = "CLOSED"  # the device attached with its new identity
    REFUSED = "REFUSED"
    EXPIRED = "EXPIRED"
    MISSING = "MISSING"  # the device stays away with what it may have; its home operator was told, its receipt counts
    SUSPENDED = "SUSPENDED"  # an operator stopped it before anything was delivered


class OrderEvent(StrEnum):
    """What moves an order."""

    CONTACT = "contact"
    TREE_ACCEPTED = "tree accepted"
    CHALLENGE_ISSUED = "challenge issued"
    TICKET_VERIFIED = "ticket verified"
    HAND_OVER = "hand-over"
    PACKAGE_KEPT = "package kept"
    PUSH = "push"
    PUSHED = "pushed"
    STAY_AWAY = "the device stays away"
    REPORT_ACKNOWLEDGED = "report acknowledged"
    ATTACHED = "attached"
    STILL_GOOD = "the kept package is still good"
    SUPERSEDE = "another order took its place"
    NOTHING_TO_WAIT_FOR = "no attach to wait for"
    FALL_BACK = "fall-back"
    RESTART = "restart"
    PUSH_LOST = "push lost"
    REFUSE = "refuse"
    EXPIRE = "expire"
    SUSPEND = "suspend"
    RESUME = "resume"
    CANCEL = "cancel"


_BEFORE_DELIVERY: Final = (
    OrderState.OPEN,
    OrderState.CONTACTED,
    OrderState.TREE_READ,
    OrderState.CHALLENGED,
    OrderState.VALIDATED,
    OrderState.HANDED_OVER,
    OrderState.PACKAGE_READY,
)

NEXT: Final[dict[tuple[OrderState, OrderEvent], OrderState]] = {
    (OrderState.OPEN, OrderEvent.CONTACT): OrderState.CONTACTED,
    (OrderState.CONTACTED, OrderEvent.TREE_ACCEPTED): OrderState.TREE_READ,
    (OrderState.TREE_READ, OrderEvent.CHALLENGE_ISSUED): OrderState.CHALLENGED,
    (OrderState.TREE_READ, OrderEvent.TICKET_VERIFIED): OrderState.VALIDATED,  # autonomous mode: no challenge
    (OrderState.CHALLENGED, OrderEvent.TICKET_VERIFIED): OrderState.VALIDATED,
    (OrderState.VALIDATED, OrderEvent.HAND_OVER): OrderState.HANDED_OVER,
    (OrderState.HANDED_OVER, OrderEvent.PACKAGE_KEPT): OrderState.PACKAGE_READY,
    (OrderState.PACKAGE_READY, OrderEvent.PUSH): OrderState.DELIVERING,
    (OrderState.DELIVERING, OrderEvent.PUSHED): OrderState.DELIVERED,
    (OrderState.DELIVERED, OrderEvent.REPORT_ACKNOWLEDGED): OrderState.REPORTED,
    (OrderState.REPORTED, OrderEvent.ATTACHED): OrderState.CLOSED,
    # What it left is not in use, so no attach proves it: a provisioned, suspended or deleted MCIM.
    (OrderState.REPORTED, OrderEvent.NOTHING_TO_WAIT_FOR): OrderState.CLOSED,
    # The home operator wants something else of the device; an attach was not heard of.
    (OrderState.REPORTED, OrderEvent.SUPERSEDE): OrderState.CLOSED,
    # The network did not take the new MCIM, the TRE uses the one before again, and its home operator knows.
    (OrderState.REPORTED, OrderEvent.FALL_BACK): OrderState.REFUSED,
    # Only the ticket had aged: validated again, the registration is the same, the package need not be made again.
    (OrderState.VALIDATED, OrderEvent.STILL_GOOD): OrderState.PACKAGE_READY,
    # The registration changed, or what the PVA said is too old: phase 1 again (REQ-15, REQ-22, REQ-25).
    **{(state, OrderEvent.RESTART): OrderState.CONTACTED for state in _BEFORE_DELIVERY[2:]},
    # The device was asked, and has nothing of the package.
    (OrderState.DELIVERING, OrderEvent.PUSH_LOST): OrderState.PACKAGE_READY,
    (OrderState.DELIVERED, OrderEvent.PUSH_LOST): OrderState.PACKAGE_READY,
    # Nobody knows what the device did. It is asked when it comes; a package that it has not is not pushed any more.
    (OrderState.DELIVERING, OrderEvent.STAY_AWAY): OrderState.MISSING,
    (OrderState.DELIVERED, OrderEvent.STAY_AWAY): OrderState.MISSING,
    (OrderState.MISSING, OrderEvent.PUSHED): OrderState.DELIVERED,
    (OrderState.MISSING, OrderEvent.REFUSE): OrderState.REFUSED,
    **{(state, OrderEvent.REFUSE): OrderState.REFUSED for state in _BEFORE_DELIVERY},
    (OrderState.DELIVERING, OrderEvent.REFUSE): OrderState.REFUSED,
    (OrderState.DELIVERED, OrderEvent.REFUSE): OrderState.REFUSED,
    # Once a delivery has begun its outcome is settled with the device, however late.
    **{(state, OrderEvent.EXPIRE): OrderState.EXPIRED for state in _BEFORE_DELIVERY},
    (OrderState.SUSPENDED, OrderEvent.EXPIRE): OrderState.EXPIRED,
    **{(state, OrderEvent.SUSPEND): OrderState.SUSPENDED for state in _BEFORE_DELIVERY},
    (OrderState.SUSPENDED, OrderEvent.RESUME): OrderState.OPEN,
    **{(state, OrderEvent.CANCEL): OrderState.REFUSED for state in (*_BEFORE_DELIVERY, OrderState.SUSPENDED)},
    (OrderState.MISSING, OrderEvent.CANCEL): OrderState.REFUSED,  # an operator gives the device up
}  # what is not listed is not legal

ORDERABLE: Final = frozenset(Operation) - {Operation.RELEASE}
"""Operations an order may ask for; a release is only ever a token inside a package."""
TARGETED: Final = ORDERABLE - {Operation.INSTALL, Operation.REPLACE}
"""Operations on an MCIM that the device has."""

ENDED: Final = frozenset({OrderState.CLOSED, OrderState.REFUSED, OrderState.EXPIRED})
ONGOING: Final = frozenset(OrderState) - ENDED - {OrderState.SUSPENDED}
EXPIRABLE: Final = frozenset(state for state, event in NEXT if event is OrderEvent.EXPIRE)


class IllegalTransition(Exception):
    """The table has no such arrow: a bug in the caller, nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One order. Times are aware UTC; binary fields are raw octets."""

    order_id: str  # UUID
    device_id: str  # M2MEId
    sho_id: str  # FQDN of the home operator that asked
    purpose: str = "initial"  # initial, change-of-sho, update, recovery
    operation: Operation = Operation.INSTALL  # what the TRE is to do; `mcim_id` is its target, if it has one
    brought_by: str | None = None  # order that brought the target to the device, where this DPF knows it
    state: OrderState = OrderState.OPEN
    detail: str = ""  # why it was refused, or what it waits for
    version: int = 0  # of the row: raised by every write, a write from an older version fails (REQ-15)
    created_at: datetime
    updated_at: datetime
    expires_at: datetime
    req_id: str | None = None  # M2MMobj/Registration/ReqId now served
    nonce: bytes | None = field(default=None, repr=False)  # registration nonce of that request
    tre_id: str | None = None
    attest_cert: bytes | None = field(default=None, repr=False)  # DER; verifies the receipt
    cert_chain: tuple[bytes, ...] = field(default=(), repr=False)  # DER, leaf-most first
    attempt: int = 0  # challenges asked for, part of the idempotency key
    challenge: bytes | None = field(default=None, repr=False)
    challenge_exp: datetime | None = None
    ticket: str | None = field(default=None, repr=False)  # JWS of the PVA
    ticket_exp: datetime | None = None
    mcim_id: str | None = None  # UUID
    sequence: int | None = None
    package_hash: str | None = None  # hex SHA-256 of the package or command
    packaging: Container = Container.XML  # form of the package
    token_ref: str | None = None  # name the home operator gives the device's token; no secret
    node: str | None = None  # container on the device when its name is not the one we would give it
    pushes: int = 0  # of the present package
    receipt: bytes | None = field(default=None, repr=False)  # verified, not yet acknowledged or acknowledged
    result: int | None = None  # result code inside that receipt
    left_state: int | None = None  # of the container when that receipt was read
    attach: int | None = None  # what the last NetworkAttach alert said
    report_owed: bool = False  # of a refusal, or to the former operator of a deleted MCIM
    job: str | None = None  # at the home operator, which takes its time with the package (REQ-26)
    job_at: datetime | None = None  # when to ask for it next
    calls: int = 0  # package 0 sent since the device was here last
    call_at: datetime | None = None  # when to send the next; None: there is nothing to call it for

    @property
    def has_target(self) -> bool:
        """Whether the order is about an MCIM that the device has."""
        return self.operation in TARGETED

    @property
    def is_command(self) -> bool:
        """Whether what is delivered is a signed command instead of a package with an MCIM object (flows F5)."""
        return not self.operation.carries_object

    @property
    def may_reopen(self) -> bool:
        """Whether the device may be asked for a new registration after one that ended well, and for this SHO.

        A first installation asks nobody to give up what was provisioned for another order.
        """
        return self.operation is not Operation.INSTALL or self.purpose != "initial"

    @property
    def waits_for_attach(self) -> bool:
        """Whether an attach is to follow the report: only an MCIM in use can prove itself to the network."""
        return self.left_state in (None, ContainerState.ACTIVATED)

    @property
    def container(self) -> str | None:
        """Name of the M2MSIMMobj container: that on the device, or the first eight hex digits of the MCIM id."""
        return self.node or (self.mcim_id[:8] if self.mcim_id else None)

    @property
    def nonce_digest(self) -> str:
        """Short digest of the nonce, to tell two nonces apart in records and keys without showing them."""
        return hashlib.sha256(self.nonce or b"").hexdigest()[:16]


def advance(order: Order, event: OrderEvent, now: datetime, *, detail: str = "") -> Order:
    """The order after `event`; its other fields are the caller's business.

    Raises:
        IllegalTransition: the table has no arrow for it.
    """
    try:
        state = NEXT[order.state, event]
    except KeyError:
        raise IllegalTransition(f"{event} in {order.state}") from None
    return dataclasses.replace(order, state=state, detail=detail, updated_at=now)
