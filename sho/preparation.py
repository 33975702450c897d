"""Objects in advance (REQ-65): platforms are registered, and a bulk job seals an MCIM for each of them.

One item of a job is one transaction: subscription, sequence number and object come together or not at all. A job that
was interrupted, however hard, goes on where it was.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from actor_runtime.errors import ActorError
from actor_runtime.store import Store
from actor_runtime.trail import Trail
from mcim.aka import MAX_SQN
from mcim.certificates import Reason, ValidatedCertificate
from mcim.errors import CertificateRefused
from sho.handover import CLOCK_SKEW, HandoverPolicy
from sho.negotiation import acceptable_suites, known_algorithms
from sho.packaging import STEP, PackageMaker
from sho.platform_checks import PlatformChecks, from_base64, platform_key, to_base64
from sho.store import prepared, repository, tokens
from sho.store.prepared import PlatformRow, PreparedRow

FIRST_SEQUENCE: Final = 1  # nothing is known of what the TRE takes; it is looked at when the device asks


class Preparation:
    """Registers platforms and prepares for them."""

    def __init__(
        self,
        *,
        store: Store,
        trail: Trail,
        platforms: PlatformChecks,
        packages: PackageMaker,
        policy: HandoverPolicy,
        now: Callable[[], datetime],
    ) -> None:
        self._store, self._trail = store, trail
        self._platforms, self._packages = platforms, packages
        self._policy, self._now = policy, now

    def register(
        self,
        certificates: Sequence[bytes],
        *,
        suites: Sequence[str],
        containers: Sequence[str],
        algorithms: Sequence[str],
    ) -> bool:
        """Take a platform credential in, for the TRE and the device it names; False when it was known.

        Raises:
            CertificateRefused: it is not good for a platform now.
        """
        now = self._now()
        platform = self._platforms.validate(certificates, tre_id=None, m2me_id=None, now=now)
        row = PlatformRow(
            key_id=platform.key_id,
            tre_id=platform.subject_id,
            m2me_id=platform.m2me_id or "",
            certificates=to_base64(certificates),
            suites=tuple(suites),
            containers=tuple(containers),
            algorithms=tuple(algorithms),
        )
        return self._store.write_sync(lambda c: prepared.register(c, row, now=now))

    def start(self, key_ids: Sequence[bytes] | None = None) -> str:
        """Record a bulk job over these platforms, or all; `run` does it. Returns its id.

        Raises:
            ActorError: a platform that is not registered.
        """
        now, job_id = self._now(), str(uuid.uuid4())

        def start(connection: Connection) -> None:
            wanted = key_ids
            if wanted is None:
                wanted = [platform.key_id for platform in prepared.all_platforms(connection)]
            for key_id in wanted:
                if prepared.find_platform(connection, key_id) is None:
                    raise ActorError(f"no platform with key {key_id.hex()}", hint="`sho platform list` shows all")
            prepared.start_job(connection, job_id, dict.fromkeys(wanted), now=now)

        self._store.write_sync(start)
        return job_id

    def run(self, job_id: str) -> Iterator[dict[str, int]]:
        """Do what is left of a job, one item after the other; gives the progress after each.

        Raises:
            ActorError: no such job.
        """
        if not self._store.read_sync(lambda c: prepared.job_exists(c, job_id)):
            raise ActorError(f"no job {job_id}", hint="`sho prepare status` shows all")
        while True:
            key_id = self._store.read_sync(lambda c: prepared.next_item(c, job_id))
            if key_id is None:
                return
            yield self._item(job_id, key_id)

    def drop_refused(self) -> int:
        """Drop objects of platforms whose certificate is good no more; returns how many."""
        now, dropped = self._now(), 0
        for row in self._store.read_sync(prepared.ready_objects):
            key_id = row.platform_key_id
            platform = self._store.read_sync(lambda c, key_id=key_id: prepared.find_platform(c, key_id))  # type: ignore[misc]  # a default binds the loop's value
            if platform is None:
                continue
            try:
                self._validate(platform, now)
            except CertificateRefused as exc:
                if exc.reason == Reason.NOT_YET_VALID:
                    continue
                dropped += self._store.write_sync(lambda c, key_id=key_id: prepared.drop_for_key(c, key_id))  # type: ignore[misc]  # as above
                self._trail.note(f"prepared object of {row.tre_id} dropped: {exc.reason}", step=STEP)
        return dropped

    def _validate(self, platform: PlatformRow, now: datetime) -> ValidatedCertificate:
        return self._platforms.validate(
            from_base64(platform.certificates), tre_id=platform.tre_id, m2me_id=platform.m2me_id, now=now
        )

    def _item(self, job_id: str, key_id: bytes) -> dict[str, int]:
        now = self._now()
        platform = self._store.read_sync(lambda c: prepared.find_platform(c, key_id))
        certificate, refusal = None, "not registered any more"
        if platform is not None:
            try:
                certificate = self._validate(platform, now)
            except CertificateRefused as exc:
                refusal = str(exc)

        def prepare(connection: Connection) -> tuple[str, str | None, dict[str, int]]:
            if prepared.next_item(connection, job_id, for_update=True) != key_id:  # another process was faster
                return prepared.SKIPPED, None, prepared.progress(connection, job_id)
            outcome: tuple[str, str | None] = prepared.FAILED, refusal
            if platform is None or certificate is None:
                prepared.drop_for_key(connection, key_id)
            else:
                outcome = self._prepare(connection, job_id, platform, certificate, now)
            prepared.end_item(connection, job_id, key_id, *outcome)
            return *outcome, prepared.progress(connection, job_id)

        state, reason, progress = self._store.write_sync(prepare)
        self._trail.check(
            "object-prepared", state != prepared.FAILED, req=("REQ-65",), step=STEP, order=job_id,
            detail=f"{platform.tre_id if platform else key_id.hex()}: {reason or state}",
        )  # fmt: skip
        return progress

    def _prepare(
        self,
        connection: Connection,
        job_id: str,
        platform: PlatformRow,
        certificate: ValidatedCertificate,
        now: datetime,
    ) -> tuple[str, str | None]:
        """One object, in the transaction of its item; its plaintext lives in this call alone."""
        if prepared.is_revoked(connection, platform.tre_id, platform.key_id):
            prepared.drop_for_key(connection, platform.key_id)
            return prepared.FAILED, "revoked"
        token = tokens.find(connection, platform.m2me_id)
        token_ref = token.token_ref if token is not None else None
        if prepared.has_ready(connection, platform.key_id, token_ref, now=now):
            return prepared.SKIPPED, None
        prepared.drop_for_key(connection, platform.key_id)
        recipient = platform_key(certificate)
        suites = acceptable_suites(platform.suites, self._policy.suites, recipient)
        if not suites:
            return prepared.FAILED, "none of the TRE's suites is allowed"
        subscription = repository.choose_free(connection, known_algorithms(platform.algorithms), now)
        if subscription is None:
            return prepared.FAILED, "no subscription is free with an algorithm of the TRE"
        if subscription.sqn + self._policy.sqn_ahead > MAX_SQN:
            return prepared.FAILED, f"the sequence numbers of subscription {subscription.id} are used up"
        mcim_id = uuid.uuid4()
        row = PreparedRow(
            id=0,
            platform_key_id=platform.key_id,
            tre_id=platform.tre_id,
            m2me_id=platform.m2me_id,
            subscription_id=subscription.id,
            mcim_id=str(mcim_id),
            sequence=repository.next_sequence(connection, platform.tre_id, FIRST_SEQUENCE),
            suite=suites[0],
            not_before=(now - CLOCK_SKEW).replace(microsecond=0),
            not_after=(now + self._policy.validity).replace(microsecond=0),
            sqn_init=subscription.sqn + self._policy.sqn_ahead,
            token_ref=token_ref,
            object=None,
            state=prepared.READY,
        )
        sealed = self._packages.prepare_object(row, subscription, token, recipient)
        prepared.add(connection, row, sealed, job_id=job_id, now=now)
        return prepared.DONE, None
