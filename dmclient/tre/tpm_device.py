"""A TPM 2.0 behind tpm2-tss: connection, keys wrapped by its storage key, and what goes wrong (extra `tpm`).

Nothing stays loaded between two operations, so any number of TREs and processes share one TPM even without a resource
manager: a TPM has room for three objects, and one operation here needs at most two of them for a few milliseconds.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from dmclient.tre.keys import KeyStoreError, KeyStoreGone
from mcim import tlv

# tpm2-tss prints every answer it does not like; here they become errors, which go to the log of whoever meets them.
os.environ.setdefault("TSS2_LOG", "all+NONE")

from tpm2_pytss import ESAPI, TSS2_Exception
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_CAP, TPM2_ECC, TPM2_HC, TPMA_OBJECT
from tpm2_pytss.types import (
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMS_ECC_PARMS,
    TPMS_RSA_PARMS,
    TPMS_SCHEME_HASH,
    TPMT_ECC_SCHEME,
    TPMT_KDF_SCHEME,
    TPMT_PUBLIC,
    TPMT_RSA_SCHEME,
    TPMT_SYM_DEF_OBJECT,
    TPMU_ASYM_SCHEME,
    TPMU_PUBLIC_PARMS,
    TPMU_SYM_KEY_BITS,
    TPMU_SYM_MODE,
)

T = TypeVar("T")

RSA_BITS: Final = 2048
SLOT_WAIT_S: Final = 0.02  # between tries when all slots for objects are taken
SLOT_TRIES: Final = 50  # afterwards who took them is dead: an operation takes milliseconds
_RC_LAYER: Final = 0x00FF0000  # zero: the TPM itself answered
_RC_FAILURE: Final = 0x101
_RC_INITIALIZE: Final = 0x100
_RC_OBJECT_MEMORY: Final = 0x902
_BLOB_PREFIX: Final = b"M2M-TPMK/1\0"
_PUBLIC, _PRIVATE, _BOUND = 1, 2, 3  # TLVs of a blob

OWN: Final = (
    TPMA_OBJECT.FIXEDTPM
    | TPMA_OBJECT.FIXEDPARENT
    | TPMA_OBJECT.SENSITIVEDATAORIGIN
    | TPMA_OBJECT.USERWITHAUTH
    | TPMA_OBJECT.NODA
)
"""Made in this TPM, never to leave it or its parent; wrong guesses at its (empty) authorisation lock nothing."""


class TpmRefused(KeyStoreError):
    """The TPM answered with an error."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"the TPM refuses: {text}")
        # Which handle, session or parameter is meant does not matter here (TPM 2.0 part 2, §6.6, format one).
        self.kind = 0x80 | code & 0x3F if code & 0x80 else code


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A key as the TPM gives it out: TPM2B_PUBLIC, and TPM2B_PRIVATE encrypted by the storage key."""

    public: bytes
    private: bytes = field(repr=False)

    def encode(self, *, bound: bytes = b"") -> bytes:
        """The blob for the TRE's sealed state; `bound` is kept with the key."""
        return _BLOB_PREFIX + tlv.encode([(_PUBLIC, self.public), (_PRIVATE, self.private), (_BOUND, bound)])

    @classmethod
    def decode(cls, octets: bytes) -> WrappedKey:
        """The key of a blob.

        Raises:
            KeyStoreError: not such a blob.
        """
        parts = _parts(octets)
        return cls(parts[_PUBLIC], parts[_PRIVATE])

    @staticmethod
    def bound_in(octets: bytes) -> bytes:
        """What was kept with the key of a blob.

        Raises:
            KeyStoreError: not such a blob.
        """
        return _parts(octets)[_BOUND]

    def parsed(self) -> Any:
        """TPM2B_PUBLIC. Keep it in a variable: its members live as long as it does.

        Raises:
            KeyStoreError: broken.
        """
        try:
            structure, used = TPM2B_PUBLIC.unmarshal(self.public)
        except TSS2_Exception as exc:
            raise KeyStoreError("the public part of a key is broken") from exc
        if used != len(self.public):
            raise KeyStoreError("the public part of a key is broken")
        return structure


