"""Where an actor's revocation lists come from, and what on the way to them is not believed (REQ-21)."""

from __future__ import annotations

import asyncio
import gzip
import re
import tempfile
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from actor_runtime.crl_source import CLOCK_SKEW, MAX_CRL, CrlSource, RevocationSettings
from actor_runtime.errors import ConfigError
from mcim.authority import Authority
from mcim.certificates import Role, validate
from mcim.errors import CertificateRefused
from tests.support_pki import NOW, TRE_ID, pki

PKI = pki()
CA, ROOT = PKI.manufacturer, PKI.manufacturer_root
ROGUE = Authority.create_root("Manufacturer CA", NOW)
Crl = x509.CertificateRevocationList


def crl(number: int = 1, *revoked: int, by: Authority = CA, after: timedelta = timedelta()) -> Crl:
    return by.make_crl(revoked, NOW + after, number=number)


def der(made: Crl) -> bytes:
    return made.public_bytes(Encoding.DER)


class Publisher:
    """Serves what a test puts there, at `/ca.crl`; a handler instead of octets does as it likes."""

    def __init__(self) -> None:
        self.answer: bytes | Callable[[web.Request], web.StreamResponse] | None = None
        self.asked: list[str] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        if callable(self.answer):
            return self.answer(request)
        return web.Response(status=404) if self.answer is None else web.Response(body=self.answer)


@pytest.fixture
async def publisher() -> AsyncIterator[Publisher]:
    made = Publisher()
    app = web.Application()
    app.router.add_get("/{name:.*}", made.handle)
    server = TestServer(app)
    await server.start_server()
    made.url = str(server.make_url("/ca.crl"))
    yield made
    await server.close()


@pytest.fixture
def issuers(tmp_path: Path) -> Path:
    path = tmp_path / "issuers.pem"
    path.write_bytes(CA.certificate.public_bytes(Encoding.PEM))
    return path


def source(issuers: Path | None = None, *, now=lambda: NOW, **settings: object) -> CrlSource:
    made = RevocationSettings(crl_issuers=issuers, **settings)
    return CrlSource(made, anchors=[ROOT.certificate], now=now)


def numbers(lists: CrlSource) -> list[int]:
    return sorted(each.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for each in lists.current())


async def fetched(publisher: Publisher, lists: CrlSource, answer: object) -> list[int]:
    publisher.answer = answer if callable(answer) or isinstance(answer, bytes) else der(answer)
    await lists.refresh()
    return numbers(lists)


async def test_lists_are_fetched_replaced_and_told(publisher: Publisher, issuers: Path) -> None:
    """REQ-21: a newer list takes the place of the older; each change is told once."""
    lists, told = source(issuers, crl_urls=(publisher.url,)), []
    publisher.answer = der(crl(1))
    await lists.start(told.append)
    try:
        assert numbers(lists) == [1]
        assert await fetched(publisher, lists, crl(1)) == [1]
        assert await fetched(publisher, lists, crl(2, 5, 6).public_bytes(Encoding.PEM)) == [2]
        assert [line.split(": ")[1][:19] for line in told] == ["number 1, 0 revoked", "number 2, 2 revoked"]
    finally:
        await lists.stop()


def _ca_key_id() -> x509.AuthorityKeyIdentifier:
    """As in the lists that `m2m_ca` makes."""
    return crl().extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value


def _delta() -> Crl:
    builder = x509.CertificateRevocationListBuilder().issuer_name(CA.certificate.subject)
    builder = builder.last_update(NOW).next_update(NOW + timedelta(days=1))
    builder = builder.add_extension(x509.CRLNumber(9), critical=False).add_extension(_ca_key_id(), critical=False)
    return builder.add_extension(x509.DeltaCRLIndicator(2), critical=True).sign(CA.key, hashes.SHA256())


def _without_number() -> Crl:
    builder = x509.CertificateRevocationListBuilder().issuer_name(CA.certificate.subject)
    return builder.last_update(NOW).next_update(NOW + timedelta(days=1)).sign(CA.key, hashes.SHA256())


def _big(request: web.Request) -> web.Response:
    return web.Response(body=der(crl(9)) + bytes(MAX_CRL))


def _elsewhere(request: web.Request) -> web.Response:
    raise web.HTTPFound("/elsewhere.crl")


def _bomb(request: web.Request) -> web.Response:
    return web.Response(body=gzip.compress(der(crl(9))), headers={"Content-Encoding": "gzip"})


