"""Operations on MCIMs, algorithms, device tokens, late packages, prepared objects."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add columns and tables. One MCIM has many hand-overs now: one for each operation."""
    with op.batch_alter_table("subscription") as batch:
        batch.add_column(sa.Column("algorithm", sa.String(16), nullable=False, server_default="milenage"))
        batch.add_column(sa.Column("constants_sealed", sa.LargeBinary, nullable=True))
        batch.add_column(sa.Column("policy", sa.Integer, nullable=True))
        batch.create_index("ix_subscription_mcim_id", ["mcim_id"])
    with op.batch_alter_table("sho_order") as batch:
        batch.add_column(sa.Column("operation", sa.String(16), nullable=False, server_default="install"))
        batch.add_column(sa.Column("mcim_id", sa.String(36), nullable=True))
        batch.add_column(sa.Column("replaces", sa.String(36), nullable=True))
        batch.add_column(sa.Column("release_token", sa.LargeBinary, nullable=True))
    with op.batch_alter_table("handover") as batch:
        batch.drop_constraint("uq_handover_mcim_id", type_="unique")
        batch.create_index("ix_handover_mcim_id", ["mcim_id"])
        batch.add_column(sa.Column("operation", sa.Integer, nullable=False, server_default="1"))
        batch.add_column(sa.Column("container", sa.String(16), nullable=False, server_default="xml"))
        batch.add_column(sa.Column("revision", sa.Integer, nullable=False, server_default="1"))
        batch.add_column(sa.Column("token_ref", sa.String(36), nullable=True))
        batch.add_column(sa.Column("update_id", sa.Integer, nullable=True))
        batch.add_column(sa.Column("prepared_id", sa.Integer, nullable=True))
    _subscription_update()
    _release_and_token()
    _job()
    _platforms()
    _preparation()


def _subscription_update() -> None:
    op.create_table(
        "subscription_update",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("subscription_id", sa.Integer, nullable=False),
        sa.Column("imsi_index", sa.LargeBinary(32), nullable=False),
        sa.Column("imsi_sealed", sa.LargeBinary, nullable=False),
        sa.Column("k_sealed", sa.LargeBinary, nullable=False),
        sa.Column("opc_sealed", sa.LargeBinary, nullable=False),
        sa.Column("constants_sealed", sa.LargeBinary, nullable=True),
        sa.Column("algorithm", sa.String(16), nullable=False),
        sa.Column("imsi_mask", sa.String(15), nullable=False),
        sa.Column("amf", sa.LargeBinary(2), nullable=False),
        sa.Column("policy", sa.Integer, nullable=True),
        sa.Column("changes", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_subscription_update"),
        sa.ForeignKeyConstraint(
            ["subscription_id"], ["subscription.id"], name="fk_subscription_update_subscription_id"
        ),
    )
    op.create_index("ix_subscription_update_subscription_id", "subscription_update", ["subscription_id"])
    op.create_index("ix_subscription_update_imsi_index", "subscription_update", ["imsi_index"])


def _release_and_token() -> None:
    op.create_table(
        "release",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("mcim_id", sa.String(36), nullable=False),
        sa.Column("tre_id", sa.String(255), nullable=False),
        sa.Column("new_sho_id", sa.String(255), nullable=False),
        sa.Column("not_after", sa.DateTime, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_release"),
    )
    op.create_index("ix_release_mcim_id", "release", ["mcim_id"])
    op.create_table(
        "device_token",
        sa.Column("m2me_id", sa.String(255), nullable=False),
        sa.Column("token_ref", sa.String(36), nullable=False),
        sa.Column("token_sealed", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("m2me_id", name="pk_device_token"),
        sa.UniqueConstraint("token_ref", name="uq_device_token_token_ref"),
    )


def _job() -> None:
    op.create_table(
        "job",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("handover_id", sa.Integer, nullable=False),
        sa.Column("dpf_id", sa.String(255), nullable=False),
        sa.Column("certificates", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("code", sa.String(64), nullable=True),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_at", sa.DateTime, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_job"),
        sa.ForeignKeyConstraint(["handover_id"], ["handover.id"], name="fk_job_handover_id"),
        sa.UniqueConstraint("handover_id", name="uq_job_handover_id"),
    )
    op.create_index("ix_job_state", "job", ["state"])


def _platforms() -> None:
    op.create_table(
        "platform",
        sa.Column("key_id", sa.LargeBinary(16), nullable=False),
        sa.Column("tre_id", sa.String(255), nullable=False),
        sa.Column("m2me_id", sa.String(255), nullable=False),
        sa.Column("certificates", sa.Text, nullable=False),
        sa.Column("suites", sa.String(255), nullable=False),
        sa.Column("containers", sa.String(255), nullable=False),
        sa.Column("algorithms", sa.String(255), nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="pk_platform"),
    )
    op.create_index("ix_platform_tre_id", "platform", ["tre_id"])
    op.create_table(
        "revocation",
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("subject", name="pk_revocation"),
    )


def _preparation() -> None:
    op.create_table(
        "prepared_object",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("job_id", sa.String(36), nullable=False),
        sa.Column("platform_key_id", sa.LargeBinary(16), nullable=False),
        sa.Column("tre_id", sa.String(255), nullable=False),
        sa.Column("m2me_id", sa.String(255), nullable=False),
        sa.Column("subscription_id", sa.Integer, nullable=False),
        sa.Column("mcim_id", sa.String(36), nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("suite", sa.Integer, nullable=False),
        sa.Column("not_before", sa.DateTime, nullable=False),
        sa.Column("not_after", sa.DateTime, nullable=False),
        sa.Column("sqn_init", sa.BigInteger, nullable=False),
        sa.Column("token_ref", sa.String(36), nullable=True),
        sa.Column("object", sa.LargeBinary, nullable=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_prepared_object"),
        sa.ForeignKeyConstraint(["subscription_id"], ["subscription.id"], name="fk_prepared_object_subscription_id"),
        sa.UniqueConstraint("mcim_id", name="uq_prepared_object_mcim_id"),
    )
    op.create_index("ix_prepared_object_platform_key_id", "prepared_object", ["platform_key_id"])
    op.create_index("ix_prepared_object_tre_id", "prepared_object", ["tre_id"])
    op.create_table(
        "prepare_job",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_prepare_job"),
    )
    op.create_table(
        "prepare_item",
        sa.Column("job_id", sa.String(36), nullable=False),
        sa.Column("platform_key_id", sa.LargeBinary(16), nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(255), nullable=True),
        sa.PrimaryKeyConstraint("job_id", "platform_key_id", name="pk_prepare_item"),
        sa.ForeignKeyConstraint(["job_id"], ["prepare_job.id"], name="fk_prepare_item_job_id"),
    )
