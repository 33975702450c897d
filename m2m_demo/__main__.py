"""`python -m m2m_demo` is the console script `m2m-demo`."""

from actor_runtime.start import importing

with importing():
    from m2m_demo.cli import main

if __name__ == "__main__":
    main()
