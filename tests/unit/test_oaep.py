"""OAEP decoding in software, against the library's encoding."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from dmclient.tre.oaep import decode_oaep
from mcim.platform_key import OaepHash, oaep
from tests.support_pki import rsa_key


def block_of(ciphertext: bytes, key: rsa.RSAPrivateKey) -> bytes:
    """What bare RSA gives: the encoded message."""
    numbers = key.private_numbers()
    plain = pow(int.from_bytes(ciphertext, "big"), numbers.d, numbers.public_numbers.n)
    return plain.to_bytes(key.key_size // 8, "big")


@pytest.mark.parametrize("label", [None, b"M2M-XENC/1|PK_D", bytes(range(40))], ids=["none", "text", "binary"])
@pytest.mark.parametrize("hash_name", ["sha1", "sha256"])
@pytest.mark.parametrize("message", [b"", b"\x01", bytes(64), os.urandom(64)], ids=["empty", "one", "zeroes", "random"])
def test_decodes_what_the_library_encodes(hash_name: OaepHash, label: bytes | None, message: bytes) -> None:
    """REQ-29: labels with any octets and without a zero at their end, which a TPM's own OAEP cannot have."""
    key = rsa_key()
    ciphertext = key.public_key().encrypt(message, oaep(hash_name, label))
    block = block_of(ciphertext, key)
    assert decode_oaep(block, hash_name=hash_name, label=label) == message
    for wrong in ("other label", "first octet", "one bit", "other hash", "too short"):
        with pytest.raises(ValueError, match="not an OAEP block"):
            decode_oaep(
                {
                    "first octet": b"\x01" + block[1:],
                    "one bit": block[:-1] + bytes((block[-1] ^ 1,)),
                    "too short": block[:41],
                }.get(wrong, block),
                hash_name=("sha256" if hash_name == "sha1" else "sha1") if wrong == "other hash" else hash_name,
                label=b"another" if wrong == "other label" else label,
            )


@given(st.binary(max_size=300), st.sampled_from(["sha1", "sha256"]))
def test_any_other_octets_give_one_error(block: bytes, hash_name: OaepHash) -> None:
    """REQ-60: one error for every cause."""
    with pytest.raises(ValueError, match="not an OAEP block"):
        decode_oaep(block, hash_name=hash_name, label=b"x")
