"""`python -m ro` is the console script `ro`."""

from ro.cli import main

main()
