"""The monotonic counter of a TRE as a data object of a PKCS #11 token (T3; extra `pkcs11`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from pkcs11 import Attribute, ObjectClass

from dmclient.tre.counter_reference import CounterReference, ReferenceFile
from dmclient.tre.keys import KeyStoreError
from dmclient.tre.pkcs11_session import TokenSession

APPLICATION: Final = "m2m-dm"
_NAME: Final = 16  # octets that tell the counters in one token apart
_ROLE: Final = "-counter-"
_FIRST: Final = 5  # octets of the first value


class Pkcs11Counter:
    """A private data object, seen and replaced only by who knows the PIN: PKCS #11 has no counters of its own.

    The value of a data object cannot be changed in every token, so the next one is made first and the others are
    destroyed then; after a power cut there may be two, and the higher one counts. It starts anywhere, so that a counter
    made anew in the place of a destroyed one fits no memory of this TRE.
    """

    def __init__(
        self, session: TokenSession, directory: Path, label_prefix: str, random: Callable[[int], bytes]
    ) -> None:
        self._session = session
        self._file = ReferenceFile(directory)
        self._label_prefix = label_prefix
        self._random = random

    def identity(self) -> bytes:
        """Which object it is, to be kept with the keys; made when there is none.

        Raises:
            KeyStoreError: there is no token, or the file beside the TRE's store cannot be used.
        """
        return self._file.identity(self.read)

    def label_of(self, role: str) -> str:
        """Label of other objects that this TRE has in the token; no two TREs have the same.

        Raises:
            KeyStoreError: the file beside the TRE's store cannot be used.
        """
        try:
            prefix, _, own = self._reference().name.rpartition(_ROLE)
        except OSError as exc:
            raise KeyStoreError(str(exc)) from exc
        return f"{prefix}-{role}-{own}"

    def read(self) -> int:
        """See `MonotonicCounter.read`; the first call makes the object."""
        reference = self._reference()
        return self._run(lambda session: max(_values(session, reference), default=None) or self._make(reference))

    def increment(self) -> int:
        """See `MonotonicCounter.increment`."""
        reference = self._reference()
        value = self.read() + 1  # finds a lost token before the one step that must not be repeated

        def operation(session: Any) -> int:
            before = list(_objects(session, reference))
            _create(session, reference, value)
            for each in before:
                each.destroy()
            return value

        return self._run(operation, repeat=False)

    def _make(self, reference: CounterReference) -> int:
        first = 1 + int.from_bytes(self._random(_FIRST), "big")
        self._session.run(lambda session: _create(session, reference, first), repeat=False)
        return first

    def _reference(self) -> CounterReference:
        reference = self._file.read()
        if reference is None:
            reference = CounterReference(name=f"{self._label_prefix}{_ROLE}{self._random(_NAME).hex()}")
            self._file.write(reference)
        return reference

    def _run(self, operation: Callable[[Any], int], *, repeat: bool = True) -> int:
        try:
            return self._session.run(operation, repeat=repeat)
        except KeyStoreError as exc:
            raise OSError(f"token counter: {exc}") from exc


def _objects(session: Any, reference: CounterReference) -> Any:
    return session.get_objects({Attribute.CLASS: ObjectClass.DATA, Attribute.LABEL: reference.name})


def _values(session: Any, reference: CounterReference) -> list[int]:
    try:
        return [int(bytes(each[Attribute.VALUE])) for each in _objects(session, reference)]
    except ValueError as exc:
        raise KeyStoreError("the counter object holds no number") from exc


def _create(session: Any, reference: CounterReference, value: int) -> None:
    session.create_object(
        {
            Attribute.CLASS: ObjectClass.DATA,
            Attribute.TOKEN: True,
            Attribute.PRIVATE: True,
            Attribute.LABEL: reference.name,
            Attribute.APPLICATION: APPLICATION,
            Attribute.VALUE: str(value).encode("ascii"),
        }
    )