def _parts(octets: bytes) -> dict[int, bytes]:
    try:
        parts = dict(tlv.decode(octets.removeprefix(_BLOB_PREFIX)))
    except tlv.TlvError as exc:
        raise KeyStoreError("the TRE's keys are not those of a TPM") from exc
    if not octets.startswith(_BLOB_PREFIX) or parts.keys() != {_PUBLIC, _PRIVATE, _BOUND}:
        raise KeyStoreError("the TRE's keys are not those of a TPM")
    return parts


class TpmDevice:
    """One TPM. Its methods may be called from several threads."""

    def __init__(self, tcti: str) -> None:
        self._tcti = tcti
        self._esapi: Any = None
        self._contexts: dict[WrappedKey, Any] = {}  # loaded once, saved by the TPM; worthless after its reset
        self._lock = threading.RLock()

    def run(self, operation: Callable[[Any], T], *, repeat: bool = True) -> T:
        """Do something with the TPM.

        Args:
            operation: gets the ESAPI.
            repeat: whether it may be done again when the connection broke and nobody knows if the TPM has done it.

        Raises:
            TpmRefused: the TPM's own answer.
            KeyStoreGone: there is no TPM, or the connection broke.
        """
        with self._lock:
            tries = 0
            while True:
                fresh = self._esapi is None
                try:
                    if tries and not fresh:  # all slots were taken
                        self._make_room(last=tries == SLOT_TRIES)
                    return operation(self._connected())
                except TSS2_Exception as exc:
                    tries += 1
                    if exc.rc & _RC_LAYER == 0:
                        if exc.rc != _RC_OBJECT_MEMORY or tries > SLOT_TRIES:
                            raise _refused(exc) from exc
                        continue
                    self.close()
                    if fresh or not repeat or tries > 1:
                        raise KeyStoreGone(f"no answer from the TPM: {exc}") from exc

    def create(self, template: Any) -> WrappedKey:
        """Make a key in the TPM.

        Raises:
            KeyStoreError: as `run`.
        """

        def operation(esapi: Any) -> WrappedKey:
            parent = _storage_key(esapi)
            try:
                private, public, *_ = esapi.create(parent, TPM2B_SENSITIVE_CREATE(), template)
            finally:
                esapi.flush_context(parent)
            return WrappedKey(public.marshal(), private.marshal())

        return self.run(operation)

    def use(self, key: WrappedKey, operation: Callable[[Any, Any], T]) -> T:
        """Do something with a key; `operation` gets the ESAPI and the key's handle.

        Raises:
            KeyStoreError: as `run`, or another TPM made the key.
        """

        def loaded(esapi: Any) -> T:
            handle = self._load(esapi, key)
            try:
                return operation(esapi, handle)
            finally:
                esapi.flush_context(handle)

        return self.run(loaded)

    def forget_all_but(self, kept: Iterable[WrappedKey]) -> None:
        """Drop the saved contexts of other keys: each is a way to load its key without the blob."""
        with self._lock:
            wanted = set(kept)
            self._contexts = {key: context for key, context in self._contexts.items() if key in wanted}

    def close(self) -> None:
        """Let go of the TPM; the next operation connects again."""
        with self._lock:
            esapi, self._esapi = self._esapi, None
            if esapi is not None:
                esapi.close()

    def _connected(self) -> Any:
        if self._esapi is None:
            self._esapi = ESAPI(self._tcti)
        return self._esapi

    def _load(self, esapi: Any, key: WrappedKey) -> Any:
        context = self._contexts.pop(key, None)
        if context is not None:
            try:
                handle = esapi.context_load(context)
            except TSS2_Exception as exc:
                if exc.rc == _RC_OBJECT_MEMORY:
                    self._contexts[key] = context
                    raise
                if exc.rc & _RC_LAYER:
                    raise
            else:
                self._contexts[key] = context
                return handle
        public, _ = TPM2B_PUBLIC.unmarshal(key.public)
        private, _ = TPM2B_PRIVATE.unmarshal(key.private)
        parent = _storage_key(esapi)
        try:
            handle = esapi.load(parent, private, public)
        finally:
            esapi.flush_context(parent)
        try:
            self._contexts[key] = esapi.context_save(handle)
        except BaseException:
            esapi.flush_context(handle)
            raise
        return handle

    def _make_room(self, *, last: bool) -> None:
        """All slots are taken: wait for whoever works there, and in the end take away what dead processes left."""
        if not last:
            time.sleep(SLOT_WAIT_S)
            return
        _, data = self._esapi.get_capability(TPM2_CAP.HANDLES, TPM2_HC.TRANSIENT_FIRST, 16)
        for handle in data.data.handles:
            self._esapi.flush_context(self._esapi.tr_from_tpmpublic(handle))


