"""Queue of operator commands, and what devices said of themselves last."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "operator_requests",
        sa.Column("request_id", sa.String(length=36), nullable=False),
        sa.Column("device_id", sa.String(length=255), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("grouping", sa.String(length=16), nullable=False),
        sa.Column("idempotent", sa.Boolean(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=False),
        sa.Column("code", sa.Integer(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.String(length=128), nullable=True),
        sa.ForeignKeyConstraint(["device_id"], ["devices.device_id"]),
        sa.PrimaryKeyConstraint("request_id"),
        sa.UniqueConstraint("device_id", "number", name="uq_operator_requests_number"),
        sa.UniqueConstraint("device_id", "idempotency_key", name="uq_operator_requests_idempotency"),
    )
    op.create_index("ix_operator_requests_state", "operator_requests", ["device_id", "state"], unique=False)
    op.create_table(
        "operator_commands",
        sa.Column("request_id", sa.String(length=36), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("code", sa.Integer(), nullable=True),
        sa.Column("outcome", sa.LargeBinary(), nullable=True),
        sa.Column("alert", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["request_id"], ["operator_requests.request_id"]),
        sa.PrimaryKeyConstraint("request_id", "position"),
    )
    op.create_table(
        "sightings",
        sa.Column("device_id", sa.String(length=255), nullable=False),
        sa.Column("seen_at", sa.DateTime(), nullable=False),
        sa.Column("dev_info", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["devices.device_id"]),
        sa.PrimaryKeyConstraint("device_id"),
    )


def downgrade() -> None:
    op.drop_table("sightings")
    op.drop_table("operator_commands")
    op.drop_table("operator_requests")
