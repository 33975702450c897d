"""Authentication types and nonce chains of accounts, peer profiles, devices that are managed without an order."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_DEVICES: tuple[sa.Column[Any], ...] = (
    sa.Column("managed", sa.Boolean(), nullable=False, server_default=sa.false()),
    sa.Column("peer_profile", sa.String(length=32), nullable=False, server_default="default"),
)
_ACCOUNTS: tuple[sa.Column[Any], ...] = (
    sa.Column("client_auth", sa.String(length=32), nullable=False, server_default="syncml:auth-md5"),
    sa.Column("per_message", sa.Boolean(), nullable=False, server_default=sa.false()),
    sa.Column("client_nonce_before", sa.LargeBinary(), nullable=False, server_default=""),
    sa.Column("server_auth", sa.String(length=32), nullable=False, server_default="syncml:auth-md5"),
    sa.Column("notified", sa.Integer(), nullable=False, server_default="0"),
    sa.Column("resync", sa.Boolean(), nullable=False, server_default=sa.false()),
)


def upgrade() -> None:
    for column in _DEVICES:
        op.add_column("devices", column)
    for column in _ACCOUNTS:
        op.add_column("accounts", column)


def downgrade() -> None:
    for column in reversed(_ACCOUNTS):
        op.drop_column("accounts", column.name)
    for column in reversed(_DEVICES):
        op.drop_column("devices", column.name)
