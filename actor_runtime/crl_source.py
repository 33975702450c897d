"""Revocation lists of an actor: from files and over HTTP, refreshed in the background, never older than one before.

What is fetched over plain HTTP comes from anybody. So a list from a URL counts only when a CA that the actor knows (its
anchors, and those in `crl_issuers`) signed it, and only when it is not older than the one at hand: whoever sits on the
way can withhold lists, which shows when they run out, and can do no more. Whether a list of an issuer on the very path
says anything about a certificate is judged again at each validation.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import ssl
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import AfterValidator, Field

from actor_runtime.config import ActorSettings
from actor_runtime.errors import ConfigError
from actor_runtime.later import aiohttp
from actor_runtime.pem_files import parse_crls, read_chain, read_crls

MAX_CRL: Final = 1024 * 1024  # octets
FETCH_TIMEOUT_S: Final = 10.0  # one list, from connect to the last octet
RETRY_S: Final = 30.0  # after a fetch that failed, when the refresh period is longer
CLOCK_SKEW: Final = timedelta(minutes=5)  # the clock of a CA may be that far ahead of ours
MAX_URLS: Final = 32

_UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)  # what `cryptography` raises, lazily, for parts that it cannot read; not all of them are ValueErrors

_log = structlog.get_logger(__name__)

Crl = x509.CertificateRevocationList


def _http_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.fragment:
        raise ValueError("a revocation list has an http or https URL without user and fragment")
    return url


class RevocationSettings(ActorSettings):
    """Settings of an actor that asks whether certificates are revoked."""

    crl_files: tuple[Path, ...] = ()  # PEM or DER; read again at each refresh
    crl_urls: tuple[Annotated[str, AfterValidator(_http_url)], ...] = Field(default=(), max_length=MAX_URLS)
    crl_issuers: Path | None = None  # PEM: CAs beside the anchors whose lists are taken from crl_urls
    crl_refresh_s: float = Field(default=3600.0, gt=0)  # between fetches
    crl_required: bool = False  # refuse certificates of an issuer without a fresh list
    crl_cache_dir: Path | None = None  # the last good lists of crl_urls, for a start without network


@dataclass(frozen=True, slots=True)
class _Held:
    crl: Crl
    number: int  # -1: it has none
    digest: bytes

    @classmethod
    def of(cls, crl: Crl) -> _Held:
        number = -1
        with contextlib.suppress(x509.ExtensionNotFound):
            number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        return cls(crl, number, hashlib.sha256(crl.tbs_certlist_bytes).digest())

    def describe(self) -> str:
        number = "without a number" if self.number < 0 else f"number {self.number}"
        until = "" if self.crl.next_update_utc is None else f", until {self.crl.next_update_utc:%Y-%m-%dT%H:%M:%SZ}"
        return f"revocation list of {self.crl.issuer.rfc4514_string()}: {number}, {len(self.crl)} revoked{until}"


_Key = tuple[bytes, bytes]  # name of the issuer; its key id, and what of its certificates an incomplete list is about


class CrlRefused(Exception):
    """A fetched list is not taken; the text says why."""


class CrlSource:
    """The lists at hand: `current` at each validation, `start` and `stop` around serving."""

    def __init__(
        self,
        settings: RevocationSettings,
        *,
        anchors: Iterable[x509.Certificate],
        ssl_context: ssl.SSLContext | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Read the files and the cache; nothing is fetched yet.

        Raises:
            ConfigError: a file is missing or holds no list or certificate.
        """
        self._settings, self._ssl_context, self._now = settings, ssl_context, now
        extra = () if settings.crl_issuers is None else read_chain(settings.crl_issuers, "issuers of revocation lists")
        self._issuers: Sequence[x509.Certificate] = (*anchors, *extra)
        self._held: dict[_Key, _Held] = {}
        self._current: tuple[Crl, ...] = ()
        self._failed: dict[str, str] = {}  # URL or file → why
        self._report: Callable[[str], None] = lambda text: None
        self._task: asyncio.Task[None] | None = None
        self._taking = asyncio.Lock()
        for path in settings.crl_files:
            for crl in read_crls(path):
                self._take(_key_in_file(crl), crl)
        self._read_cache()

    def current(self) -> tuple[Crl, ...]:
        """The newest list of each issuer."""
        return self._current

    async def start(self, report: Callable[[str], None]) -> None:
        """Fetch once, within the time limit, then go on in the background. `report` gets each change as a line."""
        self._report = report
        for held in self._held.values():
            report(held.describe())
        if self._settings.crl_urls and self._settings.crl_cache_dir is None:
            _log.warning("crl.no_cache", reason="crl_cache_dir is not set: a start without network knows no lists")
        await self.refresh()
        self._task = asyncio.create_task(self._refresh_for_ever())

    async def stop(self) -> None:
        """End the background task."""
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None

    async def refresh(self) -> None:
        """Read the files again and fetch every URL once; what cannot be had or is not good leaves the old list."""
        for path in self._settings.crl_files:
            try:
                for crl in await asyncio.to_thread(read_crls, path):
                    key = _key_in_file(crl)
                    with contextlib.suppress(CrlRefused):  # an old file beside a newer list from a URL is no fault
                        if self._is_news(key, crl):
                            self._adopt(key, crl)
            except ConfigError as exc:
                self._note_failure(str(path), str(exc))
            else:
                self._note_success(str(path))
        if not self._settings.crl_urls:
            return
        # No proxy from the environment, no cookies, and no decompression: the size limit is one of octets received.
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=FETCH_TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"Accept-Encoding": "identity"},
        ) as session:
            await asyncio.gather(*(self._fetch(session, url) for url in self._settings.crl_urls))

    async def _refresh_for_ever(self) -> None:
        while True:
            period = self._settings.crl_refresh_s
            await asyncio.sleep(min(period, RETRY_S) if self._failed else period)
            try:
                await self.refresh()
            except Exception:  # whatever it was, the next round may go better; without rounds lists would run out
                _log.exception("crl.refresh_failed")

    async def _fetch(self, session: aiohttp.ClientSession, url: str) -> None:
        try:
            octets = await self._download(session, url)
            for crl in parse_crls(octets):
                key = self._verified_key(crl)
                self._check_complete(crl)
                async with self._taking:
                    if self._is_news(key, crl):
                        await asyncio.to_thread(self._keep, key, crl)  # first: a restart never goes back either
                        self._adopt(key, crl)
        except (CrlRefused, aiohttp.ClientError, TimeoutError, OSError) as exc:
            self._note_failure(url, str(exc) or type(exc).__name__)
        except _UNREADABLE:
            self._note_failure(url, "no revocation list")
        else:
            self._note_success(url)

    async def _download(self, session: aiohttp.ClientSession, url: str) -> bytes:
        tls = self._ssl_context if self._ssl_context is not None else True
        async with session.get(url, allow_redirects=False, ssl=tls) as response:
            if response.status != 200:
                raise CrlRefused(f"HTTP {response.status}")
            octets = bytearray()
            async for chunk in response.content.iter_chunked(65536):
                octets += chunk
                if len(octets) > MAX_CRL:
                    raise CrlRefused(f"longer than {MAX_CRL} octets")
        return bytes(octets)

    def _verified_key(self, crl: Crl) -> _Key:
        for issuer in self._issuers:
            if crl.issuer == issuer.subject and crl.is_signature_valid(issuer.public_key()):  # type: ignore[arg-type]  # another kind of key is a TypeError, and the list unreadable
                return crl.issuer.public_bytes(), x509.SubjectKeyIdentifier.from_public_key(issuer.public_key()).digest
        raise CrlRefused(f"no CA among the anchors or crl_issuers signed it: {crl.issuer.rfc4514_string()}")

    def _check_complete(self, crl: Crl) -> None:
        for extension in crl.extensions:
            if extension.critical or isinstance(
                extension.value, x509.DeltaCRLIndicator | x509.IssuingDistributionPoint
            ):
                raise CrlRefused(f"not complete, or with critical extension {extension.oid.dotted_string}")
        if crl.last_update_utc > self._now() + CLOCK_SKEW:
            raise CrlRefused("not valid yet")  # once taken it would keep out all lists until then

    def _is_news(self, key: _Key, crl: Crl) -> bool:
        """Whether a list is another than the one at hand.

        Raises:
            CrlRefused: it is older than that.
        """
        held, new = self._held.get(key), _Held.of(crl)
        if held is None:
            return True
        if new.number < held.number or crl.last_update_utc < held.crl.last_update_utc:
            raise CrlRefused(f"older than the one at hand: number {new.number} after {held.number}")
        return held.digest != new.digest

    def _adopt(self, key: _Key, crl: Crl) -> None:
        self._take(key, crl)
        text = _Held.of(crl).describe()
        _log.info("crl.changed", list=text)
        self._report(text)

    def _take(self, key: _Key, crl: Crl) -> None:
        held, new = self._held.get(key), _Held.of(crl)
        if held is not None and (new.number, crl.last_update_utc) < (held.number, held.crl.last_update_utc):
            return
        self._held[key] = new
        self._current = tuple(each.crl for each in self._held.values())

    def _note_failure(self, place: str, why: str) -> None:
        _log.warning("crl.not_taken", place=place, reason=why)
        if self._failed.get(place) != why:
            self._failed[place] = why
            self._report(f"no new revocation list from {place}: {why}"[:500])

    def _note_success(self, place: str) -> None:
        if self._failed.pop(place, None) is not None:
            self._report(f"revocation list from {place}: to be had again")

    # --- the last good lists ------------------------------------------------------------------------------------------

    def _read_cache(self) -> None:
        directory = self._settings.crl_cache_dir
        if directory is None or not self._settings.crl_urls:
            return
        for path in sorted(directory.glob("*.crl")):
            try:
                for crl in read_crls(path):
                    self._take(self._verified_key(crl), crl)
            except (ConfigError, CrlRefused, *_UNREADABLE) as exc:
                _log.warning("crl.cache_unusable", file=str(path), reason=str(exc))

    def _keep(self, key: _Key, crl: Crl) -> None:
        directory = self._settings.crl_cache_dir
        if directory is None:
            return
        path = directory / f"{hashlib.sha256(b'|'.join(key)).hexdigest()[:32]}.crl"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            _replace(path, crl.public_bytes(Encoding.DER))
        except OSError as exc:  # the list counts all the same; only a restart without network would miss it
            _log.error("crl.not_kept", directory=str(directory), reason=exc.strerror)


def _replace(path: Path, octets: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".crl.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(octets)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _key_in_file(crl: Crl) -> _Key:
    """A list in a file is the operator's word; the key id it names tells lists of one name and two keys apart. A list
    of changes or of some certificates stands beside the complete one and never takes its place."""
    try:
        key_id, scope = b"", b""
        for each in crl.extensions:
            if isinstance(each.value, x509.AuthorityKeyIdentifier):
                key_id = each.value.key_identifier or b""
            elif isinstance(each.value, x509.DeltaCRLIndicator):
                scope += b"|delta"
            elif isinstance(each.value, x509.IssuingDistributionPoint):
                scope += b"|" + each.value.public_bytes()
        return crl.issuer.public_bytes(), key_id + scope
    except _UNREADABLE as exc:
        raise ConfigError("a revocation list in crl_files cannot be read") from exc
