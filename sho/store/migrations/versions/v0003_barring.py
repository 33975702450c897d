"""Subscriptions that the operator bars."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add a column; nothing is barred."""
    with op.batch_alter_table("subscription") as batch:
        batch.add_column(sa.Column("barred_at", sa.DateTime, nullable=True))
