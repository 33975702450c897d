"""T2, T5, T9: packages that no selected home operator made, or not so; damaged ones; those for another device."""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from lxml import etree

from dmclient.tre.base import Hints
from mcim.authority import Authority
from mcim.certificates import TrustAnchors
from mcim.errors import PackageRefused
from mcim.key_id import key_id_of
from mcim.package import build_package, verify_package
from mcim.package_header import peek_header
from mcim.vocabulary import Operation, ResultCode
from tests.support_attacks import PKI_TIME, STRUCTURE, Arena, make_arena, refused, still_provisions
from tests.support_tre import NOW, OTHER_SHO, SHO
from tests.support_xml import HEADER, REFERENCE, SIGNATURE, D, M, X, changed, find, parse


def _rogue_root(arena: Arena) -> bytes:
    return arena.signed_by(*arena.certified(Authority.create_root("Operator root", PKI_TIME), SHO))


def _rogue_root_and_name_of_the_ca(arena: Arena) -> bytes:
    """Same names all the way up, another key at every step."""
    rogue = Authority.create_root("Operator root", PKI_TIME).create_subordinate("Operator CA", PKI_TIME)
    return arena.signed_by(*arena.certified(rogue, SHO))


def _right_chain_under_a_rogue_leaf(arena: Arena) -> bytes:
    """The rogue's leaf, and the honest CA's certificates as its chain."""
    key, chain = arena.certified(Authority.create_root("Operator CA", PKI_TIME), SHO)
    return arena.signed_by(key, [chain[0], *arena.operator.intermediates])


def _rogue_root_sent_along(arena: Arena) -> bytes:
    rogue = Authority.create_root("Rogue", PKI_TIME)
    key, chain = arena.certified(rogue, SHO)
    return arena.signed_by(key, [*chain, rogue.certificate])


def _honest_leaf_foreign_key(arena: Arena) -> bytes:
    """The SHO's certificate is public; the attacker has another key."""
    return arena.signed_by(ec.generate_private_key(ec.SECP256R1()), arena.signers[SHO][1])


def _honest_leaf_second(arena: Arena) -> bytes:
    """The attacker's certificate first, the SHO's as a second one."""
    key, chain = arena.certified(Authority.create_root("Rogue", PKI_TIME), SHO)
    return arena.signed_by(key, [chain[0], *arena.signers[SHO][1]])


def _honest_leaf_first(arena: Arena) -> bytes:
    """The SHO's certificate for the path, the attacker's for the signature."""
    key, chain = arena.certified(Authority.create_root("Rogue", PKI_TIME), SHO)
    return arena.signed_by(key, [*arena.signers[SHO][1], chain[0]])


def _self_signed(arena: Arena) -> bytes:
    rogue = Authority.create_root(SHO, PKI_TIME)
    return arena.signed_by(rogue.key, [rogue.certificate])


FORGED: dict[str, tuple[Callable[[Arena], bytes], ResultCode]] = {
    "T5 REQ-50 SHO of a root of the attacker's own": (_rogue_root, ResultCode.SIGNER_NOT_ACCEPTABLE),
    "T5 REQ-50 CA with all the right names": (_rogue_root_and_name_of_the_ca, ResultCode.SIGNER_NOT_ACCEPTABLE),
    "T5 REQ-50 rogue leaf under the honest chain": (
        _right_chain_under_a_rogue_leaf,
        ResultCode.SIGNER_NOT_ACCEPTABLE,
    ),
    "T5 REQ-44 root sent along with the package": (_rogue_root_sent_along, ResultCode.SIGNER_NOT_ACCEPTABLE),
    "T5 REQ-46 self-signed": (_self_signed, ResultCode.SIGNER_NOT_ACCEPTABLE),
    "T5 REQ-43 SHO certificate by the manufacturer's CA": (
        lambda arena: arena.signed_by(*arena.certified(arena.manufacturer, SHO)),
        ResultCode.SIGNER_NOT_ACCEPTABLE,
    ),
    "T5 REQ-43 SHO certificate by the manufacturer's root": (
        lambda arena: arena.signed_by(*arena.certified(arena.manufacturer_root, SHO)),
        ResultCode.SIGNER_NOT_ACCEPTABLE,
    ),
    "T5 REQ-50 certificate of the SHO, key of somebody else": (
        _honest_leaf_foreign_key,
        ResultCode.SIGNATURE_INVALID,
    ),
    "T5 REQ-59 the SHO's certificate behind the attacker's": (_honest_leaf_second, ResultCode.SIGNER_NOT_ACCEPTABLE),
    "T5 REQ-59 the SHO's certificate before the attacker's": (_honest_leaf_first, ResultCode.SIGNATURE_INVALID),
    "T5 REQ-50 another legitimate SHO": (
        lambda arena: arena.package(signer=OTHER_SHO),
        ResultCode.SIGNER_NOT_ACCEPTABLE,
    ),
    "T5 REQ-50 another legitimate SHO in its own name": (
        lambda arena: arena.package(signer=OTHER_SHO, header={"sho_id": OTHER_SHO}, content={"sho_id": OTHER_SHO}),
        ResultCode.SIGNER_NOT_ACCEPTABLE,
    ),
    "T5 REQ-50 the selected SHO for another one": (
        lambda arena: arena.package(header={"sho_id": OTHER_SHO}, content={"sho_id": OTHER_SHO}),
        ResultCode.SIGNER_NOT_ACCEPTABLE,
    ),
    "T8 REQ-50 made by an insider with no certificate at all": (
        lambda arena: changed(arena.good, lambda root: find(root, f"{SIGNATURE}/{D}KeyInfo").clear()),
        ResultCode.SIGNATURE_INVALID,
    ),
    "T8 REQ-50 unsigned": (
        lambda arena: changed(arena.good, lambda root: root.remove(root[-1])),
        ResultCode.SIGNATURE_INVALID,
    ),
}


