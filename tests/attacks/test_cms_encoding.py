"""Packages in CMS: one encoding; whatever octets come, there is a refusal or the package itself."""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from cryptography.hazmat import asn1
from hypothesis import given
from hypothesis import strategies as st

from mcim.errors import PackageRefused
from mcim.package import open_package
from mcim.package_header import peek_header
from mcim.platform_key import SoftwarePlatformKey
from mcim.vocabulary import MAX_PACKAGE_SIZE, ResultCode
from tests.support_cms import (
    CERTIFICATES,
    DIGESTS,
    ENCAPSULATED,
    NULL,
    SIGNED,
    changed,
    command,
    ec_package,
    in_envelope,
    refusal,
    rsa_package,
    sign_again,
    verify,
)
from tests.support_der import CONSTRUCTED, Node, parse
from tests.support_package import (
    EC_KEY,
    MALFORMED,
    OBJECT,
    RSA_KEY,
    odd_certificates,
)


def _raw(old: bytes, new: bytes) -> bytes:
    assert rsa_package().count(old) >= 1
    return rsa_package().replace(old, new, 1)


def _indefinite() -> bytes:
    """BER: the length of the whole is not told; an end-of-contents follows instead."""
    package = rsa_package()
    return b"\x30\x80" + package[4:] + b"\0\0"


def _indefinite_inside() -> bytes:
    signed = parse(rsa_package()).at(*SIGNED).encode()
    inner = b"\xa0\x80" + signed + b"\0\0"
    body = parse(rsa_package())[0].encode() + inner
    return b"\x30\x82" + len(body).to_bytes(2, "big") + body


def _constructed_octets(root: Node) -> None:
    content = root.at(*ENCAPSULATED, 1)
    octets = content[0].octets
    content.children = [Node(0x24, children=[Node(0x04, octets[:100]), Node(0x04, octets[100:])])]


OCTETS: dict[str, tuple[Callable[[], bytes], ResultCode]] = {
    "truncated": (lambda: rsa_package()[:-1], MALFORMED),
    "trailing": (lambda: rsa_package() + b"\0", MALFORMED),
    "two messages": (lambda: rsa_package() * 2, MALFORMED),
    "indefinite length": (_indefinite, MALFORMED),
    "indefinite length inside": (_indefinite_inside, MALFORMED),
    "octet string in pieces": (lambda: changed(_constructed_octets), MALFORMED),
    "length in more octets than needed": (
        lambda: b"\x30\x83\0" + rsa_package()[2:4] + rsa_package()[4:], MALFORMED
    ),
    "huge length": (lambda: b"\x30\x84\xff\xff\xff\xff" + rsa_package()[4:], MALFORMED),
    "length of 126 octets": (lambda: b"\x30\xfe" + b"\xff" * 126, MALFORMED),
    "nothing but the tag": (lambda: b"\x30", MALFORMED),
    "nested": (lambda: functools.reduce(lambda inner, _: b"\x30\x80" + inner, range(20000), b""), MALFORMED),
    "nested in DER": (lambda: _nested(4000).encode(), MALFORMED),
    "set of 60000": (
        lambda: changed(lambda root: root.at(*DIGESTS).children.extend([NULL] * 60000)), MALFORMED
    ),
    "oversize": (lambda: rsa_package() + bytes(MAX_PACKAGE_SIZE), MALFORMED),
    "base64": (lambda: base64.b64encode(rsa_package()), MALFORMED),
    "pem": (lambda: b"-----BEGIN CMS-----\n" + base64.b64encode(rsa_package()), MALFORMED),
    "tag in two octets": (lambda: b"\x3f\x10" + rsa_package()[1:], MALFORMED),
}  # fmt: skip


def _nested(depth: int) -> Node:
    class Flat(Node):
        def encode(self) -> bytes:
            octets = b""
            for _ in range(depth):
                octets = Node(0x04, octets).encode()
                octets = b"\x30" + octets[1:]
            return octets

    return Flat(0x30)


@pytest.mark.parametrize(("package", "code"), OCTETS.values(), ids=OCTETS)
def test_octets(package: Callable[[], bytes], code: ResultCode) -> None:
    """T2 T12 REQ-59: one encoding, of bounded size and depth."""
    # Without XML among the containers, what does not begin as DER is refused for its container when it is XML at all.
    assert refusal(package()) is code


