"""Packages in CMS: what does not open says no more than that, and nobody builds what nobody could read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from mcim.errors import InvalidArgument, PackageRefused
from mcim.package import open_package
from mcim.platform_key import SoftwarePlatformKey, oaep
from mcim.vocabulary import ResultCode
from tests.support_cms import (
    CIPHER,
    RECIPIENT,
    Change,
    build,
    changed,
    ec_package,
    in_envelope,
    rsa_package,
    verify,
)
from tests.support_der import Node
from tests.support_package import (
    EC_KEY,
    PKI,
    RSA_KEY,
)
from tests.support_pki import Signer, rsa_key


def _key(change: Callable[[bytes], bytes]) -> Change:
    return lambda root: setattr(root.at(*RECIPIENT, 3), "octets", change(root.at(*RECIPIENT, 3).octets))


def _ec_key(change: Callable[[bytes], bytes]) -> Change:
    def apply(root: Node) -> None:
        leaf = root.at(*RECIPIENT, 3, 0, 1)
        leaf.octets = change(leaf.octets)

    return apply


def _point(octets: bytes) -> Change:
    return lambda root: setattr(root.at(*RECIPIENT, 1, 0, 1), "octets", b"\0" + octets)


def _compressed(root: Node) -> None:
    """The right point in its other spelling."""
    node = root.at(*RECIPIENT, 1, 0, 1)
    node.octets = b"\0" + bytes((2 + node.octets[-1] % 2,)) + node.octets[2:34]


def _ciphertext(change: Callable[[bytes], bytes]) -> Change:
    return lambda root: setattr(root.at(2, 2), "octets", change(root.at(2, 2).octets))


def _flip(octets: bytes) -> bytes:
    return octets[:40] + bytes((octets[40] ^ 1,)) + octets[41:] if len(octets) > 41 else octets[:-1]


def _last_padding_octet(octets: bytes) -> bytes:
    """The padding of a whole block, 16 times 0x10, ends in 0x11 now."""
    return octets[:-17] + bytes((octets[-17] ^ 1,)) + octets[-16:]


def _wrapped(key: bytes, label: bytes = b"M2M-CMS/1|PK_D") -> Callable[[bytes], bytes]:
    return lambda _: PKI.platform_key.public_key().encrypt(key, oaep("sha256", label))


def _under_aes_128(root: Node) -> None:
    """A shorter content key than the algorithm's name says, and everything right but for that."""
    key = bytes(16)
    _key(_wrapped(key))(root)
    encryptor = Cipher(algorithms.AES(key), modes.CBC(root.at(*CIPHER, 1).octets)).encryptor()
    root.at(2, 2).octets = encryptor.update(b"\x10" * 32) + encryptor.finalize()


UNOPENED: dict[str, tuple[Callable[[], bytes], SoftwarePlatformKey, Change]] = {
    "another rsa key": (rsa_package, SoftwarePlatformKey(rsa_key(2048, 1)), lambda _: None),
    "ec key for rsa": (rsa_package, EC_KEY, lambda _: None),
    "rsa key for ec": (ec_package, RSA_KEY, lambda _: None),
    "another ec key": (ec_package, SoftwarePlatformKey(ec.generate_private_key(ec.SECP256R1())), lambda _: None),
    "recipient named wrong": (
        rsa_package, RSA_KEY, lambda root: setattr(root.at(*RECIPIENT, 1), "octets", b"k" * 20),
    ),
    "wrapped key flipped": (rsa_package, RSA_KEY, _key(_flip)),
    "wrapped key empty": (rsa_package, RSA_KEY, _key(lambda _: b"")),
    "wrapped key of 16 octets": (rsa_package, RSA_KEY, _under_aes_128),
    "wrapped key of 33 octets": (rsa_package, RSA_KEY, _key(_wrapped(bytes(33)))),
    "label of the xml container": (rsa_package, RSA_KEY, _key(_wrapped(bytes(32), b"M2M-XENC/1|PK_D"))),
    "agreed key flipped": (ec_package, EC_KEY, _ec_key(_flip)),
    "agreed key empty": (ec_package, EC_KEY, _ec_key(lambda _: b"")),
    "agreed key of another wrap": (ec_package, EC_KEY, _ec_key(lambda _: aes_key_wrap(bytes(32), bytes(32)))),
    "point off the curve": (ec_package, EC_KEY, _point(b"\4" + b"\1" * 64)),
    "point at infinity": (ec_package, EC_KEY, _point(b"\0")),
    "compressed point": (ec_package, EC_KEY, _compressed),
    "no point": (ec_package, EC_KEY, _point(b"")),
    "no ciphertext": (rsa_package, RSA_KEY, _ciphertext(lambda _: b"")),
    "half a block": (rsa_package, RSA_KEY, _ciphertext(lambda octets: octets[:-8])),
    "padding cut off": (rsa_package, RSA_KEY, _ciphertext(lambda octets: octets[:-16])),
    "last block flipped": (rsa_package, RSA_KEY, _ciphertext(_last_padding_octet)),
}  # fmt: skip


@pytest.mark.parametrize(("package", "key", "change"), UNOPENED.values(), ids=UNOPENED)
def test_one_error_for_whatever_does_not_open(
    package: Callable[[], bytes], key: SoftwarePlatformKey, change: Change
) -> None:
    """REQ-29 REQ-60: one refusal with one text, even where the home operator itself signed what does not open."""
    verified = verify(changed(in_envelope(change), package(), signed=True))
    with pytest.raises(PackageRefused) as caught:
        open_package(verified, key)
    assert (caught.value.code, str(caught.value)) == (ResultCode.CRYPTO_FAILURE, "the package does not open")


@pytest.mark.parametrize(
    "values",
    [
        {"transaction_id": UUID(int=1), "registration_nonce": b"n" * 65},
        {"ephemeral_key": b"\4" * 65},
        {"ticket_digest": "zz"},
        {"auth_mode": "password"},
        {"platform_key_id": b"short"},
        {"m2me_id": "é"},
    ],
    ids=["nonce", "ephemeral-key", "digest", "auth-mode", "key-id", "name"],
)
def test_builder_refuses_what_nobody_could_read(values: dict[str, Any]) -> None:
    """REQ-59: our own caller is told when a header does not fit."""
    with pytest.raises(InvalidArgument):
        build(**values)


def test_builder_refuses_a_long_chain() -> None:
    """REQ-59: a receiver takes four certificates."""
    with pytest.raises(InvalidArgument):
        build(signer=Signer(PKI.sho.key, PKI.sho.chain * 3))
