"""A login to a PKCS #11 token that survives the token (extra `pkcs11`).

PKCS #11 knows one login for all sessions of a process: who logs out ends everybody's. So all key stores of a process
share one session for each token, and the last to close it logs out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import pkcs11
from pkcs11 import exceptions

from dmclient.tre.keys import KeyStoreError, KeyStoreGone

T = TypeVar("T")

LOST: Final = (
    exceptions.SessionHandleInvalid,
    exceptions.SessionClosed,
    exceptions.UserNotLoggedIn,
    exceptions.DeviceRemoved,
    exceptions.DeviceError,
    exceptions.TokenNotPresent,
    exceptions.ObjectHandleInvalid,
    exceptions.KeyHandleInvalid,
)
_PIN: Final = (
    exceptions.PinIncorrect,
    exceptions.PinInvalid,
    exceptions.PinLenRange,
    exceptions.PinLocked,
    exceptions.PinExpired,
    exceptions.UserPinNotInitialized,
)


class TokenSession:
    """One token. Its methods may be called from several threads."""

    _shared: Final[dict[tuple[str, str], TokenSession]] = {}
    _shared_lock: Final = threading.Lock()

    def __init__(self, module: Path, token_label: str, pin: str) -> None:
        self._module = module
        self._token_label = token_label
        self._pin = pin
        self._session: Any = None
        self._users = 0
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"TokenSession({self._token_label})"

    @classmethod
    def of(cls, module: Path, token_label: str, pin: str) -> TokenSession:
        """The session of this process with a token; each caller closes it once.

        Raises:
            KeyStoreError: it is open already, with another PIN.
        """
        key = (str(module), token_label)
        with cls._shared_lock:
            session = cls._shared.setdefault(key, cls(module, token_label, pin))
            if session._pin != pin:
                raise KeyStoreError(f"token {token_label}: the PIN is wrong")
            session._users += 1
            return session

    def run(self, operation: Callable[[Any], T], *, repeat: bool = True) -> T:
        """Do something in a session with the token; after a loss it is opened anew.

        Args:
            operation: gets the session. Object handles must not outlive it.
            repeat: whether it may be done again when the token goes away meanwhile.

        Raises:
            KeyStoreGone: the token is not there.
            KeyStoreError: it refuses.
        """
        with self._lock:
            try:
                try:
                    return operation(self._alive())
                except LOST:
                    self._drop()
                    if not repeat:
                        raise
                return operation(self._alive())
            except LOST as exc:
                self._drop()
                raise KeyStoreGone(f"token {self._token_label} is lost: {type(exc).__name__}") from exc
            except _PIN as exc:
                raise KeyStoreError(f"token {self._token_label}: the PIN is wrong ({type(exc).__name__})") from exc
            except exceptions.NoSuchToken as exc:
                raise KeyStoreGone(f"there is no token {self._token_label}") from exc
            except exceptions.PKCS11Error as exc:
                raise KeyStoreError(f"token {self._token_label} refuses: {type(exc).__name__} {exc}".rstrip()) from exc

    def close(self) -> None:
        """Let go of it; the last one logs out."""
        with self._shared_lock:
            self._users -= 1
            if self._users > 0:
                return
            self._shared.pop((str(self._module), self._token_label), None)
        with self._lock:
            self._drop()

    def _alive(self) -> Any:
        """The session, opened anew if it went with the token since the last operation."""
        if self._session is not None:
            try:
                self._session.generate_random(8)
            except LOST:
                self._drop()
            except exceptions.PKCS11Error:
                pass  # without a generator of its own, but there
        if self._session is None:
            self._session = self._open()
        return self._session

    def _open(self) -> Any:
        token = pkcs11.lib(str(self._module)).get_token(token_label=self._token_label)
        try:
            return token.open(rw=True, user_pin=self._pin)
        except exceptions.UserAlreadyLoggedIn:  # by code of this process that is not ours
            return token.open(rw=True)

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            try:
                session.close()
            except exceptions.PKCS11Error:
                return  # it went with the token
