"""`python -m dmclient` is the console script `dmclient`."""

from dmclient.cli import main

main()
