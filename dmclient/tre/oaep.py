"""EME-OAEP decoding (RFC 8017 §7.1.2, step 3) of a block that hardware has put through the bare RSA operation.

For TPMs: theirs appends a zero to the label before it is hashed, so it cannot open what others made with ours.
"""

from __future__ import annotations

import hashlib
import hmac

from mcim.platform_key import OaepHash


def decode_oaep(block: bytes, *, hash_name: OaepHash, label: bytes | None) -> bytes:
    """The message in an encoded block of as many octets as the modulus has.

    All checks are made before the answer depends on any of them, and one error stands for every cause: a decoder that
    told its failures apart would be the oracle of J. Manger (CRYPTO 2001). Python promises no constant time; the work
    done is the same for every block.

    Raises:
        ValueError: it is not one.
    """
    label_hash = _hash(hash_name, label or b"")
    length = len(label_hash)
    if len(block) < 2 * length + 2:  # the key is too short for this hash, whatever was sent
        raise ValueError("not an OAEP block")
    masked_seed, masked_data = block[1 : 1 + length], block[1 + length :]
    seed = _xor(masked_seed, _mask(hash_name, masked_data, length))
    data = _xor(masked_data, _mask(hash_name, seed, len(masked_data)))
    bad = block[0]
    bad |= not hmac.compare_digest(data[:length], label_hash)
    looking, start = 1, 0
    for index in range(length, len(data)):
        octet = data[index]
        found = looking & (octet == 1)
        bad |= looking & (octet > 1)
        start |= found * (index + 1)
        looking &= 1 - found
    if bad | looking:
        raise ValueError("not an OAEP block")
    return data[start:]


def _hash(name: OaepHash, octets: bytes) -> bytes:
    return hashlib.new(name, octets, usedforsecurity=False).digest()


def _mask(name: OaepHash, seed: bytes, length: int) -> bytes:
    """MGF1 (RFC 8017, appendix B.2.1)."""
    out = b""
    counter = 0
    while len(out) < length:
        out += _hash(name, seed + counter.to_bytes(4, "big"))
        counter += 1
    return out[:length]


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(one ^ other for one, other in zip(left, right, strict=True))
