"""T3, T2, REQ-41, REQ-52, REQ-53, REQ-57: packages again, in another order, and made of pieces of several."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
from lxml import etree

from mcim.certificates import TrustAnchors
from mcim.data import encode_data
from mcim.mcim_object import HEADER_LENGTH, fresh_keys, seal_mcim
from mcim.package import open_package, verify_package
from mcim.vocabulary import BindMode, Operation, ResultCode, Tag
from tests.support_attacks import Arena, refused, still_provisions
from tests.support_tre import MCIM_ID, NOW, OTHER_SHO, SHO
from tests.support_xml import ENCRYPTED, HEADER, M, X, find, octets_of, parse, sign_by_hand

OTHER_MCIM = UUID(int=0x1234)

# -- replayed and reordered -----------------------------------------------------------------------------------------


def _at_once(arena: Arena) -> None:
    pass


def _after_a_restart(arena: Arena) -> None:
    arena.reopen()


def _after_renew(arena: Arena) -> None:
    arena.register()


def _after_renew_and_restart(arena: Arena) -> None:
    arena.register()
    arena.reopen()


def _after_another_sho(arena: Arena) -> None:
    arena.register(sho_id=OTHER_SHO)
    arena.register()


def _after_expiry(arena: Arena) -> None:
    arena.register()
    arena.tre.registration(NOW + timedelta(days=2))


BETWEEN = {
    "T3 REQ-52 at once": _at_once,
    "T3 REQ-52 after a restart": _after_a_restart,
    "T3 REQ-52 after Renew": _after_renew,
    "T3 REQ-52 after Renew and a restart": _after_renew_and_restart,
    "T3 REQ-52 after a registration at another SHO": _after_another_sho,
    "T3 REQ-52 after the nonce expired": _after_expiry,
}


@pytest.mark.parametrize("between", BETWEEN.values(), ids=BETWEEN)
def test_same_package_twice(arena: Arena, between: Callable[[Arena], None]) -> None:
    """T3 REQ-52: installed once, never again; keys and sequence numbers do not roll back."""
    still_provisions(arena)
    between(arena)
    for _ in range(2):
        refused(arena, arena.good, ResultCode.REPLAY)


def test_package_kept_back_until_renew(arena: Arena) -> None:
    """T3 REQ-52: never delivered, and handed over once its nonce is no more."""
    arena.register()
    refused(arena, arena.good, ResultCode.REPLAY)
    arena.reopen()
    refused(arena, arena.good, ResultCode.REPLAY)
    still_provisions(arena, arena.package())


def test_second_package_for_one_nonce(arena: Arena) -> None:
    """T3 REQ-52: the SHO itself signed two for one registration; the first to come is installed."""
    numbers = {"sequence": 2, "mcim_id": OTHER_MCIM}
    second = arena.package(header=numbers, content=numbers)
    still_provisions(arena)
    refused(arena, second, ResultCode.REPLAY)
    assert [each.mcim_id for each in arena.tre.mcims()] == [MCIM_ID]


def test_reordered(arena: Arena) -> None:
    """T3 REQ-53: the later package first; the earlier one is too old then, under any nonce."""
    still_provisions(arena, arena.package(header={"sequence": 9}, content={"sequence": 9}))
    arena.register()
    for sequence in (0, 1, 8, 9):
        old = arena.package(header={"sequence": sequence}, content={"sequence": sequence})
        refused(arena, old, ResultCode.REPLAY)
    other = {"sequence": 10, "mcim_id": OTHER_MCIM}
    still_provisions(arena, arena.package(header=other, content=other))


def test_sequence_number_raised_outside_alone(arena: Arena) -> None:
    """T3 REQ-53 REQ-57: an old object under a header with a new number and the present nonce, signed by the SHO."""
    package = arena.package(content={"sequence": 0})
    refused(arena, package, ResultCode.CONTENT_INVALID, ends=True)


def test_nonce_renewed_outside_alone(arena: Arena) -> None:
    """T3 REQ-52 REQ-57: an object made for an earlier registration under the header of this one."""
    package = arena.package(content={"registration_nonce": bytes(32)})
    refused(arena, package, ResultCode.CONTENT_INVALID, ends=True)


NONCES = {
    "empty": b"",
    "a part": slice(0, 31),
    "with something behind it": b"+",
    "one bit": None,
    "zeroes": bytes(32),
}


@pytest.mark.parametrize("kind", NONCES)
def test_nonces_that_nearly_fit(arena: Arena, kind: str) -> None:
    """T3 REQ-52: all octets of the nonce count."""
    nonce, value = arena.tre.registration(NOW).nonce, NONCES[kind]
    if isinstance(value, slice):
        wrong = nonce[value]
    elif kind == "one bit":
        wrong = nonce[:-1] + bytes((nonce[-1] ^ 1,))
    else:
        wrong = nonce + b"+" if value == b"+" else (value or b"")
    refused(arena, arena.package(header={"registration_nonce": wrong}), ResultCode.REPLAY)
    still_provisions(arena)


def test_no_nonce_matches_while_no_registration_is_open(arena: Arena) -> None:
    """T3 REQ-52: the empty nonce of a closed registration is nobody's."""
    still_provisions(arena)
    empty = arena.package(header={"registration_nonce": b"", "sequence": 5}, content={"sequence": 5})
    refused(arena, empty, ResultCode.REPLAY)


