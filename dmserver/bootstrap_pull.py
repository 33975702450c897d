"""Bootstrap documents that a device fetches, for tests and for devices that cannot be pushed to.

The URL holds a token of 256 bits. It works once and not for long; of the token only a digest is kept, and the document
is sealed. It stays under its MAC: who finds the URL gets nothing he could use without the secret.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, delete, insert, select

from actor_runtime.http import ProblemError
from actor_runtime.later import web
from actor_runtime.sealing import SealingKey
from actor_runtime.store import Store
from dmserver.store.accounts import naive
from dmserver.store.tables import bootstrap_pulls
from syncml.wap_push import WapPush, http_content_type

PULL_PATH: Final = "/bootstrap"
LIFETIME_S: Final = 3600  # seconds that a document waits when nothing else is said
MAX_LIFETIME_S: Final = 7 * 24 * 3600
TOKEN_LENGTH: Final = 43  # characters of 256 bits in Base64


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A document as it goes to the device."""

    device_id: str
    content_type: str  # with SEC and MAC
    body: bytes = field(repr=False)


def offer(
    connection: Connection, key: SealingKey, device_id: str, push: WapPush, *, lifetime_s: int, now: datetime
) -> str:
    """Keep a document to be fetched; returns the token. Documents offered to the device before are withdrawn."""
    token = secrets.token_urlsafe(32)
    digest = _digest(token)
    connection.execute(delete(bootstrap_pulls).where(bootstrap_pulls.c.device_id == device_id))
    connection.execute(
        insert(bootstrap_pulls).values(
            token_digest=digest,
            device_id=device_id,
            content_type=http_content_type(push),
            body=key.seal(push.body, _place(digest)),
            expires_at=naive(now + timedelta(seconds=lifetime_s)),
        )
    )
    return token


def take(connection: Connection, key: SealingKey, token: str, now: datetime) -> Fetched | None:
    """The document of a token, which is used up by this; None when there is none, or not any more."""
    connection.execute(delete(bootstrap_pulls).where(bootstrap_pulls.c.expires_at <= naive(now)))
    digest = _digest(token)
    row = connection.execute(select(bootstrap_pulls).where(bootstrap_pulls.c.token_digest == digest)).first()
    if row is None:
        return None
    connection.execute(delete(bootstrap_pulls).where(bootstrap_pulls.c.token_digest == digest))
    return Fetched(device_id=row.device_id, content_type=row.content_type, body=key.open(row.body, _place(digest)))


def pull_url(dm_url: str, token: str) -> str:
    """Where the device fetches: beside the address of the DM listener."""
    scheme, _, rest = dm_url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}{PULL_PATH}/{token}"


def add_pull_route(app: web.Application, *, store: Store, key: SealingKey, now: Callable[[], datetime]) -> None:
    """Let devices fetch documents from the DM listener."""

    async def fetch(request: web.Request) -> web.Response:
        token = request.match_info["token"]
        found = None
        if len(token) == TOKEN_LENGTH:
            found = await store.write(lambda connection: take(connection, key, token, now()))
        if found is None:
            raise ProblemError(404, "no-such-document", "it was fetched, it expired, or it never was")
        headers = {"Content-Type": found.content_type, "Cache-Control": "no-store"}
        return web.Response(body=found.body, headers=headers)

    app.router.add_get(f"{PULL_PATH}/{{token}}", fetch, allow_head=False)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _place(digest: str) -> bytes:
    return f"dmserver|bootstrap_pulls|body|{digest}".encode()
