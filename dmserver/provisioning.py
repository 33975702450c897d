"""The provisioning policy: contact, discovery, validation, hand-over (steps 7 to 12), then what `delivery` adds."""

from __future__ import annotations

import hashlib
from datetime import datetime

from dmserver import commands
from dmserver.answers import Answers
from dmserver.asks import (
    AskChallenge,
    AskPackage,
    AskTicket,
    ChallengeGiven,
    Outcome,
    PackageGiven,
    PartnerDown,
    PartnerSaidNo,
    TicketGiven,
)
from dmserver.audit import check, note
from dmserver.delivery import Delivery
from dmserver.orders import Order, OrderEvent, OrderState
from dmserver.platform_checks import Expectation, check_platform
from dmserver.policy import Rules, Step, Then
from dmserver.reception import check_package
from dmserver.snapshot import (
    Snapshot,
    SnapshotIncomplete,
    read_chain,
    read_object,
    registration_over,
    selects_nobody,
    take_snapshot,
)
from mcim.certificates import ValidatedCertificate
from mcim.errors import StatementInvalid
from mcim.ticket import verify_ticket
from mcim.vocabulary import ValidationMode
from mo_definitions import AlertType
from mo_definitions.m2m import M2MNode


class Provisioning(Delivery):
    """Policy of one session with one device that has an ongoing order.

    `begin`, then `answered` after each package of the device and `resumed` after each partner call, as the last
    `Move` asked.
    """

    def __init__(self, rules: Rules, order: Order, *, package: bytes | None, former_requests: frozenset[str]) -> None:
        super().__init__(rules, order, package=package, former_requests=former_requests)
        self._object_answers = Answers()
        self._snapshot: Snapshot | None = None
        self._platform: ValidatedCertificate | None = None
        self._attest: ValidatedCertificate | None = None
        self._renewed = False
        self._on_answers |= {
            Step.DISCOVERY: self._discover,
            Step.READ: self._take_object,
            Step.READ_CHAIN: self._take_chain,
            Step.RENEW: self._take_renewal,
            Step.EVIDENCE: self._take_evidence,
        }
        self._on_outcome |= {
            Step.CHALLENGE: self._take_challenge,
            Step.TICKET: self._take_ticket,
            Step.PACKAGE: self._take_package,
        }

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
        undecided = selects_nobody(self._m2m_root, answers)
        if not self._renewed and (undecided or registration_over(self._m2m_root, answers, now)):
            self._renewed = True
            why = "the registration names no home operator" if undecided else "the registration was over"
            self._entries.append(note(f"{why}; asked the TRE for a new one", step="9"))
            select = self._order.sho_id if undecided else None
            return self._ask_device(Step.RENEW, commands.renew_registration(self._m2m_root, select))
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
        self._snapshot = self._kept_snapshot = snapshot
        expected = Expectation(
            device_id=self._order.device_id,
            sho_id=self._order.sho_id,
            former_requests=self._former,
            manufacturers=self._rules.manufacturers,
            crls=self._rules.crls(),
            crl_required=self._rules.crl_required,
            ddf=self._rules.ddf,
        )
        verdict = check_platform(snapshot, expected, now)
        self._entries.extend(verdict.entries)
        if verdict.refusal:
            return self._refuse(verdict.refusal, now, step="9")
        self._platform, self._attest = verdict.platform, verdict.attest
        return self._go_on_with(snapshot, now)

    def _take_renewal(self, answers: Answers, now: datetime) -> Then:
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
                order_id=order.order_id,
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
        return self._ask_device(Step.EVIDENCE, commands.make_evidence(self._m2m_root, outcome.challenge))

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
                order_id=order.order_id,
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
                crls=self._rules.crls(),
                require_crl=self._rules.crl_required,
            )
            ticket.check_binding(
                tre_id=self._order.tre_id or "",
                req_id=self._order.req_id or "",
                nonce=self._order.nonce,
                platform_key_id=platform.key_id,
                attest_key_id=attest.key_id,
                mode=self._rules.mode,
            )
            if ticket.m2me_id != self._order.device_id or self._order.sho_id not in ticket.audience:
                raise StatementInvalid("the ticket names another M2ME or another home operator")
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