def test_outside_its_time(arena: Arena) -> None:
    """T3 REQ-54: before and after the window of the envelope, and of the MCIM inside."""
    early = arena.package(header={"not_before": NOW + timedelta(seconds=1)})
    late = arena.package(header={"not_after": NOW})
    for package in (early, late):
        refused(arena, package, ResultCode.OUTSIDE_VALIDITY)
    inside = arena.package(content={"not_after": NOW, "not_before": NOW - timedelta(days=1)})
    refused(arena, inside, ResultCode.OUTSIDE_VALIDITY, ends=True)


def test_rolled_back_revision(arena: Arena) -> None:
    """T3 REQ-36: a revision below the installed one, in a package that is new in everything else."""
    still_provisions(arena, arena.package(revision=3))
    arena.register()
    refused(arena, arena.package(revision=2), ResultCode.REVISION_TOO_LOW, ends=True)


# -- objects prepared before there was a nonce -----------------------------------------------------------------------

PREPARED = {"bind_mode": BindMode.PREPARED, "registration_nonce": None, "transaction_id": None}


def test_prepared_object_a_second_time(arena: Arena) -> None:
    """T3 REQ-53 REQ-65: an object without a nonce is bound by its number: another header does not make it new."""
    still_provisions(arena, arena.package(content=PREPARED))
    arena.register()
    refused(arena, arena.package(content={**PREPARED, "sequence": 1}), ResultCode.CONTENT_INVALID, ends=True)
    arena.register()
    used = arena.package(header={"sequence": 1}, content={**PREPARED, "sequence": 1})
    refused(arena, used, ResultCode.REPLAY)


def test_prepared_object_under_no_nonce_of_ours(arena: Arena) -> None:
    """T3 REQ-52 REQ-65: the signed header must carry the open nonce, for the object has none."""
    refused(arena, arena.package(header={"registration_nonce": bytes(32)}, content=PREPARED), ResultCode.REPLAY)
    still_provisions(arena, arena.package(content=PREPARED))


