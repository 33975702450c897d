"""Validation part of the provisioning policy: challenge, evidence, ticket (steps 9 to 11; REQ-17 to REQ-19, REQ-22)."""

from __future__ import annotations

from datetime import datetime

from dmserver import commands
from dmserver.answers import Answers
from dmserver.asks import (
    AskChallenge,
    AskTicket,
    ChallengeGiven,
    Outcome,
    PartnerDown,
    PartnerSaidNo,
    TicketGiven,
)
from dmserver.audit import check, note
from dmserver.life_cycle import LifeCycle
from dmserver.orders import Order, OrderEvent, OrderState
from dmserver.policy import Rules, Step, Then
from dmserver.snapshot import Snapshot
from mcim.certificates import ValidatedCertificate
from mcim.errors import StatementInvalid
from mcim.measurement_log import MAX_LOG
from mcim.ticket import Ticket, verify_ticket
from mcim.vocabulary import ValidationMode
from mo_definitions import AlertType
from mo_definitions.m2m import M2MNode


class PlatformValidation(LifeCycle):
    """What happens from the moment the device's M2MMobj is acceptable until the PVA's ticket is."""

    def __init__(
        self,
        rules: Rules,
        order: Order,
        *,
        package: bytes | None,
        former_requests: frozenset[str],
        brought_by: Order | None = None,
    ) -> None:
        super().__init__(rules, order, package=package, former_requests=former_requests, brought_by=brought_by)
        self._snapshot: Snapshot | None = None
        self._platform: ValidatedCertificate | None = None
        self._attest: ValidatedCertificate | None = None
        self._validations = 0  # begun in this session
        self._on_answers |= {Step.EVIDENCE: self._take_evidence}
        self._on_outcome |= {Step.CHALLENGE: self._take_challenge, Step.TICKET: self._take_ticket}

    def _validated(self, now: datetime) -> Then:
        """The ticket is good: go on."""
        raise NotImplementedError

    def _ticket_fresh(self, now: datetime) -> bool:
        """Whether the ticket holds long enough for a delivery (T17)."""
        order = self._order
        margin = self._rules.ticket_margin
        return order.ticket is not None and order.ticket_exp is not None and now + margin < order.ticket_exp

    def _evidence_announced(self, now: datetime) -> bool:
        order = self._order
        in_time = order.challenge is not None and order.challenge_exp is not None and now < order.challenge_exp
        return in_time and any(alert.type == AlertType.ATTESTATION_READY for alert in self._alerts)

    @property
    def _with_log(self) -> bool:
        return self._rules.mode is ValidationMode.REMOTE

    def _new_validation(self, snapshot: Snapshot, now: datetime) -> Then:
        """Validate, from the challenge on. A package for the same registration is kept meanwhile (T17)."""
        order = self._order
        self._validations += 1
        if order.req_id is not None and order.req_id != snapshot.req_id:
            self._entries.append(note("a new request of the device closes the one before", step="9"))
            self._former |= {order.req_id}
        if order.state is not OrderState.CONTACTED:
            self._advance(OrderEvent.RESTART, now, step="9")
        if (order.req_id, order.nonce) != (snapshot.req_id, snapshot.nonce):
            self._package = None
        if self._package is None:
            self._set(
                mcim_id=order.mcim_id if order.has_target else None,
                sequence=None,
                package_hash=None,
                token_ref=None,
                pushes=0,
            )
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
            job=None,
            job_at=None,
            receipt=None,
            result=None,
            left_state=None,
            attach=None,
        )
        self._advance(OrderEvent.TREE_ACCEPTED, now, step="9")
        if self._rules.mode is ValidationMode.AUTONOMOUS:
            return self._ask_ticket(b"", b"")
        return self._ask_partner(
            Step.CHALLENGE,
            AskChallenge(
                key=f"{snapshot.req_id}:challenge:{self._order.order_id}:{self._order.attempt}",
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
        return self._ask_device(
            Step.EVIDENCE,
            commands.make_evidence(self._m2m_root, outcome.challenge, with_log=self._with_log),
        )

    def _wait_for_pva(self, outcome: PartnerDown, now: datetime, *, step: str) -> Then:
        self._entries.append(check("pva-available", False, req=("REQ-17",), step=step, detail=outcome.reason[:200]))
        return self._hold_and_call("the PVA gives no answer; the order waits", now, step=step)

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
        log = answers.octets(f"{self._m2m_root}/{M2MNode.ATTESTATION_LOG}") or b""
        if self._with_log:
            usable = 0 < len(log) <= MAX_LOG
            self._entries.append(
                check("measurement-log-received", usable, req=("REQ-18",), step="10", detail=f"{len(log)} octets")
            )
            if not usable:
                return self._hold("incomplete: the device gave no measurement log", now, step="10")
        return self._ask_ticket(evidence, log if self._with_log else b"")

    def _ask_ticket(self, evidence: bytes, log: bytes) -> Then:
        order, snapshot = self._order, self._snapshot
        if snapshot is None:
            raise TypeError("no snapshot to validate")
        return self._ask_partner(
            Step.TICKET,
            AskTicket(
                key=f"{snapshot.req_id}:validate:{order.order_id}:{order.attempt}",
                order_id=order.order_id,
                req_id=snapshot.req_id,
                m2me_id=snapshot.m2me_id,
                tre_id=snapshot.tre_id,
                platform_cert=snapshot.platform_cert,
                attest_cert=snapshot.attest_cert,
                chain=snapshot.cert_chain,
                tre_type=snapshot.tre_type,
                tre_version=snapshot.tre_version,
                evidence=evidence,
                log=log,
                nonce=snapshot.nonce,
                challenge=order.challenge or b"",
                mode=self._rules.mode,
                audience=(self._rules.server_id, order.sho_id),
            ),
        )

    def _read_ticket(self, token: str, now: datetime) -> Ticket:
        """A ticket of the PVA about this platform as it was just read.

        Raises:
            StatementInvalid
        """
        order, platform, attest = self._order, self._platform, self._attest
        if platform is None or attest is None or order.nonce is None:
            raise TypeError("no platform that a ticket could be about")
        ticket = verify_ticket(
            token,
            self._rules.pvas,
            now,
            audience=self._rules.server_id,
            pva_id=self._rules.pva_id,
            crls=self._rules.crls(),
            require_crl=self._rules.crl_required,
        )
        ticket.check_binding(
            tre_id=order.tre_id or "",
            req_id=order.req_id or "",
            nonce=order.nonce,
            platform_key_id=platform.key_id,
            attest_key_id=attest.key_id,
            mode=self._rules.mode,
        )
        if ticket.m2me_id != order.device_id or order.sho_id not in ticket.audience:
            raise StatementInvalid("the ticket names another M2ME or another home operator")
        return ticket

    def _ticket_holds(self, now: datetime) -> bool:
        """Whether the kept ticket speaks of the platform that was just read, for long enough (T4, T17)."""
        if not self._ticket_fresh(now):
            return False
        try:
            self._read_ticket(self._order.ticket or "", now)
        except StatementInvalid as exc:
            self._entries.append(note("the kept ticket does not hold any more", step="11", detail=str(exc)[:200]))
            return False
        return True

    def _take_ticket(self, outcome: Outcome, now: datetime) -> Then:
        if isinstance(outcome, PartnerDown):
            return self._wait_for_pva(outcome, now, step="11")
        if isinstance(outcome, PartnerSaidNo):
            said = f"{outcome.code}: {outcome.detail[:128]}".removesuffix(": ")
            self._entries.append(check("pva-decision", False, req=("REQ-17", "REQ-23"), step="11", detail=said))
            return self._refuse(f"pva: {outcome.code}", now, step="11")
        if not isinstance(outcome, TicketGiven):
            raise TypeError(f"{type(outcome).__name__} is no answer to a validation request")
        try:
            ticket = self._read_ticket(outcome.ticket, now)
        except StatementInvalid as exc:
            self._entries.append(check("pva-ticket", False, req=("REQ-19",), step="11", detail=str(exc)[:200]))
            return self._refuse("pva: the ticket is not acceptable", now, step="11")
        self._entries.append(
            check("pva-ticket", True, req=("REQ-17", "REQ-19"), step="11", detail=f"signed by {ticket.issuer}")
        )
        self._set(ticket=outcome.ticket, ticket_exp=ticket.expires_at)
        self._advance(OrderEvent.TICKET_VERIFIED, now, step="11")
        return self._validated(now)