def _refused_or_same(octets: bytes, package: Callable[[], bytes], key: SoftwarePlatformKey) -> bool:
    """Whether it is refused; otherwise the change is in a certificate's own encoding, and nothing that was signed."""
    try:
        verified = verify(octets)
    except PackageRefused:
        return True
    original = verify(package())
    assert verified == replace(original, signer=verified.signer)
    assert verified.signer.public_key == original.signer.public_key
    if verified.sealed is not None:
        assert open_package(verified, key) == OBJECT
    changed_tree, tree = parse(octets), parse(package())
    changed_tree.at(*SIGNED).children[3] = tree.at(*CERTIFICATES)
    assert changed_tree == tree
    return False


@odd_certificates
@pytest.mark.parametrize(
    ("package", "key"),
    [(rsa_package, RSA_KEY), (ec_package, EC_KEY), (command, RSA_KEY)],
    ids=["rsa", "ec", "command"],
)
def test_every_octet_flipped(package: Callable[[], bytes], key: SoftwarePlatformKey) -> None:
    """T2 REQ-31 REQ-59: a bit of every octet; all that is signed, and what says by whom, has one form alone.

    The number of unused bits of a certificate's signature is not looked at by `cryptography` when they are zero.
    """
    original = package()
    accepted = 0
    for position in range(len(original)):
        octets = bytearray(original)
        octets[position] ^= 1 << position % 8
        accepted += not _refused_or_same(bytes(octets), package, key)
    assert accepted <= 2  # one for each certificate


@odd_certificates
@given(position=st.integers(0, 3000), length=st.integers(0, 40), inserted=st.binary(max_size=12))
def test_any_octets_replaced(position: int, length: int, inserted: bytes) -> None:
    """T2 REQ-59: cut out, put in, overwritten: refused, or the package itself."""
    original = rsa_package()
    position %= len(original)
    octets = original[:position] + inserted + original[position + length :]
    with suppress(PackageRefused):
        peek_header(octets)
    _refused_or_same(octets, rsa_package, RSA_KEY)


@given(st.binary(max_size=300).map(lambda octets: b"\x30" + octets))
def test_any_octets(octets: bytes) -> None:
    """REQ-59: arbitrary octets end in a refusal and nothing else."""
    for read in (peek_header, verify):
        with pytest.raises(PackageRefused):
            read(octets)


def _nodes(root: Node) -> list[tuple[Node, int]]:
    """Every place in a tree: its parent and its index there."""
    found = [(root, index) for index in range(len(root.children))]
    return found + [place for child in root.children for place in _nodes(child)]


DAMAGE: dict[str, Callable[[Node, int, bytes], None]] = {
    "drop": lambda parent, index, _: parent.children.pop(index) and None,
    "double": lambda parent, index, _: parent.children.insert(index, parent.children[index]),
    "swap": lambda parent, index, _: parent.children.reverse(),
    "octets": lambda parent, index, octets: setattr(parent.children[index], "octets", octets),
    "replace": lambda parent, index, octets: parent.children.__setitem__(index, Node(0x04, octets)),
    "tag": lambda parent, index, octets: setattr(
        parent.children[index],
        "tag",
        parent.children[index].tag & CONSTRUCTED | (octets or b"\5")[0] & (0xFF ^ CONSTRUCTED),
    ),
}


@odd_certificates
@given(
    package=st.sampled_from([rsa_package, ec_package, command]),
    inside=st.booleans(),
    place=st.integers(0, 500),
    damage=st.sampled_from(sorted(DAMAGE)),
    octets=st.binary(max_size=8),
)
def test_any_damage_that_is_signed(
    package: Callable[[], bytes], inside: bool, place: int, damage: str, octets: bytes
) -> None:
    """REQ-59 REQ-60: whatever DER a home operator signs, it is a package that opens or one of the refusals."""

    def change(root: Node) -> None:
        places = _nodes(root)
        parent, index = places[place % len(places)]
        DAMAGE[damage](parent, index, octets)

    def whole(root: Node) -> None:
        (in_envelope(change) if inside and package is not command else change)(root)
        try:
            sign_again(root)
        except IndexError:  # nothing is left where a signature goes
            return

    key = EC_KEY if package is ec_package else RSA_KEY
    try:
        verified = verify(changed(whole, package()))
        if verified.sealed is not None:
            open_package(verified, key)
    except PackageRefused:
        return


def test_asn1_layer_reads_der_alone() -> None:
    """REQ-59: what the reader of `cryptography` promises and this container rests on."""
    for octets in ("3080020101 0000", "308103020101", "3003020101 00", "30040202 0001", "3003010101"):
        with pytest.raises(ValueError, match="error parsing"):
            asn1.decode_der(_OneNumber, bytes.fromhex(octets))


@asn1.sequence
class _OneNumber:
    number: int
