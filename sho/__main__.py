"""`python -m sho` is the console script `sho`."""

from sho.cli import main

main()