NOT_TAKEN = {
    "lower number": (crl(2, after=timedelta(minutes=1)), "older"),
    "earlier": (crl(4, after=-timedelta(hours=1)), "older"),
    "without a number": (_without_number(), "older"),
    "by a CA of the same name": (crl(9, by=ROGUE), "signed"),
    "by nobody we know": (crl(9, by=PKI.pva_root), "signed"),
    "its signature broken": (der(crl(9))[:-3] + bytes(3), "signed|no revocation list"),
    "delta": (_delta(), "critical extension"),
    "from the future": (crl(9, after=CLOCK_SKEW + timedelta(seconds=1)), "not valid yet"),
    "of an unknown version": (der(crl(9)).replace(b"\x02\x01\x01", b"\x02\x01\x00", 1), "no revocation list"),
    "no list": (b"<html>", "no revocation list"),
    "nothing": (b"", "no revocation list"),
    "not there": (lambda request: web.Response(status=404), "404"),
    "elsewhere": (_elsewhere, "302"),
    "too long": (_big, "longer"),
    "compressed": (_bomb, "no revocation list"),
}


@pytest.mark.parametrize(("answer", "why"), NOT_TAKEN.values(), ids=NOT_TAKEN)
async def test_what_is_not_taken_leaves_the_old_list(
    publisher: Publisher, issuers: Path, tmp_path: Path, answer: object, why: str
) -> None:
    """REQ-21: whoever sits between CA and actor can withhold lists, not forge, mix or turn them back."""
    lists, told = source(issuers, crl_urls=(publisher.url,), crl_cache_dir=tmp_path / "cache"), []
    publisher.answer = der(crl(3))
    await lists.start(told.append)
    try:
        assert await fetched(publisher, lists, answer) == [3]
        assert publisher.asked == ["/ca.crl", "/ca.crl"]
        assert re.search(why, told[-1]), told
        await lists.refresh()
        assert len(told) == 2  # a failure that goes on is told once
        assert await fetched(publisher, lists, crl(10)) == [10]
        assert told[-1].endswith("to be had again")
    finally:
        await lists.stop()


async def test_a_first_forged_list_is_not_believed_either(publisher: Publisher, issuers: Path) -> None:
    """REQ-21: a forged list of a high number must not keep the true one out."""
    lists = source(issuers, crl_urls=(publisher.url,))
    assert await fetched(publisher, lists, crl(2**60, by=ROGUE)) == []
    assert await fetched(publisher, lists, crl(1)) == [1]


async def test_without_crl_issuers_only_the_anchors_sign_lists(publisher: Publisher) -> None:
    """REQ-43: the CAs whose lists count are configured, as the anchors are."""
    lists = source(None, crl_urls=(publisher.url,))
    assert await fetched(publisher, lists, crl(1)) == []
    assert await fetched(publisher, lists, crl(4, by=ROOT)) == [4]


async def test_a_restart_without_network_still_knows(publisher: Publisher, issuers: Path, tmp_path: Path) -> None:
    """REQ-21: the last good list is on disk, whole, and is not gone back from after the restart."""
    cache = {"crl_urls": (publisher.url,), "crl_cache_dir": tmp_path / "cache"}
    first = source(issuers, **cache)
    assert await fetched(publisher, first, crl(7, 5)) == [7]
    publisher.answer = None
    again = source(issuers, **cache)
    await again.refresh()
    assert numbers(again) == [7]
    assert await fetched(publisher, again, crl(6)) == [7]
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".crl"]


