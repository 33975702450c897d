"""`python -m pva` is the console script `pva`."""

from actor_runtime.start import importing

with importing():
    from pva.cli import main

if __name__ == "__main__":
    main()
