"""What the RO asks of its database about identities and attaches. Functions of a connection, each inside one unit."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, Table, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from ro.identities import SealedIdentity
from ro.store.tables import alarms, attaches, identities, tokens, visits

ISSUED: Final = "issued"
WITHDRAWN: Final = "withdrawn"
OTHER_NETWORKS: Final = "other"
WINDOW: Final = timedelta(hours=1)  # of the limit on attaches


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityRow:
    """One PCID; it stays sealed."""

    id: int
    sealed: SealedIdentity = field(repr=False)
    mask: str
    generation: int
    sqn: int
    state: str
    not_after: datetime
    supplier: str | None
    m2me_id: str | None
    attached_at: datetime | None

    def valid(self, now: datetime) -> bool:
        """Whether devices may use it now."""
        return self.state == ISSUED and now < self.not_after


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """What an access token opens."""

    identity: IdentityRow
    m2me_id: str | None  # proved at the gate
    vno: str


def naive(moment: datetime) -> datetime:
    """UTC without zone, as the tables have it."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def aware(moment: datetime) -> datetime:
    """Back from the tables."""
    return moment.replace(tzinfo=UTC)


# --- identities (CCIF) --------------------------------------------------------------------------------


def add_identity(
    connection: Connection,
    sealed: SealedIdentity,
    *,
    mask: str,
    not_after: datetime,
    supplier: str | None,
    now: datetime,
) -> int | None:
    """Add a new identity in its first generation; None when that PCID is there already, in whatever state."""
    if find_identity(connection, sealed.imsi_index) is not None:
        return None
    made = connection.execute(
        insert(identities).values(
            imsi_index=sealed.imsi_index,
            imsi_sealed=sealed.imsi_sealed,
            keys_sealed=sealed.keys_sealed,
            imsi_mask=mask,
            generation=1,
            sqn=0,
            state=ISSUED,
            not_after=naive(not_after),
            supplier=supplier,
            issued_at=naive(now),
        )
    )
    key = made.inserted_primary_key
    return int(key[0]) if key is not None else None


def reissue_identity(
    connection: Connection,
    identity_id: int,
    sealed: SealedIdentity,
    *,
    generation: int,
    not_after: datetime,
    supplier: str | None,
    now: datetime,
) -> bool:
    """Give an expired identity out again with new keys; False when it is not expired, or was given out meanwhile."""
    done = connection.execute(
        update(identities)
        .where(
            identities.c.id == identity_id,
            identities.c.generation == generation - 1,
            identities.c.not_after <= naive(now),
        )
        .values(
            imsi_sealed=sealed.imsi_sealed,
            keys_sealed=sealed.keys_sealed,
            generation=generation,
            sqn=0,
            state=ISSUED,
            not_after=naive(not_after),
            supplier=supplier,
            m2me_id=None,
            attached_at=None,
            issued_at=naive(now),
        )
    )
    if done.rowcount != 1:
        return False
    for table in (tokens, attaches):
        connection.execute(delete(table).where(table.c.pcid_id == identity_id))
    return True


def withdraw_identity(connection: Connection, identity_id: int) -> bool:
    """Nobody attaches with it any more; its access tokens are void. False when there is no such identity."""
    done = connection.execute(update(identities).where(identities.c.id == identity_id).values(state=WITHDRAWN))
    connection.execute(delete(tokens).where(tokens.c.pcid_id == identity_id))
    return done.rowcount == 1


def find_identity(connection: Connection, imsi_index: bytes, *, for_update: bool = False) -> IdentityRow | None:
    """The identity with that keyed index; `for_update` keeps other writers from it until the unit ends."""
    query = select(identities).where(identities.c.imsi_index == imsi_index)
    row = connection.execute(query.with_for_update() if for_update else query).one_or_none()
    return _identity(row) if row is not None else None


def get_identity(connection: Connection, identity_id: int, *, for_update: bool = False) -> IdentityRow | None:
    """The identity with that number; `for_update` as in `find_identity`."""
    query = select(identities).where(identities.c.id == identity_id)
    row = connection.execute(query.with_for_update() if for_update else query).one_or_none()
    return _identity(row) if row is not None else None


def list_identities(connection: Connection, *, limit: int) -> list[IdentityRow]:
    """Identities, oldest first."""
    rows = connection.execute(select(identities).order_by(identities.c.id).limit(limit))
    return [_identity(row) for row in rows]


def count_identities(connection: Connection) -> int:
    """How many there are in all."""
    return int(connection.execute(select(func.count()).select_from(identities)).scalar_one())


# --- attaches (ICF) -----------------------------------------------------------------------------------


def attaches_since(connection: Connection, identity_id: int, since: datetime) -> int:
    """Successful attaches of an identity since then."""
    return int(
        connection.execute(
            select(func.count())
            .select_from(attaches)
            .where(attaches.c.pcid_id == identity_id, attaches.c.at > naive(since))
        ).scalar_one()
    )


def set_sqn(connection: Connection, identity_id: int, sqn: int) -> None:
    """Store SQN_HE. It is committed before a vector made with it leaves (TS 33.102 §6.3.2)."""
    connection.execute(update(identities).where(identities.c.id == identity_id).values(sqn=sqn))


