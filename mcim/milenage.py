"""MILENAGE (TS 35.205, TS 35.206): f1, f1*, f2 to f5 and f5* on AES-128, with constants by choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from mcim.errors import InvalidArgument

CONSTANTS_LENGTH: Final = 85  # octets of TLV MIL_CONST


@dataclass(frozen=True, slots=True)
class MilenageConstants:
    """r1…r5 and c1…c5 of TS 35.206 §4.1. An operator may choose its own; they are no secret.

    Raises:
        InvalidArgument: not five of each, a value out of its range, or one pair of r and c twice: then two of the
            functions would be the same, and the output of one would give away that of the other.
    """

    rotations: tuple[int, ...] = (64, 0, 32, 64, 96)  # bits, 0 to 127 each
    masks: tuple[bytes, ...] = tuple(last.to_bytes(16, "big") for last in (0, 1, 2, 4, 8))  # c1…c5, 16 octets each

    def __post_init__(self) -> None:
        if len(self.rotations) != 5 or any(not 0 <= bits <= 127 for bits in self.rotations):
            raise InvalidArgument("rotations are five numbers of bits, 0 to 127")
        if len(self.masks) != 5 or any(len(mask) != 16 for mask in self.masks):
            raise InvalidArgument("constants are five times 16 octets")
        if len(set(zip(self.rotations, self.masks, strict=True))) != 5:
            raise InvalidArgument("a pair of rotation and constant is there twice")

    @classmethod
    def parse(cls, octets: bytes) -> MilenageConstants:
        """Read the value of TLV MIL_CONST: r1…r5, one octet each, then c1…c5.

        Raises:
            InvalidArgument: not 85 octets, or values that may not be used.
        """
        if len(octets) != CONSTANTS_LENGTH:
            raise InvalidArgument(f"MILENAGE constants are {CONSTANTS_LENGTH} octets")
        return cls(tuple(octets[:5]), tuple(octets[at : at + 16] for at in range(5, CONSTANTS_LENGTH, 16)))

    def encode(self) -> bytes:
        """Value of TLV MIL_CONST."""
        return bytes(self.rotations) + b"".join(self.masks)


DEFAULT: Final = MilenageConstants()


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _rotate(block: bytes, bits: int) -> bytes:
    """Cyclic shift of 16 octets towards the most significant bit."""
    value = int.from_bytes(block, "big")
    return ((value << bits | value >> (128 - bits)) & ((1 << 128) - 1)).to_bytes(16, "big")


def opc_from_op(k: bytes, op: bytes) -> bytes:
    """OPc = E_K(OP) xor OP (TS 35.206 §4.1). Only OPc is ever stored or sent."""
    return _xor(_encrypt(k, op), op)


def _encrypt(k: bytes, block: bytes) -> bytes:
    # One block of AES is the kernel function of TS 35.206; ECB is how the library names that.
    encryptor = Cipher(algorithms.AES(k), modes.ECB()).encryptor()  # noqa: S305 (see above)
    return encryptor.update(block) + encryptor.finalize()


class Milenage:
    """The functions of one subscriber. `k` and `opc` are 16 octets each and stay out of the repr."""

    __slots__ = ("_constants", "_k", "_opc")

    def __init__(self, k: bytes, opc: bytes, constants: MilenageConstants = DEFAULT) -> None:
        if len(k) != 16 or len(opc) != 16:
            raise InvalidArgument("K and OPc are 16 octets")
        self._k = k
        self._opc = opc
        self._constants = constants

    def __repr__(self) -> str:
        return "Milenage(…)"

    @property
    def mac_length(self) -> int:
        """Octets of MAC-A and MAC-S."""
        return 8

    def _out(self, index: int, rand: bytes) -> bytes:
        """OUT2 to OUT5 of TS 35.206 §4.1; TEMP is inside the rotation here, unlike in OUT1."""
        temp = _encrypt(self._k, _xor(rand, self._opc))
        rotated = _rotate(_xor(temp, self._opc), self._constants.rotations[index])
        return _xor(_encrypt(self._k, _xor(rotated, self._constants.masks[index])), self._opc)

    def _out1(self, rand: bytes, sqn: bytes, amf: bytes) -> bytes:
        temp = _encrypt(self._k, _xor(rand, self._opc))
        in1 = (sqn + amf) * 2
        rotated = _rotate(_xor(in1, self._opc), self._constants.rotations[0])
        return _xor(_encrypt(self._k, _xor(_xor(temp, rotated), self._constants.masks[0])), self._opc)

    def f1(self, rand: bytes, sqn: bytes, amf: bytes) -> bytes:
        """MAC-A, 8 octets."""
        return self._out1(rand, sqn, amf)[:8]

    def f1_star(self, rand: bytes, sqn: bytes, amf: bytes) -> bytes:
        """MAC-S, 8 octets."""
        return self._out1(rand, sqn, amf)[8:]

    def f2(self, rand: bytes) -> bytes:
        """RES, 8 octets."""
        return self._out(1, rand)[8:]

    def f3(self, rand: bytes) -> bytes:
        """CK, 16 octets."""
        return self._out(2, rand)

    def f4(self, rand: bytes) -> bytes:
        """IK, 16 octets."""
        return self._out(3, rand)

    def f5(self, rand: bytes) -> bytes:
        """AK, 6 octets."""
        return self._out(1, rand)[:6]

    def f5_star(self, rand: bytes) -> bytes:
        """AK for resynchronisation, 6 octets."""
        return self._out(4, rand)[:6]


def gsm_response(res: bytes) -> bytes:
    """SRES by conversion function c2 (TS 33.102 §6.8.1.2): 4 octets.

    Raises:
        InvalidArgument: RES is not of 4 to 16 octets; c2 knows no longer one (TUAK can make 32).
    """
    if not 4 <= len(res) <= 16:
        raise InvalidArgument("c2 takes a RES of 4 to 16 octets")
    padded = res.ljust(16, b"\0")
    sres = padded[:4]
    for offset in (4, 8, 12):
        sres = _xor(sres, padded[offset : offset + 4])
    return sres


def gsm_cipher_key(ck: bytes, ik: bytes) -> bytes:
    """Kc by conversion function c3 (TS 33.102 §6.8.1.2): 8 octets.

    Raises:
        InvalidArgument: CK or IK is not of 16 octets; c3 is not defined for TUAK's keys of 256 bits.
    """
    if len(ck) != 16 or len(ik) != 16:
        raise InvalidArgument("c3 takes a CK and an IK of 16 octets")
    return _xor(_xor(ck[:8], ck[8:]), _xor(ik[:8], ik[8:]))
