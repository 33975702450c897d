"""Subscriptions, orders, hand-overs, counters of each TRE, audit trail."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from actor_runtime.trail_store import trail_columns

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        "subscription",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("imsi_index", sa.LargeBinary(32), nullable=False),
        sa.Column("imsi_sealed", sa.LargeBinary, nullable=False),
        sa.Column("k_sealed", sa.LargeBinary, nullable=False),
        sa.Column("opc_sealed", sa.LargeBinary, nullable=False),
        sa.Column("imsi_mask", sa.String(15), nullable=False),
        sa.Column("amf", sa.LargeBinary(2), nullable=False),
        sa.Column("sqn", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("m2me_id", sa.String(255), nullable=True),
        sa.Column("tre_id", sa.String(255), nullable=True),
        sa.Column("mcim_id", sa.String(36), nullable=True),
        sa.Column("available_from", sa.DateTime, nullable=True),
        sa.Column("attached_at", sa.DateTime, nullable=True),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_subscription"),
        sa.UniqueConstraint("imsi_index", name="uq_subscription_imsi_index"),
    )
    op.create_index("ix_subscription_state", "subscription", ["state"])
    op.create_index("ix_subscription_m2me_id", "subscription", ["m2me_id"])
    op.create_table(
        "sho_order",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("order_id", sa.String(64), nullable=True),
        sa.Column("m2me_id", sa.String(255), nullable=False),
        sa.Column("dpf_url", sa.String(255), nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sho_order"),
        sa.UniqueConstraint("order_id", name="uq_sho_order_order_id"),
    )
    op.create_index("ix_sho_order_m2me_id", "sho_order", ["m2me_id"])
    op.create_table(
        "handover",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("m2me_id", sa.String(255), nullable=False),
        sa.Column("req_id", sa.String(36), nullable=False),
        sa.Column("order_id", sa.String(64), nullable=False),
        sa.Column("dpf_id", sa.String(255), nullable=False),
        sa.Column("tre_id", sa.String(255), nullable=False),
        sa.Column("platform_key_id", sa.LargeBinary(16), nullable=False),
        sa.Column("attest_key_id", sa.LargeBinary(16), nullable=False),
        sa.Column("nonce", sa.LargeBinary(64), nullable=False),
        sa.Column("suite", sa.Integer, nullable=False),
        sa.Column("subscription_id", sa.Integer, nullable=False),
        sa.Column("mcim_id", sa.String(36), nullable=False),
        sa.Column("transaction_id", sa.String(36), nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("not_before", sa.DateTime, nullable=False),
        sa.Column("not_after", sa.DateTime, nullable=False),
        sa.Column("ticket_digest", sa.String(64), nullable=False),
        sa.Column("sqn_init", sa.BigInteger, nullable=False),
        sa.Column("package_sealed", sa.LargeBinary, nullable=True),
        sa.Column("package_hash", sa.LargeBinary(32), nullable=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("result", sa.Integer, nullable=True),
        sa.Column("receipt", sa.LargeBinary, nullable=True),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_handover"),
        sa.ForeignKeyConstraint(["subscription_id"], ["subscription.id"], name="fk_handover_subscription_id"),
        sa.UniqueConstraint("mcim_id", name="uq_handover_mcim_id"),
        sa.UniqueConstraint("m2me_id", "req_id", name="uq_handover_request"),
    )
    op.create_table(
        "tre",
        sa.Column("tre_id", sa.String(255), nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("receipt_counter", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tre_id", name="pk_tre"),
    )
    op.create_table("trail", *trail_columns())
