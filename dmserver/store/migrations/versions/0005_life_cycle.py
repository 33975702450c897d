"""Operations of orders, late packages, call-backs and push addresses."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_ORDERS: tuple[sa.Column[Any], ...] = (
    sa.Column("operation", sa.String(length=16), nullable=False, server_default="install"),
    sa.Column("brought_by", sa.String(length=36), nullable=True),
    sa.Column("packaging", sa.String(length=16), nullable=False, server_default="xml"),
    sa.Column("token_ref", sa.String(length=64), nullable=True),
    sa.Column("node", sa.String(length=255), nullable=True),
    sa.Column("left_state", sa.Integer(), nullable=True),
    sa.Column("attach", sa.Integer(), nullable=True),
    sa.Column("report_owed", sa.Boolean(), nullable=False, server_default=sa.false()),
    sa.Column("job", sa.String(length=64), nullable=True),
    sa.Column("job_at", sa.DateTime(), nullable=True),
    sa.Column("calls", sa.Integer(), nullable=False, server_default="0"),
    sa.Column("call_at", sa.DateTime(), nullable=True),
)


def upgrade() -> None:
    op.add_column("devices", sa.Column("push", sa.String(length=255), nullable=True))
    for column in _ORDERS:
        op.add_column("orders", column)
    op.create_table(
        "notifications",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("device_id", sa.String(length=255), nullable=False),
        sa.Column("sent_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["devices.device_id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_notifications_device_sent", "notifications", ["device_id", "sent_at"], unique=False)


def downgrade() -> None:
    op.drop_table("notifications")
    for column in reversed(_ORDERS):
        op.drop_column("orders", column.name)
    op.drop_column("devices", "push")
