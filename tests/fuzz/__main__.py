"""Coverage-guided fuzzing of everything that reads octets from outside: `python -m tests.fuzz [TARGET…] --seconds N`.

Each target runs in a process of its own, as many at a time as there are processors, with bounds on time and memory for
one input: going over them is a finding, like an exception that is none of the decoder's own. The corpus of a target is
kept in `tests/fuzz/corpus/TARGET`: after a run it is the smallest set that reaches all the code that was reached, and
what a person put there under a name. The ordinary test suite replays it. A finding goes to `tests/fuzz/findings/`, the
input beside the log.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
CORPUS: Final = HERE / "corpus"
FINDINGS: Final = HERE / "findings"
INPUT_SECONDS: Final = 5  # for one input; decoders need milliseconds
MEMORY_MB: Final = 1024  # of the whole process, the instrumented interpreter included
INPUT_OCTETS: Final = 8192
_CHILD: Final = "--child"  # what follows is for libFuzzer
_SELF: Final = "M2M_FUZZ_SELF"  # what libFuzzer starts in order to start itself
_INSTRUMENTED: Final = ["syncml", "mo_definitions", "mcim"]


def main() -> int:
    """Run the targets; the exit status is the number of those with a finding."""
    if sys.argv[1:2] == [_CHILD]:
        return _fuzz(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help="names; without any: all of them")
    parser.add_argument("--seconds", type=int, default=600, help="for each target (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at a time")
    arguments = parser.parse_args()
    from tests.fuzz.targets import TARGETS

    unknown = set(arguments.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    return _run_all(arguments.targets or list(TARGETS), arguments.seconds, arguments.jobs)


def _run_all(names: list[str], seconds: int, jobs: int) -> int:
    waiting, running, failed = list(names), {}, []
    FINDINGS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        while waiting or running:
            while waiting and len(running) < jobs:
                name = waiting.pop(0)
                running[name] = _start(name, seconds, Path(scratch))
                print(f"{name}: {seconds} s", flush=True)
            time.sleep(0.2)
            for name, process in list(running.items()):
                if (status := process.poll()) is not None:
                    del running[name]
                    print(f"{name}: {_outcome(name, status, Path(scratch))}", flush=True)
                    if status:
                        failed.append(name)
    print(f"{len(names) - len(failed)} of {len(names)} targets without a finding")
    return len(failed)


def _start(name: str, seconds: int, scratch: Path) -> subprocess.Popen[bytes]:
    from tests.fuzz.targets import SEEDS, WORDS

    fresh, seeds, kept = scratch / name, scratch / f"{name}.seeds", CORPUS / name
    for directory in (fresh, seeds, kept):
        directory.mkdir(parents=True, exist_ok=True)
    for seed in SEEDS[name]:
        (seeds / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    command = [
        sys.executable, "-m", "tests.fuzz", _CHILD, name,
        f"-max_total_time={seconds}", f"-timeout={INPUT_SECONDS}", f"-rss_limit_mb={MEMORY_MB}",
        *_dictionary(scratch / f"{name}.words", WORDS.get(name, ())),
        f"-max_len={INPUT_OCTETS}", f"-artifact_prefix={FINDINGS}/{name}-", "-print_final_stats=1",
        str(fresh), str(seeds), str(kept),
    ]  # fmt: skip
    with (scratch / f"{name}.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=HERE.parents[1])


def _dictionary(path: Path, words: tuple[str, ...]) -> list[str]:
    """The flag for libFuzzer, and the file it names; nothing without words."""
    if not words:
        return []
    escaped = (word.replace("\\", "\\\\").replace('"', '\\"') for word in words)
    path.write_text("".join(f'"{word}"\n' for word in escaped))
    return [f"-dict={path}"]


def _outcome(name: str, status: int, scratch: Path) -> str:
    log = (scratch / f"{name}.log").read_text(errors="replace")
    runs = next((line.split()[-1] for line in log.splitlines() if "number_of_executed_units" in line), "?")
    if status:
        (FINDINGS / f"{name}.log").write_text(log)
        return f"FINDING, see {FINDINGS / name}.log"
    return f"no finding in {runs} inputs, {_keep(name, scratch)} are in its corpus"


def _keep(name: str, scratch: Path) -> int:
    """Make the corpus anew from the old one and what the run found; how many inputs it has now.

    For the merge libFuzzer starts itself again by the first word of its command line, hence the script.
    """
    kept, smallest, itself = CORPUS / name, scratch / f"{name}.smallest", scratch / f"{name}.sh"
    smallest.mkdir()
    itself.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.fuzz {_CHILD} {name} "$@"\n')
    itself.chmod(0o700)
    inputs = [str(directory) for directory in (smallest, kept, scratch / name, scratch / f"{name}.seeds")]
    merge = [
        sys.executable,
        "-m",
        "tests.fuzz",
        _CHILD,
        name,
        "-set_cover_merge=1",
        f"-max_len={INPUT_OCTETS}",
        *inputs,
    ]
    subprocess.run(merge, check=True, capture_output=True, cwd=HERE.parents[1], env=os.environ | {_SELF: str(itself)})
    for path in kept.iterdir():
        if re.fullmatch("[0-9a-f]{40}", path.name):
            path.unlink()
    for path in smallest.iterdir():
        shutil.copy(path, kept)
    return len(list(kept.iterdir()))


def _fuzz(name: str, flags: list[str]) -> int:
    """The child: libFuzzer over one target. Does not return to its caller."""
    import atheris

    with atheris.instrument_imports(include=_INSTRUMENTED):
        from tests.fuzz.targets import TARGETS
    atheris.Setup([os.environ.get(_SELF, f"fuzz-{name}"), *flags], TARGETS[name])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
