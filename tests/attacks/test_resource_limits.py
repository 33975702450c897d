"""T12: packages that cost much more than they weigh. Each is refused, soon, and costs neither nonce nor state."""

from __future__ import annotations

import base64
import resource
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from lxml import etree

from mcim.content import MAX_CODE
from mcim.data import MAX_PAYLOAD, encode_data
from mcim.errors import InvalidArgument, PackageRefused
from mcim.package_header import peek_header
from mcim.vocabulary import MAX_PACKAGE_SIZE, ResultCode, Tag
from mcim.xml_header import safe_parser
from tests.support_attacks import STRUCTURE, Arena, make_arena, refused, still_provisions
from tests.support_tre import SHO
from tests.support_xml import ENCRYPTED, HEADER, SIGNATURE, D, X, changed, element, find, octets_of, parse, sign_by_hand

SECONDS = 2.0  # of processor time for one package on a slow machine; honest ones need some milliseconds
MEGABYTES = 64  # by which the process may grow


def _before(text: bytes, package: bytes) -> bytes:
    return package.replace(b"<M2MSIMPackage", text + b"<M2MSIMPackage", 1)


def _inside(text: bytes, package: bytes) -> bytes:
    return package.replace(b"<TREId>", b"<TREId>" + text, 1)


def _billion_laughs(package: bytes) -> bytes:
    entities = b'<!ENTITY a0 "lol">' + b"".join(
        b'<!ENTITY a%d "%s">' % (level, b"&a%d;" % (level - 1) * 10) for level in range(1, 10)
    )
    return _inside(b"&a9;", _before(b"<!DOCTYPE M2MSIMPackage [" + entities + b"]>", package))


def _quadratic(package: bytes) -> bytes:
    entity = b'<!DOCTYPE M2MSIMPackage [<!ENTITY a "' + b"x" * 20_000 + b'">]>'
    return _inside(b"&a;" * 5_000, _before(entity, package))


def _entity_in_itself(package: bytes) -> bytes:
    return _inside(b"&a;", _before(b'<!DOCTYPE M2MSIMPackage [<!ENTITY a "&b;"><!ENTITY b "&a;">]>', package))


def _parameter_entities(package: bytes) -> bytes:
    entities = b'<!ENTITY % a0 "x">' + b"".join(
        b'<!ENTITY %% a%d "%s">' % (level, b"&#37;a%d;" % (level - 1) * 10) for level in range(1, 9)
    )
    return _before(b"<!DOCTYPE M2MSIMPackage [" + entities + b"%a8;]>", package)


def _attribute_defaults(package: bytes) -> bytes:
    return _before(b'<!DOCTYPE M2MSIMPackage [<!ATTLIST Header a CDATA "' + b"x" * 50_000 + b'">]>', package)


def _deep(depth: int) -> Callable[[bytes], bytes]:
    return lambda package: _inside(b"<a>" * depth + b"</a>" * depth, package)


def _deep_root(package: bytes) -> bytes:
    return b"<a>" * 20_000 + package[package.index(b"<M2M") :] + b"</a>" * 20_000


def _unclosed(package: bytes) -> bytes:
    return b"<a>" * 20_000


def _attributes(package: bytes) -> bytes:
    return package.replace(b"<Header>", b"<Header" + b"".join(b' a%d="x"' % n for n in range(5_000)) + b">", 1)


def _namespaces(package: bytes) -> bytes:
    many = b"".join(b' xmlns:n%d="u"' % number for number in range(3_000))
    return package.replace(b"<Header>", b"<Header" + many + b">", 1)


def _long_attribute(package: bytes) -> bytes:
    return package.replace(b"<Header>", b'<Header a="' + b"x" * 60_000 + b'">', 1)


def _long_name(package: bytes) -> bytes:
    return _inside(b"<" + b"a" * 50_000 + b"/>", package)


def _many_elements(package: bytes) -> bytes:
    return package.replace(b"</Header>", b"<a/>" * 12_000 + b"</Header>", 1)


def _many_signatures(package: bytes) -> bytes:
    start, end = package.index(b"<ds:Signature "), package.index(b"</ds:Signature>") + len(b"</ds:Signature>")
    return package[:start] + package[start:end] * 15 + package[end:]


def _many_certificates(package: bytes) -> bytes:
    start, end = package.index(b"<ds:X509Certificate>"), package.index(b"</ds:X509Data>")
    return package[:start] + package[start:end] * 20 + package[end:]


def _many_references(package: bytes) -> bytes:
    start, end = package.index(b"<ds:Reference "), package.index(b"</ds:SignedInfo>")
    return package[:start] + package[start:end] * 60 + package[end:]


def _many_transforms(package: bytes) -> bytes:
    """CVE-2013-2461 and its like: one canonicalisation behind the other."""
    start, end = package.index(b"<ds:Transform "), package.index(b"</ds:Transforms>")
    return package[:start] + package[start:end] * 200 + package[end:]


