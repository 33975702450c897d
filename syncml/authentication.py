"""One direction of authentication within a session, from both ends (OMA-TS-DM_Security-V1_2 §5.3).

The `Authenticator` issues nonces and judges what each message of the peer shows; the `Prover` shows what the peer asks
for and listens to what it says of it. A server is the authenticator of its client and the prover of itself, a client
the other way round, so both sessions have one of each and the same rules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Final

from syncml.auth import SPECIAL_NONCES, STRENGTH, Credentials, type_named
from syncml.codes import AuthType, StatusCode
from syncml.model import Chal, Cred, Status
from syncml.nonces import decoded_again

MAX_REFUSALS: Final = 3  # messages in a row without right credentials, the last is refused without a challenge
MAX_WRONG: Final = 2  # of those, with credentials of the right type and a wrong value: one challenge after the first
REFUSALS: Final = (StatusCode.INVALID_CREDENTIALS, StatusCode.MISSING_CREDENTIALS)

NewNonce = Callable[[], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a message brings to prove its sender."""

    cred: Cred | None = None  # of its SyncHdr
    mac: str | None = field(default=None, repr=False)  # value of its transport header `x-syncml-hmac`
    body: bytes = field(default=b"", repr=False)  # its octets as received


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the authenticator says of a message. `code` and `chal` are for the Status of its SyncHdr."""

    accepted: bool
    code: int
    chal: Chal | None = None
    checked: bool = True  # False: the sender was accepted before, for the session


class Authenticator:
    """Checks one peer, message by message.

    Good are the nonce issued last and, until a new one is issued in this session, the one before it (the answer that
    brought the newer one may be lost) and the special nonce where a resynchronisation is on. The holder of the account
    moves both on with every nonce issued, which is why neither is ever good for a second session.
    """

    def __init__(
        self,
        credentials: Credentials,
        new_nonce: NewNonce,
        *,
        nonce_before: bytes = b"",
        resync: bool = False,
        per_message: bool = False,
    ) -> None:
        self._credentials = credentials
        self._new_nonce = new_nonce
        self._before: tuple[bytes, ...] = (nonce_before,) if nonce_before and self.uses_nonces else ()
        self._special: tuple[bytes, ...] = SPECIAL_NONCES if resync and self.uses_nonces else ()
        self.per_message = per_message or credentials.type is AuthType.MAC
        self.known = False  # the peer proved itself; in a per-message session, with its last message
        self.refusals = 0  # in a row
        self.accepted_nonce: bytes | None = None  # what the peer used last
        self.resynchronised: bytes | None = None  # the form of the special nonce that the peer used
        self._wrong = 0  # in a row

    @property
    def nonce(self) -> bytes:
        """The nonce issued last."""
        return self._credentials.nonce

    @property
    def uses_nonces(self) -> bool:
        """Whether there is a chain of nonces to keep; basic has none."""
        return self._credentials.type is not AuthType.BASIC

    @property
    def settled(self) -> bool:
        """Whether the peer is known for the rest of the session."""
        return self.known and not self.per_message

    def shows(self, proof: Proof) -> bool:
        """Whether a message brings credentials where they are expected, right or not."""
        return (proof.mac if self._credentials.type is AuthType.MAC else proof.cred) is not None

    def judge(self, proof: Proof) -> Verdict:
        """Say whether the sender of a message is the peer.

        A peer known for the session is not asked again: what it still shows is read by nobody, so a right credential
        is harmless and a wrong one gains nothing.
        """
        if self.settled:
            return Verdict(accepted=True, code=StatusCode.OK, checked=False)
        used = self._used_nonce(proof)
        if used is None:
            return self._refuse(proof)
        self.known, self.refusals, self._wrong = True, 0, 0
        self.accepted_nonce = used
        if used in self._special:
            self.resynchronised = used
        return Verdict(accepted=True, code=StatusCode.OK if self.per_message else StatusCode.AUTHENTICATION_ACCEPTED)

    def issue(self) -> Chal:
        """A new nonce, as the Chal that carries it. From now on no other is good."""
        self._credentials = replace(self._credentials, nonce=self._new_nonce())
        self._before, self._special = (), ()
        return self._credentials.challenge()

    def _used_nonce(self, proof: Proof) -> bytes | None:
        """The nonce the proof was made with; None when it is not right."""
        for nonce in dict.fromkeys((self._credentials.nonce, *self._before, *self._special)):
            candidate = replace(self._credentials, nonce=nonce)
            if candidate.accepts_body(proof.mac, proof.body) or candidate.accepts(proof.cred):
                return nonce
        return None

    def _refuse(self, proof: Proof) -> Verdict:
        self.known = False
        self.refusals += 1
        mac = self._credentials.type is AuthType.MAC
        offered = type_named(proof.cred.type) if proof.cred is not None else None
        # Another type than the one demanded is asked for the right one; it is no guess at the secret.
        self._wrong += (proof.mac is not None) if mac else offered is self._credentials.type
        missing = proof.cred is None and not mac  # of a MAC, absent is as wrong as bad
        if self.refusals >= MAX_REFUSALS or self._wrong >= MAX_WRONG:
            return Verdict(accepted=False, code=StatusCode.INVALID_CREDENTIALS)
        code = StatusCode.MISSING_CREDENTIALS if missing else StatusCode.INVALID_CREDENTIALS
        return Verdict(accepted=False, code=code, chal=self.issue())


class HeaderAnswer(Enum):
    """What a Status of our SyncHdr means for us."""

    NOTHING = auto()  # nothing about credentials
    ACCEPTED = auto()
    CHALLENGED = auto()  # the message goes out again, with credentials
    REFUSED = auto()  # for good
    UNSUPPORTED = auto()  # a type that is weaker than agreed, or that nobody knows


class Prover:
    """Proves who we are, as far as the peer asks.

    The type may become stronger than agreed when the peer demands that, and never weaker: a forged challenge for basic
    would bring out the password.
    """

    def __init__(self, credentials: Credentials, *, preemptive: bool = True) -> None:
        self._credentials = credentials
        self._asked = preemptive  # credentials go out: the peer asked for them, or we do not wait until it does
        self._settled = False  # 212: accepted for the session
        self._received: bytes | None = None  # the nonce of the last challenge, as it came
        self._decode_again = False  # this peer encodes its nonces twice
        self.challenges = 0  # in a row
        self.accepted = False  # at least once
        self.shown = False  # our last message had credentials
        self.starved = False  # auth-MAC: the nonce we have was used, and none came for the next message

    @property
    def nonce(self) -> bytes:
        """The nonce for the next proof."""
        return self._credentials.nonce

    @property
    def type(self) -> AuthType:
        """The type in use."""
        return self._credentials.type

    def use(self, nonce: bytes) -> None:
        """Take another nonce: the special one of a resynchronisation."""
        self._credentials = replace(self._credentials, nonce=nonce)

    def cred(self, *, silent: bool = False) -> Cred | None:
        """Credential for the SyncHdr of the next message; `silent`: the peer has to prove itself first."""
        self.shown = self._asked and not self._settled and not silent
        return self._credentials.prove() if self.shown and self.type is not AuthType.MAC else None

    def mac(self, body: bytes) -> str | None:
        """Value of `x-syncml-hmac` for that message, once it is encoded."""
        if not self.shown or self.type is not AuthType.MAC:
            return None
        self.starved = True
        return self._credentials.prove_body(body)

    def hear(self, status: Status) -> HeaderAnswer:
        """Take the Status of our SyncHdr. A `NextNonce` in it is the nonce from now on."""
        chal = status.chal
        if status.code in REFUSALS:
            return self._challenged(chal)
        if status.code not in (StatusCode.OK, StatusCode.AUTHENTICATION_ACCEPTED):
            return HeaderAnswer.NOTHING
        if chal is not None and chal.next_nonce is not None:
            self._take_nonce(chal.next_nonce)
        if not self.shown:
            return HeaderAnswer.NOTHING
        # 212 is for the session, 200 for this message; auth-MAC is for one message whatever the peer says.
        self._settled = status.code == StatusCode.AUTHENTICATION_ACCEPTED and self.type is not AuthType.MAC
        self.accepted, self.challenges = True, 0
        return HeaderAnswer.ACCEPTED

    def _take_nonce(self, received: bytes) -> None:
        inner = decoded_again(received) if self._decode_again else None
        self._credentials = replace(self._credentials, nonce=received if inner is None else inner)
        self.starved = False

    def _challenged(self, chal: Chal | None) -> HeaderAnswer:
        self.challenges += 1
        if chal is None:
            return HeaderAnswer.REFUSED
        wanted, nonce = type_named(chal.type), chal.next_nonce
        if wanted is None or STRENGTH[wanted] < STRENGTH[self.type]:
            return HeaderAnswer.UNSUPPORTED
        if self.shown and wanted is self.type:
            # These very credentials were refused: with the same nonce they would be again.
            if nonce is None or nonce in (self._received, self.nonce):
                return HeaderAnswer.REFUSED
            if self._received is not None and decoded_again(nonce) is not None:
                self._decode_again = not self._decode_again
        if self.challenges >= MAX_REFUSALS:
            return HeaderAnswer.REFUSED
        self._asked, self._settled = True, False
        self._credentials = replace(self._credentials, type=wanted)
        self._received = nonce
        self.starved = False
        if nonce is not None:
            self._take_nonce(nonce)
        return HeaderAnswer.CHALLENGED
