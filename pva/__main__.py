"""`python -m pva` is the console script `pva`."""

from pva.cli import main

main()
