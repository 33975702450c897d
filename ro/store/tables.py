"""Tables of the RO. What is named `sealed` is under the sealing key; times are UTC without zone."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
)

from actor_runtime.store import NAMES
from actor_runtime.trail_store import trail_table

metadata: Final = MetaData(naming_convention=NAMES)

identities: Final = Table(
    "pcid",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("imsi_index", LargeBinary(32), nullable=False, unique=True),  # HMAC-SHA-256 of the PCID: for lookups
    Column("imsi_sealed", LargeBinary, nullable=False),
    Column("keys_sealed", LargeBinary, nullable=False),  # algorithm, K and OPc or TOPc; bound to the generation
    Column("imsi_mask", String(15), nullable=False),
    Column("generation", Integer, nullable=False),  # goes up when the identity is given out again
    Column("sqn", BigInteger, nullable=False),  # SQN_HE: the last one used in this generation
    Column("state", String(16), nullable=False),  # issued, withdrawn
    Column("not_after", DateTime, nullable=False),
    Column("supplier", String(255), nullable=True),  # whom it was given to
    Column("m2me_id", String(255), nullable=True),  # the one device that uses it
    Column("attached_at", DateTime, nullable=True),  # last successful AKA
    Column("issued_at", DateTime, nullable=False),  # of this generation
)

attaches: Final = Table(
    "pcid_attach",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("pcid_id", Integer, ForeignKey("pcid.id"), nullable=False),
    Column("at", DateTime, nullable=False),
    Index("ix_pcid_attach_pcid_at", "pcid_id", "at"),
)

tokens: Final = Table(
    "access_token",
    metadata,
    Column("digest", String(64), primary_key=True),  # SHA-256 of the token, hexadecimal
    Column("pcid_id", Integer, ForeignKey("pcid.id"), nullable=False, index=True),
    Column("generation", Integer, nullable=False),
    Column("m2me_id", String(255), nullable=True),  # proved at the gate, or the one that registered with it
    Column("vno", String(16), nullable=False),
    Column("uses", Integer, nullable=False),
    Column("expires_at", DateTime, nullable=False),
)

registrations: Final = Table(
    "registration",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("m2me_id", String(255), nullable=False, index=True),
    Column("tre_id", String(255), nullable=False),
    Column("pcid_id", Integer, ForeignKey("pcid.id"), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("supplier", String(255), nullable=True),
    Column("wanted_sho", String(255), nullable=True),  # the subscriber's choice, as the device tells it
    Column("sho_id", String(255), nullable=True),
    Column("reason", String(32), nullable=False),
    Column("push", String(255), nullable=False),  # udp:HOST:PORT
    Column("state", String(16), nullable=False, index=True),  # see `ro.registrations.State`
    Column("detail", String(255), nullable=False),
    Column("order_id", String(64), nullable=True),  # the DPF's, as the home operator told
    Column("tries", Integer, nullable=False),  # registrations asked of home operators: part of the idempotency key
    Column("bootstraps", Integer, nullable=False),  # bootstraps asked of the DPF: the same
    Column("created_at", DateTime, nullable=False),
    Column("updated_at", DateTime, nullable=False),
)

routes: Final = Table(
    "route",
    metadata,
    Column("kind", String(8), primary_key=True),  # m2me, supplier
    Column("value", String(255), primary_key=True),
    Column("sho_id", String(255), nullable=False),
)

visits: Final = Table(
    "visit",
    metadata,
    Column("vno", String(16), primary_key=True),  # MCC and MNC; "unknown"; "other" beyond the bound
    Column("outcome", String(32), primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("last_at", DateTime, nullable=False),
)

alarms: Final = Table(
    "alarm",
    metadata,
    Column("kind", String(32), primary_key=True),
    Column("pcid_id", Integer, ForeignKey("pcid.id"), primary_key=True),
    Column("m2me_id", String(255), primary_key=True),  # the device that should not have it
    Column("count", BigInteger, nullable=False),
    Column("last_at", DateTime, nullable=False),
)

trail: Final = trail_table(metadata)
