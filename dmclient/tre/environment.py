"""The trusted environment (TR 33.812 §5.1.2): what every kind of TRE does, whatever its keys live in.

Its memory is one sealed file; its keys are behind `dmclient.tre.keys`. In this simulation the logic runs in the
device's own process: what a back-end protects is the keys, and by its counter the age of the memory.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from os import urandom
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from actor_runtime.sealing import SealingKey
from dmclient.tre.base import Hints, McimInfo, Outcome, Registration, TreError, TreFacts
from dmclient.tre.keys import KeyBlobs, KeyStore, KeyStoreError, KeyType
from dmclient.tre.profiles import PROFILES, TreProfile
from dmclient.tre.provisional import Provisional
from dmclient.tre.provisioning import (
    CONSUMING,
    MAX_CRYPTO_FAILURES,
    MCIM_SPACE,
    CheckList,
    Examined,
    examine,
)
from dmclient.tre.state import RegistrationRecord, StoredMcim, TreState
from dmclient.tre.store import SealedStore, StorageFailed
from dmclient.tre.token import TokenVerifier
from mcim.aka import Accepted, MacFailure, SyncFailure, UsimState
from mcim.errors import PackageRefused
from mcim.evidence import Evidence, capabilities_digest
from mcim.key_id import key_id_of
from mcim.package_header import PackageHeader
from mcim.platform_key import PlatformPublicKey
from mcim.receipt import Receipt, sign_receipt
from mcim.vocabulary import ContainerState, RegistrationState, ResultCode, ValidationMode

NONCE_LENGTH: Final = 32  # octets
NONCE_LIFETIME: Final = timedelta(hours=24)
COUNTER_STEP: Final = 16  # statements that may be signed before the store must be written again

log = structlog.get_logger(__name__)


class Tre:
    """A `TrustedEnvironment` in this process. Its methods may be called from several threads."""

    def __init__(
        self, store: SealedStore, state: TreState, key_store: KeyStore, random: Callable[[int], bytes]
    ) -> None:
        self._key_store = key_store
        self._keys = key_store.load(KeyBlobs(platform=state.platform_key, attest=state.attest_key))
        self._store = store
        self._state = state
        self._random = random
        # Counters up to the limit may have been used before the last stop: gaps do no harm, repetitions would.
        self._counter = state.counter_limit
        self._broken = False  # the file may hold a state that was never reported: only a new start can tell
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"Tre({self._state.tre_id})"

    # -- life ------------------------------------------------------------------------------------------------------

    @classmethod
    def manufacture(
        cls,
        directory: Path,
        *,
        seal_key: SealingKey,
        key_store: KeyStore,
        m2me_id: str,
        tre_id: str,
        profile: TreProfile = PROFILES["software"],
        key_type: KeyType = "rsa",
        version: str = "1.0",
        vendor: str = "m2m-dm",
        legacy_suite: bool = False,
        max_mcim: int = 4,
        token: bytes | None = None,
        provisional: Provisional | None = None,
        random: Callable[[int], bytes] = urandom,
    ) -> Tre:
        """Make a TRE with new keys (REQ-21, REQ-45).

        Args:
            directory: gets the sealed file.
            key_store: where its keys are made and stay.
            profile: kind of TRE.
            legacy_suite: accept suite 1 as well, for tests against the form of S3-090792; needs an RSA key.
            token: device token of the label; then every package must contain it.
            provisional: PCID for the first attach.

        Raises:
            TreError: there is a TRE already, it cannot be stored, or profile and key store have no container in common.
            KeyStoreError: the keys cannot be made.
        """
        directory.mkdir(parents=True, exist_ok=True)
        store = SealedStore(directory, seal_key)
        if store.exists():
            raise TreError(ResultCode.WRONG_STATE, "there is a TRE already")
        openable = key_store.containers(key_type)
        containers = tuple(each for each in profile.containers if each in openable)
        if not containers:
            raise TreError(ResultCode.UNSUPPORTED_SUITE, f"a {profile.tre_type} TRE has no container for these keys")
        blobs = key_store.generate(key_type)
        state = TreState(
            m2me_id=m2me_id,
            tre_id=tre_id,
            tre_type=profile.tre_type,
            version=version,
            vendor=vendor,
            suites=key_store.suites(key_type, legacy=legacy_suite),
            containers=containers,
            algorithms=profile.algorithms,
            code_formats=profile.code_formats,
            max_package=profile.max_package,
            max_mcim=max_mcim,
            key_store=key_store.name,
            platform_key=blobs.platform,
            attest_key=blobs.attest,
            token=None if token is None else TokenVerifier.of(token, random),
            provisional=provisional,
        )
        tre = cls(store, state, key_store, random)
        tre._commit(state)
        return tre

    @classmethod
    def open(
        cls, directory: Path, seal_key: SealingKey, key_store: KeyStore, *, random: Callable[[int], bytes] = urandom
    ) -> Tre:
        """Open the TRE of a directory.

        Raises:
            OSError: there is none, or it cannot be read.
            actor_runtime.errors.UnsealError: changed, or sealed with another key.
            ValueError: the store is another version's.
            KeyStoreError: it was made with another key store, or its keys are gone.
        """
        store = SealedStore(directory, seal_key)
        state = TreState.load(store.read())
        if state.key_store != key_store.name:
            raise KeyStoreError(f"this TRE keeps its keys in {state.key_store}, not in {key_store.name}")
        return cls(store, state, key_store, random)

    def certification_request(self) -> dict[str, str]:
        """What the manufacturer's CA needs to certify both keys (REQ-21).

        The keys are PEM SubjectPublicKeyInfo; `proof` is the Base64 signature (r and s, 32 octets each) of the
        attestation key over the JSON of the other members, names sorted and without spaces.
        """
        request = {
            "m2meId": self._state.m2me_id,
            "treId": self._state.tre_id,
            "platformKey": _pem(self._keys.platform.public_key),
            "attestKey": _pem(self._keys.attest_public_key),
        }
        proof = self._keys.sign(json.dumps(request, sort_keys=True, separators=(",", ":")).encode())
        return {**request, "proof": base64.b64encode(proof).decode("ascii")}

    def install_certificates(
        self,
        platform: x509.Certificate,
        attest: x509.Certificate,
        chain: Sequence[x509.Certificate],
        sho_anchors: Sequence[x509.Certificate],
    ) -> None:
        """Take the certificates of the own keys and the roots for home operators: once, at manufacture (REQ-44).

        Raises:
            TreError: the certificates are not of these keys, there is no root, or other roots are installed already.
        """
        with self._lock:
            keys = (key_id_of(platform.public_key()), key_id_of(attest.public_key()))
            if keys != (self._keys.platform.key_id, key_id_of(self._keys.attest_public_key)):
                raise TreError(ResultCode.WRONG_RECIPIENT, "these certificates are of other keys")
            anchors = tuple(_der(each) for each in sho_anchors)
            if not anchors or self._state.sho_anchors not in ((), anchors):
                raise TreError(ResultCode.WRONG_STATE, "roots are set once, at manufacture")
            self._commit_or_raise(
                replace(
                    self._state,
                    platform_cert=_der(platform),
                    attest_cert=_der(attest),
                    cert_chain=tuple(_der(each) for each in chain),
                    sho_anchors=anchors,
                )
            )

    # -- what M2MMobj shows ----------------------------------------------------------------------------------------

    def facts(self) -> TreFacts:
        """See `TrustedEnvironment.facts`."""
        state = self._state
        return TreFacts(
            m2me_id=state.m2me_id,
            tre_id=state.tre_id,
            tre_type=state.tre_type,
            version=state.version,
            vendor=state.vendor,
            state="locked" if self._broken else state.condition,
            suites=state.suites,
            containers=state.containers,
            algorithms=state.algorithms,
            code_formats=state.code_formats,
            max_mcim=state.max_mcim,
            max_package=state.max_package,
            free_space=MCIM_SPACE * (state.max_mcim - len(state.mcims)),
            trust_anchor_ids=tuple(_subject_key_id(each) for each in state.sho_anchors),
            platform_cert=state.platform_cert,
            attest_cert=state.attest_cert,
            cert_chain=state.cert_chain,
            platform_key_id=self._keys.platform.key_id,
        )

    def registration(self, now: datetime) -> Registration:
        """See `TrustedEnvironment.registration`."""
        with self._lock:
            self._expire(now)
            return self._state.registration_view()

    def renew_registration(self, *, reason: str, sho_id: str | None, now: datetime) -> Registration:
        """See `TrustedEnvironment.renew_registration`."""
        with self._lock:
            record = RegistrationRecord(
                req_id=str(uuid.UUID(bytes=self._random(16), version=4)),
                nonce=self._random(NONCE_LENGTH),
                nonce_expiry=now.replace(microsecond=0) + NONCE_LIFETIME,
                state=RegistrationState.REQUESTED,
                reason=reason,
                sho_id=sho_id,
            )
            self._commit_or_raise(replace(self._state, registration=record))  # stored before it is shown
            return self._state.registration_view()

    def mcims(self) -> tuple[McimInfo, ...]:
        """See `TrustedEnvironment.mcims`."""
        return tuple(each.info() for each in self._state.mcims)

    def receipt(self) -> bytes | None:
        """See `TrustedEnvironment.receipt`."""
        return self._state.last_receipt

    def generate_evidence(self, challenge: bytes, mode: ValidationMode, now: datetime) -> bytes:
        """See `TrustedEnvironment.generate_evidence`."""
        with self._lock:
            self._expire(now)
            state, record = self._state, self._state.registration
            if not record.is_open:
                raise TreError(ResultCode.NO_REGISTRATION, "no request is open")
            if not 16 <= len(challenge) <= 64:
                raise TreError(ResultCode.CONTENT_INVALID, "a challenge is 16 to 64 octets")
            if state.condition != "ok":
                raise TreError(ResultCode.TRE_STATE_NOT_OK, f"TRE is {state.condition}")
            try:
                counter = self._next_counter()
            except StorageFailed as exc:
                raise TreError(ResultCode.STORAGE_FAILURE, "the counter cannot be stored") from exc
            return self._keys.attest(
                Evidence(
                    mode=mode,
                    m2me_id=state.m2me_id,
                    tre_id=state.tre_id,
                    tre_type=state.tre_type,
                    tre_version=state.version,
                    tre_state=state.condition,
                    platform_key_id=self._keys.platform.key_id,
                    challenge=challenge,
                    nonce=record.nonce,
                    req_id=uuid.UUID(record.req_id),
                    counter=counter,
                    capabilities=capabilities_digest(
                        suites=[suite.label for suite in state.suites],
                        containers=state.containers,
                        algorithms=state.algorithms,
                    ),
                )
            )

    # -- provisioning ----------------------------------------------------------------------------------------------

    def provision(self, package: bytes, hints: Hints, now: datetime) -> Outcome:
        """See `TrustedEnvironment.provision`.

        1 to 14: `dmclient.tre.provisioning.examine`; 15 device token; 16 revision; 17 one write that installs,
        consumes the nonce and raises the sequence; 18 receipt, which goes into the same write.
        """
        with self._lock:
            checks = CheckList()
            action = _Action(digest=hashlib.sha256(package).digest(), now=now, checks=checks)
            try:
                self._expire(now)
                return self._install(package, hints, action)
            except PackageRefused as refusal:
                return self._refuse(refusal.code, action)
            except StorageFailed:
                return self._refuse(ResultCode.STORAGE_FAILURE, action)
            except Exception as exc:
                # The type alone: a traceback of this place can hold secrets.
                log.error("tre-internal-error", error=type(exc).__name__)
                return self._refuse(ResultCode.INTERNAL_ERROR, action)

    def _install(self, package: bytes, hints: Hints, action: _Action) -> Outcome:
        checks = action.checks
        # 1 to 14
        examined = examine(
            package,
            hints,
            state=self._state,
            key=self._keys.platform,
            now=action.now,
            random=self._random,
            checks=checks,
            on_header=action.remember,
        )
        # 15
        with checks.check("device-token", "REQ-61"):
            self._check_token(examined.content.auth_token)
        # 16
        with checks.check("revision", "REQ-36"):
            installed = self._state.mcim(examined.content.mcim_id)
            if installed is not None and examined.revision < installed.revision:
                raise PackageRefused(ResultCode.REVISION_TOO_LOW, "a higher revision is installed")
        mcim = _mcim_of(examined)
        # 17, 18: the receipt is part of what is written, so it exists exactly when the MCIM does.
        counter = self._next_counter()
        receipt = self._sign_receipt(ResultCode.SUCCESS, action, counter, examined)
        after = replace(
            self._state.with_mcim(mcim),
            registration=self._state.registration.closed(RegistrationState.PROVISIONED),
            last_receipt=receipt,
        )
        try:
            self._commit(after)
        except StorageFailed:
            refusal = PackageRefused(ResultCode.STORAGE_FAILURE, "the previous state is in place")
            checks.failed("sealed-store-written", "REQ-56", refusal=refusal)
            raise
        checks.passed("sealed-store-written", "REQ-52", "REQ-53", "REQ-56")
        return Outcome(code=ResultCode.SUCCESS, receipt=receipt, mcim=mcim.info(), checks=tuple(checks.records))

    def _check_token(self, presented: bytes | None) -> None:
        verifier = self._state.token
        if verifier is None:
            return
        if verifier.tries_left <= 0:
            raise PackageRefused(ResultCode.TOKEN_LOCKED, "no tries are left")
        if presented is None:
            raise PackageRefused(ResultCode.TOKEN_WRONG, "the package has no token")
        # The try is counted before the comparison: pulling the plug in between gives no free guess.
        self._commit(replace(self._state, token=replace(verifier, tries_left=verifier.tries_left - 1)))
        if not verifier.matches(presented):
            raise PackageRefused(ResultCode.TOKEN_WRONG, "not the token of this device")
        self._state = replace(self._state, token=verifier.restored())  # stored with whatever comes of the package

    def _refuse(self, code: ResultCode, action: _Action) -> Outcome:
        """Receipt of a refusal. It is stored with what the refusal costs: a try under this nonce, or the nonce."""
        record = self._state.registration
        if action.checks.decrypted and code in CONSUMING:
            record = record.closed(RegistrationState.FAILED)
        elif code is ResultCode.CRYPTO_FAILURE:
            record = replace(record, crypto_failures=record.crypto_failures + 1)
            if record.crypto_failures >= MAX_CRYPTO_FAILURES:
                record = record.closed(RegistrationState.FAILED)
        receipt = b""
        try:
            receipt = self._sign_receipt(code, action, self._next_counter(), None)
            self._commit(replace(self._state, registration=record, last_receipt=receipt))
        except StorageFailed:
            # Nothing can be written now. The nonce stays as it was on disk and in memory; a counter of the reserve
            # still makes the receipt unique, and without even that there is none.
            log.warning("tre-refusal-not-stored", code=int(code))
        return Outcome(code=code, receipt=receipt, mcim=None, checks=tuple(action.checks.records))

    # -- network access --------------------------------------------------------------------------------------------

    def attach_identity(self, mcim_id: uuid.UUID | None) -> str:
        """See `TrustedEnvironment.attach_identity`."""
        return self._pcid().imsi if mcim_id is None else self._active(mcim_id).imsi

    def authenticate(self, mcim_id: uuid.UUID | None, rand: bytes, autn: bytes) -> Accepted | SyncFailure | MacFailure:
        """See `TrustedEnvironment.authenticate`."""
        with self._lock:
            if mcim_id is None:
                provisional, result = self._pcid().authenticate(rand, autn)
                if provisional != self._state.provisional:
                    self._commit_or_raise(replace(self._state, provisional=provisional))
                return result
            mcim = self._active(mcim_id)
            usim, result = mcim.usim.verify(mcim.keys.functions(), rand=rand, autn=autn)
            if usim != mcim.usim:
                others = tuple(each for each in self._state.mcims if each.mcim_id != mcim_id)
                self._commit_or_raise(replace(self._state, mcims=(*others, replace(mcim, usim=usim))))
            return result

    def provisional_expiry(self) -> datetime | None:
        """See `TrustedEnvironment.provisional_expiry`."""
        provisional = self._state.provisional
        return None if provisional is None else provisional.expiry

    def drop_provisional(self) -> None:
        """See `TrustedEnvironment.drop_provisional`."""
        with self._lock:
            if self._state.provisional is not None:
                self._commit_or_raise(replace(self._state, provisional=None))

    def _pcid(self) -> Provisional:
        if self._state.condition != "ok":  # its sequence numbers may be old ones
            raise TreError(ResultCode.TRE_STATE_NOT_OK, f"TRE is {self._state.condition}")
        if self._state.provisional is None:
            raise TreError(ResultCode.WRONG_STATE, "there is no provisional identity")
        return self._state.provisional

    def _active(self, mcim_id: uuid.UUID) -> StoredMcim:
        mcim = self._state.mcim(mcim_id)
        if mcim is None or mcim.state is not ContainerState.ACTIVATED:
            raise TreError(ResultCode.WRONG_STATE, "there is no such MCIM, or it is not activated")
        return mcim

    # -- inside ----------------------------------------------------------------------------------------------------

    def _expire(self, now: datetime) -> None:
        record = self._state.registration
        if record.is_open and now >= record.nonce_expiry:
            expired = replace(self._state, registration=record.closed(RegistrationState.EXPIRED))
            try:
                self._commit(expired)
            except StorageFailed:
                self._state = expired  # the stored expiry says the same after a restart

    def _commit(self, state: TreState) -> None:
        """Write a state and make it the present one, in this order."""
        if self._broken:
            raise StorageFailed(broken=True)
        state = replace(state, counter_limit=self._counter + COUNTER_STEP)
        try:
            self._store.write(state.dump())
        except StorageFailed as exc:
            self._broken = exc.broken
            raise
        self._state = state

    def _commit_or_raise(self, state: TreState) -> None:
        try:
            self._commit(state)
        except StorageFailed as exc:
            raise TreError(ResultCode.STORAGE_FAILURE, "the sealed store cannot be written") from exc

    def _next_counter(self) -> int:
        """A number no statement of this TRE has had: it is below the stored limit, or the limit is raised first."""
        if self._counter >= self._state.counter_limit:
            self._commit(self._state)
        self._counter += 1
        return self._counter

    def _sign_receipt(self, code: ResultCode, action: _Action, counter: int, examined: Examined | None) -> bytes:
        header = action.header
        return sign_receipt(
            Receipt(
                tre_id=self._state.tre_id,
                operation=header.operation if header else None,
                mcim_id=header.mcim_id if header else None,
                sho_id=header.sho_id if header else None,
                sequence=header.sequence if header else None,
                nonce=header.registration_nonce if header else None,
                revision=examined.revision if examined else None,
                package_hash=action.digest,
                result=code,
                counter=counter,
                time=action.now,
            ),
            self._keys.sign,
        )


@dataclass(slots=True, kw_only=True)
class _Action:
    """One provisioning action under way."""

    digest: bytes  # SHA-256 of the package
    now: datetime
    checks: CheckList
    header: PackageHeader | None = None  # once its signature is verified

    def remember(self, header: PackageHeader) -> None:
        self.header = header


def _mcim_of(examined: Examined) -> StoredMcim:
    content = examined.content
    return StoredMcim(
        mcim_id=content.mcim_id,
        sho_id=content.sho_id,
        state=ContainerState(content.initial_state),
        revision=examined.revision,
        sequence=content.sequence,
        not_after=content.not_after,
        imsi=content.imsi,
        keys=content.keys,
        usim=UsimState.initial(content.sqn_init),
    )


def _pem(key: PlatformPublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def _subject_key_id(der: bytes) -> str:
    certificate = x509.load_der_x509_certificate(der)
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest.hex()
    except x509.ExtensionNotFound:
        return x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest.hex()