def _long_text(path: str, length: int) -> Callable[[bytes], bytes]:
    return lambda package: changed(package, lambda root: setattr(find(root, path), "text", "A" * length))


def _white_space(package: bytes) -> bytes:
    return changed(package, lambda root: setattr(find(root, HEADER), "text", " " * 50_000))


def _number(digits: int) -> Callable[[bytes], bytes]:
    """A sequence number whose conversion would take quadratic time."""
    return lambda package: package.replace(b"<SequenceNumber>1<", b"<SequenceNumber>" + b"9" * digits + b"<", 1)


def _long_certificate(package: bytes) -> bytes:
    path = f"{SIGNATURE}/{D}KeyInfo/{D}X509Data/{D}X509Certificate"
    octets = b"\x30\x84\x00\x00\xa0\x00" + bytes(0xA000)
    return changed(package, lambda root: setattr(find(root, path), "text", base64.b64encode(octets).decode()))


def _comments(package: bytes) -> bytes:
    return _before(b"<!---->" * 8_000, package)


def _unknown_properties(package: bytes) -> bytes:
    return changed(package, lambda root: find(root, ENCRYPTED).extend([element(f"{X}a") for _ in range(5_000)]))


COSTLY: dict[str, Callable[[bytes], bytes]] = {
    "T12 REQ-59 billion laughs": _billion_laughs,
    "T12 REQ-59 quadratic blow-up": _quadratic,
    "T12 REQ-59 entity that contains itself": _entity_in_itself,
    "T12 REQ-59 parameter entities": _parameter_entities,
    "T12 REQ-59 default of an attribute": _attribute_defaults,
    "T12 REQ-59 nested 200 deep": _deep(200),
    "T12 REQ-59 nested 7000 deep": _deep(7_000),
    "T12 REQ-59 inside 20000 elements": _deep_root,
    "T12 REQ-59 20000 elements that nobody closes": _unclosed,
    "T12 REQ-59 5000 attributes": _attributes,
    "T12 REQ-59 3000 namespaces": _namespaces,
    "T12 REQ-59 an attribute of 60000 characters": _long_attribute,
    "T12 REQ-59 a name of 50000 characters": _long_name,
    "T12 REQ-59 12000 elements": _many_elements,
    "T12 REQ-59 16 Signatures": _many_signatures,
    "T12 REQ-59 20 chains": _many_certificates,
    "T12 REQ-59 60 References": _many_references,
    "T12 REQ-59 200 transforms": _many_transforms,
    "T12 REQ-59 a SignatureValue of 60000 characters": _long_text(f"{SIGNATURE}/{D}SignatureValue", 55_000),
    "T12 REQ-59 white space": _white_space,
    "T12 REQ-53 a number of 50000 digits": _number(50_000),
    "T12 REQ-53 a number of 20 digits": _number(20),
    "T12 REQ-20 a certificate of 40000 octets": _long_certificate,
    "T12 REQ-59 8000 comments": _comments,
    "T12 REQ-59 5000 unknown elements": _unknown_properties,
}


@pytest.mark.parametrize("attack", COSTLY.values(), ids=COSTLY)
def test_costly_package(arena: Arena, attack: Callable[[bytes], bytes]) -> None:
    """T12: no entity is expanded, no structure walked that is not the one allowed; time and memory stay small."""
    package = attack(arena.good)
    assert package != arena.good
    memory, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    refused(arena, package, *STRUCTURE, ResultCode.UNSUPPORTED_SUITE, ResultCode.SIGNER_NOT_ACCEPTABLE)
    assert time.thread_time() - start < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < MEGABYTES * 1024  # KiB
    still_provisions(arena)


@pytest.mark.parametrize("attack", COSTLY.values(), ids=COSTLY)
def test_costly_package_at_the_dpf(made_ec: Arena, attack: Callable[[bytes], bytes]) -> None:
    """T12: a DPF reads the header of what an SHO sends with the same parser: a header or a refusal, soon."""
    start = time.thread_time()
    try:
        header = peek_header(attack(made_ec.good))
    except PackageRefused as refusal:
        outcome: object = refusal.code
    else:
        outcome = header.sho_id
    assert outcome in (ResultCode.MALFORMED, ResultCode.SIGNATURE_INVALID, SHO)
    assert time.thread_time() - start < SECONDS


@pytest.mark.parametrize("excess", [1, 1024, 50_000_000], ids=str)
def test_huge_package(arena: Arena, excess: int) -> None:
    """T12 REQ-31: over the TRE's limit; refused by its length, before anything is parsed."""
    limit = arena.tre.facts().max_package
    outcome = refused(arena, arena.good.ljust(limit + excess), ResultCode.MALFORMED)
    assert outcome.checks[-1].name == "package-size"
    still_provisions(arena)


def test_largest_package(arena: Arena) -> None:
    """T12 REQ-31: the limit itself is not refused for its length."""
    still_provisions(arena, arena.good.ljust(arena.tre.facts().max_package))


