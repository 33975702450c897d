"""First schema: devices, accounts, orders and what belongs to them, and the audit trail."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "devices",
        sa.Column("device_id", sa.String(length=255), nullable=False),
        sa.Column("bootstrap_secret", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("device_id"),
    )
    op.create_table(
        "trail",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("ts", sa.DateTime(), nullable=False),
        sa.Column("actor", sa.String(length=16), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("step", sa.String(length=8), nullable=False),
        sa.Column("order_id", sa.String(length=64), nullable=True),
        sa.Column("fields", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_trail_order_id"), "trail", ["order_id"], unique=False)
    op.create_table(
        "accounts",
        sa.Column("device_id", sa.String(length=255), nullable=False),
        sa.Column("profile", sa.Integer(), nullable=False),
        sa.Column("client_name", sa.String(length=64), nullable=False),
        sa.Column("client_secret", sa.LargeBinary(), nullable=False),
        sa.Column("client_nonce", sa.LargeBinary(), nullable=False),
        sa.Column("server_name", sa.String(length=255), nullable=False),
        sa.Column("server_secret", sa.LargeBinary(), nullable=False),
        sa.Column("server_nonce", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"],
            ["devices.device_id"],
        ),
        sa.PrimaryKeyConstraint("device_id"),
    )
    op.create_table(
        "bootstraps",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("device_id", sa.String(length=255), nullable=False),
        sa.Column("sent_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"],
            ["devices.device_id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_bootstraps_device_sent", "bootstraps", ["device_id", "sent_at"], unique=False)
    op.create_table(
        "orders",
        sa.Column("order_id", sa.String(length=36), nullable=False),
        sa.Column("device_id", sa.String(length=255), nullable=False),
        sa.Column("sho_id", sa.String(length=255), nullable=False),
        sa.Column("purpose", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("updated_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=False),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("req_id", sa.String(length=64), nullable=True),
        sa.Column("nonce", sa.LargeBinary(), nullable=True),
        sa.Column("tre_id", sa.String(length=255), nullable=True),
        sa.Column("attest_cert", sa.LargeBinary(), nullable=True),
        sa.Column("cert_chain", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("challenge", sa.LargeBinary(), nullable=True),
        sa.Column("challenge_exp", sa.DateTime(), nullable=True),
        sa.Column("ticket", sa.Text(), nullable=True),
        sa.Column("ticket_exp", sa.DateTime(), nullable=True),
        sa.Column("mcim_id", sa.String(length=36), nullable=True),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("package_hash", sa.String(length=64), nullable=True),
        sa.Column("pushes", sa.Integer(), nullable=False),
        sa.Column("receipt", sa.LargeBinary(), nullable=True),
        sa.Column("result", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["device_id"],
            ["devices.device_id"],
        ),
        sa.PrimaryKeyConstraint("order_id"),
        sa.UniqueConstraint("sho_id", "idempotency_key", name="uq_orders_idempotency"),
    )
    op.create_index("ix_orders_device_state", "orders", ["device_id", "state"], unique=False)
    op.create_table(
        "packages",
        sa.Column("order_id", sa.String(length=36), nullable=False),
        sa.Column("package", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["order_id"],
            ["orders.order_id"],
        ),
        sa.PrimaryKeyConstraint("order_id"),
    )
    op.create_table(
        "requests",
        sa.Column("order_id", sa.String(length=36), nullable=False),
        sa.Column("req_id", sa.String(length=64), nullable=False),
        sa.Column("opened_at", sa.DateTime(), nullable=False),
        sa.Column("closed", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["order_id"],
            ["orders.order_id"],
        ),
        sa.PrimaryKeyConstraint("order_id", "req_id"),
    )
    op.create_table(
        "snapshots",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("order_id", sa.String(length=36), nullable=False),
        sa.Column("taken_at", sa.DateTime(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["order_id"],
            ["orders.order_id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_snapshots_order_id"), "snapshots", ["order_id"], unique=False)
    if op.get_bind().dialect.name == "sqlite":
        # The trail is append-only (REQ-71), for whoever opens the database by hand as well.
        for action in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER trail_no_{action.lower()} BEFORE {action} ON trail "
                "BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END"
            )


def downgrade() -> None:
    op.drop_table("snapshots")
    op.drop_table("requests")
    op.drop_table("packages")
    op.drop_table("orders")
    op.drop_table("bootstraps")
    op.drop_table("accounts")
    op.drop_table("trail")
    op.drop_table("devices")
