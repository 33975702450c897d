"""The DPF's database: tables, their migrations, and functions of a connection. No SQL anywhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Final

MIGRATIONS: Final = Path(__file__).parent / "migrations"
