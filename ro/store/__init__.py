"""The RO's database."""