def _refused(exc: Any) -> TpmRefused:
    hint = {
        _RC_FAILURE: " (it is in failure mode: only its reset helps)",
        _RC_INITIALIZE: " (TPM2_Startup is missing: the platform's firmware sends it)",
    }.get(exc.rc, "")
    return TpmRefused(int(exc.rc), f"{exc}{hint}")


# -- templates ---------------------------------------------------------------------------------------------------------


def _public(kind: int, attributes: int, parameters: Any) -> Any:
    return TPM2B_PUBLIC(
        TPMT_PUBLIC(type=kind, nameAlg=TPM2_ALG.SHA256, objectAttributes=attributes, parameters=parameters)
    )


def _p256(*, symmetric: Any = None, scheme: Any = None) -> Any:
    return TPMU_PUBLIC_PARMS(
        eccDetail=TPMS_ECC_PARMS(
            symmetric=symmetric or TPMT_SYM_DEF_OBJECT(algorithm=TPM2_ALG.NULL),
            scheme=scheme or TPMT_ECC_SCHEME(scheme=TPM2_ALG.NULL),
            curveID=TPM2_ECC.NIST_P256,
            kdf=TPMT_KDF_SCHEME(scheme=TPM2_ALG.NULL),
        )
    )


def _storage_key(esapi: Any) -> Any:
    """The primary key of the owner hierarchy that wraps ours: from the owner seed, the same at each call."""
    symmetric = TPMT_SYM_DEF_OBJECT(
        algorithm=TPM2_ALG.AES, keyBits=TPMU_SYM_KEY_BITS(aes=128), mode=TPMU_SYM_MODE(aes=TPM2_ALG.CFB)
    )
    template = _public(TPM2_ALG.ECC, OWN | TPMA_OBJECT.RESTRICTED | TPMA_OBJECT.DECRYPT, _p256(symmetric=symmetric))
    handle, *_ = esapi.create_primary(TPM2B_SENSITIVE_CREATE(), template, ESYS_TR.RH_OWNER)
    return handle


def rsa_decryption_key() -> Any:
    """RSA-2048 that only decrypts. Its scheme is left to the caller: see `dmclient.tre.tpm` for why."""
    return _public(
        TPM2_ALG.RSA,
        OWN | TPMA_OBJECT.DECRYPT,
        TPMU_PUBLIC_PARMS(
            rsaDetail=TPMS_RSA_PARMS(
                symmetric=TPMT_SYM_DEF_OBJECT(algorithm=TPM2_ALG.NULL),
                scheme=TPMT_RSA_SCHEME(scheme=TPM2_ALG.NULL),
                keyBits=RSA_BITS,
                exponent=0,  # 65537
            )
        ),
    )


def agreement_key() -> Any:
    """P-256 that only agrees (ECDH)."""
    return _public(TPM2_ALG.ECC, OWN | TPMA_OBJECT.DECRYPT, _p256())


def attestation_key() -> Any:
    """P-256 that signs what this TPM made, or a hash of octets that cannot be taken for it: restricted."""
    scheme = TPMT_ECC_SCHEME(
        scheme=TPM2_ALG.ECDSA, details=TPMU_ASYM_SCHEME(ecdsa=TPMS_SCHEME_HASH(hashAlg=TPM2_ALG.SHA256))
    )
    return _public(TPM2_ALG.ECC, OWN | TPMA_OBJECT.RESTRICTED | TPMA_OBJECT.SIGN_ENCRYPT, _p256(scheme=scheme))
