"""Command line of the demo."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from actor_runtime.cli import run
from m2m_demo.attacks import ATTACKS
from m2m_demo.cast import BACKENDS, Cast, suite_of
from m2m_demo.errors import DemoFailed, Interrupted
from m2m_demo.hardware import check
from m2m_demo.play import Play, Show
from m2m_demo.processes import Supervisor, interruptible
from m2m_demo.report import ATTACHED, Report
from m2m_demo.scenarios import FIRST, SCENARIOS
from m2m_demo.stage import M2ME_ID, Stage
from m2m_demo.story import Story, story_console
from m2m_demo.world import World, environment

KEEP_POLL_S: Final = 0.2  # seconds between looks at the servers that --keep leaves running

app = typer.Typer(add_completion=False)


@app.command()
def demo(
    scenario: Annotated[str, typer.Option(help="Which scenario to play; --list names them.")] = "",
    attack: Annotated[str, typer.Option(help="Try an attack instead, and see which check refuses it.")] = "",
    list_plays: Annotated[bool, typer.Option("--list", help="List scenarios and attacks, and end.")] = False,
    tre: Annotated[
        str | None, typer.Option(help="Where the TRE's keys live: software, pkcs11, tpm; default: the scenario's.")
    ] = None,
    suite: Annotated[str | None, typer.Option(help="The one suite the home operator allows: label or 1 to 5.")] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the SyncML messages, secrets blanked.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON report instead of the story.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the servers running until Ctrl-C.")] = False,
    wbxml: Annotated[bool, typer.Option("--wbxml", help="Device and DPF speak WBXML instead of XML.")] = False,
    workdir: Annotated[
        Path | None, typer.Option(help="Directory for keys, databases and logs; it stays. Default: a temporary one.")
    ] = None,
) -> None:
    """Provision one M2M device end to end: PVA, SHO, DPF and M2ME as processes on loopback, over TLS.

    Exit status 0 only after the scenario came to its end (both the device and the home operator saw the attach), or
    the attack was refused by the check that is there for it; otherwise 1.
    """
    console = story_console(quiet=as_json)
    if list_plays:
        _list(as_json=as_json)
        return
    report = Report(device_id=M2ME_ID)
    run = _Run(console, report, verbose=verbose)
    try:
        play = _chosen(scenario, attack)
        cast = _cast(play.cast, tre=tre, suite=suite, wbxml=wbxml)
        report.play, report.encoding, report.tre = play.name, cast.encoding, cast.tre
        report.suite = cast.suite.label if cast.suite is not None else None
        with interruptible(), _directory(workdir, report) as directory:
            run.perform(play, cast, directory, keep=keep, as_json=as_json)
    except DemoFailed as exc:
        report.reason = str(exc)
    except Interrupted as exc:
        report.reason = f"interrupted by {exc}"
    except OSError as exc:  # a full disk, no more processes: nothing that a traceback explains better
        report.reason = f"{exc.filename}: {exc.strerror}" if exc.filename else str(exc.strerror or exc)
    sys.exit(run.end(as_json=as_json))


def _list(*, as_json: bool) -> None:
    rows = [
        {"kind": "attack" if play.threat else "scenario", "name": play.name, "threat": play.threat, "title": play.title}
        for play in (*SCENARIOS, *ATTACKS)
    ]
    if as_json:
        print(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    for kind, plays in (("--scenario", SCENARIOS), ("--attack", ATTACKS)):
        print(kind)
        for play in plays:
            print(f"  {play.name:<24} {play.threat:<4}{play.title}")


def _chosen(scenario: str, attack: str) -> Play:
    if scenario and attack:
        raise DemoFailed("a scenario or an attack, not both")
    plays, name = (ATTACKS, attack) if attack else (SCENARIOS, scenario or FIRST.name)
    found = next((play for play in plays if play.name == name), None)
    if found is None:
        raise DemoFailed(f"{name} is unknown; --list names what there is")
    return found


def _cast(cast: Cast, *, tre: str | None, suite: str | None, wbxml: bool) -> Cast:
    """The cast of a play with what the command line says on top."""
    if tre is not None:
        backend = next((each for each in BACKENDS if each == tre), None)
        if backend is None:
            raise DemoFailed(f"no TRE {tre}; there are {', '.join(BACKENDS)}")
        cast = replace(cast, tre=backend)
    if suite is not None:
        cast = replace(cast, suite=suite_of(suite))
    check(cast)
    return replace(cast, encoding="wbxml") if wbxml else cast


class _Run:
    """One run of the demo and what is told of it."""

    def __init__(self, console: Console, report: Report, *, verbose: bool) -> None:
        self.report = report
        self._console = console
        self._story = Story(console, verbose=verbose)
        self._began = time.monotonic()
        self._reported = False

    def perform(self, play: Play, cast: Cast, directory: Path, *, keep: bool, as_json: bool) -> None:
        """Perform a play in an empty directory.

        Raises:
            DemoFailed, Interrupted.
        """
        world = World(directory)
        show = Show(story=self._story, report=self.report, part=self._part)
        with Supervisor(world.logs, environment=environment()) as supervisor:
            stage = Stage(world, supervisor, cast)
            self.report.outcome = play.run(stage, show)
            if keep:
                self._conclude(as_json=as_json)
                self._keep(stage)

    def end(self, *, as_json: bool) -> int:
        """Tell the outcome, unless it was told, and return the exit status."""
        self._conclude(as_json=as_json)
        return int(self.report.to_json()["exit"]["status"])

    def _conclude(self, *, as_json: bool) -> None:
        if self._reported:
            return
        self._reported = True
        self.report.durations_s["total"] = time.monotonic() - self._began
        document = self.report.to_json()
        if as_json:
            print(json.dumps(document, ensure_ascii=False, indent=2), flush=True)
            return
        passed = sum(check["passed"] for check in document["checks"])
        self._console.print()
        if document["exit"]["status"] == 0:
            self._story.say(self._good_news(), style="bold green")
            self._story.say(
                f"{len(document['messages'])} messages, {passed} of {len(document['checks'])} checks passed, "
                f"{self.report.durations_s['total']:.1f} s."
            )
        else:
            self._story.say(f"Failed: {document['exit']['reason']}", style="bold red")
            if self.report.workdir:
                self._story.say(f"Logs, traces and databases are in {self.report.workdir}")

    def _good_news(self) -> str:
        if self.report.outcome == ATTACHED:
            return f"Attached: {self.report.device_id} has MCIM {self.report.mcim_id}."
        return f"{self.report.play}: {self.report.outcome}."

    def _keep(self, stage: Stage) -> None:
        self._console.print()
        self._story.say("The servers go on until Ctrl-C:", style="bold")
        for name, address in stage.addresses().items():
            if not name.startswith("m2me"):
                self._story.say(f"  {name:<12} {address}")
        self._story.say(f"  trust anchors {stage.world.anchors('tls')}")
        for actor in ("dpf", "sho", "pva", "m2me"):
            self._story.say("  " + " ".join(["python", *stage.world.command(actor, "--help")[1:]]))
        servers = [process for process in stage.supervisor.processes() if process.name != "m2me"]
        try:
            while all(process.exit_code() is None for process in servers):
                time.sleep(KEEP_POLL_S)
        except Interrupted:
            return
        raise DemoFailed("a server ended by itself")

    @contextmanager
    def _part(self, name: str, title: str) -> Iterator[None]:
        """Measure a part; on a terminal, show that something happens."""
        began = time.monotonic()
        with ExitStack() as stack:
            if self._console.is_terminal:
                stack.enter_context(self._console.status(f"{title} …"))
            else:
                self._story.say(f"{title} …", style="dim")
            yield
        self.report.durations_s[name] = time.monotonic() - began


@contextmanager
def _directory(workdir: Path | None, report: Report) -> Iterator[Path]:
    """The directory to work in: the one asked for, which stays, or a temporary one, which stays after a failure."""
    if workdir is not None:
        try:
            workdir.mkdir(parents=True, exist_ok=True, mode=0o700)
            if any(workdir.iterdir()):
                raise DemoFailed(f"{workdir} is not empty")
        except OSError as exc:
            raise DemoFailed(f"{workdir}: {exc.strerror}") from exc
        report.workdir = str(workdir.resolve())
        yield workdir.resolve()
        return
    temporary = Path(tempfile.mkdtemp(prefix="m2m-demo-"))
    report.workdir = str(temporary)
    try:
        yield temporary
    except DemoFailed:
        raise
    except BaseException:
        _remove(temporary, report)
        raise
    _remove(temporary, report)


def _remove(directory: Path, report: Report) -> None:
    """Nothing is left, and nobody is told to look there."""
    shutil.rmtree(directory, ignore_errors=True)
    report.workdir = ""


def main() -> None:
    """Console script."""
    run(app)
