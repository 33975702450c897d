"""`python -m ro` is the console script `ro`."""

from actor_runtime.start import importing

with importing():
    from ro.cli import main

if __name__ == "__main__":
    main()
