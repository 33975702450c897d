"""How a TRE type and version must be validated, its measurements, and all that was wrong with a refused platform."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Entries from before keep what was demanded then: signed evidence, no quote."""
    op.add_column(
        "reference_value",
        sa.Column("minimum_mode", sa.String(32), nullable=False, server_default="semi-autonomous"),
    )
    op.add_column("reference_value", sa.Column("requires_quote", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_table(
        "reference_measurement",
        sa.Column("tre_type", sa.String(64), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("required", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("tre_type", "version", "name", name="pk_reference_measurement"),
    )
    op.add_column("decision", sa.Column("detail", sa.Text, nullable=False, server_default=""))
