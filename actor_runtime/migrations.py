"""What every actor's Alembic `env.py` does: migrate on the connection that `Store.upgrade` hands over."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, MetaData


def run(metadata: MetaData) -> None:
    """Run the migrations asked for. Call it from `env.py` and nowhere else."""
    connection: Connection = context.config.attributes["connection"]
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=True,  # SQLite cannot alter most things in place
    )
    with context.begin_transaction():
        context.run_migrations()
