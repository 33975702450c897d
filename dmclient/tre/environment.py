"""The trusted environment (TR 33.812 §5.1.2): what every kind of TRE does, whatever its keys live in.

Its memory is one sealed file; its keys are behind `dmclient.tre.keys`. In this simulation the logic runs in the
device's own process: what a back-end protects is the keys, and by its counter the age of the memory.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from os import urandom
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509

from actor_runtime.sealing import SealingKey
from dmclient.tre.base import Hints, McimInfo, Outcome, Registration, TreError, TreFacts
from dmclient.tre.keys import KeyBlobs, KeyStore, KeyStoreError, KeyType
from dmclient.tre.life_cycle import confirmed
from dmclient.tre.memory import TreMemory
from dmclient.tre.profiles import PROFILES, TreProfile
from dmclient.tre.provisional import Provisional
from dmclient.tre.provisioning import MCIM_SPACE
from dmclient.tre.reception import Reception
from dmclient.tre.rekeying import (
    certification_request,
    der,
    key_type_of,
    require_certificates_of,
    with_new_keys,
)
from dmclient.tre.state import RegistrationRecord, StoredMcim, TreState
from dmclient.tre.store import SealedStore, StorageFailed
from dmclient.tre.supplier import obeyed
from dmclient.tre.token import TokenVerifier
from mcim.aka import Accepted, MacFailure, SyncFailure
from mcim.errors import PackageRefused
from mcim.evidence import Evidence, capabilities_digest
from mcim.measurement_log import Measurement, encode_log
from mcim.vocabulary import Container, ContainerState, Operation, RegistrationState, ResultCode, ValidationMode

NONCE_LENGTH: Final = 32  # octets
NONCE_LIFETIME: Final = timedelta(hours=24)

log = structlog.get_logger(__name__)


class Tre:
    """A `TrustedEnvironment` in this process. Its methods may be called from several threads."""

    def __init__(self, memory: TreMemory, key_store: KeyStore, random: Callable[[int], bytes]) -> None:
        state = memory.state
        self._memory = memory
        self._key_store = key_store
        self._keys = key_store.load(KeyBlobs(platform=state.platform_key, attest=state.attest_key))
        self._random = random
        self._reception = Reception(memory, self._keys, random)
        self._log = b""  # of what was measured at this start
        self._lock = memory.lock
        self._clear_key_store()

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
        legacy_container: bool = False,
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
            legacy_container: take `xml-mgf1p` although the keys can do better (T16).
            legacy_suite: accept suite 1 as well, for tests against the form of S3-090792; needs an RSA key.
            token: device token of the label; then every package must contain it.
            provisional: PCID for the first attach.

        Raises:
            TreError: there is a TRE already, it cannot be stored, or profile and key store have no container in common,
                or the key store serves no suite with such keys.
            KeyStoreError: the keys cannot be made.
        """
        store = SealedStore(directory, seal_key)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o700)  # whoever can open it can lock it, and we would wait
            exists = store.exists()
        except OSError as exc:
            raise TreError(ResultCode.STORAGE_FAILURE, f"{directory} cannot be used: {exc.strerror}") from exc
        if exists:
            raise TreError(ResultCode.WRONG_STATE, "there is a TRE already")
        openable = key_store.containers(key_type)
        containers = tuple(each for each in profile.containers if each in openable)
        if len(containers) > 1 and not legacy_container:
            containers = tuple(each for each in containers if each is not Container.XML_MGF1P)
        if not containers:
            raise TreError(ResultCode.UNSUPPORTED_SUITE, f"a {profile.tre_type} TRE has no container for these keys")
        suites = key_store.suites(key_type, legacy=legacy_suite)
        if not suites:
            raise TreError(ResultCode.UNSUPPORTED_SUITE, f"{key_store.name} serves no suite with {key_type} keys")
        key_store.keep_only(())  # no TRE, no keys: what is there an interrupted manufacture left
        blobs = key_store.generate(key_type)
        state = TreState(
            m2me_id=m2me_id,
            tre_id=tre_id,
            tre_type=profile.tre_type,
            version=version,
            vendor=vendor,
            suites=suites,
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
        try:
            memory = TreMemory.create(directory, store, key_store.counter, state)
        except (StorageFailed, OSError) as exc:
            raise TreError(ResultCode.STORAGE_FAILURE, "the TRE cannot be stored") from exc
        return cls(memory, key_store, random)

    @classmethod
    def open(
        cls, directory: Path, seal_key: SealingKey, key_store: KeyStore, *, random: Callable[[int], bytes] = urandom
    ) -> Tre:
        """Open the TRE of a directory.

        Raises:
            OSError: there is none, or file or counter cannot be read.
            actor_runtime.errors.UnsealError: changed, or sealed with another key.
            ValueError: the store is another version's.
            KeyStoreError: it was made with another key store, or its keys are gone.

        An old file that was put back is found out: then everything is refused with 1423 (T3, `TreMemory`).
        """
        store = SealedStore(directory, seal_key)
        keys_in = TreState.load(store.read()).key_store
        if keys_in != key_store.name:  # before its counter is compared, which is another one then
            raise KeyStoreError(f"this TRE keeps its keys in {keys_in}, not in {key_store.name}")
        return cls(TreMemory.open(directory, store, key_store.counter), key_store, random)

    def certification_request(self) -> dict[str, str]:
        """What the manufacturer's CA needs to certify both keys (see `rekeying.certification_request`)."""
        return certification_request(self._state, self._keys)

    def install_certificates(
        self,
        platform: x509.Certificate,
        attest: x509.Certificate,
        chain: Sequence[x509.Certificate],
        sho_anchors: Sequence[x509.Certificate],
        supplier_anchors: Sequence[x509.Certificate] = (),
    ) -> None:
        """Take the certificates of the own keys and the roots for home operators: once, at manufacture (REQ-44).

        Args:
            supplier_anchors: roots below which the supplier's own commands are signed; none: it may send none.

        Raises:
            TreError: the certificates are not of these keys, there is no root, or other roots are installed already.
        """
        with self._lock:
            require_certificates_of(self._keys, platform, attest)
            anchors = tuple(der(each) for each in sho_anchors)
            suppliers = tuple(der(each) for each in supplier_anchors)
            before = (self._state.sho_anchors, self._state.supplier_anchors)
            suppliers = suppliers or before[1]  # the same again is harmless, with or without them
            set_before = bool(before[0]) and before != (anchors, suppliers)
            if not anchors or set_before:
                raise TreError(ResultCode.WRONG_STATE, "roots are set once, at manufacture")
            self._commit_or_raise(
                replace(
                    self._state,
                    platform_cert=der(platform),
                    attest_cert=der(attest),
                    cert_chain=tuple(der(each) for each in chain),
                    sho_anchors=anchors,
                    supplier_anchors=suppliers,
                )
            )

    def begin_rekey(self) -> dict[str, str]:
        """Make new keys beside those in use (REQ-21); the request for their certificates is proved by both.

        A second call before `complete_rekey` gives the request of the same keys.

        Raises:
            TreError: the TRE is not in order, or the keys cannot be stored.
            KeyStoreError: they cannot be made.
        """
        with self._lock:
            self._require_in_order()
            blobs = self._state.next_keys or self._next_keys()
            return certification_request(self._state, self._key_store.load(blobs), old=self._keys)

    def complete_rekey(
        self,
        platform: x509.Certificate,
        attest: x509.Certificate,
        chain: Sequence[x509.Certificate],
        now: datetime,
    ) -> None:
        """Put the new keys in the place of the old ones, in one write; MCIMs stay, an open request starts anew.

        The old keys are destroyed then. Should that fail, or the power go before it, the next start does it.

        Raises:
            TreError: no re-keying is under way, the certificates are of other keys, or it cannot be stored.
            KeyStoreError: the new keys are gone.
        """
        with self._lock:
            self._require_in_order()
            blobs = self._state.next_keys
            if blobs is None:
                raise TreError(ResultCode.WRONG_STATE, "no new keys were made")
            keys = self._key_store.load(blobs)
            require_certificates_of(keys, platform, attest)
            after = with_new_keys(self._state, blobs, platform, attest, tuple(chain))
            record = after.registration
            if record.is_open:  # its evidence and whatever was made for it name the old key
                after = replace(after, registration=self._request(record.reason, record.sho_id, now))
            self._commit_or_raise(after)
            self._keys = keys
            self._reception = Reception(self._memory, keys, self._random)
            self._clear_key_store()

    def supplier_command(self, octets: bytes, now: datetime) -> ResultCode:
        """See `TrustedEnvironment.supplier_command`."""
        with self._lock:
            try:
                self._memory.commit(obeyed(self._state, octets, now))
            except PackageRefused as refusal:
                log.warning("tre.supplier-command-refused", code=int(refusal.code), reason=str(refusal))
                return refusal.code
            except StorageFailed:
                return ResultCode.STORAGE_FAILURE
            return ResultCode.SUCCESS

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
            state="locked" if self._memory.broken and state.condition == "ok" else state.condition,
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
            self._memory.expire(now)
            return self._state.registration_view()

    def renew_registration(self, *, reason: str, sho_id: str | None, now: datetime) -> Registration:
        """See `TrustedEnvironment.renew_registration`."""
        with self._lock:
            self._require_in_order()
            record = self._request(reason, sho_id, now)
            self._commit_or_raise(replace(self._state, registration=record))  # stored before it is shown
            return self._state.registration_view()

    def _request(self, reason: str, sho_id: str | None, now: datetime) -> RegistrationRecord:
        return RegistrationRecord(
            req_id=str(uuid.UUID(bytes=self._random(16), version=4)),
            nonce=self._random(NONCE_LENGTH),
            nonce_expiry=now.replace(microsecond=0) + NONCE_LIFETIME,
            state=RegistrationState.REQUESTED,
            reason=reason,
            sho_id=sho_id,
        )

    def mcims(self) -> tuple[McimInfo, ...]:
        """See `TrustedEnvironment.mcims`."""
        return tuple(each.info() for each in self._state.mcims)

    def receipt(self) -> bytes | None:
        """See `TrustedEnvironment.receipt`."""
        return self._state.last_receipt

    def generate_evidence(self, challenge: bytes, mode: ValidationMode, now: datetime) -> bytes:
        """See `TrustedEnvironment.generate_evidence`."""
        with self._lock:
            self._memory.expire(now)
            state, record = self._state, self._state.registration
            if not record.is_open:
                raise TreError(ResultCode.NO_REGISTRATION, "no request is open")
            if not 16 <= len(challenge) <= 64:
                raise TreError(ResultCode.CONTENT_INVALID, "a challenge is 16 to 64 octets")
            self._require_in_order()
            try:
                counter = self._memory.next_statement()
            except StorageFailed as exc:
                raise TreError(ResultCode.STORAGE_FAILURE, "the counter cannot be stored") from exc
            statement = Evidence(
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
                log_digest=hashlib.sha256(self._log).digest() if mode is ValidationMode.REMOTE else b"",
            )
            try:
                return self._keys.attest(statement)
            except KeyStoreError as exc:
                raise TreError(ResultCode.INTERNAL_ERROR, "the key store does not answer") from exc

    def take_measurements(self, measurements: tuple[Measurement, ...]) -> None:
        """See `TrustedEnvironment.take_measurements`."""
        with self._lock:
            if self._log:
                raise TreError(ResultCode.WRONG_STATE, "this start was measured already")
            self._key_store.measure(measurements)
            self._log = encode_log(measurements)

    def measurement_log(self) -> bytes:
        """See `TrustedEnvironment.measurement_log`."""
        return self._log

    # -- packages and commands -------------------------------------------------------------------------------------

    def provision(self, package: bytes, hints: Hints, now: datetime) -> Outcome:
        """See `TrustedEnvironment.provision`."""
        with self._lock:  # the keys may be about to be replaced
            return self._reception.provision(package, hints, now)

    def command(self, operation: Operation, command: bytes, hints: Hints, now: datetime) -> Outcome:
        """See `TrustedEnvironment.command`."""
        with self._lock:
            return self._reception.command(operation, command, hints, now)

    def local_command(self, operation: Operation, mcim_id: uuid.UUID, now: datetime) -> Outcome:
        """See `TrustedEnvironment.local_command`."""
        with self._lock:
            return self._reception.local_command(operation, mcim_id, now)

    def last_outcome(self) -> tuple[bytes, Outcome] | None:
        """See `TrustedEnvironment.last_outcome`."""
        state = self._state
        last = state.last_action
        if last is None:
            return None
        mcim = None if last.mcim_id is None else state.mcim(last.mcim_id)
        info = None if mcim is None else mcim.info()
        return last.digest, Outcome(code=last.code, receipt=state.last_receipt or b"", mcim=info, checks=())

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
                self._commit_or_raise(self._state.with_mcim(replace(mcim, usim=usim)))
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
        self._require_in_order()  # else its sequence numbers may be old ones, and no challenge is fresh any more
        mcim = self._state.mcim(mcim_id)
        if mcim is None or mcim.state is not ContainerState.ACTIVATED:
            raise TreError(ResultCode.WRONG_STATE, "there is no such MCIM, or it is not activated")
        return mcim

    def confirm_attach(self, mcim_id: uuid.UUID, now: datetime) -> None:
        """See `TrustedEnvironment.confirm_attach`."""
        with self._lock:
            after = confirmed(self._state, mcim_id)
            if after is not self._state:
                self._commit_or_raise(after)

    def fall_back(self, mcim_id: uuid.UUID, now: datetime) -> Outcome | None:
        """See `TrustedEnvironment.fall_back`."""
        with self._lock:
            return self._reception.fall_back(mcim_id, now)

    # -- inside ----------------------------------------------------------------------------------------------------

    @property
    def _state(self) -> TreState:
        return self._memory.state

    def _next_keys(self) -> KeyBlobs:
        """Make keys and note them. Nobody who starts meanwhile may take them for left-overs."""
        try:
            with self._memory.alone():
                self._memory.require_present()
                self._clear_key_store()
                blobs = self._key_store.generate(key_type_of(self._keys))
                try:
                    self._memory.commit(replace(self._state, next_keys=blobs))
                except StorageFailed:
                    self._clear_key_store()
                    raise
                return blobs
        except (StorageFailed, OSError) as exc:
            raise TreError(ResultCode.STORAGE_FAILURE, "the new keys cannot be stored") from exc

    def _clear_key_store(self) -> None:
        """Destroy keys that the state does not name; failing that, the next start does.

        Only by a state that is sure to be the one on the disk: by an older one the keys in use would be destroyed.
        """
        state = self._state
        if state.condition != "ok":
            return
        used = KeyBlobs(platform=state.platform_key, attest=state.attest_key)
        try:
            with self._memory.alone():
                self._memory.require_present()
                self._key_store.keep_only((used,) if state.next_keys is None else (used, state.next_keys))
        except (KeyStoreError, StorageFailed, OSError) as exc:
            log.warning("tre.keys-not-destroyed", reason=str(exc))

    def _require_in_order(self) -> None:
        if self._state.condition != "ok":
            raise TreError(ResultCode.TRE_STATE_NOT_OK, f"TRE is {self._state.condition}")

    def _commit_or_raise(self, state: TreState) -> None:
        try:
            self._memory.commit(state)
        except StorageFailed as exc:
            raise TreError(ResultCode.STORAGE_FAILURE, "the sealed store cannot be written") from exc


def _subject_key_id(der: bytes) -> str:
    certificate = x509.load_der_x509_certificate(der)
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest.hex()
    except x509.ExtensionNotFound:
        return x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest.hex()
