"""Alembic environment: runs in the process of the actor, on its connection."""

from actor_runtime.migrations import run
from ro.store.tables import metadata

run(metadata)
