"""Provisional identities, attaches, access tokens, registrations, routes, counters, alarms, audit trail."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from actor_runtime.trail_store import trail_columns

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        "pcid",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("imsi_index", sa.LargeBinary(32), nullable=False),
        sa.Column("imsi_sealed", sa.LargeBinary, nullable=False),
        sa.Column("keys_sealed", sa.LargeBinary, nullable=False),
        sa.Column("imsi_mask", sa.String(15), nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("sqn", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("not_after", sa.DateTime, nullable=False),
        sa.Column("supplier", sa.String(255), nullable=True),
        sa.Column("m2me_id", sa.String(255), nullable=True),
        sa.Column("attached_at", sa.DateTime, nullable=True),
        sa.Column("issued_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_pcid"),
        sa.UniqueConstraint("imsi_index", name="uq_pcid_imsi_index"),
    )
    op.create_table(
        "pcid_attach",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("pcid_id", sa.Integer, nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_pcid_attach"),
        sa.ForeignKeyConstraint(["pcid_id"], ["pcid.id"], name="fk_pcid_attach_pcid_id"),
    )
    op.create_index("ix_pcid_attach_pcid_at", "pcid_attach", ["pcid_id", "at"])
    op.create_table(
        "access_token",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("pcid_id", sa.Integer, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("m2me_id", sa.String(255), nullable=True),
        sa.Column("vno", sa.String(16), nullable=False),
        sa.Column("uses", sa.Integer, nullable=False),
        sa.Column("expires_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_access_token"),
        sa.ForeignKeyConstraint(["pcid_id"], ["pcid.id"], name="fk_access_token_pcid_id"),
    )
    op.create_index("ix_access_token_pcid_id", "access_token", ["pcid_id"])
    op.create_table(
        "registration",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("m2me_id", sa.String(255), nullable=False),
        sa.Column("tre_id", sa.String(255), nullable=False),
        sa.Column("pcid_id", sa.Integer, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("supplier", sa.String(255), nullable=True),
        sa.Column("wanted_sho", sa.String(255), nullable=True),
        sa.Column("sho_id", sa.String(255), nullable=True),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("push", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("detail", sa.String(255), nullable=False),
        sa.Column("order_id", sa.String(64), nullable=True),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("bootstraps", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("updated_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_registration"),
        sa.ForeignKeyConstraint(["pcid_id"], ["pcid.id"], name="fk_registration_pcid_id"),
    )
    op.create_index("ix_registration_m2me_id", "registration", ["m2me_id"])
    op.create_index("ix_registration_state", "registration", ["state"])
    op.create_table(
        "route",
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("value", sa.String(255), nullable=False),
        sa.Column("sho_id", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("kind", "value", name="pk_route"),
    )
    op.create_table(
        "visit",
        sa.Column("vno", sa.String(16), nullable=False),
        sa.Column("outcome", sa.String(32), nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("last_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("vno", "outcome", name="pk_visit"),
    )
    op.create_table(
        "alarm",
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("pcid_id", sa.Integer, nullable=False),
        sa.Column("m2me_id", sa.String(255), nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("last_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("kind", "pcid_id", "m2me_id", name="pk_alarm"),
        sa.ForeignKeyConstraint(["pcid_id"], ["pcid.id"], name="fk_alarm_pcid_id"),
    )
    op.create_table("trail", *trail_columns())
