"""The monotonic counter of a TRE as an NV counter index of the TPM (T3; extra `tpm`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tpm2_pytss.constants import TPM2_ALG, TPM2_CAP, TPM2_HC, TPM2_NT, TPMA_NV
from tpm2_pytss.types import TPM2B_NV_PUBLIC, TPMS_NV_PUBLIC

from dmclient.tre.counter_reference import CounterReference, ReferenceFile
from dmclient.tre.keys import KeyStoreError
from dmclient.tre.tpm_device import TpmDevice, TpmRefused

INDICES: Final = 64  # tried upwards from the first one
AUTHORISATION: Final = 16  # octets
_RC_HANDLE: Final = 0x08B
_RC_NV_UNINITIALIZED: Final = 0x14A
_WIDTH: Final = 8  # octets
_NV_INDICES: Final = range(0x01000000, 0x02000000)  # TPM 2.0 part 2, §7.2


class TpmCounter:
    """An NV index of type counter: the TPM lets nobody set it, not even its owner.

    An index that is removed and defined anew starts above every counter that was removed from this TPM before (TPM 2.0
    part 1, "NV counters"), so that way does not turn it back either. The first value is therefore arbitrary.
    """

    def __init__(self, device: TpmDevice, directory: Path, first_index: int, random: Callable[[int], bytes]) -> None:
        self._device = device
        self._file = ReferenceFile(directory)
        self._first_index = first_index
        self._random = random

    def identity(self) -> bytes:
        """Which index it is, to be kept with the keys; made when there is none.

        Raises:
            KeyStoreError: there is no TPM, or the file beside the TRE's store cannot be used.
        """
        return self._file.identity(self.read)

    def read(self) -> int:
        """See `MonotonicCounter.read`; the first call makes the index."""
        try:
            return self._read(self._file.read() or self._choose())
        except KeyStoreError as exc:
            raise OSError(f"TPM counter: {exc}") from exc

    def increment(self) -> int:
        """See `MonotonicCounter.increment`."""
        try:
            reference = self._file.read() or self._choose()
            self._read(reference)  # finds a broken connection before the one command that must not be repeated
            self._device.run(lambda esapi: _with_index(esapi, reference, _increment), repeat=False)
            return self._read(reference)
        except KeyStoreError as exc:
            raise OSError(f"TPM counter: {exc}") from exc

    def _read(self, reference: CounterReference) -> int:
        def operation(esapi: Any) -> int:
            return _with_index(esapi, reference, _value)

        try:
            return self._device.run(operation)
        except TpmRefused as refusal:
            if refusal.kind not in (_RC_HANDLE, _RC_NV_UNINITIALIZED):
                raise
            # New, or the power went between the steps of making it. (Or somebody removed it: see above.)
            if refusal.kind == _RC_HANDLE:
                self._device.run(lambda esapi: _define(esapi, reference), repeat=False)
        self._device.run(lambda esapi: _with_index(esapi, reference, _increment), repeat=False)
        return self._device.run(operation)

    def _choose(self) -> CounterReference:
        """A free index, noted before it is defined: one that nobody knows of would stay for ever."""
        taken = self._device.run(_defined)
        for number in range(self._first_index, self._first_index + INDICES):
            if number not in taken:
                reference = CounterReference(name=f"{number:#010x}", authorisation=self._random(AUTHORISATION))
                self._file.write(reference)
                return reference
        raise KeyStoreError(f"all NV indices from {self._first_index:#x} are taken: set tre.tpm.counter_index")


def _defined(esapi: Any) -> frozenset[int]:
    _, data = esapi.get_capability(TPM2_CAP.HANDLES, TPM2_HC.NV_INDEX_FIRST, 256)
    return frozenset(int(handle) for handle in data.data.handles)


def _index(reference: CounterReference) -> int:
    try:
        number = int(reference.name, 16)
    except ValueError:
        number = 0
    if number not in _NV_INDICES:
        raise OSError("the TRE's counter reference names no NV index")
    return number


def _define(esapi: Any, reference: CounterReference) -> None:
    kind = TPMA_NV(TPM2_NT.COUNTER << TPMA_NV.TPM2_NT_SHIFT)
    public = TPM2B_NV_PUBLIC(
        TPMS_NV_PUBLIC(
            nvIndex=_index(reference),
            nameAlg=TPM2_ALG.SHA256,
            attributes=TPMA_NV.AUTHREAD | TPMA_NV.AUTHWRITE | TPMA_NV.NO_DA | kind,
            dataSize=_WIDTH,
        )
    )
    esapi.tr_close(esapi.nv_define_space(reference.authorisation, public))


def _with_index(esapi: Any, reference: CounterReference, operation: Callable[[Any, Any], int]) -> int:
    handle = esapi.tr_from_tpmpublic(_index(reference))
    try:
        esapi.tr_set_auth(handle, reference.authorisation)
        return operation(esapi, handle)
    finally:
        esapi.tr_close(handle)


def _value(esapi: Any, handle: Any) -> int:
    return int.from_bytes(bytes(esapi.nv_read(handle, _WIDTH, 0, handle)), "big")


def _increment(esapi: Any, handle: Any) -> int:
    esapi.nv_increment(handle, handle)
    return 0
