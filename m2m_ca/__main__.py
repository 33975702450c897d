"""`python -m m2m_ca` is `m2m-ca`."""

from actor_runtime.start import importing

with importing():
    from m2m_ca.cli import main

if __name__ == "__main__":
    main()