@pytest.mark.parametrize(("make", "code"), FORGED.values(), ids=FORGED)
def test_forged(arena: Arena, make: Callable[[Arena], bytes], code: ResultCode) -> None:
    """T5 REQ-44 REQ-50: whoever is not the selected home operator installs nothing, and burns nothing either."""
    refused(arena, make(arena), code)
    still_provisions(arena)


def test_another_sho_cannot_take_over_a_captured_object(arena: Arena) -> None:
    """T5 REQ-57: selected itself, it signs the envelope anew around the first SHO's object."""
    arena.register(sho_id=OTHER_SHO)
    stolen = arena.package(signer=OTHER_SHO, header={"sho_id": OTHER_SHO})  # inside it still says SHO
    refused(arena, stolen, ResultCode.SIGNER_NOT_ACCEPTABLE, ends=True)


HEADER_VALUES = {
    "TransactionId": "0" * 32,
    "SequenceNumber": "99",
    "RegistrationNonce": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "M2MEId": "urn:imei:490154203237518",
    "TREId": "urn:m2m:tre:0666",
    "PlatformKeyId": "0" * 32,
    "SHOId": OTHER_SHO,
    "DPFId": "evil.example",
    "Operation": "update",
    "MCIMId": "00000000-0000-4000-8000-000000000666",
    "Suite": "MCIM-EC-CBC-256",
    "NotBefore": "2020-01-01T00:00:00Z",
    "NotAfter": "2099-01-01T00:00:00Z",
    "TicketDigest": "f" * 64,
    "AuthMode": "token",
    "EphemeralKey": "AAAA",
}


@pytest.mark.parametrize("name", HEADER_VALUES)
def test_no_header_value_can_be_changed(arena: Arena, name: str) -> None:
    """T2 T8 REQ-59: every value of the clear header is signed."""

    def change(root: etree._Element) -> None:
        find(root, f"{HEADER}/{M}{name}").text = HEADER_VALUES[name]

    package = changed(arena.good, change)
    assert package != arena.good
    codes = (ResultCode.SIGNATURE_INVALID, ResultCode.SIGNER_NOT_ACCEPTABLE)  # the latter where the SHO is named
    refused(arena, package, *codes)
    still_provisions(arena)


def test_all_header_values_are_covered(arena: Arena) -> None:
    """T2 REQ-59: a new header element has to come into the table above."""
    assert [etree.QName(each).localname for each in find(parse(arena.good), HEADER)] == list(HEADER_VALUES)


REFUSALS = (*STRUCTURE, ResultCode.SIGNER_NOT_ACCEPTABLE, ResultCode.UNSUPPORTED_SUITE)


def _meaning(package: bytes) -> bytes | None:
    """Canonical form with its Base64 read; None when that is impossible.

    Quotes, the XML declaration and spare bits of Base64 are not in it: the Signature's own values are not signed.
    """
    try:
        root = parse(package)
        for each in root.iter(f"{D}SignatureValue", f"{D}X509Certificate"):
            each.text = base64.b64decode(each.text or "", validate=False).hex()
    except (etree.XMLSyntaxError, ValueError):
        return None
    return etree.tostring(root, method="c14n")


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_bit_flips(rsa_arena: Arena) -> None:
    """T2 REQ-32 REQ-59: bits all over the package; each gives a code of the table and changes nothing."""
    package, generator, tried = rsa_arena.good, random.Random(12), 0
    meaning = _meaning(package)
    for position in range(0, len(package), 7):
        flipped = bytearray(package)
        flipped[position] ^= 1 << generator.randrange(8)
        if _meaning(bytes(flipped)) != meaning:
            tried += 1
            refused(rsa_arena, bytes(flipped), *REFUSALS)
    assert tried > 0.95 * len(package) / 7
    still_provisions(rsa_arena)


