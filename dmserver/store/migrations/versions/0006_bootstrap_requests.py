"""Bootstraps that a registration operator asked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "bootstrap_requests",
        sa.Column("key_digest", sa.String(length=64), primary_key=True),
        sa.Column("device_id", sa.String(length=255), sa.ForeignKey("devices.device_id"), nullable=False),
        sa.Column("profile", sa.Integer(), nullable=False),
        sa.Column("push", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("bootstrap_requests")
