"""Management objects as DDF 1.2 files, a loader that validates them, and the check of a live tree against them."""
