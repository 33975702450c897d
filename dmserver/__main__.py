"""`python -m dmserver` is the console script `dmserver`."""

from dmserver.cli import main

main()
