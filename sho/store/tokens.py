"""Device tokens that users gave to this SHO: sealed, one for a device, until a package with it succeeded (REQ-62)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select

from sho.store.repository import naive
from sho.store.tables import device_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """One token as stored."""

    m2me_id: str
    token_ref: str
    sealed: bytes = field(repr=False)


def put(connection: Connection, token: TokenRow, *, now: datetime) -> None:
    """Store the token of a device in place of the one it had."""
    drop(connection, token.m2me_id)
    connection.execute(
        insert(device_tokens).values(
            m2me_id=token.m2me_id, token_ref=token.token_ref, token_sealed=token.sealed, created_at=naive(now)
        )
    )


def find(connection: Connection, m2me_id: str) -> TokenRow | None:
    """The token of a device."""
    row = connection.execute(select(device_tokens).where(device_tokens.c.m2me_id == m2me_id)).one_or_none()
    return TokenRow(m2me_id=row.m2me_id, token_ref=row.token_ref, sealed=row.token_sealed) if row else None


def drop(connection: Connection, m2me_id: str) -> bool:
    """Forget the token of a device; False when there was none."""
    return connection.execute(delete(device_tokens).where(device_tokens.c.m2me_id == m2me_id)).rowcount == 1


def list_tokens(connection: Connection) -> list[dict[str, object]]:
    """Which devices have a token here, never what it is."""
    return [
        {"m2meId": row.m2me_id, "tokenRef": row.token_ref, "since": row.created_at.isoformat(timespec="seconds") + "Z"}
        for row in connection.execute(select(device_tokens).order_by(device_tokens.c.m2me_id))
    ]
