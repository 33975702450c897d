"""Authentication and key agreement (TS 33.102 §6.3): the home network's side and the USIM's side, as pure values."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Final

from mcim.errors import InvalidArgument
from mcim.network_keys import AuthenticationFunctions

IND_BITS: Final = 5  # TS 33.102 annex C.1.1: SQN = SEQ || IND, an array of 32 places
MAX_SQN: Final = (1 << 48) - 1
MAX_JUMP: Final = 1 << 28  # in SEQ; annex C.2.1: a larger jump would let an attacker use up the counter
RESYNC_AMF: Final = b"\x00\x00"  # AMF* of AUTS (TS 33.102 §6.3.3)
EPS_AMF: Final = b"\x80\x00"  # separation bit set (TS 33.401)


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthVector:
    """Authentication vector; everything but RAND and AUTN is secret."""

    rand: bytes
    autn: bytes
    xres: bytes = field(repr=False)
    ck: bytes = field(repr=False)
    ik: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The network is authentic and the challenge fresh."""

    res: bytes = field(repr=False)
    ck: bytes = field(repr=False)
    ik: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncFailure:
    """The challenge is authentic but its SQN is not acceptable; AUTS (6 octets and a MAC) tells the network SQN_MS."""

    auts: bytes


@dataclass(frozen=True, slots=True)
class MacFailure:
    """The challenge is not authentic; nothing more is said."""


def next_sqn(sqn: int) -> int:
    """SQN of the next vector: SEQ and IND both go up by one (TS 33.102 annex C.3.2 style allocation).

    Raises:
        InvalidArgument: the 48 bits are used up.
    """
    seq, ind = sqn >> IND_BITS, sqn & ((1 << IND_BITS) - 1)
    following = ((seq + 1) << IND_BITS) | ((ind + 1) % (1 << IND_BITS))
    if following > MAX_SQN:
        raise InvalidArgument("SQN is used up")
    return following


def sqn_after_resynchronisation(sqn_he: int, sqn_ms: int) -> int:
    """SQN of the next vector once a USIM told its SQN_MS (TS 33.102 §6.3.5): SQN_HE goes on where it is if the USIM
    takes that, for other vectors may be under way; else it goes on from SQN_MS.

    Raises:
        InvalidArgument: as `next_sqn`.
    """
    following, seq_ms = next_sqn(sqn_he), sqn_ms >> IND_BITS
    return following if seq_ms < following >> IND_BITS <= seq_ms + MAX_JUMP else next_sqn(sqn_ms)


def generate_vector(functions: AuthenticationFunctions, *, rand: bytes, sqn: int, amf: bytes = EPS_AMF) -> AuthVector:
    """Authentication vector of TS 33.102 §6.3.2. The caller has stored `sqn` as used before the vector leaves."""
    if len(rand) != 16 or not 0 <= sqn <= MAX_SQN or len(amf) != 2:
        raise InvalidArgument("RAND is 16 octets, SQN 48 bits, AMF 2 octets")
    sqn_octets = sqn.to_bytes(6, "big")
    concealed = _xor(sqn_octets, functions.f5(rand))
    return AuthVector(
        rand=rand,
        autn=concealed + amf + functions.f1(rand, sqn_octets, amf),
        xres=functions.f2(rand),
        ck=functions.f3(rand),
        ik=functions.f4(rand),
    )


def resynchronise(functions: AuthenticationFunctions, *, rand: bytes, auts: bytes) -> int | None:
    """SQN_MS out of an AUTS that answers `rand` (TS 33.102 §6.3.5); None when MAC-S is wrong."""
    if len(rand) != 16 or len(auts) != 6 + functions.mac_length:
        return None
    sqn_octets = _xor(auts[:6], functions.f5_star(rand))
    expected = functions.f1_star(rand, sqn_octets, RESYNC_AMF)
    return int.from_bytes(sqn_octets, "big") if hmac.compare_digest(expected, auts[6:]) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsimState:
    """Highest SEQ accepted so far, one for each IND (TS 33.102 annex C.2.2)."""

    seq: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.seq) != 1 << IND_BITS:
            raise InvalidArgument(f"{1 << IND_BITS} places, one for each IND")

    @classmethod
    def initial(cls, sqn: int) -> UsimState:
        """All places hold the SEQ of `sqn`: nothing up to it will be accepted."""
        return cls(seq=(sqn >> IND_BITS,) * (1 << IND_BITS))

    @property
    def sqn_ms(self) -> int:
        """Highest SQN accepted, what AUTS reports."""
        highest = max(self.seq)
        return (highest << IND_BITS) | self.seq.index(highest)

    def verify(
        self, functions: AuthenticationFunctions, *, rand: bytes, autn: bytes
    ) -> tuple[UsimState, Accepted | SyncFailure | MacFailure]:
        """Judge one challenge (TS 33.102 §6.3.3). The caller stores the new state before RES leaves."""
        if len(rand) != 16 or len(autn) != 8 + functions.mac_length:
            return self, MacFailure()
        sqn_octets = _xor(autn[:6], functions.f5(rand))
        amf, received = autn[6:8], autn[8:]
        if not hmac.compare_digest(functions.f1(rand, sqn_octets, amf), received):
            return self, MacFailure()
        sqn = int.from_bytes(sqn_octets, "big")
        seq, ind = sqn >> IND_BITS, sqn & ((1 << IND_BITS) - 1)
        if not self.seq[ind] < seq <= max(self.seq) + MAX_JUMP:
            own = self.sqn_ms.to_bytes(6, "big")
            mac_s = functions.f1_star(rand, own, RESYNC_AMF)
            return self, SyncFailure(auts=_xor(own, functions.f5_star(rand)) + mac_s)
        after = UsimState(seq=(*self.seq[:ind], seq, *self.seq[ind + 1 :]))
        return after, Accepted(res=functions.f2(rand), ck=functions.f3(rand), ik=functions.f4(rand))
