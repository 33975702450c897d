"""Packages and commands in a TRE: judged, carried out and receipted, each in one write (REQ-56, REQ-67, REQ-70)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from uuid import UUID

import structlog

from dmclient.tre.action import Action
from dmclient.tre.base import Hints, Outcome, TreError, unsigned_command
from dmclient.tre.installation import take_in
from dmclient.tre.keys import TreKeys
from dmclient.tre.life_cycle import Changed, carry_out, fallen_back
from dmclient.tre.memory import TreMemory
from dmclient.tre.provisioning import CONSUMING, MAX_CRYPTO_FAILURES, examine, examine_command
from dmclient.tre.state import LastAction, TreState
from dmclient.tre.store import StorageFailed
from mcim.errors import PackageRefused
from mcim.package_header import PackageHeader
from mcim.receipt import Receipt, sign_receipt
from mcim.vocabulary import McimPolicy, Operation, RegistrationState, ResultCode

log = structlog.get_logger(__name__)


class Reception:
    """Where packages and commands go in and receipts come out."""

    def __init__(self, memory: TreMemory, keys: TreKeys, random: Callable[[int], bytes]) -> None:
        self._memory = memory
        self._keys = keys
        self._random = random

    def provision(self, package: bytes, hints: Hints, now: datetime) -> Outcome:
        """Take a package (see `TrustedEnvironment`).

        1 to 14: `dmclient.tre.provisioning.examine`; 15 device token; 16 revision and whatever else `installation`
        asks; 17 one write that installs, consumes the nonce and raises the sequence; 18 receipt, in the same write.
        """

        def work(action: Action) -> Outcome:
            examined = examine(
                package,
                hints,
                state=self._state,
                key=self._keys.platform,
                now=now,
                random=self._random,
                checks=action.checks,
                on_header=action.remember,
            )
            with action.checks.check("device-token", "REQ-61"):
                self._check_token(examined.content.auth_token)
            origin = action.origin(examined.header)
            changed = take_in(self._state, examined, origin, now=now, checks=action.checks)
            return self._accept(changed, action, examined.header, revision=examined.revision)

        return self._judge(Action(digest=hashlib.sha256(package).digest(), now=now), work)

    def command(self, operation: Operation, command: bytes, hints: Hints, now: datetime) -> Outcome:
        """Take a signed command (see `TrustedEnvironment`)."""

        def work(action: Action) -> Outcome:
            header = examine_command(
                command,
                hints,
                operation,
                state=self._state,
                key=self._keys.platform,
                now=now,
                checks=action.checks,
                on_header=action.remember,
            )
            with action.checks.check("life-cycle-state", "REQ-70"):
                before = self._state.with_command(header.mcim_id, header.sho_id, header.sequence)
                changed = carry_out(before, operation, header.mcim_id, by=header.sho_id)
            return self._accept(changed, action, header)

        return self._judge(Action(digest=hashlib.sha256(command).digest(), now=now), work)

    def local_command(self, operation: Operation, mcim_id: UUID, now: datetime) -> Outcome:
        """Take a command without signature (see `TrustedEnvironment`)."""

        def work(action: Action) -> Outcome:
            with action.checks.check("tre-state", "REQ-53"):
                self._require_in_order()
            with action.checks.check("signed-command", "REQ-70"):
                mcim = self._state.mcim(mcim_id)
                if mcim is not None and McimPolicy.SIGNED_LIFECYCLE in mcim.policy:
                    raise PackageRefused(ResultCode.SIGNER_NOT_ACCEPTABLE, "its home operator has to sign this")
            with action.checks.check("life-cycle-state", "REQ-70"):
                changed = carry_out(self._state, operation, mcim_id, by=None)
            return self._accept(changed, action, None)

        # There are no octets: the receipt is bound to what was asked for.
        asked = hashlib.sha256(unsigned_command(operation, mcim_id)).digest()
        return self._judge(Action(digest=asked, now=now), work)

    def _judge(self, action: Action, work: Callable[[Action], Outcome]) -> Outcome:
        """Every end of `work` is an outcome."""
        with self._memory.lock:
            try:
                self._memory.expire(action.now)
                return work(action)
            except PackageRefused as refusal:
                return self._refuse(refusal.code, action)
            except StorageFailed:
                return self._refuse(ResultCode.STORAGE_FAILURE, action)
            except Exception as exc:
                # The type alone: a traceback of this place can hold secrets.
                log.error("tre-internal-error", error=type(exc).__name__)
                return self._refuse(ResultCode.INTERNAL_ERROR, action)

    def _accept(
        self, changed: Changed, action: Action, header: PackageHeader | None, *, revision: int | None = None
    ) -> Outcome:
        """One write: the change, the nonce and sequence it used up, and the receipt, which so exists exactly then."""
        checks, mcim = action.checks, changed.mcim
        mcim_id = None if mcim is None else mcim.mcim_id
        counter = self._memory.next_statement()
        receipt = self._sign(action.receipt(self._state.tre_id, changed.code, counter, revision=revision))
        after = replace(
            changed.state,
            last_receipt=receipt,
            last_action=LastAction(digest=action.digest, code=changed.code, mcim_id=mcim_id),
        )
        if header is not None:
            after = replace(
                after.with_sequence(header.sho_id, header.sequence),
                registration=after.registration.closed(RegistrationState.PROVISIONED),
            )
        try:
            self._memory.commit(after)
        except StorageFailed:
            refusal = PackageRefused(ResultCode.STORAGE_FAILURE, "the previous state is in place")
            checks.failed("sealed-store-written", "REQ-56", refusal=refusal)
            raise
        checks.passed("sealed-store-written", "REQ-52", "REQ-53", "REQ-56")
        info = None if mcim is None else mcim.info()
        return Outcome(code=changed.code, receipt=receipt, mcim=info, checks=tuple(checks.records))

    def _check_token(self, presented: bytes | None) -> None:
        verifier = self._state.token
        if verifier is None:
            return
        if verifier.tries_left <= 0:
            raise PackageRefused(ResultCode.TOKEN_LOCKED, "no tries are left")
        if presented is None:
            raise PackageRefused(ResultCode.TOKEN_WRONG, "the package has no token")
        # The try is counted before the comparison: pulling the plug in between gives no free guess.
        self._memory.commit(replace(self._state, token=replace(verifier, tries_left=verifier.tries_left - 1)))
        if not verifier.matches(presented):
            raise PackageRefused(ResultCode.TOKEN_WRONG, "not the token of this device")
        # Stored with whatever comes of the package.
        self._memory.state = replace(self._state, token=verifier.restored())

    def _refuse(self, code: ResultCode, action: Action) -> Outcome:
        """Receipt of a refusal. It is stored with what the refusal costs: a try under this nonce, or the nonce."""
        record = self._state.registration
        if action.header is not None and action.checks.sender_at_fault and code in CONSUMING:
            record = record.closed(RegistrationState.FAILED)
        elif code is ResultCode.CRYPTO_FAILURE:
            record = replace(record, crypto_failures=record.crypto_failures + 1)
            if record.crypto_failures >= MAX_CRYPTO_FAILURES:
                record = record.closed(RegistrationState.FAILED)
        receipt = b""
        try:
            receipt = self._sign(action.receipt(self._state.tre_id, code, self._memory.next_statement()))
            last = LastAction(digest=action.digest, code=code)
            self._memory.commit(replace(self._state, registration=record, last_receipt=receipt, last_action=last))
        except StorageFailed:
            # Nothing can be written now. The nonce stays as it was on disk and in memory; a counter of the reserve
            # still makes the receipt unique, and without even that there is none.
            log.warning("tre-refusal-not-stored", code=int(code))
        return Outcome(code=code, receipt=receipt, mcim=None, checks=tuple(action.checks.records))

    def fall_back(self, mcim_id: UUID, now: datetime) -> Outcome | None:
        """Go back to what was in use before (see `TrustedEnvironment`).

        Raises:
            TreError: it cannot be stored.
        """
        with self._memory.lock:
            changed = fallen_back(self._state, mcim_id)
            if changed is None or changed.mcim is None or self._state.condition != "ok":
                return None
            mcim = changed.mcim
            origin = mcim.origin
            try:
                counter = self._memory.next_statement()
                receipt = self._sign(
                    Receipt(
                        tre_id=self._state.tre_id,
                        operation=origin.operation,
                        mcim_id=mcim_id,
                        sho_id=mcim.sho_id,
                        sequence=origin.sequence,
                        nonce=origin.nonce,
                        revision=mcim.revision,
                        package_hash=origin.package_hash,
                        result=changed.code,
                        counter=counter,
                        time=now,
                    )
                )
                last = LastAction(digest=origin.package_hash, code=changed.code, mcim_id=mcim_id)
                self._memory.commit(replace(changed.state, last_receipt=receipt, last_action=last))
            except StorageFailed as exc:
                raise TreError(ResultCode.STORAGE_FAILURE, "the sealed store cannot be written") from exc
            return Outcome(code=changed.code, receipt=receipt, mcim=mcim.info(), checks=())

    @property
    def _state(self) -> TreState:
        return self._memory.state

    def _require_in_order(self) -> None:
        if self._state.condition != "ok":
            raise PackageRefused(ResultCode.TRE_STATE_NOT_OK, f"TRE is {self._state.condition}")

    def _sign(self, receipt: Receipt) -> bytes:
        return sign_receipt(receipt, self._keys.sign)
