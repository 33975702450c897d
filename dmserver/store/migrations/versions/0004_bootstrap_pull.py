"""Bootstrap documents that devices fetch."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "bootstrap_pulls",
        sa.Column("token_digest", sa.String(length=64), primary_key=True),
        sa.Column("device_id", sa.String(length=255), sa.ForeignKey("devices.device_id"), nullable=False),
        sa.Column("content_type", sa.String(length=255), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("bootstrap_pulls")
