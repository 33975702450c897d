"""`python -m pva` is the console script `pva`."""

from actor_runtime.start import importing

with importing():
    from pva.cli import main

main()
