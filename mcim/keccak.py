"""Keccak-f[1600], the bare permutation of FIPS 202 §3, which no library gives without a hash function around it."""

from __future__ import annotations

from typing import Final

from mcim.errors import InvalidArgument

STATE: Final = 200  # octets: 25 lanes of 64 bits, lane x + 5y, least significant octet first
_MASK: Final = (1 << 64) - 1


def _round_constants() -> tuple[int, ...]:
    """Algorithm 5 of FIPS 202 §3.2.5: a shift register of 8 bits gives the bits 2^j - 1 of each round."""
    constants, register = [], 1
    for _ in range(24):
        constant = 0
        for j in range(7):
            if register & 1:
                constant |= 1 << ((1 << j) - 1)
            register = (register << 1) ^ (0x171 if register & 0x80 else 0)
        constants.append(constant)
    return tuple(constants)


def _moves() -> tuple[tuple[int, int, int], ...]:
    """Steps rho and pi (FIPS 202 §3.2.2, §3.2.3) as (lane from, lane to, rotation), after lane 0, which stays."""
    moves, x, y = [], 1, 0
    for t in range(24):
        following = (y, (2 * x + 3 * y) % 5)
        moves.append((x + 5 * y, following[0] + 5 * following[1], (t + 1) * (t + 2) // 2 % 64))
        x, y = following
    return tuple(moves)


_ROUNDS: Final = _round_constants()
_MOVES: Final = _moves()
_ROWS: Final = (0, 5, 10, 15, 20)


def permute(state: bytes) -> bytes:
    """One application of Keccak-f[1600].

    Raises:
        InvalidArgument: not 200 octets.
    """
    if len(state) != STATE:
        raise InvalidArgument(f"a Keccak state is {STATE} octets")
    lanes = [int.from_bytes(state[at : at + 8], "little") for at in range(0, STATE, 8)]
    moved = [0] * 25
    for constant in _ROUNDS:
        # theta
        parity = [lanes[x] ^ lanes[x + 5] ^ lanes[x + 10] ^ lanes[x + 15] ^ lanes[x + 20] for x in range(5)]
        for x in range(5):
            right = parity[(x + 1) % 5]
            change = parity[x - 1] ^ ((right << 1 | right >> 63) & _MASK)
            for row in _ROWS:
                lanes[x + row] ^= change
        # rho and pi
        moved[0] = lanes[0]
        for source, target, by in _MOVES:
            lane = lanes[source]
            moved[target] = (lane << by | lane >> (64 - by)) & _MASK
        # chi
        for row in _ROWS:
            a, b, c, d, e = moved[row : row + 5]
            lanes[row : row + 5] = (a ^ (~b & c), b ^ (~c & d), c ^ (~d & e), d ^ (~e & a), e ^ (~a & b))
        # iota
        lanes[0] ^= constant
    return b"".join(lane.to_bytes(8, "little") for lane in lanes)
