"""The provisioning policy: contact, discovery, M2MMobj, hand-over (steps 7 to 9 and 12), around what the others add.

Its parts stand on one another: `reporting`, `delivery`, `life_cycle`, `platform_validation`, and this one on top.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from dmserver import commands
from dmserver.answers import Answers
from dmserver.asks import AskPackage, Outcome, PackageGiven, PackageLater, PartnerDown, PartnerSaidNo
from dmserver.audit import check, note
from dmserver.orders import Order, OrderEvent, OrderState
from dmserver.platform_checks import Expectation, check_platform
from dmserver.platform_validation import PlatformValidation
from dmserver.policy import Rules, Step, Then
from dmserver.reception import PackageFacts, check_package, keep_package, kept_package
from dmserver.snapshot import (
    Snapshot,
    SnapshotIncomplete,
    read_chain,
    read_object,
    registration_open,
    registration_over,
    selected_sho,
    selects_nobody,
    take_snapshot,
)

MAX_VALIDATIONS: Final = 2  # in one session: the ticket may age once while the home operator works


class Provisioning(PlatformValidation):
    """Policy of one session with one device that has an ongoing order.

    `begin`, then `answered` after each package of the device and `resumed` after each partner call, as the last
    `Move` asked.
    """

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
        self._object_answers = Answers()
        self._renewed = False
        self._on_answers |= {
            Step.DISCOVERY: self._discover,
            Step.READ: self._take_object,
            Step.READ_CHAIN: self._take_chain,
            Step.RENEW: self._take_renewal,
        }
        self._on_outcome |= {Step.PACKAGE: self._take_package}

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
        if self._order.state is OrderState.REPORTED:
            return self._ask_for_fall_back()
        if self._order.state in (OrderState.DELIVERING, OrderState.DELIVERED, OrderState.MISSING):
            # It may have the package: what it says decides, nothing is pushed before (REQ-16).
            return self._ask_outcome()
        return self._look()

    # --- reading M2MMobj (step 9) -------------------------------------------------------------------------------------

    def _read(self) -> Then:
        return self._ask_device(Step.READ, read_object(self._m2m_root))

    def _take_object(self, answers: Answers, now: datetime) -> Then:
        why = None if self._renewed else self._why_renew(answers, now)
        if why is not None:
            self._renewed = True
            self._entries.append(note(f"{why}; asked the TRE for a new one", step="9"))
            selected = selected_sho(self._m2m_root, answers)
            name_it = selected is None or (self._order.may_reopen and selected != self._order.sho_id)
            select = self._order.sho_id if name_it else None
            return self._ask_device(Step.RENEW, commands.renew_registration(self._m2m_root, select))
        self._object_answers = answers
        chain = read_chain(self._m2m_root, answers)
        if chain:
            return self._ask_device(Step.READ_CHAIN, chain)
        return self._judge_object(None, now)

    def _why_renew(self, answers: Answers, now: datetime) -> str | None:
        """Why the registration cannot serve this order and another one may be asked for (flows F4, F6)."""
        order, root = self._order, self._m2m_root
        if selects_nobody(root, answers):
            return "the registration names no home operator"
        if registration_over(root, answers, now, reopen=order.may_reopen):
            return "the registration was over"
        if order.may_reopen and selected_sho(root, answers) != order.sho_id and registration_open(root, answers):
            return "the registration names another home operator"
        return None

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
            if self._order.req_id is None:
                self._set(req_id=snapshot.req_id)  # for the report: the home operator is told which request it was
            return self._refuse(verdict.refusal, now, step="9")
        self._platform, self._attest = verdict.platform, verdict.attest
        return self._go_on_with(snapshot, now)

    def _take_renewal(self, answers: Answers, now: datetime) -> Then:
        return self._read()

    def _go_on_with(self, snapshot: Snapshot, now: datetime) -> Then:
        """The platform is acceptable: take up the order where it was, if that is still good (REQ-22, REQ-25)."""
        order = self._order
        same_request = (order.req_id, order.nonce) == (snapshot.req_id, snapshot.nonce)
        if same_request and self._ticket_holds(now):
            if order.state is OrderState.PACKAGE_READY and self._package is not None:
                return self._push_kept(now)
            if order.state in (OrderState.VALIDATED, OrderState.HANDED_OVER):
                return self._validated(now)
        if same_request and order.state is OrderState.CHALLENGED and self._evidence_announced(now):
            return self._ask_device(Step.EVIDENCE, commands.read_evidence(self._m2m_root, with_log=self._with_log))
        return self._new_validation(snapshot, now)

    # --- hand-over (step 12) ------------------------------------------------------------------------------------------

    def _validated(self, now: datetime) -> Then:
        """With a package kept from before, only the ticket had aged: no second hand-over, no second issue (T17)."""
        if self._order.state is OrderState.VALIDATED and self._package is not None:
            self._advance(OrderEvent.STILL_GOOD, now, step="12")
            return self._push_kept(now)
        return self._hand_over(now)

    def _push_kept(self, now: datetime) -> Then:
        """Push a package that was kept in another session, or came between two: it is looked at once more."""
        given = None if self._package is None else kept_package(self._order, self._package)
        if given is None or self._snapshot is None:
            raise TypeError("no package is kept")
        if (refusal := self._inspect(given, self._snapshot, now)) is not None:
            return refusal
        self._entries.append(note("registration unchanged, ticket in time: the kept package is good", step="13"))
        return self._push(now)

    def _inspect(self, given: PackageGiven, snapshot: Snapshot, now: datetime) -> Then | None:
        facts = PackageFacts.of(snapshot)
        entries = check_package(given, self._order, facts, dpf_id=self._rules.server_id, now=now)
        self._entries.extend(entries)
        failed = next((entry for entry in entries if entry.passed is False), None)
        return None if failed is None else self._refuse(f"sho: {failed.text}", now, step="12")

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
                key=f"{snapshot.req_id}:handover:{order.order_id}:{order.nonce_digest}",
                sho_id=order.sho_id,
                req_id=snapshot.req_id,
                order_id=order.order_id,
                m2me_id=snapshot.m2me_id,
                tre_id=snapshot.tre_id,
                tre_type=snapshot.tre_type,
                tre_version=snapshot.tre_version,
                operation=order.operation,
                mcim_id=order.mcim_id if order.has_target else None,
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
            return self._hold_and_call("the home operator gives no answer; the order waits", now, step="12")
        if isinstance(outcome, PartnerSaidNo):
            return self._refuse(f"sho: {outcome.code}", now, step="12")
        if isinstance(outcome, PackageLater):
            self._set(job=outcome.job, job_at=now + timedelta(seconds=outcome.retry_after_s))
            return self._hold(
                "the home operator makes the package in its own time; the device is called", now, step="12"
            )
        snapshot = self._snapshot
        if not isinstance(outcome, PackageGiven) or snapshot is None:
            raise TypeError(f"{type(outcome).__name__} is no answer to a hand-over")
        if (refusal := self._inspect(outcome, snapshot, now)) is not None:
            return refusal
        self._package = self._kept_package = outcome.package
        self._order = keep_package(self._order, outcome)
        self._advance(OrderEvent.PACKAGE_KEPT, now, step="12")
        if self._ticket_fresh(now) or self._validations > MAX_VALIDATIONS - 1:
            return self._push(now)
        self._entries.append(note("the ticket aged while the package was made; validated again", step="12"))
        return self._new_validation(snapshot, now)
