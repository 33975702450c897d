"""Tables of the PVA. Times are UTC without zone."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
)

from actor_runtime.store import NAMES
from actor_runtime.trail_store import trail_table

metadata: Final = MetaData(naming_convention=NAMES)

challenges: Final = Table(
    "challenge",
    metadata,
    Column("challenge", LargeBinary(64), primary_key=True),
    Column("req_id", String(36), nullable=False),
    Column("tre_id", String(255), nullable=False),
    Column("mode", String(32), nullable=False),
    Column("client", String(255), nullable=False),  # DNS name of the DPF that asked
    Column("expires_at", DateTime, nullable=False, index=True),
    Column("used_by", LargeBinary(32), nullable=True),  # SHA-256 of the one request that may use it
)

reference_values: Final = Table(
    "reference_value",
    metadata,
    Column("tre_type", String(64), primary_key=True),
    Column("version", String(64), primary_key=True),
    Column("added_at", DateTime, nullable=False),
    Column("minimum_mode", String(32), nullable=False, server_default="semi-autonomous"),
    Column("requires_quote", Boolean, nullable=False, server_default=false()),
)

reference_measurements: Final = Table(
    "reference_measurement",
    metadata,
    Column("tre_type", String(64), primary_key=True),
    Column("version", String(64), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("digest", LargeBinary(32), nullable=False),  # SHA-256
    Column("required", Boolean, nullable=False),
)

decisions: Final = Table(
    "decision",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("request_digest", LargeBinary(32), nullable=False, unique=True),
    Column("req_id", String(36), nullable=False, index=True),
    Column("m2me_id", String(255), nullable=False),
    Column("tre_id", String(255), nullable=False),
    Column("mode", String(32), nullable=False),
    Column("client", String(255), nullable=False),
    Column("trusted", Boolean, nullable=False),
    Column("reason", String(255), nullable=False),  # of a refusal; empty when trusted
    Column("ticket", Text, nullable=True),
    Column("decided_at", DateTime, nullable=False),
    Column("detail", Text, nullable=False, server_default=""),  # all that the failed check found
)

evidence_counters: Final = Table(
    "evidence_counter",
    metadata,
    Column("tre_id", String(255), primary_key=True),
    Column("counter", LargeBinary(8), nullable=False),  # of the newest evidence that earned a ticket; big-endian
    Column("attest_key_id", LargeBinary(16), nullable=False),  # of the key that signed it
    Column("accepted_at", DateTime, nullable=False),
)

trail: Final = trail_table(metadata)
