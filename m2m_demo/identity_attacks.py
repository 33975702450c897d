"""Attacks on what names a subscriber: a provisional identity in the wrong hands, and a device that is followed."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Final

from m2m_demo.course import attached, note_processes, set_up
from m2m_demo.errors import DemoFailed
from m2m_demo.known_subscription import IMSI, KnownSubscription
from m2m_demo.play import Play, Show
from m2m_demo.secret_search import forms_of_digits, search, search_files, search_memory
from m2m_demo.stage import M2ME_ID, Stage

THIEF: Final = "urn:uuid:00000000-0000-4000-8000-00000000bad0"


def _first_access(stage: Stage, show: Show, *, capture: Path | None = None) -> None:
    """From the factory to an operational attach, by a first attach with the PCID."""
    with show.part("start", "Starting PVA, SHO, DPF, RO and M2ME"):
        stage.start_servers()
        if capture is not None:
            stage.meddle("sho", "listen", capture=capture)
        device = stage.start_device()
    note_processes(stage, show)
    with show.part("provisioning", "First attach, registration and provisioning"):
        attached(stage, show, device)


def _pcid_file(stage: Stage) -> Path:
    return stage.world.home("m2me") / "pcid.json"


def _stolen_pcid(stage: Stage, show: Show) -> str:
    """Whoever has the file for the supplier has the PCID and its keys; the device was faster."""
    stage.registrar = True
    set_up(stage, show)
    copy = Path(shutil.copy(_pcid_file(stage), stage.world.root / "stolen.json"))
    _first_access(stage, show)
    with show.part("attack", "A thief attaches with the same PCID and its keys, and registers a device of his own"):
        result = stage.card("ro", "--pcid", str(copy), "--register-as", THIEF)
        show.rest(stage)
    if result != "registration-refused":
        raise DemoFailed(f"the thief was told: {result}")
    alarms = json.loads(stage.supervisor.command("alarms", stage.world.command("ro", "alarms", "--json")))
    if [(each["m2meId"], each["boundTo"]) for each in alarms] != [(THIEF, M2ME_ID)]:
        raise DemoFailed(f"the registration operator's alarms are {alarms}")
    orders = json.loads(stage.supervisor.command("orders", stage.world.json_command("dpf", "order", "list")))
    if [each["m2meId"] for each in orders] != [M2ME_ID]:
        raise DemoFailed("there is an order for the thief")
    return ""


def _followed_device(stage: Stage, show: Show) -> str:
    """The insider at the DPF writes down everything, to know the subscriber again when he sees him elsewhere."""
    stage.registrar = True
    known, capture = KnownSubscription(), stage.world.root / "capture.bin"
    set_up(stage, show, subscriptions=known.write(stage.world.root / "stock.csv"))
    pcid = str(json.loads(_pcid_file(stage).read_text(encoding="ascii"))["identities"][0]["pcid"])
    _first_access(stage, show, capture=capture)
    bootstrap = stage.world.root / "bootstrap.bin"
    stage.open_order("--operation", "suspend", "--mcim", str(show.report.mcim_id))
    stage.bootstrap(file=bootstrap)
    identities = {"PCID": pcid, "IMSI": IMSI}
    forms = {
        form: octets for name, digits in identities.items() for form, octets in forms_of_digits(name, digits).items()
    }
    with show.part("attack", "Looking for PCID and IMSI in everything that the DPF has seen, in every form"):
        places = _seen_by_dpf(stage, capture, bootstrap, forms)
        # What it does see is found in the same places, so that finding nothing says something.
        device = _seen_by_dpf(stage, capture, bootstrap, {"M2ME id": M2ME_ID.encode()})
    blind = sorted(place for place, found in device.items() if not found and place != "bootstrap")
    if blind:
        raise DemoFailed(f"nothing was looked at in {', '.join(blind)}")
    show.say(f"It knows the equipment by its M2ME id: {', '.join(place for place, found in device.items() if found)}.")
    found = sorted(f"{place}: {form}" for place, each in places.items() for form in each)
    detail = "; ".join(found) or f"neither PCID nor IMSI in {', '.join(places)}; {len(forms)} forms"
    show.saw("INSIDER", "no-identity-of-the-subscriber", passed=not found, req=("REQ-28", "REQ-72"), detail=detail)
    return ""


def _seen_by_dpf(stage: Stage, capture: Path, bootstrap: Path, forms: dict[str, bytes]) -> dict[str, set[str]]:
    """Place → forms found there."""
    dpf = next(process for process in stage.supervisor.processes() if process.name == "dpf")
    files = search_files(stage.world.home("dpf"), forms) | search(dpf.log.read_bytes(), forms)
    places = {
        "files": files,
        "calls with the home operator": search(capture.read_bytes(), forms),
        "bootstrap": search(bootstrap.read_bytes(), forms),
    }
    if sys.platform == "linux":
        places["memory"] = search_memory(dpf.pid, forms)
    return places


IDENTITY_ATTACKS: Final[tuple[Play, ...]] = (
    Play(
        name="stolen-pcid",
        title="A thief copied the provisional identity of a device, and registers his own with it.",
        perform=_stolen_pcid,
        threat="T7",
        refused_by="RO pcid-of-this-device",
    ),
    Play(
        name="followed-device",
        title="An insider at the DPF wants to know a subscriber again by PCID or IMSI.",
        perform=_followed_device,
        threat="T13",
        proved_by="INSIDER no-identity-of-the-subscriber",
    ),
)
