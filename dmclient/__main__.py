"""`python -m dmclient` is the console script `dmclient`."""

from actor_runtime.start import importing

with importing():
    from dmclient.cli import main

if __name__ == "__main__":
    main()
