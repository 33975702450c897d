"""Challenges, reference values, decisions, audit trail."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from actor_runtime.trail_store import trail_columns

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        "challenge",
        sa.Column("challenge", sa.LargeBinary(64), nullable=False),
        sa.Column("req_id", sa.String(36), nullable=False),
        sa.Column("tre_id", sa.String(255), nullable=False),
        sa.Column("mode", sa.String(32), nullable=False),
        sa.Column("client", sa.String(255), nullable=False),
        sa.Column("expires_at", sa.DateTime, nullable=False),
        sa.Column("used_by", sa.LargeBinary(32), nullable=True),
        sa.PrimaryKeyConstraint("challenge", name="pk_challenge"),
    )
    op.create_index("ix_challenge_expires_at", "challenge", ["expires_at"])
    op.create_table(
        "reference_value",
        sa.Column("tre_type", sa.String(64), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("added_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("tre_type", "version", name="pk_reference_value"),
    )
    op.create_table(
        "decision",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("request_digest", sa.LargeBinary(32), nullable=False),
        sa.Column("req_id", sa.String(36), nullable=False),
        sa.Column("m2me_id", sa.String(255), nullable=False),
        sa.Column("tre_id", sa.String(255), nullable=False),
        sa.Column("mode", sa.String(32), nullable=False),
        sa.Column("client", sa.String(255), nullable=False),
        sa.Column("trusted", sa.Boolean, nullable=False),
        sa.Column("reason", sa.String(255), nullable=False),
        sa.Column("ticket", sa.Text, nullable=True),
        sa.Column("decided_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_decision"),
        sa.UniqueConstraint("request_digest", name="uq_decision_request_digest"),
    )
    op.create_index("ix_decision_req_id", "decision", ["req_id"])
    op.create_table("trail", *trail_columns())
