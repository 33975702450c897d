"""Tables of the SHO. What is named `sealed` is under the sealing key; times are UTC without zone."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

from actor_runtime.trail_store import trail_table

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

subscriptions: Final = Table(
    "subscription",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("imsi_index", LargeBinary(32), nullable=False, unique=True),  # HMAC-SHA-256 of the IMSI: for lookups
    Column("imsi_sealed", LargeBinary, nullable=False),
    Column("k_sealed", LargeBinary, nullable=False),
    Column("opc_sealed", LargeBinary, nullable=False),
    Column("imsi_mask", String(15), nullable=False),  # network code and last two digits
    Column("amf", LargeBinary(2), nullable=False),
    Column("sqn", BigInteger, nullable=False),  # SQN_HE, 48 bits: the last one used
    Column("state", String(16), nullable=False, index=True),  # free, allocated, armed
    Column("m2me_id", String(255), nullable=True, index=True),  # device that has it, or last failed to install it
    Column("tre_id", String(255), nullable=True),
    Column("mcim_id", String(36), nullable=True),
    Column("available_from", DateTime, nullable=True),  # not for another device before
    Column("attached_at", DateTime, nullable=True),  # last successful AKA
    Column("created_at", DateTime, nullable=False),
)

orders: Final = Table(
    "sho_order",
    metadata,
    Column("id", String(36), primary_key=True),  # ours, made before the DPF is asked
    Column("order_id", String(64), nullable=True, unique=True),  # the DPF's
    Column("m2me_id", String(255), nullable=False, index=True),
    Column("dpf_url", String(255), nullable=False),
    Column("reason", String(32), nullable=False),
    Column("state", String(16), nullable=False),  # requested, open, handed-over, fulfilled, failed, refused
    Column("created_at", DateTime, nullable=False),
)

handovers: Final = Table(
    "handover",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("m2me_id", String(255), nullable=False),
    Column("req_id", String(36), nullable=False),
    Column("order_id", String(64), nullable=False),
    Column("dpf_id", String(255), nullable=False),
    Column("tre_id", String(255), nullable=False),
    Column("platform_key_id", LargeBinary(16), nullable=False),
    Column("attest_key_id", LargeBinary(16), nullable=False),
    Column("nonce", LargeBinary(64), nullable=False),
    Column("suite", Integer, nullable=False),
    Column("subscription_id", Integer, ForeignKey("subscription.id"), nullable=False),
    Column("mcim_id", String(36), nullable=False, unique=True),
    Column("transaction_id", String(36), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("not_before", DateTime, nullable=False),
    Column("not_after", DateTime, nullable=False),
    Column("ticket_digest", String(64), nullable=False),
    Column("sqn_init", BigInteger, nullable=False),
    Column("package_sealed", LargeBinary, nullable=True),  # for identical retries
    Column("package_hash", LargeBinary(32), nullable=True),  # SHA-256
    Column("state", String(16), nullable=False),  # allocated, packaged, superseded, confirmed, failed
    Column("result", Integer, nullable=True),
    Column("receipt", LargeBinary, nullable=True),
    Column("created_at", DateTime, nullable=False),
    UniqueConstraint("m2me_id", "req_id", name="uq_handover_request"),
)

tres: Final = Table(
    "tre",
    metadata,
    Column("tre_id", String(255), primary_key=True),
    Column("sequence", BigInteger, nullable=False),  # of the last package made for it
    Column("receipt_counter", BigInteger, nullable=False),  # of the last receipt taken from it
)

trail: Final = trail_table(metadata)
