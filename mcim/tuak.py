"""TUAK (TS 35.231): f1, f1*, f2 to f5 and f5* on Keccak-f[1600]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mcim.errors import InvalidArgument
from mcim.keccak import STATE, permute

ALGONAME: Final = b"TUAK1.0"
PARAMETERS_LENGTH: Final = 5  # octets of TLV TUAK_PARAM
_MACS: Final = (8, 16, 32)  # octets; here and below what TS 35.231 §5 and §6 allow
_RESPONSES: Final = (4, 8, 16, 32)
_KEYS: Final = (16, 32)
_PADDING: Final = 96, 0x1F  # place and value: five bits 1 after KEY (TS 35.231 §6.1)
_LAST: Final = 135, 0x80  # bit 1087: the end of the rate of 1088 bits
_AUTHENTICATION, _RESPONSE, _STAR = 0x00, 0x40, 0x80  # INSTANCE bits 0 and 1; bit 0 is the most significant one


@dataclass(frozen=True, slots=True, kw_only=True)
class TuakParameters:
    """Choices of the home operator; lengths in octets. The defaults make AUTN and RES as long as MILENAGE's.

    Raises:
        InvalidArgument: a value TS 35.231 does not have.
    """

    iterations: int = 1  # of the permutation, 1 to 255
    mac_length: int = 8  # 8, 16 or 32
    res_length: int = 8  # 4, 8, 16 or 32
    ck_length: int = 16  # 16 or 32
    ik_length: int = 16  # 16 or 32

    def __post_init__(self) -> None:
        allowed = (
            1 <= self.iterations <= 255
            and self.mac_length in _MACS
            and self.res_length in _RESPONSES
            and self.ck_length in _KEYS
            and self.ik_length in _KEYS
        )
        if not allowed:
            raise InvalidArgument("a TUAK parameter is out of its range")

    @classmethod
    def parse(cls, octets: bytes) -> TuakParameters:
        """Read the value of TLV TUAK_PARAM.

        Raises:
            InvalidArgument: not 5 octets, or a value out of its range.
        """
        if len(octets) != PARAMETERS_LENGTH:
            raise InvalidArgument(f"TUAK parameters are {PARAMETERS_LENGTH} octets")
        iterations, mac, res, ck, ik = octets
        return cls(iterations=iterations, mac_length=mac, res_length=res, ck_length=ck, ik_length=ik)

    def encode(self) -> bytes:
        """Value of TLV TUAK_PARAM."""
        return bytes((self.iterations, self.mac_length, self.res_length, self.ck_length, self.ik_length))


DEFAULT: Final = TuakParameters()


def topc_from_top(k: bytes, top: bytes, iterations: int = 1) -> bytes:
    """TOPc of TS 35.231 §6.2. Only TOPc is ever stored or sent.

    Raises:
        InvalidArgument: K or TOP of another length, or iterations outside 1…255.
    """
    if not 1 <= iterations <= 255:
        raise InvalidArgument("iterations are 1 to 255")
    _require_lengths(k, top, "TOP")
    return _take(_keccak(top, _of_key(k), b"", b"", b"", k, iterations), 0, 32)


class Tuak:
    """The functions of one subscriber. `k` (16 or 32 octets) and `topc` (32) stay out of the repr."""

    __slots__ = ("_k", "_parameters", "_responses", "_topc")

    def __init__(self, k: bytes, topc: bytes, parameters: TuakParameters = DEFAULT) -> None:
        _require_lengths(k, topc, "TOPc")
        self._k = k
        self._topc = topc
        self._parameters = parameters
        # f2 to f5 are parts of one output; the last one is kept, for all four are asked for the same RAND.
        self._responses: tuple[bytes, bytes] = (b"", b"")

    def __repr__(self) -> str:
        return "Tuak(…)"

    @property
    def mac_length(self) -> int:
        """Octets of MAC-A and MAC-S."""
        return self._parameters.mac_length

    def _run(self, instance: int, rand: bytes, amf: bytes = b"", sqn: bytes = b"") -> bytes:
        if len(rand) != 16:
            raise InvalidArgument("RAND is 16 octets")
        return _keccak(self._topc, instance | _of_key(self._k), rand, amf, sqn, self._k, self._parameters.iterations)

    def _mac(self, kind: int, rand: bytes, sqn: bytes, amf: bytes) -> bytes:
        if len(sqn) != 6 or len(amf) != 2:
            raise InvalidArgument("SQN is 6 octets, AMF 2")
        return _take(self._run(kind | self.mac_length, rand, amf, sqn), 0, self.mac_length)

    def _output(self, rand: bytes) -> bytes:
        known, output = self._responses
        if known != rand:
            lengths = self._parameters
            # INSTANCE bits 2 to 4 hold the length of RES in units of 8 octets (0: 4 octets), 5 and 6 say 256 bits.
            instance = (lengths.res_length & 0x38) | (lengths.ck_length & 0x20) >> 3 | (lengths.ik_length & 0x20) >> 4
            output = self._run(_RESPONSE | instance, rand)
            self._responses = (rand, output)
        return output

    def f1(self, rand: bytes, sqn: bytes, amf: bytes) -> bytes:
        """MAC-A."""
        return self._mac(_AUTHENTICATION, rand, sqn, amf)

    def f1_star(self, rand: bytes, sqn: bytes, amf: bytes) -> bytes:
        """MAC-S."""
        return self._mac(_AUTHENTICATION | _STAR, rand, sqn, amf)

    def f2(self, rand: bytes) -> bytes:
        """RES."""
        return _take(self._output(rand), 0, self._parameters.res_length)

    def f3(self, rand: bytes) -> bytes:
        """CK."""
        return _take(self._output(rand), 32, self._parameters.ck_length)

    def f4(self, rand: bytes) -> bytes:
        """IK."""
        return _take(self._output(rand), 64, self._parameters.ik_length)

    def f5(self, rand: bytes) -> bytes:
        """AK, 6 octets."""
        return _take(self._output(rand), 96, 6)

    def f5_star(self, rand: bytes) -> bytes:
        """AK for resynchronisation, 6 octets."""
        return _take(self._run(_RESPONSE | _STAR, rand), 96, 6)


def _require_lengths(k: bytes, constant: bytes, name: str) -> None:
    if len(k) not in _KEYS or len(constant) != 32:
        raise InvalidArgument(f"K is 16 or 32 octets, {name} 32")


def _of_key(k: bytes) -> int:
    """INSTANCE bit 7: K has 256 bits."""
    return int(len(k) == 32)


def _keccak(constant: bytes, instance: int, rand: bytes, amf: bytes, sqn: bytes, k: bytes, iterations: int) -> bytes:
    """IN of TS 35.231 §6.1, permuted. IN[0] is the *last* bit of TOP or TOPc, so every field goes in backwards."""
    fields = ((constant, 32), (bytes((instance,)), 1), (ALGONAME, 7), (rand, 16), (amf, 2), (sqn, 6), (k, 32))
    state = bytearray(b"".join(value[::-1].ljust(length, b"\0") for value, length in fields).ljust(STATE, b"\0"))
    for place, value in (_PADDING, _LAST):
        state[place] = value
    octets = bytes(state)
    for _ in range(iterations):
        octets = permute(octets)
    return octets


def _take(output: bytes, start: int, length: int) -> bytes:
    return output[start : start + length][::-1]