@pytest.mark.parametrize("spoilt", [b"", b"\x30\x00", der(crl(99, by=ROGUE))], ids=["empty", "broken", "forged"])
async def test_a_spoilt_cache_is_passed_over(
    publisher: Publisher, issuers: Path, tmp_path: Path, spoilt: bytes
) -> None:
    """REQ-21: what is in the cache is believed as little as what comes from the network."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "x.crl").write_bytes(spoilt)
    lists = source(issuers, crl_urls=(publisher.url,), crl_cache_dir=tmp_path / "cache")
    assert lists.current() == ()
    assert await fetched(publisher, lists, crl(1)) == [1]


async def test_a_cache_that_cannot_be_written_does_not_keep_a_list_out(
    publisher: Publisher, issuers: Path, tmp_path: Path
) -> None:
    """REQ-21: a full disk is no reason to trust who is revoked."""
    (tmp_path / "file").write_bytes(b"")
    lists = source(issuers, crl_urls=(publisher.url,), crl_cache_dir=tmp_path / "file" / "cache")
    assert await fetched(publisher, lists, crl(1)) == [1]


async def test_files_are_read_again(tmp_path: Path) -> None:
    """REQ-21: an operator who replaces a file needs no restart; a broken or an older one changes nothing."""
    path = tmp_path / "ca.crl"
    path.write_bytes(der(crl(2)))
    lists = source(crl_files=(path,))
    assert numbers(lists) == [2]
    for octets, expected in ((der(crl(3)), 3), (b"broken", 3), (der(crl(1)), 3), (der(crl(4)), 4)):
        path.write_bytes(octets)
        await lists.refresh()
        assert numbers(lists) == [expected]


def test_one_file_with_lists_of_several_cas(tmp_path: Path) -> None:
    """REQ-21: PEM files hold any number; two CAs of one name are two issuers."""
    path = tmp_path / "all.pem"
    made = (crl(1), crl(2, by=ROOT), crl(3, by=ROGUE))
    path.write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in made))
    assert numbers(source(crl_files=(path,))) == [1, 2, 3]


def _of_some(number: int) -> Crl:
    """A list of CA certificates alone: not complete."""
    part = x509.IssuingDistributionPoint(None, None, False, True, None, False, False)
    builder = x509.CertificateRevocationListBuilder().issuer_name(CA.certificate.subject)
    builder = builder.last_update(NOW).next_update(NOW + timedelta(days=1))
    builder = builder.add_extension(x509.CRLNumber(number), critical=False).add_extension(_ca_key_id(), critical=False)
    return builder.add_extension(part, critical=True).sign(CA.key, hashes.SHA256())


@pytest.mark.parametrize("partial", [_delta(), _of_some(9)], ids=["delta", "of some certificates"])
async def test_a_file_with_a_part_takes_no_complete_list_away(tmp_path: Path, partial: Crl) -> None:
    """REQ-21: what it does not name may still be revoked; an entry in any list revokes (RFC 5280 §5.2.4, §5.2.5)."""
    paths = tmp_path / "ca.crl", tmp_path / "part.crl"
    for path, made in zip(paths, (crl(2, 5), partial), strict=True):
        path.write_bytes(der(made))
    for order in (paths, paths[::-1]):
        lists = source(crl_files=order)
        assert sorted(numbers(lists)) == [2, 9]
        await lists.refresh()
        assert sorted(numbers(lists)) == [2, 9]


@pytest.mark.parametrize("name", ["crl_files", "crl_issuers"])
def test_a_missing_or_broken_file_is_told_at_the_start(tmp_path: Path, name: str) -> None:
    """REQ-43: told with its name, before anything listens."""
    path = tmp_path / "file"
    for octets in (None, b"neither"):
        if octets is not None:
            path.write_bytes(octets)
        made = RevocationSettings(**{name: (path,) if name == "crl_files" else path})
        with pytest.raises(ConfigError, match=str(path)):
            CrlSource(made, anchors=[])


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/ca.crl",
        "ldap://ca.example/",
        "http:///ca.crl",
        "http://u:p@ca.example/",
        "http://:p@ca.example/",
        "ca.crl",
        "http://a#b",
    ],
)
def test_urls_that_are_none_of_ours(url: str) -> None:
    """REQ-21: HTTP to named hosts and nothing else."""
    with pytest.raises(ValidationError):
        RevocationSettings(crl_urls=(url,))


async def test_the_background_goes_on_and_ends(publisher: Publisher, issuers: Path) -> None:
    """REQ-21: lists change while the actor serves, and stopping it stops the fetching."""
    changed = asyncio.Event()
    lists = source(issuers, crl_urls=(publisher.url,), crl_refresh_s=0.01)
    publisher.answer = der(crl(1))
    await lists.start(lambda text: changed.set() if "number 2" in text else None)
    publisher.answer = der(crl(2))
    async with asyncio.timeout(20):
        await changed.wait()
    await lists.stop()
    asked = len(publisher.asked)
    assert numbers(lists) == [2]
    await lists.stop()
    assert len(publisher.asked) == asked


RICH = x509.CertificateRevocationListBuilder().issuer_name(CA.certificate.subject)
RICH = RICH.last_update(NOW).next_update(NOW + timedelta(days=1)).add_extension(x509.CRLNumber(3), critical=False)
RICH = RICH.add_extension(x509.AuthorityKeyIdentifier(bytes(20), [x509.DNSName("ca.example")], 7), critical=False)
OCTETS = der(RICH.sign(CA.key, hashes.SHA256()))


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")  # odd times and versions
@settings(deadline=None)
@example((OCTETS.index(b"\x02\x01\x01") + 2, 0))  # an unknown version
@given(st.one_of(st.binary(max_size=80), st.tuples(st.integers(0, len(OCTETS) - 1), st.integers(0, 255))))
def test_any_octets(changed: bytes | tuple[int, int]) -> None:
    """REQ-21: from a file, a cache or the network: a list, or the one error; and validation stands whatever it gets."""
    octets = changed if isinstance(changed, bytes) else None
    if octets is None:
        position, value = changed
        octets = OCTETS[:position] + bytes((value,)) + OCTETS[position + 1 :]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "ca.crl"
        path.write_bytes(octets)
        try:
            lists = source(crl_files=(path,)).current()
        except ConfigError:
            return
    try:
        found = validate(PKI.platform, PKI.tre_chain, PKI.manufacturer_anchors, Role.PLATFORM, NOW, crls=lists)
    except CertificateRefused:
        return
    assert found.subject_id == TRE_ID