BAD_PREPARED = {
    "T5 REQ-57 captured by another SHO": ({"sho_id": OTHER_SHO}, ResultCode.SIGNER_NOT_ACCEPTABLE),
    "T4 REQ-57 prepared for a sister": ({"tre_id": "urn:m2m:tre:0002"}, ResultCode.WRONG_RECIPIENT),
    "T3 REQ-54 kept too long": (
        {"not_before": NOW - timedelta(days=9), "not_after": NOW},
        ResultCode.OUTSIDE_VALIDITY,
    ),
    "T2 REQ-57 of another MCIM": ({"mcim_id": OTHER_MCIM}, ResultCode.CONTENT_INVALID),
    "T3 REQ-65 prepared, and yet with a nonce": (
        {"registration_nonce": bytes(32)},
        ResultCode.CONTENT_INVALID,
    ),
}


@pytest.mark.parametrize(("content", "code"), BAD_PREPARED.values(), ids=BAD_PREPARED)
def test_prepared_object_in_a_wrong_envelope(arena: Arena, content: dict[str, object], code: ResultCode) -> None:
    """T3 REQ-57 REQ-65: all that an object says of itself counts, when it has no nonce most of all."""
    refused(arena, arena.package(content=PREPARED | content), code, ends=True)


# -- spliced --------------------------------------------------------------------------------------------------------


def _other(arena: Arena) -> bytes:
    """A second honest package for this device, of another MCIM."""
    return arena.package(header={"mcim_id": OTHER_MCIM}, content={"mcim_id": OTHER_MCIM, "k": bytes(range(1, 17))})


def _object_of(arena: Arena, package: bytes) -> bytes:
    anchors = TrustAnchors((arena.operator_root.certificate,), "sho")
    verified = verify_package(package, anchors=anchors, now=NOW, expected_sho_id=SHO)
    return open_package(verified, arena.tre._keys.platform)


def _encrypted_data(one: etree._Element, other: etree._Element) -> None:
    one.replace(find(one, ENCRYPTED), find(other, ENCRYPTED))


def _header(one: etree._Element, other: etree._Element) -> None:
    one.replace(find(one, HEADER), find(other, HEADER))


def _signature(one: etree._Element, other: etree._Element) -> None:
    one.replace(one[-1], other[-1])


def _ciphertext(one: etree._Element, other: etree._Element) -> None:
    path = f"{ENCRYPTED}/{X}CipherData/{X}CipherValue"
    find(one, path).text = find(other, path).text


def _wrapped_key(one: etree._Element, other: etree._Element) -> None:
    path = f".//{X}EncryptedKey/{X}CipherData/{X}CipherValue"
    find(one, path).text = find(other, path).text


def _ephemeral_key(one: etree._Element, other: etree._Element) -> None:
    path = f"{HEADER}/{M}EphemeralKey"
    find(one, path).text = find(other, path).text


PIECES = {
    "EncryptedData": _encrypted_data,
    "Header": _header,
    "Signature": _signature,
    "ciphertext": _ciphertext,
    "wrapped key": _wrapped_key,
    "ephemeral key": _ephemeral_key,
}


@pytest.mark.parametrize("piece", PIECES.values(), ids=PIECES)
def test_pieces_of_two_packages(arena: Arena, piece: Callable[[etree._Element, etree._Element], None]) -> None:
    """T2 REQ-59: two honest packages of one SHO for one device, a piece of one in the other."""
    one, other = parse(arena.good), parse(_other(arena))
    piece(one, other)
    refused(arena, octets_of(one), ResultCode.SIGNATURE_INVALID)
    still_provisions(arena)


SIGNED_PIECES = {
    "EncryptedData without its ephemeral key": (_encrypted_data, ResultCode.CRYPTO_FAILURE, False),
    "ciphertext": (_ciphertext, ResultCode.CRYPTO_FAILURE, False),
    "wrapped key": (_wrapped_key, ResultCode.CRYPTO_FAILURE, False),
    "ephemeral key": (_ephemeral_key, ResultCode.CRYPTO_FAILURE, False),
}