def test_octets_that_nobody_signed(arena: Arena) -> None:
    """T10 REQ-67: spare bits in the Base64 of the signature change no meaning, so the package is the honest one.

    The receipt has the digest of what came, though: the SHO, which compares it with what it sent, sees the change.
    """

    def change(root: etree._Element) -> None:
        value = find(root, f"{SIGNATURE}/{D}SignatureValue")
        value.text = f"\n {value.text}"

    package = changed(arena.good, change)
    outcome = arena.provision(package)
    assert outcome.code is ResultCode.SUCCESS
    receipt = arena.receipt_of(outcome)
    assert receipt.package_hash == hashlib.sha256(package).digest() != hashlib.sha256(arena.good).digest()
    refused(arena, arena.good, ResultCode.REPLAY)  # it was one package all the time


def test_truncation(rsa_arena: Arena) -> None:
    """T2 REQ-32: cut off at many places, and with something behind the end."""
    package = rsa_arena.good
    ends = {*range(0, len(package), 97), *range(len(package) - 20, len(package))}
    for end in sorted(ends):
        refused(rsa_arena, package[:end], ResultCode.MALFORMED)
    for rest in (b"x", b"<x/>", package, b"\0"):
        refused(rsa_arena, package + rest, *STRUCTURE)
    still_provisions(rsa_arena)


def test_reordered_and_repeated_pieces(arena: Arena) -> None:
    """T2 REQ-32: chunks of a large object in another order, left out or twice."""
    package, size = arena.good, 512
    chunks = [package[at : at + size] for at in range(0, len(package), size)]
    for index in range(len(chunks) - 1):
        swapped = [*chunks[:index], chunks[index + 1], chunks[index], *chunks[index + 2 :]]
        refused(arena, b"".join(swapped), *REFUSALS)
        refused(arena, b"".join(chunks[:index] + chunks[index + 1 :]), *REFUSALS)
        refused(arena, b"".join([*chunks[: index + 1], chunks[index], *chunks[index + 1 :]]), *REFUSALS)
    still_provisions(arena)


# -- cross-delivered ------------------------------------------------------------------------------------------------


DELIVERED_TO_ANOTHER = {
    "T4 REQ-58 another TRE": {"tre_id": "urn:m2m:tre:0002"},
    "T4 REQ-58 another M2ME": {"m2me_id": "urn:imei:490154203237518"},
    "T4 REQ-64 another platform key": {"platform_key_id": bytes(16)},
}


@pytest.mark.parametrize("header", DELIVERED_TO_ANOTHER.values(), ids=DELIVERED_TO_ANOTHER)
def test_addressed_to_another(arena: Arena, header: dict[str, object]) -> None:
    """T4 REQ-58 REQ-64: signed by the right SHO, but for a sister device; the nonce is not burnt."""
    refused(arena, arena.package(header=header), ResultCode.WRONG_RECIPIENT)
    still_provisions(arena)


def test_envelope_for_us_object_for_a_sister(arena: Arena) -> None:
    """T4 REQ-57: the names of this TRE outside, those of another one inside."""
    package = arena.package(content={"tre_id": "urn:m2m:tre:0002"})
    refused(arena, package, ResultCode.WRONG_RECIPIENT, ends=True)


@pytest.fixture
def sister(tmp_path: Path) -> Arena:
    """Another device, which calls itself as the first one does; its SHO is the same."""
    return make_arena(tmp_path / "sister", key_type="ec")


def test_package_of_a_sister_device(arena: Arena, sister: Arena) -> None:
    """T4 T11 REQ-52 REQ-64: signed by our own SHO for the sister's key, with her nonce or with ours."""
    sister.signers[SHO] = arena.signers[SHO]
    refused(arena, sister.package(), ResultCode.WRONG_RECIPIENT)
    nonce = {"registration_nonce": arena.tre.registration(NOW).nonce}
    refused(arena, sister.package(header=nonce, content=nonce), ResultCode.WRONG_RECIPIENT)
    still_provisions(arena)


