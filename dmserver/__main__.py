"""`python -m dmserver` is the console script `dmserver`."""

from actor_runtime.start import importing

with importing():
    from dmserver.cli import main

if __name__ == "__main__":
    main()
