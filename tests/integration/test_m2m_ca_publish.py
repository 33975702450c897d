"""`m2m-ca publish` over HTTP: what it serves, what it does not, and that its lists stay fresh (REQ-21)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from m2m_ca.directory import CAS, CaDirectory
from m2m_ca.publisher import publish
from m2m_ca.records import RevocationReason
from mcim.certificates import load_pem_chain


def clock() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def ca(tmp_path: Path) -> CaDirectory:
    made = CaDirectory(tmp_path / "pki")
    made.demo_pki(hosts=["localhost"], sho_id="sho.example", dpf_id="dpf.example", pva_id="urn:pva", now=clock())
    return made


@asynccontextmanager
async def published(ca: CaDirectory, **options: object) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    ready, stop = ca.path / "ready.json", asyncio.Event()
    task = asyncio.create_task(
        publish(ca, host="127.0.0.1", port=0, ready_file=ready, stop=stop, check_s=0.01, **options)
    )
    async with asyncio.timeout(20):
        while not ready.exists():
            if task.done():
                await task
            await asyncio.sleep(0.01)
    url = f"http://127.0.0.1:{json.loads(ready.read_text())['ports']['crl']}"
    async with aiohttp.ClientSession() as session:
        try:
            yield session, url
        finally:
            stop.set()
            await task


async def test_lists_and_certificates(ca: CaDirectory) -> None:
    """RFC 2585: DER with the right types, by GET and HEAD."""
    async with published(ca) as (http, url):
        for name in CAS:
            async with http.get(f"{url}/crl/{name}.crl") as answer:
                assert (answer.status, answer.content_type) == (200, "application/pkix-crl")
                crl = x509.load_der_x509_crl(await answer.read())
                assert crl.is_signature_valid(ca.certificate(name).public_key())
            async with http.get(f"{url}/ca/{name}.crt") as answer:
                assert (answer.status, answer.content_type) == (200, "application/pkix-cert")
                assert await answer.read() == ca.certificate(name).public_bytes(Encoding.DER)
            async with http.head(f"{url}/crl/{name}.crl") as answer:
                assert (answer.status, await answer.read()) == (200, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/", "/crl/", "/crl/nobody.crl", "/ca/manufacturer.key", "/ca/manufacturer-root.key", "/issued.jsonl",
        "/crl/../ca/manufacturer.key", "/crl/..%2fca%2fmanufacturer.key", "/crl/%2e%2e/ca/tls.key",
        "/ca/crl-numbers.json", "/crl/manufacturer.crl/",
    ],
)  # fmt: skip
async def test_nothing_else_is_served(ca: CaDirectory, path: str) -> None:
    """REQ-21: a fixed list of names; keys and records are not among them."""
    async with published(ca) as (http, url), http.get(aiohttp.client.URL(url + path, encoded=True)) as answer:
        assert answer.status == 404
        assert b"PRIVATE" not in await answer.read()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_only_reading(ca: CaDirectory, method: str) -> None:
    async with published(ca) as (http, url):
        for path in ("/crl/manufacturer.crl", "/ca/manufacturer.crt"):
            async with http.request(method, url + path, data=b"x") as answer:
                assert answer.status == 405


async def test_a_root_without_key_and_list(ca: CaDirectory) -> None:
    (ca.path / "ca" / "operator-root.key").unlink()
    async with published(ca) as (http, url), http.get(f"{url}/crl/operator-root.crl") as answer:
        assert answer.status == 404


async def fetched(http: aiohttp.ClientSession, url: str) -> x509.CertificateRevocationList:
    async with http.get(f"{url}/crl/operator.crl") as answer:
        return x509.load_der_x509_crl(await answer.read())


async def test_a_revocation_is_published_while_it_runs(ca: CaDirectory) -> None:
    """REQ-21: `m2m-ca revoke` beside a running `publish`, and no restart."""
    leaf = load_pem_chain((ca.path / "sho" / "signing.crt").read_bytes())[0]
    async with published(ca) as (http, url):
        assert len(await fetched(http, url)) == 0
        await asyncio.to_thread(ca.revoke_certificate, leaf, RevocationReason.KEY_COMPROMISE, clock())
        async with asyncio.timeout(20):
            while not len(crl := await fetched(http, url)):
                pass
        assert crl.get_revoked_certificate_by_serial_number(leaf.serial_number) is not None


async def test_lists_are_fresh_before_they_run_out(ca: CaDirectory) -> None:
    """REQ-21: made anew at half their life; a broken file beside them stops nobody."""
    ahead = [timedelta()]
    async with published(ca, now=lambda: clock() + ahead[0]) as (http, url):
        first = await fetched(http, url)
        (ca.path / "crl" / "pva.crl").write_bytes(b"spoilt")
        ahead[0] = timedelta(days=3, hours=12)
        async with asyncio.timeout(20):
            while (second := await fetched(http, url)).last_update_utc == first.last_update_utc:
                pass
        assert second.next_update_utc > first.next_update_utc