def test_readdressed_package_of_a_sister_device(arena: Arena, sister: Arena) -> None:
    """T4 REQ-29: every name says that it is for us, and the SHO signed that; but the sister's key alone opens it."""
    sister.signers[SHO] = arena.signers[SHO]
    values = {"registration_nonce": arena.tre.registration(NOW).nonce}
    header = {**values, "platform_key_id": key_id_of(arena.platform_key)}
    refused(arena, sister.package(header=header, content=values), ResultCode.CRYPTO_FAILURE)
    still_provisions(arena)


# -- what a signature does not cover must not matter -----------------------------------------------------------------


OTHER_OPERATIONS = [each for each in Operation if not each.carries_object]


@pytest.mark.parametrize("operation", OTHER_OPERATIONS, ids=lambda each: each.label)
def test_unsigned_life_cycle_command(arena: Arena, operation: Operation) -> None:
    """T8 REQ-70: an installing package renamed into a command, the object cut off, is no command."""

    def change(root: etree._Element) -> None:
        find(root, f"{HEADER}/{M}Operation").text = operation.label
        root.remove(root[1])

    refused(arena, changed(arena.good, change), *STRUCTURE)
    still_provisions(arena)


def _command(arena: Arena, operation: Operation) -> bytes:
    """A signed life-cycle command or release token of the SHO."""
    key, chain = arena.signers[SHO]
    header = replace(
        peek_header(arena.good),
        operation=operation,
        ephemeral_key=None,
        new_sho_id=OTHER_SHO if operation is Operation.RELEASE else None,
    )
    return build_package(header, None, recipient_public_key=arena.platform_key, signing_key=key, signer_chain=chain)


def _into(operation: Operation) -> Callable[[etree._Element], None]:
    def change(root: etree._Element) -> None:
        find(root, f"{HEADER}/{M}Operation").text = operation.label

    return change


@pytest.mark.parametrize("operation", OTHER_OPERATIONS, ids=lambda each: each.label)
def test_signed_command_made_into_another(made_ec: Arena, operation: Operation) -> None:
    """T8 T14 REQ-70: a suspend is no delete, a release token is neither, and none of them carries an object."""
    command, anchors = _command(made_ec, operation), TrustAnchors((made_ec.operator_root.certificate,), "sho")
    verified = verify_package(command, anchors=anchors, now=NOW, expected_sho_id=SHO)
    assert (verified.header.operation, verified.sealed) == (operation, None)
    encrypted = find(parse(made_ec.good), f"{X}EncryptedData")
    attacks = [_into(other) for other in Operation if other is not operation]
    attacks += [lambda root: root.insert(1, encrypted), lambda root: root.remove(root[-1])]
    for attack in attacks:
        with pytest.raises(PackageRefused) as caught:
            verify_package(changed(command, attack), anchors=anchors, now=NOW, expected_sho_id=SHO)
        assert caught.value.code in STRUCTURE


def test_command_handed_over_as_a_package(arena: Arena) -> None:
    """T8 REQ-70: a command in the place of a package installs nothing, whatever it says."""
    for operation in OTHER_OPERATIONS:
        outcome = arena.provision(_command(arena, operation))
        assert (outcome.code is ResultCode.SUCCESS, outcome.mcim) == (False, None)
    assert arena.tre.mcims() == ()


def test_signature_of_another_document(arena: Arena) -> None:
    """T2 REQ-59: what the SHO signed at another time, whole or its digest alone."""
    mcim = {"mcim_id": UUID(int=9)}
    other = arena.package(header=mcim, content=mcim)

    def whole(root: etree._Element) -> None:
        root.replace(find(root, SIGNATURE), find(parse(other), SIGNATURE))

    def digest_alone(root: etree._Element) -> None:
        find(root, f"{REFERENCE}/{D}DigestValue").text = find(parse(other), f"{REFERENCE}/{D}DigestValue").text

    for attack in (whole, digest_alone):
        refused(arena, changed(arena.good, attack), ResultCode.SIGNATURE_INVALID)
    still_provisions(arena)


def test_hints_cannot_stand_for_the_signed_values(arena: Arena) -> None:
    """T8 REQ-57: clear leaves that fit a package that does not fit this device."""
    registration = arena.tre.registration(NOW)
    package = arena.package(header={"tre_id": "urn:m2m:tre:0002"})
    hints = Hints(sho_id=SHO, req_id=registration.req_id, nonce=registration.nonce)
    refused(arena, package, ResultCode.WRONG_RECIPIENT, hints=hints)
    lying = replace(hints, sho_id=OTHER_SHO)
    refused(arena, arena.good, ResultCode.MALFORMED, hints=lying)
    still_provisions(arena)
