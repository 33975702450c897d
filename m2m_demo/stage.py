"""The stage: sets up the world, starts the actors and gives them their cues, by their own command lines alone.

Every cue is a method, so that a test can leave one out or give a wrong one.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from m2m_ca.directory import CaDirectory, read_request, write_tre_certificates
from m2m_demo.cast import Cast
from m2m_demo.errors import DemoFailed
from m2m_demo.hardware import start_hardware
from m2m_demo.processes import POLL_S, Process, Supervisor, tail
from m2m_demo.trace import Record, TraceReader
from m2m_demo.world import DPF_ID, HOST, PVA_ID, RO_ID, SHO2_ID, SHO_ID, TRE_VERSION, VNO, TomlValue, World
from mcim.vocabulary import ValidationMode

M2ME_ID: Final = "urn:uuid:6f1d7c1e-3b0a-4c5d-9a63-0f2d1b7c9e10"
SECRET_FILE: Final = "bootstrap.secret"  # noqa: S105 (the name of a file)
TOKEN_FILE: Final = "device.token"  # noqa: S105 (the name of a file)
PROVISIONING_TIMEOUT_S: Final = 60.0  # seconds from bootstrap to the end of the device's run
_NAMES: Final = {DPF_ID: "DPF", RO_ID: "RO", SHO_ID: "SHO", SHO2_ID: "SHO2"}
"""Identity that a trail has → the name by which it is told."""

_UNKNOWN_PORT: Final = 9  # discard: settings of a partner that does not run yet
_HOLD_BACK: Final = timedelta(milliseconds=40)  # so that records of several files can be put in order


class Stage:
    """One device and its partners."""

    def __init__(self, world: World, supervisor: Supervisor, cast: Cast | None = None) -> None:
        self.cast = cast or Cast()
        self.world = world
        self.supervisor = supervisor
        self.chosen_sho: str | None = SHO_ID  # by the subscriber; None: the device takes the one of the order
        self.ports: dict[str, dict[str, int]] = {}  # actor → listener → port
        self.operators: dict[str, str] = {"sho": SHO_ID}  # home operator → its id
        self.between: dict[str, str] = {}  # partner → who stands between it and the DPF
        self.registrar = False  # whether there is a registration operator, and the device begins with its PCID alone
        self.sho_roots: Path | None = None  # that the TRE is made with; None: those of the home operators of this stage
        self.extra: dict[str, dict[str, TomlValue]] = {}  # actor → settings of its own beside the usual ones
        self._hardware: dict[str, TomlValue] = {}
        self._reader = self._new_reader()

    # --- cues ---------------------------------------------------------------------------------------------------------

    def set_up(self, *, subscriptions: Path | None = None, trusted_version: str = TRE_VERSION) -> None:
        """PKI and settings; the supplier makes the device, the operators fill their databases.

        Args:
            subscriptions: CSV file for the home operator (`sho subscription import`); None: it makes a random one.
            trusted_version: the TRE version in the PVA's reference values.
        """
        world, supervisor = self.world, self.supervisor
        world.make_directories()
        world.shared_secret(SECRET_FILE, "dpf", "m2me")
        world.shared_secret(TOKEN_FILE, "sho", "m2me")  # on the device's label; in use where a play says so
        self._hardware = start_hardware(self.cast, world, supervisor)
        self._write_device_settings()
        certificates = world.home("m2me") / "certificates"
        manufacture = None if self.registrar else self._manufacture()
        now = datetime.now(UTC).replace(microsecond=0)
        ca = CaDirectory(world.pki)
        hosts = ("localhost", HOST)
        ca.demo_pki(hosts=hosts, sho_id=SHO_ID, dpf_id=DPF_ID, pva_id=PVA_ID, ro_id=RO_ID, now=now)
        self._write_partner_settings()
        self._write_dpf_settings()
        manufacture = manufacture or self._manufacture("--pcid-file", str(self._issue_pcid()))
        device = supervisor.begin(
            "device-add",
            world.command(
                "dpf", "devices", "add",
                "--m2me-id", M2ME_ID, "--bootstrap-secret-file", str(world.home("dpf") / SECRET_FILE),
            ),
        )  # fmt: skip
        stock = ("import", str(subscriptions)) if subscriptions else ("generate", "--algorithm", self.cast.algorithm)
        subscription = supervisor.begin("subscription", world.command("sho", "subscription", *stock))
        reference = None if self.cast.measured else self._add_reference(trusted_version)
        supervisor.finish(manufacture)
        write_tre_certificates(ca.issue_tre(read_request(self._request), now), certificates)
        supervisor.command("install-certificates", self._install(certificates))
        reference = reference or self._add_reference(trusted_version, measurements=self._measure())
        for command in (reference, device, subscription):
            supervisor.finish(command)

    def start_servers(self) -> None:
        """PVA and SHO, then the DPF, which must know where they are, then the registration operator if there is one."""
        partners = [self.start("pva"), self.start("sho")]
        for process in partners:
            self.wait_ready(process)
        self._write_dpf_settings()  # now with their ports
        self.wait_ready(self.start("dpf"))
        if self.registrar:
            self._write_registrar_settings()
            self.wait_ready(self.start("ro"))

    def meddle(self, partner: str, rule: str, **files: Path) -> None:
        """Put a meddler (`m2m_demo.meddler`) between the DPF and `partner` (pva or sho), and start the DPF anew.

        Args:
            partner: pva or sho.
            rule: what he alters.
            files: further options of his: loot, capture, signer.
        """
        world = self.world
        ready = world.root / f"meddler-{partner}.json"
        argv = [
            sys.executable, "-m", "m2m_demo.meddler", "--target", self._url(partner, "partner"), "--rule", rule,
            "--tls", str(world.pki / "dpf"), "--ca", str(world.anchors("tls")), "--ready-file", str(ready),
            *(word for option, file in files.items() for word in (f"--{option}", str(file))),
        ]  # fmt: skip
        ports = self.supervisor.wait_ready(self.supervisor.start(f"meddler-{partner}", argv), ready)
        self.ports[f"meddler-{partner}"] = ports
        self.between[partner] = f"meddler-{partner}"
        dpf = next(process for process in self.supervisor.processes() if process.name == "dpf")
        self.supervisor.stop(dpf)
        self._write_dpf_settings()
        self.wait_ready(self.start("dpf"))

    def start_device(self, *arguments: str) -> Process:
        """`dmclient run`; it waits for its bootstrap on UDP unless the arguments bring one."""
        self._write_device_settings()
        return self.supervisor.begin("m2me", self.world.command("m2me", "run", "--json", *arguments))

    def listen(self) -> Process:
        """`dmclient listen`, and the DPF is told where to call the device."""
        self._write_device_settings()
        device = self.supervisor.start("m2me", self.world.command("m2me", "listen"))
        self.wait_ready(device)
        push = f"udp:{HOST}:{self.ports['m2me']['bootstrap']}"
        self.supervisor.command("device-set", self.world.command("dpf", "devices", "set", M2ME_ID, "--push", push))
        return device

    def device_result(self, device: Process) -> tuple[int, str]:
        """Exit status and reason of a device that ran to its end."""
        output = self.supervisor.finish(device, expect=None)
        code = self.supervisor.wait_exit(device)
        try:
            return code, str(json.loads(output)["reason"])
        except (ValueError, KeyError):  # it ended with an error, which is in its log
            return code, tail(device.log)

    def open_order(self, *terms: str, sho: str = "sho", expires_in_s: int | None = None) -> str:
        """A home operator opens an order at the DPF; the order's id."""
        dpf = self._url("dpf", "partner")
        expiry = () if expires_in_s is None else ("--expires-in", str(expires_in_s))
        output = self.supervisor.command(
            "order-open",
            self.world.command(sho, "order", "open", "--m2me-id", M2ME_ID, "--dpf", dpf, *terms, *expiry, "--json"),
        )
        return str(json.loads(output)["orderId"])

    def bootstrap(self, *, file: Path | None = None) -> None:
        """The DPF sends the device its DM account over UDP, or writes the message to a file."""
        where = self._push if file is None else ("--file", str(file))
        self.supervisor.command("bootstrap", self.world.command("dpf", "bootstrap", M2ME_ID, *where))

    def notify(self) -> None:
        """The DPF calls the device with package 0."""
        self.supervisor.command("notify", self.world.command("dpf", "notify", M2ME_ID, *self._push))

    # --- what the cues are made of ------------------------------------------------------------------------------------

    @staticmethod
    def certificates_in(directory: Path) -> list[str]:
        """The options by which `dmclient` takes certificates that `m2m-ca` wrote."""
        files = {"--platform": "platform.crt", "--attest": "attest.crt", "--chain": "chain.pem"}
        return [word for option, name in files.items() for word in (option, str(directory / name))]

    def authority(self, *arguments: str) -> str:
        """A command of `m2m-ca`; what it prints."""
        name = "-".join(("ca", *(each for each in arguments[:2] if each.isalpha())))
        return self.supervisor.command(name, [sys.executable, "-m", "m2m_ca", *arguments])

    def card(self, actor: str, *options: str) -> str:
        """What the network of an actor (sho or ro) says to a card without a TRE (`m2m_demo.card`)."""
        where = ("--network", self.url(actor, "network"), "--ca", str(self.world.anchors("tls")))
        output = self.supervisor.command("card", [sys.executable, "-m", "m2m_demo.card", *where, *options])
        return str(json.loads(output)["result"])

    def start(self, actor: str, command: str = "serve") -> Process:
        """Start a server."""
        return self.supervisor.start(actor, self.world.command(actor, command))

    def wait_ready(self, process: Process) -> None:
        """Wait until a server listens, and note its ports."""
        self.ports[process.name] = self.supervisor.wait_ready(process, self.world.ready(process.name))

    def order(self, order_id: str) -> dict[str, Any]:
        """An order, as `dmserver order show` has it."""
        output = self.supervisor.command("order-show", self.world.json_command("dpf", "order", "show", order_id))
        return dict(json.loads(output))

    def device_info(self) -> dict[str, Any]:
        """The device, as `dmclient info` has it."""
        return dict(json.loads(self.supervisor.command("info", self.world.command("m2me", "info", "--json"))))

    def addresses(self) -> dict[str, str]:
        """Where the listeners are."""
        found = {}
        for actor, ports in self.ports.items():
            for listener, port in ports.items():
                scheme = "udp" if listener == "bootstrap" else "https"
                found[f"{actor}.{listener}"] = f"{scheme}://{HOST}:{port}"
        return found

    def new_records(self, *, all_of_them: bool = False) -> list[Record]:
        """What the trails have to tell since the last call, with a name of its own for each party."""
        records = self._reader.read(None if all_of_them else datetime.now(UTC) - _HOLD_BACK)
        return [each.renamed(_NAMES) for each in records]

    def forget_traces(self) -> None:
        """From here on, `new_records` tells only what is new; also after a device was put back as new."""
        self._reader = self._new_reader()
        self._reader.read()

    def _new_reader(self) -> TraceReader:
        return TraceReader(self.world.traces, {self.world.trace("sho2"): {"SHO": "SHO2"}})

    def follow(
        self, tell: Callable[[list[Record]], None], until: Callable[[], bool], timeout_s: float = PROVISIONING_TIMEOUT_S
    ) -> None:
        """Hand new records to `tell` until `until` says so.

        Raises:
            DemoFailed: it takes too long, or a server ended.
        """
        deadline = time.monotonic() + timeout_s
        while not until():
            tell(self.new_records())
            for process in self.supervisor.processes():
                if process.name != "m2me" and process.exit_code() is not None:
                    raise DemoFailed(f"{process.name} ended with status {process.exit_code()}")
            if time.monotonic() > deadline:
                raise DemoFailed(f"not done after {timeout_s:.0f} s")
            time.sleep(POLL_S)
        tell(self.new_records(all_of_them=True))

    def url(self, actor: str, listener: str) -> str:
        """Where a listener is."""
        return self._url(actor, listener)

    def _url(self, actor: str, listener: str) -> str:
        return f"https://{HOST}:{self.ports.get(actor, {}).get(listener, _UNKNOWN_PORT)}"

    @property
    def _push(self) -> tuple[str, str]:
        """Where pushes to the device go, for a command of the DPF."""
        return "--udp", f"{HOST}:{self.ports['m2me']['bootstrap']}"

    @property
    def _request(self) -> Path:
        return self.world.home("m2me") / "request.json"

    def _manufacture(self, *arguments: str) -> Process:
        command = self.world.command("m2me", "manufacture", "--request", str(self._request), *arguments)
        return self.supervisor.begin("manufacture", command)

    def _issue_pcid(self) -> Path:
        """The registration operator makes a provisional identity for the supplier, in a file."""
        self._write_registrar_settings()
        file = self.world.home("m2me") / "pcid.json"
        self.supervisor.command("pcid-issue", self.world.command("ro", "pcid", "issue", "--out", str(file)))
        return file

    def _measure(self) -> Path:
        """What the device measures at its start, as a file of reference values."""
        output = self.supervisor.command("measurements", self.world.command("m2me", "tre", "measurements", "--json"))
        file = self.world.home("pva") / "measurements.json"
        file.write_text(json.dumps({each["name"]: each["sha256"] for each in json.loads(output)}), encoding="utf-8")
        return file

    def _add_reference(self, version: str, *, measurements: Path | None = None) -> Process:
        """Reference values of the TRE at the PVA: it must show as much as this play asks for, and no less will do."""
        must = ["--tre-type", self.tre_type, "--version", version, "--minimum-mode", self.cast.validation.value]
        if measurements is not None:
            must += ["--measurements", str(measurements)]
            must += ["--requires-quote"] if self.cast.tre == "tpm" else []
        return self.supervisor.begin("reference-add", self.world.command("pva", "reference", "add", *must))

    def _install(self, certificates: Path) -> list[str]:
        return self.world.command(
            "m2me", "install-certificates", *self.certificates_in(certificates),
            "--sho-anchors", str(self.sho_roots or self.world.anchors("sho")),
            "--supplier-anchors", str(self.world.anchors("manufacturer")),
        )  # fmt: skip

    def write_server_settings(self) -> None:
        """Write the settings of PVA, SHO and DPF again, after a change in `extra`."""
        self._write_partner_settings()
        self._write_dpf_settings()

    # --- settings -----------------------------------------------------------------------------------------------------

    def _write(self, actor: str, values: dict[str, TomlValue]) -> None:
        """Settings of an actor, those of the play on top; of a table, key by key."""
        merged = dict(values)
        for key, value in self.extra.get(actor, {}).items():
            usual = merged.get(key)
            merged[key] = {**usual, **value} if isinstance(usual, Mapping) and isinstance(value, Mapping) else value
        self.world.write_settings(actor, merged)

    @cached_property
    def _dpf_port(self) -> int:
        """A port for the DPF that is known before it runs: home operator and DPF must know each other's address."""
        with socket.socket() as free:
            free.bind((HOST, 0))
            return int(free.getsockname()[1])

    def _write_partner_settings(self) -> None:
        signed: dict[str, dict[str, TomlValue]] = {
            actor: {
                "signing_cert": self.world.pki / actor / "signing.crt",
                "signing_key": self.world.pki / actor / "signing.key",
                "allowed_clients": [DPF_ID],
            }
            for actor in ("pva", "sho")
        }
        if self.registrar:
            signed["pva"]["allowed_clients"] = [DPF_ID, RO_ID]
            signed["sho"] |= {"allowed_registrars": [RO_ID], "dpf_url": f"https://{HOST}:{self._dpf_port}"}
        modes = {
            "modes": [self.cast.validation.value, *([ValidationMode.SEMI_AUTONOMOUS.value] if self.registrar else [])]
        }
        self._write("pva", {"pva_id": PVA_ID, **modes, **self._common("pva"), **signed["pva"]})
        suites: dict[str, TomlValue] = {} if self.cast.suite is None else {"suites": [self.cast.suite.label]}
        own: dict[str, TomlValue] = {
            **suites,
            "sho_id": SHO_ID,
            "seal_key": self.world.home("sho") / "seal.key",
            "pva_anchors": self.world.anchors("pva"),
            "pva_id": PVA_ID,
        }
        self._write("sho", {**own, **self._common("sho"), **signed["sho"]})

    def _write_dpf_settings(self) -> None:
        own: dict[str, TomlValue] = {
            "validation_mode": self.cast.validation.value,
            "server_id": DPF_ID,
            "seal_key": self.world.home("dpf") / "seal.key",
            "pva_url": self._url(self.between.get("pva", "pva"), "partner"),
            "pva_anchors": self.world.anchors("pva"),
            "pva_id": PVA_ID,
            "limits": {"report_retry_s": 1.0},
            "shos": {name: self._url(self.between.get(sho, sho), "partner") for sho, name in self.operators.items()},
        }
        if self.registrar:
            own |= {"allowed_registrars": [RO_ID], "partner": {"port": self._dpf_port}}
        self._write("dpf", {**own, **self._common("dpf")})

    def _write_registrar_settings(self) -> None:
        own: dict[str, TomlValue] = {
            "ro_id": RO_ID,
            "seal_key": self.world.home("ro") / "seal.key",
            "pva_url": self._url("pva", "partner"),
            "pva_anchors": self.world.anchors("pva"),
            "pva_id": PVA_ID,
            "shos": {SHO_ID: self._url("sho", "partner")},
            "default_sho": SHO_ID,
            "dpf_url": self._url("dpf", "partner"),
        }
        common = self._common("ro")
        del common["manufacturer_anchors"]
        self._write("ro", {**common, **own})

    def _common(self, actor: str) -> dict[str, TomlValue]:
        """What PVA, SHO and DPF name alike."""
        world = self.world
        return {
            "database_url": f"sqlite:///{world.home(actor) / 'data.sqlite'}",
            "tls_cert": world.pki / actor / "tls.crt",
            "tls_key": world.pki / actor / "tls.key",
            "tls_ca": world.anchors("tls"),
            "manufacturer_anchors": world.anchors("manufacturer"),
        }

    @property
    def tre_type(self) -> str:
        """Kind of the device's TRE."""
        return self.cast.tre_type or self.cast.tre

    def _tre_settings(self) -> dict[str, TomlValue]:
        return {
            "version": TRE_VERSION,
            "backend": self.cast.tre,
            "type": self.cast.tre_type,
            "key_type": self.cast.key_type,
            "legacy_suite": self.cast.legacy,
            **self._hardware,
        }

    def _write_device_settings(self) -> None:
        world = self.world
        chosen: dict[str, TomlValue] = {} if self.chosen_sho is None else {"sho_id": self.chosen_sho}
        self._write(
            "m2me",
            {
                **chosen,
                **({"initial_access": {"icf_url": self._url("ro", "network"), "vno": VNO}} if self.registrar else {}),
                "validation_mode": self.cast.validation.value,
                "m2me_id": M2ME_ID,
                "state_dir": world.home("m2me") / "state",
                "seal_key_file": world.home("m2me") / "seal.key",
                "bootstrap_secret_file": world.home("m2me") / SECRET_FILE,
                "tls_roots": world.anchors("tls"),
                "network_url": self._url("sho", "network"),
                "networks": {name: self._url(sho, "network") for sho, name in self.operators.items() if sho != "sho"},
                "tre": self._tre_settings(),
                "session": {"encoding": self.cast.encoding},
                "retry": {"attempts": 3, "polls": 3, "first_delay_s": 0.2, "max_delay_s": 1.0},
            },
        )
