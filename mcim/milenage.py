"""MILENAGE (TS 35.205, TS 35.206): f1, f1*, f2 to f5 and f5* on AES-128, with the default constants."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from mcim.errors import InvalidArgument

# TS 35.206 §4.1: rotations r1…r5 in bits, and the last octet of c1…c5 (the other octets are zero).
ROTATIONS: Final = (64, 0, 32, 64, 96)
CONSTANTS: Final = (0, 1, 2, 4, 8)


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _rotate(block: bytes, bits: int) -> bytes:
    """Cyclic shift of 16 octets towards the most significant bit."""
    return block[bits // 8 :] + block[: bits // 8]


def opc_from_op(k: bytes, op: bytes) -> bytes:
    """OPc = E_K(OP) xor OP (TS 35.206 §4.1). Only OPc is ever stored or sent."""
    return _xor(_encrypt(k, op), op)


def _encrypt(k: bytes, block: bytes) -> bytes:
    # One block of AES is the kernel function of TS 35.206; ECB is how the library names that.
    encryptor = Cipher(algorithms.AES(k), modes.ECB()).encryptor()  # noqa: S305 (see above)
    return encryptor.update(block) + encryptor.finalize()


class Milenage:
    """The functions of one subscriber. `k` and `opc` are 16 octets each and stay out of the repr."""

    __slots__ = ("_k", "_opc")

    def __init__(self, k: bytes, opc: bytes) -> None:
        if len(k) != 16 or len(opc) != 16:
            raise InvalidArgument("K and OPc are 16 octets")
        self._k = k
        self._opc = opc

    def __repr__(self) -> str:
        return "Milenage(…)"

    @property
    def mac_length(self) -> int:
        """Octets of MAC-A and MAC-S."""
        return 8

    def _out(self, index: int, rand: bytes) -> bytes:
        """OUT2 to OUT5 of TS 35.206 §4.1; TEMP is inside the rotation here, unlike in OUT1."""
        temp = _encrypt(self._k, _xor(rand, self._opc))
        rotated = bytearray(_rotate(_xor(temp, self._opc), ROTATIONS[index]))
        rotated[15] ^= CONSTANTS[index]
        return _xor(_encrypt(self._k, bytes(rotated)), self._opc)

    def _out1(self, rand: bytes, sqn: bytes, amf: bytes) -> bytes:
        temp = _encrypt(self._k, _xor(rand, self._opc))
        in1 = (sqn + amf) * 2
        rotated = _rotate(_xor(in1, self._opc), ROTATIONS[0])
        return _xor(_encrypt(self._k, _xor(temp, rotated)), self._opc)

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
    """SRES by conversion function c2 (TS 33.102 §6.8.1.2): 4 octets."""
    padded = res.ljust(16, b"\0")
    sres = padded[:4]
    for offset in (4, 8, 12):
        sres = _xor(sres, padded[offset : offset + 4])
    return sres


def gsm_cipher_key(ck: bytes, ik: bytes) -> bytes:
    """Kc by conversion function c3 (TS 33.102 §6.8.1.2): 8 octets."""
    return _xor(_xor(ck[:8], ck[8:]), _xor(ik[:8], ik[8:]))