def test_no_header_is_read_out_of_too_much(arena: Arena) -> None:
    """T12 REQ-32: white space behind a good package is legal XML, and never parsed when there is too much of it."""
    padding = MAX_PACKAGE_SIZE - len(arena.good)
    assert peek_header(arena.good + b" " * padding).sho_id == SHO
    with pytest.raises(PackageRefused) as caught:
        peek_header(arena.good + b" " * (padding + 1))
    assert caught.value.code is ResultCode.MALFORMED


def test_limit_of_the_library() -> None:
    """T12 REQ-59: whatever a TRE would take, nobody parses more than 256 KiB."""
    with pytest.raises(PackageRefused, match="more than"):
        peek_header(b"<" * (MAX_PACKAGE_SIZE + 1))


def test_parser_alone(tmp_path: Path) -> None:
    """T12 REQ-59: before any rule of ours: no entity, from inside or from a file, becomes text; depth is bounded."""
    secret = tmp_path / "secret"
    secret.write_text("expanded")
    for entity in ('"expanded"', f'SYSTEM "{secret.as_uri()}"'):
        root = etree.fromstring(f"<!DOCTYPE x [<!ENTITY e {entity}>]><x>&e;</x>".encode(), safe_parser())
        assert "expanded" not in "".join(root.itertext(etree.Element))
    root = etree.fromstring(f'<!DOCTYPE x SYSTEM "{secret.as_uri()}"><x/>'.encode(), safe_parser())
    assert root.tag == "x"  # what the DTD says was not looked for
    with pytest.raises(etree.XMLSyntaxError):
        etree.fromstring(b"<a>" * 1_000 + b"</a>" * 1_000, safe_parser())


def test_number_that_no_counter_holds(arena: Arena) -> None:
    """T12 REQ-53: signed by the SHO: a sequence number of 20 digits would not fit the 64 bits of the receipt."""
    root = parse(_number(20)(arena.good))
    sign_by_hand(root, arena.signers[SHO][0])
    refused(arena, octets_of(root), ResultCode.MALFORMED)
    still_provisions(arena)


def test_nothing_at_all(arena: Arena) -> None:
    """T12 REQ-59: no octet, one octet, other kinds of files."""
    for octets in (b"", b"\0", b"<", b"PK\x03\x04", b"\x1f\x8b\x08\0", b"\x30\x80", b"%PDF-1.7", bytes(60_000)):
        refused(arena, octets, ResultCode.MALFORMED, ResultCode.UNSUPPORTED_SUITE)
    still_provisions(arena)


def test_lengths_inside_the_object(arena: Arena) -> None:
    """T12 REQ-33: a length that promises more than there is, or more than anybody needs, allocates nothing."""
    frames = (b"\1\xff\xff\xff\xff", b"\1\x7f\xff\xff\xff", b"\1" + (MAX_PAYLOAD + 1).to_bytes(4, "big"))
    for frame in frames:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        refused(arena, arena.package(frame=frame.ljust(64, b"\0")), ResultCode.MALFORMED)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < MEGABYTES * 1024
    with pytest.raises(InvalidArgument):
        encode_data(Tag.MCIM, bytes(MAX_PAYLOAD + 1), 1)
    assert MAX_CODE < MAX_PAYLOAD
    still_provisions(arena)


def test_many_small_fields(arena: Arena) -> None:
    """T12 REQ-33: as many TLVs as fit, all of them unknown and skippable; then the content lacks what it needs."""
    fields = b"".join(number.to_bytes(2, "big") + b"\0\0" for number in range(0x100, 0x1F00))
    start = time.thread_time()
    refused(arena, arena.package(payload=fields), ResultCode.CONTENT_INVALID, ends=True)
    assert time.thread_time() - start < SECONDS


def test_flood_of_packages(arena: Arena) -> None:
    """T12: a hundred refusals: the device's file does not grow with them, and its counters do not repeat."""
    sizes, counters = [], set()
    for number in range(100):
        outcome = refused(arena, arena.good[:number], ResultCode.MALFORMED)
        counters.add(arena.receipt_of(outcome).counter)
        sizes.append(sum(file.stat().st_size for file in arena.directory.rglob("*") if file.is_file()))
    assert len(counters) == 100
    assert max(sizes[10:]) - min(sizes[10:]) < 64
    still_provisions(arena)


def test_full_device(tmp_path: Path) -> None:
    """T12 REQ-56: more MCIMs than there is room for, each with a good signature; the last one is refused."""
    arena = make_arena(tmp_path / "tre", key_type="ec", max_mcim=2)
    for number in (1, 2):
        names = {"mcim_id": UUID(int=number)}
        still_provisions(arena, arena.package(header=names, content=names))
        arena.register()
    names = {"mcim_id": UUID(int=3)}
    refused(arena, arena.package(header=names, content=names), ResultCode.TRE_FULL)
