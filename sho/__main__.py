"""`python -m sho` is the console script `sho`."""

from actor_runtime.start import importing

with importing():
    from sho.cli import main

if __name__ == "__main__":
    main()