@pytest.mark.parametrize(("piece", "code", "ends"), SIGNED_PIECES.values(), ids=SIGNED_PIECES)
def test_pieces_signed_together(
    arena: Arena, piece: Callable[[etree._Element, etree._Element], None], code: ResultCode, ends: bool
) -> None:
    """T2 REQ-41: somebody with the SHO's key, who does not know what is inside, puts them together."""
    one, other = parse(arena.good), parse(_other(arena))
    piece(one, other)
    sign_by_hand(one, arena.signers[SHO][0])
    refused(arena, octets_of(one), code, ends=ends)
    still_provisions(arena)


def test_object_in_the_envelope_of_another_mcim(arena: Arena) -> None:
    """T2 REQ-57: a whole object moves; names inside and outside differ."""
    octets = _object_of(arena, _other(arena))
    refused(arena, arena.package(mcim_object=octets), ResultCode.CONTENT_INVALID, ends=True)


def _identity_changes() -> dict[str, dict[str, object]]:
    return {
        "MCIM": {"mcim_id": OTHER_MCIM},
        "sequence": {"sequence": 77},
        "transaction": {"transaction_id": UUID(int=99)},
        "operation": {"operation": Operation.REPLACE, "replaces": OTHER_MCIM},
        "nonce": {"registration_nonce": b"x" * 32},
    }


@pytest.mark.parametrize("name", _identity_changes())
def test_every_identity_inside_counts(arena: Arena, name: str) -> None:
    """T2 REQ-57: one identity inside differs from the signed header."""
    refused(arena, arena.package(content=_identity_changes()[name]), ResultCode.CONTENT_INVALID, ends=True)


def _wrapped_length(octets: bytes) -> int:
    return int.from_bytes(octets[22:24], "big")


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_parts_of_two_objects(kind: str, rsa_arena: Arena, arena: Arena) -> None:
    """T2 REQ-41: PK_D(PIK‖PCK) of one object before the Protected_data of another, and MACs exchanged."""
    target = rsa_arena if kind == "rsa" else arena
    one, other = _object_of(target, target.good), _object_of(target, _other(target))
    cut = HEADER_LENGTH + _wrapped_length(one)
    assert len(one) == len(other)
    pieces = {
        "keys of the other": one[:HEADER_LENGTH] + other[HEADER_LENGTH:cut] + one[cut:],
        "ciphertext of the other": one[:cut] + other[cut:-32] + one[-32:],
        "MAC of the other": one[:-32] + other[-32:],
        "first half of the ciphertext": one[: cut + 100] + other[cut + 100 :],
    }
    for octets in pieces.values():
        refused(target, target.package(mcim_object=octets), ResultCode.CRYPTO_FAILURE)
    still_provisions(target)


def test_keys_of_two_objects_never_repeat(arena: Arena) -> None:
    """T2 REQ-37: equal contents give other wrapped keys and other ciphertexts."""
    suite = arena.tre.facts().suites[0]
    data = encode_data(Tag.MCIM, bytes(16), 1)
    seen = set()
    for _ in range(8):
        keys = fresh_keys(suite, os.urandom)
        octets = seal_mcim(data, suite=suite, recipient=arena.platform_key, keys=keys)
        seen |= {keys.pik, keys.pck, octets[HEADER_LENGTH:]}
    assert len(seen) == 24


@pytest.mark.parametrize("tag", [tag for tag in Tag if tag is not Tag.MCIM], ids=lambda tag: tag.name)
def test_payload_under_another_tag(arena: Arena, tag: Tag) -> None:
    """T2 REQ-34: the tag stands outside the payload; it must fit what the payload is for."""
    refused(arena, arena.package(tag=tag), ResultCode.CONTENT_INVALID, ends=True)


def test_honest_package_after_an_end(arena: Arena) -> None:
    """T3 REQ-52: a refusal that ends the registration ends it for the honest package of that nonce as well."""
    refused(arena, arena.package(content={"sequence": 0}), ResultCode.CONTENT_INVALID, ends=True)
    refused(arena, arena.good, ResultCode.REPLAY)
    arena.register()
    still_provisions(arena, arena.package())
