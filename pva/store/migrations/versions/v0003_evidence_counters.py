"""The counter of the newest evidence of each TRE."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """A TRE that was validated before begins with its next evidence."""
    op.create_table(
        "evidence_counter",
        sa.Column("tre_id", sa.String(255), nullable=False),
        sa.Column("counter", sa.LargeBinary(8), nullable=False),
        sa.Column("attest_key_id", sa.LargeBinary(16), nullable=False),
        sa.Column("accepted_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("tre_id", name="pk_evidence_counter"),
    )
