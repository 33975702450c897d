"""Takes one check at a time out of a copy of the project and sees that a named test fails without it.

`python -m tests.attacks.mutations` (or `make mutations`) runs all of `MUTATIONS`; `--threat T3` picks some. A mutation
that survives means that a check has no test, and is a failure.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.attacks import (
    access_mutations,
    delivery_mutations,
    device_mutations,
    package_mutations,
    validation_mutations,
)

ROOT: Final = Path(__file__).parents[2]
LEFT_OUT: Final = shutil.ignore_patterns(
    ".git", ".venv*", "__pycache__", "*.egg-info", ".*_cache", ".hypothesis", "build"
)
TEST_TIMEOUT_S: Final = 300


@dataclass(frozen=True, slots=True)
class Mutation:
    """One check taken out, and the tests of which at least one must then fail."""

    threat: str
    file: str
    check: str  # text that stands once in the file
    without: str  # what stands there when the check is gone
    tests: tuple[str, ...]


MUTATIONS: Final = tuple(
    Mutation(*row)
    for row in (
        *access_mutations.ROWS,
        *delivery_mutations.ROWS,
        *device_mutations.ROWS,
        *package_mutations.ROWS,
        *validation_mutations.ROWS,
    )
)


def survives(mutation: Mutation) -> str:
    """Run the tests of a mutation in a copy of the project; empty when one of them failed as it should."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as directory:
        copy = Path(directory) / "project"
        shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
        path = copy / mutation.file
        text = path.read_text(encoding="utf-8")
        if text.count(mutation.check) != 1:
            return f"{mutation.file} has the check {text.count(mutation.check)} times"
        path.write_text(text.replace(mutation.check, mutation.without), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutation.tests],
            cwd=copy,
            capture_output=True,
            text=True,
            timeout=TEST_TIMEOUT_S,
            check=False,
        )
        if done.returncode == 1:
            return ""
        return (
            f"status {done.returncode}: {done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr}"
        )


def main() -> int:
    """Run them; the number of survivors is the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threat", action="append", help="only mutations of this threat; repeatable")
    parser.add_argument("--jobs", type=int, default=2, help="copies at a time")
    arguments = parser.parse_args()
    chosen = [each for each in MUTATIONS if not arguments.threat or each.threat in arguments.threat]
    began, survivors = time.monotonic(), 0
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for mutation, why in zip(chosen, pool.map(survives, chosen), strict=True):
            survivors += bool(why)
            verdict = f"SURVIVED ({why})" if why else "killed"
            print(f"{mutation.threat:<4} {mutation.file}: {mutation.check.strip()[:70]} … {verdict}", flush=True)
    print(f"{len(chosen)} checks taken out, {survivors} not missed, {time.monotonic() - began:.0f} s")
    return min(survivors, 99)


if __name__ == "__main__":
    sys.exit(main())
