"""The provisioning policy: what the DPF wants from a device next, and from its partners.

An explicit sequence of steps over values: answers of the device and outcomes of partner calls go in, one `Move` comes
out. The policy does no I/O and sees no secret: the package is opaque octets. A `Move` carries the order as it must be
in the database *before* what it asks for is sent (REQ-16).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum, auto
from typing import Final, TypeAlias

from cryptography import x509

from dmserver import commands
from dmserver.answers import Answers
from dmserver.asks import (
    Ask,
    AskChallenge,
    AskPackage,
    AskTicket,
    ChallengeGiven,
    Outcome,
    PackageGiven,
    PartnerDown,
    PartnerSaidNo,
    ReportAcknowledged,
    TellSho,
    TicketGiven,
)
from dmserver.audit import Entry, check, moved, note
from dmserver.discovery import Discovery
from dmserver.orders import Order, OrderEvent, OrderState, advance
from dmserver.platform_checks import Expectation, check_platform
from dmserver.reception import check_package, check_receipt
from dmserver.snapshot import Snapshot, SnapshotIncomplete, read_chain, read_object, take_snapshot
from mcim.certificates import TrustAnchors, ValidatedCertificate
from mcim.errors import StatementInvalid
from mcim.ticket import verify_ticket
from mcim.vocabulary import ContainerState, RegistrationState, ResultCode, ValidationMode
from mo_definitions import M2M_OBJECT, M2MSIM_OBJECT, AlertType, Ddf
from mo_definitions.m2m import ContainerNode, M2MNode
from syncml.model import Command
from syncml.policy import Continue, Finish

MAX_PUSHES: Final = 4  # of one package; a device that loses it more often is broken
TRANSIENT: Final = frozenset(
    {ResultCode.ABORTED, ResultCode.TRE_BUSY, ResultCode.INTERNAL_ERROR, ResultCode.STORAGE_FAILURE}
)
"""Results after which the same package may be pushed again: the TRE rolled back and its nonce is not consumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceAlert:
    """One Item of a generic alert (1226)."""

    type: str
    source: str | None
    data: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the DPF is configured to trust and to demand; the same for all sessions."""

    server_id: str  # DPF id: our name towards devices, PVA and home operators
    mode: ValidationMode
    manufacturers: TrustAnchors
    pvas: TrustAnchors
    pva_id: str | None  # SAN URI the ticket's signer must have; None: any PVA below the anchors
    crls: tuple[x509.CertificateRevocationList, ...]
    ddf: Ddf  # of M2MMobj


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
    READ = auto()
    READ_CHAIN = auto()
    RENEW = auto()
    CHALLENGE = auto()
    EVIDENCE = auto()
    TICKET = auto()
    PACKAGE = auto()
    CLEAR = auto()
    PUSH = auto()
    NUDGE = auto()
    OUTCOME = auto()
    REPORT = auto()
    REFUSAL_REPORT = auto()
    OVER = auto()


Then: TypeAlias = Continue | Finish | Ask


class Provisioning:
    """Policy of one session with one device that has an ongoing order.

    `begin`, then `answered` after each package of the device and `resumed` after each partner call, as the last
    `Move` asked. `package` is what is kept for the order, if anything.
    """

    def __init__(
        self,
        rules: Rules,
        order: Order,
        *,
        package: bytes | None,
        former_requests: frozenset[str],
    ) -> None:
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
        self._object_answers = Answers()
        self._snapshot: Snapshot | None = None
        self._platform: ValidatedCertificate | None = None
        self._attest: ValidatedCertificate | None = None
        self._renewed = False
        self._nudged = False
        self._on_answers: Final[dict[Step, Callable[[Answers, datetime], Then]]] = {
            Step.DISCOVERY: self._discover,
            Step.READ: self._take_object,
            Step.READ_CHAIN: self._take_chain,
            Step.RENEW: self._take_renewal,
            Step.EVIDENCE: self._take_evidence,
            Step.CLEAR: self._take_clearing,
            Step.PUSH: self._take_push,
            Step.NUDGE: self._take_nudge,
            Step.OUTCOME: self._take_outcome,
        }
        self._on_outcome: Final[dict[Step, Callable[[Outcome, datetime], Then]]] = {
            Step.CHALLENGE: self._take_challenge,
            Step.TICKET: self._take_ticket,
            Step.PACKAGE: self._take_package,
            Step.REPORT: self._take_report,
            Step.REFUSAL_REPORT: self._take_refusal_report,
        }

    # --- the three entry points ---------------------------------------------------------------------------------------

    def begin(self, alerts: tuple[DeviceAlert, ...], now: datetime) -> Move:
        """The device is authenticated and its order is ongoing; `alerts` came with package 1."""
        self._alerts = alerts
        return self._move(self._begin(now))

    def answered(self, answers: Answers, alerts: tuple[DeviceAlert, ...], now: datetime) -> Move:
        """The device answered the commands of the last move."""
        self._alerts += alerts
        handler = self._on_answers.get(self._step)
        if handler is None:
            return self._move(Finish())
        if any(alert.type == AlertType.NONCE_RENEWED for alert in alerts) and self._order.state in _PHASE_ONE:
            return self._move(self._hold("the device renewed its registration in mid-session", now, step="9"))
        return self._move(handler(answers, now))

    def resumed(self, outcome: Outcome, now: datetime) -> Move:
        """A partner answered what the last move asked."""
        return self._move(self._on_outcome[self._step](outcome, now))

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

    @property
    def order(self) -> Order:
        """The order as of the last move."""
        return self._order

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

    def _hold(self, why: str, now: datetime, *, step: str) -> Finish:
        """End the session; the order waits as it is."""
        self._entries.append(note(why, step=step))
        self._set(detail=why, updated_at=now)
        return Finish()

    def _refuse(self, why: str, now: datetime, *, step: str) -> Then:
        """End the order (REQ-23): the device is left as it is, the home operator is told."""
        self._advance(OrderEvent.REFUSE, now, step=step, detail=why)
        if self._order.req_id is None:
            return Finish()  # the home operator has not heard of any request yet
        return self._ask_partner(Step.REFUSAL_REPORT, tell_sho(self._order, None, ResultCode.REFUSED))

    @property
    def _m2m_root(self) -> str:
        return self._discovery.found[M2M_OBJECT]

    @property
    def _container(self) -> str:
        return f"{self._discovery.found[M2MSIM_OBJECT]}/{self._order.container}"

    # --- contact and discovery (step 7) -------------------------------------------------------------------------------

    def _begin(self, now: datetime) -> Then:
        order = self._order
        if order.state is OrderState.REPORTED:
            return self._look_for_attach(now)
        if order.state is OrderState.DELIVERED and order.receipt is not None:
            return self._report()
        if order.state is OrderState.OPEN:
            self._advance(OrderEvent.CONTACT, now, step="7")
        return self._ask_device(Step.DISCOVERY, self._discovery.next(None))

    def _discover(self, answers: Answers, now: datetime) -> Then:
        more = self._discovery.next(answers)
        if more:
            return self._ask_device(Step.DISCOVERY, more)
        self._entries.append(
            check(
                "management-objects-found",
                self._discovery.complete,
                req=("REQ-02", "REQ-12"),
                step="9",
                detail=", ".join(f"{mo} at {uri}" for mo, uri in sorted(self._discovery.found.items())),
            )
        )
        if not self._discovery.complete:
            return self._hold("incomplete: the device has no M2MMobj or no M2MSIMMobj", now, step="9")
        if self._order.state in (OrderState.DELIVERING, OrderState.DELIVERED):
            # It may have the package: what it says decides, nothing is pushed before (REQ-16).
            return self._ask_device(Step.OUTCOME, commands.ask_outcome(self._container))
        return self._read()

    # --- reading M2MMobj (step 9) -------------------------------------------------------------------------------------

    def _read(self) -> Then:
        return self._ask_device(Step.READ, read_object(self._m2m_root))

    def _take_object(self, answers: Answers, now: datetime) -> Then:
        self._object_answers = answers
        chain = read_chain(self._m2m_root, answers)
        if chain:
            return self._ask_device(Step.READ_CHAIN, chain)
        return self._judge_object(None, now)

    def _take_chain(self, answers: Answers, now: datetime) -> Then:
        return self._judge_object(answers, now)

    def _judge_object(self, chain_answers: Answers | None, now: datetime) -> Then:
        try:
            snapshot = take_snapshot(self._m2m_root, self._object_answers, chain_answers)
        except SnapshotIncomplete as exc:
            self._entries.append(check("m2mmobj-complete", False, req=("REQ-12",), step="9", detail=str(exc)))
            return self._hold(f"incomplete: M2MMobj/{exc} is missing or unusable", now, step="9")
        self._entries.append(check("m2mmobj-complete", True, req=("REQ-12",), step="9"))
        if not self._renewed and _needs_renewal(snapshot, now):
            self._renewed = True
            return self._ask_device(Step.RENEW, commands.renew_registration(self._m2m_root))
        self._snapshot = self._kept_snapshot = snapshot
        expected = Expectation(
            device_id=self._order.device_id,
            sho_id=self._order.sho_id,
            former_requests=self._former,
            manufacturers=self._rules.manufacturers,
            crls=self._rules.crls,
            ddf=self._rules.ddf,
        )
        verdict = check_platform(snapshot, expected, now)
        self._entries.extend(verdict.entries)
        if verdict.refusal:
            return self._refuse(verdict.refusal, now, step="9")
        self._platform, self._attest = verdict.platform, verdict.attest
        return self._go_on_with(snapshot, now)

    def _take_renewal(self, answers: Answers, now: datetime) -> Then:
        self._entries.append(note("the registration was over; asked the TRE for a new one", step="9"))
        return self._read()

    def _go_on_with(self, snapshot: Snapshot, now: datetime) -> Then:
        """The platform is acceptable: take up the order where it was, if that is still good (REQ-22, REQ-25)."""
        order = self._order
        same_request = (order.req_id, order.nonce) == (snapshot.req_id, snapshot.nonce)
        ticket_good = order.ticket is not None and order.ticket_exp is not None and now < order.ticket_exp
        if same_request and ticket_good and order.state is OrderState.PACKAGE_READY and self._package is not None:
            self._entries.append(note("registration unchanged, ticket in time: the kept package is good", step="13"))
            return self._push(now)
        if same_request and ticket_good and order.state in (OrderState.VALIDATED, OrderState.HANDED_OVER):
            return self._hand_over(now)
        if same_request and order.state is OrderState.CHALLENGED and self._evidence_announced(now):
            return self._ask_device(Step.EVIDENCE, commands.read_evidence(self._m2m_root))
        return self._new_validation(snapshot, now)

    def _evidence_announced(self, now: datetime) -> bool:
        order = self._order
        in_time = order.challenge is not None and order.challenge_exp is not None and now < order.challenge_exp
        return in_time and any(alert.type == AlertType.ATTESTATION_READY for alert in self._alerts)

    # --- validation (steps 9 to 11) -----------------------------------------------------------------------------------

    def _new_validation(self, snapshot: Snapshot, now: datetime) -> Then:
        order = self._order
        if order.req_id is not None and order.req_id != snapshot.req_id:
            self._entries.append(note("a new request of the device closes the one before", step="9"))
            self._former |= {order.req_id}
        if order.state is not OrderState.CONTACTED:
            self._advance(OrderEvent.RESTART, now, step="9")
        self._package = None
        self._set(
            req_id=snapshot.req_id,
            nonce=snapshot.nonce,
            tre_id=snapshot.tre_id,
            attest_cert=snapshot.attest_cert,
            cert_chain=snapshot.cert_chain,
            attempt=order.attempt + 1,
            challenge=None,
            challenge_exp=None,
            ticket=None,
            ticket_exp=None,
            mcim_id=None,
            sequence=None,
            package_hash=None,
            pushes=0,
            receipt=None,
            result=None,
        )
        self._advance(OrderEvent.TREE_ACCEPTED, now, step="9")
        if self._rules.mode is ValidationMode.AUTONOMOUS:
            return self._ask_ticket(b"")
        return self._ask_partner(
            Step.CHALLENGE,
            AskChallenge(
                key=f"{snapshot.req_id}:challenge:{self._order.attempt}",
                req_id=snapshot.req_id,
                tre_id=snapshot.tre_id,
                mode=self._rules.mode,
            ),
        )

    def _take_challenge(self, outcome: Outcome, now: datetime) -> Then:
        if isinstance(outcome, PartnerDown):
            return self._wait_for_pva(outcome, now, step="9")
        if isinstance(outcome, PartnerSaidNo):
            return self._refuse(f"pva: {outcome.code}", now, step="9")
        snapshot = self._snapshot
        if not isinstance(outcome, ChallengeGiven) or snapshot is None:
            raise TypeError(f"{type(outcome).__name__} is no answer to a challenge request")
        fit = 16 <= len(outcome.challenge) <= 64 and now < outcome.expires_at
        self._entries.append(check("pva-challenge-usable", fit, req=("REQ-18",), step="10"))
        if not fit:
            return self._wait_for_pva(PartnerDown(reason="its challenge is unusable"), now, step="10")
        self._set(challenge=outcome.challenge, challenge_exp=outcome.expires_at)
        self._advance(OrderEvent.CHALLENGE_ISSUED, now, step="10")
        select = self._order.sho_id if snapshot.sho_id is None else None
        return self._ask_device(Step.EVIDENCE, commands.make_evidence(self._m2m_root, outcome.challenge, select))

    def _wait_for_pva(self, outcome: PartnerDown, now: datetime, *, step: str) -> Then:
        self._entries.append(check("pva-available", False, req=("REQ-17",), step=step, detail=outcome.reason[:200]))
        return self._hold("the PVA gives no answer; the order waits", now, step=step)

    def _take_evidence(self, answers: Answers, now: datetime) -> Then:
        generate = answers.code(f"{self._m2m_root}/{M2MNode.ATTESTATION_GENERATE}")
        evidence = answers.octets(f"{self._m2m_root}/{M2MNode.ATTESTATION_EVIDENCE}")
        if generate == 202 and evidence is None:
            return self._hold("the TRE makes its evidence; the device will announce it", now, step="10")
        self._entries.append(
            check(
                "evidence-received",
                evidence is not None,
                req=("REQ-18",),
                step="10",
                detail="" if evidence is not None else f"Generate {generate}",
            )
        )
        if evidence is None:
            return self._hold("incomplete: the device gave no evidence", now, step="10")
        return self._ask_ticket(evidence)

    def _ask_ticket(self, evidence: bytes) -> Then:
        order, snapshot = self._order, self._snapshot
        if snapshot is None:
            raise TypeError("no snapshot to validate")
        return self._ask_partner(
            Step.TICKET,
            AskTicket(
                key=f"{snapshot.req_id}:validate:{order.attempt}",
                req_id=snapshot.req_id,
                m2me_id=snapshot.m2me_id,
                tre_id=snapshot.tre_id,
                platform_cert=snapshot.platform_cert,
                attest_cert=snapshot.attest_cert,
                chain=snapshot.cert_chain,
                evidence=evidence,
                nonce=snapshot.nonce,
                challenge=order.challenge or b"",
                mode=self._rules.mode,
                audience=(self._rules.server_id, order.sho_id),
            ),
        )

    def _take_ticket(self, outcome: Outcome, now: datetime) -> Then:
        if isinstance(outcome, PartnerDown):
            return self._wait_for_pva(outcome, now, step="11")
        if isinstance(outcome, PartnerSaidNo):
            self._entries.append(check("pva-decision", False, req=("REQ-17", "REQ-23"), step="11", detail=outcome.code))
            return self._refuse(f"pva: {outcome.code}", now, step="11")
        platform, attest = self._platform, self._attest
        if not isinstance(outcome, TicketGiven) or platform is None or attest is None or self._order.nonce is None:
            raise TypeError(f"{type(outcome).__name__} is no answer to a validation request")
        try:
            ticket = verify_ticket(
                outcome.ticket,
                self._rules.pvas,
                now,
                audience=self._rules.server_id,
                pva_id=self._rules.pva_id,
            )
            ticket.check_binding(
                tre_id=self._order.tre_id or "",
                req_id=self._order.req_id or "",
                nonce=self._order.nonce,
                platform_key_id=platform.key_id,
                attest_key_id=attest.key_id,
                mode=self._rules.mode,
            )
        except StatementInvalid as exc:
            self._entries.append(check("pva-ticket", False, req=("REQ-19",), step="11", detail=str(exc)[:200]))
            return self._refuse("pva: the ticket is not acceptable", now, step="11")
        self._entries.append(
            check("pva-ticket", True, req=("REQ-17", "REQ-19"), step="11", detail=f"signed by {ticket.issuer}")
        )
        self._set(ticket=outcome.ticket, ticket_exp=ticket.expires_at)
        self._advance(OrderEvent.TICKET_VERIFIED, now, step="11")
        return self._hand_over(now)

    # --- hand-over (step 12) ------------------------------------------------------------------------------------------

    def _hand_over(self, now: datetime) -> Then:
        snapshot = self._snapshot
        if snapshot is None or self._order.ticket is None:
            raise TypeError("nothing to hand over")
        if self._order.state is OrderState.VALIDATED:
            self._advance(OrderEvent.HAND_OVER, now, step="12")
        order = self._order
        return self._ask_partner(
            Step.PACKAGE,
            AskPackage(
                key=f"{snapshot.req_id}:handover:{order.nonce_digest}",
                sho_id=order.sho_id,
                req_id=snapshot.req_id,
                order_id=order.order_id,
                m2me_id=snapshot.m2me_id,
                tre_id=snapshot.tre_id,
                tre_type=snapshot.tre_type,
                suites=snapshot.suites,
                containers=snapshot.containers,
                algorithms=snapshot.algorithms,
                trust_anchors=snapshot.trust_anchors,
                platform_cert=snapshot.platform_cert,
                chain=snapshot.cert_chain,
                nonce=snapshot.nonce,
                next_sequence=snapshot.next_sequence,
                ticket=order.ticket or "",
                dpf_id=self._rules.server_id,
            ),
        )

    def _take_package(self, outcome: Outcome, now: datetime) -> Then:
        if isinstance(outcome, PartnerDown):
            self._entries.append(check("sho-available", False, req=("REQ-26",), step="12", detail=outcome.reason[:200]))
            return self._hold("the home operator gives no answer; the order waits", now, step="12")
        if isinstance(outcome, PartnerSaidNo):
            return self._refuse(f"sho: {outcome.code}", now, step="12")
        snapshot, platform = self._snapshot, self._platform
        if not isinstance(outcome, PackageGiven) or snapshot is None or platform is None:
            raise TypeError(f"{type(outcome).__name__} is no answer to a hand-over")
        entries = check_package(
            outcome, self._order, snapshot, platform_key_id=platform.key_id, dpf_id=self._rules.server_id, now=now
        )
        self._entries.extend(entries)
        failed = next((entry for entry in entries if not entry.passed), None)
        if failed is not None:
            return self._refuse(f"sho: {failed.text}", now, step="12")
        self._package = self._kept_package = outcome.package
        self._set(
            mcim_id=outcome.mcim_id.lower(),
            sequence=outcome.sequence,
            package_hash=hashlib.sha256(outcome.package).hexdigest(),
            pushes=0,
        )
        self._advance(OrderEvent.PACKAGE_KEPT, now, step="12")
        return self._push(now)

    # --- delivery (step 13) -------------------------------------------------------------------------------------------

    def _push(self, now: datetime) -> Then:
        order, package = self._order, self._package
        if package is None or order.mcim_id is None or order.req_id is None or order.nonce is None:
            raise TypeError("nothing to push")
        if order.pushes >= MAX_PUSHES:
            return self._refuse(f"delivery failed {order.pushes} times", now, step="13")
        self._set(pushes=order.pushes + 1)
        self._advance(OrderEvent.PUSH, now, step="13", detail=f"push {self._order.pushes}")
        return self._ask_device(
            Step.PUSH,
            commands.push_package(
                self._container,
                mcim_id=order.mcim_id,
                sho_id=order.sho_id,
                req_id=order.req_id,
                nonce=order.nonce,
                package=package,
            ),
        )

    def _take_push(self, answers: Answers, now: datetime) -> Then:
        container = self._container
        code = answers.code(f"{container}/{ContainerNode.PACKAGE}")
        self._entries.append(
            check(
                "package-delivered",
                answers.ok(f"{container}/{ContainerNode.PACKAGE}"),
                req=("REQ-25", "REQ-32"),
                step="13",
                detail=f"Status {code}",
            )
        )
        if answers.ok(f"{container}/{ContainerNode.PACKAGE}"):
            self._advance(OrderEvent.PUSHED, now, step="13")
            return Finish()
        if code in (405, 406, 413, 415, 416, 420, 425):
            return self._refuse(f"the device does not take the package: Status {code}", now, step="13")
        # A chunk missing, a size that differs, a container that was there: what the device has of it decides.
        return self._ask_device(Step.OUTCOME, commands.ask_outcome(container))

    # --- outcome on the device (step 14) ------------------------------------------------------------------------------

    def _take_outcome(self, answers: Answers, now: datetime) -> Then:
        container = self._container
        if answers.code(f"{container}/{ContainerNode.STATE}") == 404:
            return self._push_again(now)
        state = answers.number(f"{container}/{ContainerNode.STATE}")
        self._entries.append(note(f"the device says: container state {state}", step="14"))
        if state in (ContainerState.EMPTY, ContainerState.RECEIVING):
            return self._clear()
        if state in (ContainerState.RECEIVED, ContainerState.PROVISIONING):
            return self._wait_for_device(state, now)
        if state not in tuple(ContainerState):
            return self._hold("incomplete: the device does not tell the state of its container", now, step="14")
        result = answers.number(f"{container}/{ContainerNode.RESULT}")
        if state == ContainerState.FAILED and result in TRANSIENT and self._order.pushes < MAX_PUSHES:
            self._entries.append(note(f"the device rolled back with {result}; the package is pushed again", step="14"))
            return self._clear()
        self._have_delivered(now)
        receipt = answers.octets(f"{container}/{ContainerNode.RECEIPT}")
        if receipt is None:
            self._entries.append(check("receipt-present", False, req=("REQ-67",), step="14"))
            return self._hold("incomplete: the device gives no receipt", now, step="14")
        entries, verified = check_receipt(receipt, self._order, leaf_result=result)
        self._entries.extend(entries)
        if verified is None:
            return self._hold("the receipt is not acceptable; the home operator is told nothing", now, step="14")
        self._set(receipt=receipt, result=int(verified.result))
        return self._report()

    def _have_delivered(self, now: datetime) -> None:
        if self._order.state is OrderState.DELIVERING:
            self._advance(OrderEvent.PUSHED, now, step="13", detail="the device says so")

    def _wait_for_device(self, state: int, now: datetime) -> Then:
        self._have_delivered(now)
        if state == ContainerState.RECEIVED and not self._nudged:
            self._nudged = True
            return self._ask_device(Step.NUDGE, commands.provision(self._container))
        return self._hold("the device has the package and is not done with it", now, step="14")

    def _take_nudge(self, answers: Answers, now: datetime) -> Then:
        return self._ask_device(Step.OUTCOME, commands.ask_outcome(self._container))

    def _clear(self) -> Then:
        return self._ask_device(Step.CLEAR, commands.drop_container(self._container))

    def _take_clearing(self, answers: Answers, now: datetime) -> Then:
        code = answers.code(self._container)
        if code not in (200, 404):
            return self._hold(f"the device does not drop its unfinished container: Status {code}", now, step="13")
        return self._push_again(now)

    def _push_again(self, now: datetime) -> Then:
        """The device has nothing of the package: see whether its registration is still the same, then push."""
        self._advance(OrderEvent.PUSH_LOST, now, step="13")
        return self._read()

    # --- report (step 15) and attach (step 16) ------------------------------------------------------------------------

    def _report(self) -> Then:
        order = self._order
        return self._ask_partner(Step.REPORT, tell_sho(order, order.receipt, order.result or ResultCode.REFUSED))

    def _take_report(self, outcome: Outcome, now: datetime) -> Then:
        self._order, entries = settle_report(self._order, outcome, now)
        self._entries.extend(entries)
        if self._order.state is OrderState.REPORTED:
            return self._look_for_attach(now)
        return Finish()

    def _take_refusal_report(self, outcome: Outcome, now: datetime) -> Then:
        told = isinstance(outcome, ReportAcknowledged)
        self._entries.append(
            note("the home operator was told" if told else "the home operator could not be told", step="15")
        )
        return Finish()

    def _look_for_attach(self, now: datetime) -> Then:
        for alert in self._alerts:
            if alert.type != AlertType.NETWORK_ATTACH:
                continue
            attached = alert.data.strip() == str(int(ResultCode.SUCCESS))
            self._entries.append(
                check(
                    "network-attach",
                    attached,
                    req=("REQ-69",),
                    step="16",
                    detail="" if attached else f"the device reports {alert.data.strip()[:16]}",
                )
            )
            if attached:
                self._advance(OrderEvent.ATTACHED, now, step="16")
                break
        return Finish()


_PHASE_ONE: Final = frozenset(
    {
        OrderState.CONTACTED,
        OrderState.TREE_READ,
        OrderState.CHALLENGED,
        OrderState.VALIDATED,
        OrderState.HANDED_OVER,
        OrderState.PACKAGE_READY,
    }
)


def _needs_renewal(snapshot: Snapshot, now: datetime) -> bool:
    """Whether the registration ended on the device and a new one may be asked for; in 2 and 3 it is in use or done."""
    over = snapshot.registration_state in (
        RegistrationState.IDLE,
        RegistrationState.FAILED,
        RegistrationState.EXPIRED,
    )
    stale = snapshot.nonce_expiry is not None and snapshot.nonce_expiry <= now
    return over or (stale and snapshot.registration_state == RegistrationState.REQUESTED)


def tell_sho(order: Order, receipt: bytes | None, result: int) -> TellSho:
    """The report on an order: with the TRE's receipt, or without one when it never got that far."""
    return TellSho(
        key=f"{order.req_id or order.order_id}:report:{result}",
        sho_id=order.sho_id,
        order_id=order.order_id,
        req_id=order.req_id or "",
        receipt=receipt,
        attest_cert=order.attest_cert if receipt is not None else None,
        chain=order.cert_chain if receipt is not None else (),
        result=result,
    )


def settle_report(order: Order, outcome: Outcome, now: datetime) -> tuple[Order, tuple[Entry, ...]]:
    """The order after the home operator answered, or did not answer, a report with the receipt in it (REQ-67)."""
    result = order.result or ResultCode.REFUSED
    success = result in (ResultCode.SUCCESS, ResultCode.ALREADY_DONE)
    if isinstance(outcome, ReportAcknowledged):
        entries = [check("report-acknowledged", True, req=("REQ-67",), step="15", detail=outcome.subscription)]
        event, detail = (
            (OrderEvent.REPORT_ACKNOWLEDGED, "") if success else (OrderEvent.REFUSE, f"device: result {result}")
        )
    elif isinstance(outcome, PartnerSaidNo):
        entries = [check("report-acknowledged", False, req=("REQ-67",), step="15", detail=outcome.code)]
        event, detail = OrderEvent.REFUSE, f"sho refused the report: {outcome.code}"
    else:
        waiting = note("the home operator gives no answer to the report; it is repeated", step="15")
        return dataclasses.replace(order, detail=waiting.text, updated_at=now), (waiting,)
    after = advance(order, event, now, detail=detail)
    return after, (*entries, moved(order.state, after.state, step="15", detail=detail))