def note_attach(connection: Connection, identity_id: int, now: datetime) -> None:
    """Keep a successful attach as long as it counts."""
    connection.execute(delete(attaches).where(attaches.c.pcid_id == identity_id, attaches.c.at <= naive(now - WINDOW)))
    connection.execute(insert(attaches).values(pcid_id=identity_id, at=naive(now)))
    connection.execute(update(identities).where(identities.c.id == identity_id).values(attached_at=naive(now)))


def put_token(
    connection: Connection,
    identity: IdentityRow,
    *,
    digest: str,
    m2me_id: str | None,
    vno: str,
    expires_at: datetime,
    now: datetime,
) -> None:
    """Keep the access token of an attach; earlier ones of the identity are void, and expired ones go."""
    connection.execute(delete(tokens).where((tokens.c.pcid_id == identity.id) | (tokens.c.expires_at <= naive(now))))
    connection.execute(
        insert(tokens).values(
            digest=digest,
            pcid_id=identity.id,
            generation=identity.generation,
            m2me_id=m2me_id,
            vno=vno,
            uses=0,
            expires_at=naive(expires_at),
        )
    )


def find_token(connection: Connection, digest: str, now: datetime) -> TokenRow | None:
    """What a token opens; None when it expired, or its identity did, was withdrawn or given to somebody else.

    Other writers are kept from the identity until the unit ends: what the token is used for depends on it.
    """
    row = connection.execute(
        select(tokens).where(tokens.c.digest == digest, tokens.c.expires_at > naive(now))
    ).one_or_none()
    identity = get_identity(connection, row.pcid_id, for_update=True) if row is not None else None
    if row is None or identity is None or identity.generation != row.generation or not identity.valid(now):
        return None
    return TokenRow(identity=identity, m2me_id=row.m2me_id, vno=row.vno)


def use_token(connection: Connection, digest: str, *, limit: int) -> bool:
    """Count a use of a token; False when it was used often enough."""
    done = connection.execute(
        update(tokens).where(tokens.c.digest == digest, tokens.c.uses < limit).values(uses=tokens.c.uses + 1)
    )
    return done.rowcount == 1


def bind_identity(connection: Connection, identity_id: int, digest: str, m2me_id: str, *, keep: bool) -> None:
    """This device uses the token; with `keep`, the identity is its own from now on."""
    connection.execute(update(tokens).where(tokens.c.digest == digest).values(m2me_id=m2me_id))
    if keep:
        connection.execute(update(identities).where(identities.c.id == identity_id).values(m2me_id=m2me_id))


# --- what operators look at ---------------------------------------------------------------------------


def count_visit(connection: Connection, vno: str, outcome: str, now: datetime, *, max_networks: int) -> None:
    """Count an attach or a refusal for a visited network (TR 33.812 §5.1.3.7.1 step 2); networks are bounded."""
    known = connection.execute(select(visits.c.vno).where(visits.c.vno == vno).limit(1)).first() is not None
    if not known:
        networks = connection.execute(select(func.count(func.distinct(visits.c.vno)))).scalar_one()
        if int(networks) >= max_networks:
            vno = OTHER_NETWORKS
    _count(connection, visits, {"vno": vno, "outcome": outcome}, now)


def list_visits(connection: Connection) -> list[dict[str, object]]:
    """Counters by visited network."""
    return [
        {"vno": row.vno, "outcome": row.outcome, "count": row.count, "last": aware(row.last_at).isoformat()}
        for row in connection.execute(select(visits).order_by(visits.c.vno, visits.c.outcome))
    ]


def raise_alarm(connection: Connection, kind: str, identity_id: int, m2me_id: str, now: datetime) -> None:
    """Keep that a device used an identity it should not have."""
    _count(connection, alarms, {"kind": kind, "pcid_id": identity_id, "m2me_id": m2me_id}, now)


def list_alarms(connection: Connection) -> list[dict[str, object]]:
    """Alarms, newest first."""
    rows = connection.execute(
        select(alarms, identities.c.imsi_mask, identities.c.m2me_id.label("owner"))
        .join(identities, identities.c.id == alarms.c.pcid_id)
        .order_by(alarms.c.last_at.desc())
    )
    return [
        {
            "kind": row.kind,
            "id": row.pcid_id,
            "pcid": row.imsi_mask,
            "m2meId": row.m2me_id,
            "boundTo": row.owner,
            "count": row.count,
            "last": aware(row.last_at).isoformat(),
        }
        for row in rows
    ]


def _count(connection: Connection, table: Table, place: dict[str, Any], now: datetime) -> None:
    conditions = [table.c[name] == value for name, value in place.items()]
    rise = update(table).where(*conditions).values(count=table.c.count + 1, last_at=naive(now))
    if connection.execute(rise).rowcount == 0:
        try:
            with connection.begin_nested():
                connection.execute(insert(table).values(**place, count=1, last_at=naive(now)))
        except IntegrityError:  # another writer was first
            connection.execute(rise)


def _identity(row: Row[Any]) -> IdentityRow:
    return IdentityRow(
        id=row.id,
        sealed=SealedIdentity(imsi_index=row.imsi_index, imsi_sealed=row.imsi_sealed, keys_sealed=row.keys_sealed),
        mask=row.imsi_mask,
        generation=row.generation,
        sqn=row.sqn,
        state=row.state,
        not_after=aware(row.not_after),
        supplier=row.supplier,
        m2me_id=row.m2me_id,
        attached_at=aware(row.attached_at) if row.attached_at is not None else None,
    )
