"""Report: a receipt signed inside the TRE moves the subscription, and nothing else does (REQ-67, REQ-68, REQ-70)."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Connection

from actor_runtime.http import Base64, Body, OrderId
from actor_runtime.store import Store
from actor_runtime.trail import Trail
from mcim.certificates import Role, load_der, validate
from mcim.errors import CertificateRefused, StatementInvalid
from mcim.receipt import Receipt, verify_receipt
from mcim.vocabulary import Operation, ResultCode
from sho.checks import Checks, RequestRefused
from sho.identity import TrustStore
from sho.store import effects, handovers, repository
from sho.store.repository import HandoverRow
from sho.subscriptions import Vault

STEP: Final = "15"
SUCCESS: Final = frozenset({ResultCode.SUCCESS, ResultCode.ALREADY_DONE})
DONE: Final = SUCCESS | {ResultCode.FELL_BACK}  # results that a TRE gives about a package it took


class ReportBody(Body):
    """`POST /v1/report`."""

    order_id: OrderId
    req_id: uuid.UUID
    receipt: Base64
    attest_cert: Base64
    chain: list[Base64]
    result: int


class ReportDesk:
    """Takes receipts, and news of orders that ended without one. Repeating changes nothing and gets the same answer."""

    def __init__(
        self, *, store: Store, vault: Vault, trail: Trail, sho_id: str, trust: TrustStore, quarantine: timedelta
    ) -> None:
        self._store, self._vault, self._trail, self._sho_id = store, vault, trail, sho_id
        self._trust, self._quarantine = trust, quarantine

    async def report(self, body: ReportBody, *, client_names: frozenset[str], now: datetime) -> str:
        """Verify a receipt and let the subscription follow; returns the subscription's state now.

        Raises:
            RequestRefused: no such hand-over, or the receipt is not that of this TRE about this package.
        """
        checks = Checks(self._trail, step=STEP, order=body.order_id)
        if not body.receipt:
            return await self._ended_without_receipt(body, checks, client_names)
        row = await self._store.read(
            lambda c: repository.find_reported_handover(c, body.order_id, str(body.req_id), client_names)
        )
        if row is None and (released := await self._released(body, checks, client_names, now)):
            return released
        known = row is not None and row.dpf_id in client_names
        checks.require("report-of-a-handover", known, ("REQ-67",), code="handover-unknown", status=404)
        if row is None:
            raise RequestRefused("handover-unknown", "no such hand-over", status=404)
        receipt = self._verify(body, row, checks, now)
        return await self._apply(row, receipt, body.receipt, checks, now)

    async def _ended_without_receipt(self, body: ReportBody, checks: Checks, client_names: frozenset[str]) -> str:
        """The DPF refused the device before the TRE had anything (REQ-23). A DPF's word moves the order, and nothing
        that decides who may attach: a subscription already allocated stays with its device.
        """
        success = body.result in SUCCESS
        checks.require("success-has-a-receipt", not success, ("REQ-67", "REQ-68"), code="receipt-refused")
        order = await self._store.read(lambda c: repository.find_order(c, body.order_id))
        foreign = await self._store.read(lambda c: repository.handed_over_by_others(c, body.order_id, client_names))
        checks.require(
            "order-is-ours", order is not None and not foreign, ("REQ-13",), code="order-unknown", status=404
        )
        if order is not None and await self._store.write(lambda c: repository.refuse_order(c, body.order_id)):
            detail = f"result {body.result}"
            self._trail.state("order", str(order["state"]), "refused", step=STEP, order=body.order_id, detail=detail)
        return "none"

    async def _released(
        self, body: ReportBody, checks: Checks, client_names: frozenset[str], now: datetime
    ) -> str | None:
        """A delete by the SHO that we released an MCIM to (change of SHO, flows F6): no hand-over of ours, but
        the receipt of the TRE that we installed it in. None when it is nothing of the kind.
        """
        try:
            leaf, chain = load_der(body.attest_cert), [load_der(octets) for octets in body.chain]
            attest = validate(
                leaf,
                chain,
                self._trust.manufacturers,
                Role.ATTEST,
                now,
                crls=self._trust.crls,
                require_crl=self._trust.crl_required,
            )
            claimed = verify_receipt(body.receipt, _ec_key(attest.public_key))
        except (CertificateRefused, StatementInvalid):
            return None
        if (
            claimed.operation is not Operation.DELETE
            or claimed.mcim_id is None
            or claimed.sho_id in (None, self._sho_id)
        ):
            return None
        mcim_id = str(claimed.mcim_id)
        installed = await self._store.read(lambda c: repository.find_handover_of_mcim(c, mcim_id))
        if installed is None or installed.dpf_id not in client_names:
            return None
        receipt = self._read_receipt(body, installed, checks, now)
        mine = receipt.tre_id == installed.tre_id and receipt.result in SUCCESS and int(receipt.result) == body.result

        def close(connection: Connection) -> bool:
            return (
                mine
                and receipt.sho_id is not None
                and effects.close_released(
                    connection, mcim_id=mcim_id, tre_id=receipt.tre_id, new_sho_id=receipt.sho_id
                )
            )

        closed = await self._store.write(close)
        checks.require("delete-by-the-released-sho", closed, ("REQ-67", "REQ-70"), code="receipt-refused")
        self._trail.note(f"MCIM {mcim_id} was deleted by {receipt.sho_id}", step=STEP, order=body.order_id)
        return repository.CLOSED

    def _read_receipt(self, body: ReportBody, row: HandoverRow, checks: Checks, now: datetime) -> Receipt:
        """The receipt, signed by the attestation key that the PVA's ticket named at the hand-over."""
        try:
            leaf, chain = load_der(body.attest_cert), [load_der(octets) for octets in body.chain]
            attest = validate(
                leaf,
                chain,
                self._trust.manufacturers,
                Role.ATTEST,
                now,
                identity=row.tre_id,
                crls=self._trust.crls,
                require_crl=self._trust.crl_required,
            )
        except CertificateRefused as exc:
            raise checks.failed(
                "attest-certificate", ("REQ-67",), code="attest-certificate-refused", detail=str(exc)
            ) from exc
        checks.passed("attest-certificate", ("REQ-67",), f"key {attest.key_id.hex()}")
        checks.require(
            "attest-key-is-the-validated-one",
            attest.m2me_id == row.m2me_id and attest.key_id == row.attest_key_id,
            ("REQ-67",),
            code="attest-certificate-refused",
        )
        try:
            receipt = verify_receipt(body.receipt, _ec_key(attest.public_key))
        except StatementInvalid as exc:
            raise checks.failed("receipt-signature", ("REQ-67",), code="receipt-refused", detail=str(exc)) from exc
        checks.passed("receipt-signature", ("REQ-67",))
        return receipt

    def _verify(self, body: ReportBody, row: HandoverRow, checks: Checks, now: datetime) -> Receipt:
        receipt = self._read_receipt(body, row, checks, now)
        # A success names everything. What the TRE could not read from a package that was broken on the way is absent
        # from the receipt of its refusal, and the hash is that of the broken package.
        success = receipt.result in DONE
        expected: dict[str, tuple[object, object]] = {
            "nonce": (receipt.nonce, row.nonce),
            "sequence": (receipt.sequence, row.sequence),
            "MCIM": (receipt.mcim_id, uuid.UUID(row.mcim_id)),
            "SHO": (receipt.sho_id, self._sho_id),
            "operation": (receipt.operation, row.operation),
        }
        wrong_fields = [
            name for name, (found, own) in expected.items() if found != own and (success or found is not None)
        ]
        if receipt.tre_id != row.tre_id:
            wrong_fields.append("TRE")
        if success and receipt.package_hash != row.package_hash:
            wrong_fields.append("package hash")
        if int(receipt.result) != body.result:
            wrong_fields.append("result")
        wrong = ", ".join(wrong_fields)
        checks.require(
            "receipt-binding", not wrong, ("REQ-67",), code="receipt-refused",
            detail=f"not ours: {wrong}" if wrong else f"result {int(receipt.result)}",
        )  # fmt: skip
        return receipt

    async def _apply(self, row: HandoverRow, receipt: Receipt, octets: bytes, checks: Checks, now: datetime) -> str:
        result, fell_back = int(receipt.result), receipt.result is ResultCode.FELL_BACK

        def apply(connection: Connection) -> tuple[str, str]:
            current = repository.find_handover(connection, row.m2me_id, row.req_id, for_update=True)
            if current is None:
                raise RequestRefused("handover-unknown", "no such hand-over", status=404)
            before = repository.get_subscription(connection, current.subscription_id, for_update=True).state
            if current.receipt == octets or current.state == repository.FELL_BACK:
                return before, before
            if current.state == repository.CONFIRMED and not fell_back:
                return before, before  # a repeat, or what the TRE said of another try after it had succeeded
            if not handovers.take_receipt_counter(connection, current.tre_id, receipt.counter):
                raise RequestRefused("receipt-refused", "an old receipt: the counter does not rise")
            if fell_back:
                effects.fall_back(connection, self._vault, current, revision=receipt.revision)
                state = repository.FELL_BACK
            elif receipt.result in SUCCESS:
                if not effects.succeed(connection, self._vault, current):
                    raise RequestRefused("subscription-reassigned", "another device has it now", status=409)
                state = repository.CONFIRMED
            else:
                effects.fail(connection, current, available_from=now + self._quarantine)
                state = repository.FAILED
            handovers.set_outcome(connection, current, state=state, result=result, receipt=octets)
            return before, repository.get_subscription(connection, current.subscription_id).state

        try:
            before, after = await self._store.write(apply)
        except RequestRefused as exc:
            raise checks.failed("receipt-acceptable-now", ("REQ-67", "REQ-68"), code=exc.code, detail=str(exc),
                                status=exc.status) from exc  # fmt: skip
        if before != after:
            self._trail.state(
                "subscription", before, after, step=STEP, order=row.order_id, detail=f"MCIM {row.mcim_id}"
            )
        else:
            self._trail.note(f"nothing to change: the subscription is {after}", step=STEP, order=row.order_id)
        return after


def _ec_key(key: object) -> ec.EllipticCurvePublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise RequestRefused("attest-certificate-refused", "not an EC key")
    return key
