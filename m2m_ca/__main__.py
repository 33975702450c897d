"""`python -m m2m_ca` is `m2m-ca`."""

from m2m_ca.cli import main

main()
