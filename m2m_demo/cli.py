"""Command line of the demo."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from m2m_demo.errors import DemoFailed, Interrupted
from m2m_demo.processes import Supervisor, interruptible
from m2m_demo.report import Report
from m2m_demo.stage import M2ME_ID, Stage
from m2m_demo.story import Story, story_console
from m2m_demo.trace import Record
from m2m_demo.world import World, environment

KEEP_POLL_S: Final = 0.2  # seconds between looks at the servers that --keep leaves running

app = typer.Typer(add_completion=False)


@app.command()
def demo(
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

    Exit status 0 only after both the device and the home operator saw the attach, otherwise 1.
    """
    console = story_console(quiet=as_json)
    play = _Play(console, Report(device_id=M2ME_ID, encoding="wbxml" if wbxml else "xml"), verbose=verbose)
    try:
        with interruptible(), _directory(workdir, play.report) as directory:
            play.run(directory, keep=keep, as_json=as_json)
    except DemoFailed as exc:
        play.report.reason = str(exc)
    except Interrupted as exc:
        play.report.reason = f"interrupted by {exc}"
    sys.exit(play.end(as_json=as_json))


class _Play:
    """One run of the demo and what is told of it."""

    def __init__(self, console: Console, report: Report, *, verbose: bool) -> None:
        self.report = report
        self._console = console
        self._story = Story(console, verbose=verbose)
        self._began = time.monotonic()
        self._reported = False

    def run(self, directory: Path, *, keep: bool, as_json: bool) -> None:
        """From an empty directory to an attached device.

        Raises:
            DemoFailed, Interrupted.
        """
        world = World(directory)
        with Supervisor(world.logs, environment=environment()) as supervisor:
            stage = Stage(world, supervisor, wbxml=self.report.encoding == "wbxml")
            with self._part("setUp", "Making keys, certificates, a device and a subscription"):
                stage.set_up()
            with self._part("start", "Starting PVA, SHO, DPF and M2ME"):
                stage.start_servers()
                device = stage.start_device()
                stage.open_order()
                stage.wait_ready(device)
            self.report.addresses = stage.addresses()
            self.report.processes = [{"name": each.name, "pid": each.pid} for each in supervisor.processes()]
            with self._part("provisioning", "Provisioning"):
                stage.bootstrap()
                stage.follow(self._tell, until=lambda: device.exit_code() is not None)
                code, reason = stage.device_result(device)
            if code != 0:
                raise DemoFailed(f"the device ended with status {code}: {reason}")
            self.report.mcim_id = next((each["mcimId"] for each in stage.device_info()["mcims"]), None)
            if not self.report.attached:
                raise DemoFailed(f"the attach was seen by {', '.join(sorted(self.report.seen_by())) or 'nobody'} alone")
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
            self._story.say(f"Attached: {self.report.device_id} has MCIM {self.report.mcim_id}.", style="bold green")
            self._story.say(
                f"{len(document['messages'])} messages, {passed} of {len(document['checks'])} checks passed, "
                f"{self.report.durations_s['total']:.1f} s."
            )
        else:
            self._story.say(f"Not attached: {document['exit']['reason']}", style="bold red")
            if self.report.workdir:
                self._story.say(f"Logs, traces and databases are in {self.report.workdir}")

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

    def _tell(self, records: list[Record]) -> None:
        self.report.add(records)
        for record in records:
            self._story.tell(record)

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
        shutil.rmtree(temporary)
        raise
    shutil.rmtree(temporary)


def main() -> None:
    """Console script."""
    app()
