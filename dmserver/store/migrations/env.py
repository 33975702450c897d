"""Alembic environment of the DPF's database."""

from actor_runtime import migrations
from dmserver.store.tables import metadata

migrations.run(metadata)
