"""Settings of the DPF (TOML file, then environment with prefix DMSERVER_)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from actor_runtime.config import ListenAddress, Section
from actor_runtime.crl_source import RevocationSettings
from actor_runtime.errors import ConfigError
from dmserver.news import AlertRules, UnknownTypes, plain_type
from mcim.vocabulary import ValidationMode

DM_PATH = "/dm"

_OF_PROVISIONING: Final = (
    "tls_ca",
    "manufacturer_anchors",
    "pva_anchors",
    "pva_id",
    *(name for name in RevocationSettings.model_fields if name.startswith("crl_")),
    "shos",
    "allowed_registrars",
    "validation_mode",
    "partner",
)
"""Settings without meaning for a server that provisions nobody."""


class DmAddress(ListenAddress):
    """Where devices connect."""

    plain_http: bool = False  # no TLS, for interoperability tests alone; the log says so


class Limits(Section):
    """Limits, each with its unit."""

    max_message_octets: int = Field(default=64 * 1024, ge=4096)  # MaxMsgSize we announce; larger bodies get a 413
    max_object_octets: int = Field(default=512 * 1024, ge=4096)  # MaxObjSize we announce
    max_sessions: int = Field(default=1000, ge=1)  # DM sessions in memory
    session_idle_s: float = Field(default=300.0, gt=0)  # a session without a message for so long is dropped
    session_dead_s: float = Field(default=10.0, ge=0)  # after so long a new package 1 takes the place of its session
    order_lifetime_s: int = Field(default=7 * 24 * 3600, ge=1)  # when the home operator gives none
    missing_after_s: int = Field(default=3 * 24 * 3600, ge=60)  # in mid-delivery and not seen for so long: SHO is told
    bootstraps_per_hour: int = Field(default=6, ge=1)  # for one device
    partner_timeout_s: float = Field(default=15.0, gt=0)  # one call to PVA or SHO
    report_retry_s: float = Field(default=30.0, gt=0)  # pause between rounds: reports, jobs, calls that are due
    ticket_margin_s: float = Field(default=30.0, ge=0, le=1800)  # a ticket that ends within it counts as aged
    orders_per_day: int = Field(default=24, ge=1)  # for one device
    notifications_per_hour: int = Field(default=12, ge=1)  # package 0 for one device, when an order calls for it


class AlertSettings(Section):
    """Client events (1224) and generic alerts (1226) of devices."""

    types: tuple[str, ...] = ()  # that mean something to you, beside those of provisioning: answered with 200
    unknown: UnknownTypes = UnknownTypes.ACCEPT  # all other generic alerts: 200, or 415 to the letter

    def rules(self) -> AlertRules:
        """As the endpoint takes them."""
        return AlertRules(types=frozenset(map(plain_type, self.types)), unknown=self.unknown)


class OperatorAddress(ListenAddress):
    """Where operators' programs connect: plain HTTP on this machine, TLS everywhere else; off without a token."""

    token_file: Path | None = None  # the bearer token, one line of 16 or more printable characters


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisioningSettings:
    """What a server needs to provision devices, all of it there."""

    pva_url: str
    tls_cert: Path
    tls_key: Path
    tls_ca: Path
    manufacturer_anchors: Path
    pva_anchors: Path


class DmServerSettings(RevocationSettings):
    """What a DPF must know. Trust anchors are configured out of band and typed by purpose (REQ-43).

    Without `pva_url` this is a DM server that manages devices and provisions none: no orders, no partners, and nothing
    of what is marked with (P) is needed.
    """

    model_config = SettingsConfigDict(env_prefix="DMSERVER_")

    server_id: str = Field(min_length=1, max_length=255)  # ServerID on devices, DPFId in packages, audience of tickets
    public_dm_url: str = ""  # what devices are told; empty: made from the address of the DM listener
    database_url: str = "sqlite:///dmserver.sqlite"
    seal_key: Path = Path("dmserver-seal.key")  # made when it is missing and nothing is sealed yet
    dm: DmAddress = DmAddress()  # TLS, for devices
    partner: ListenAddress = ListenAddress()  # (P) mutual TLS, for home operators that open orders
    operator: OperatorAddress = OperatorAddress()  # operator API
    alerts: AlertSettings = AlertSettings()
    tls_cert: Path | None = None  # PEM chain; server on all listeners with TLS, client towards PVA and home operators
    tls_key: Path | None = None
    tls_ca: Path | None = None  # (P) anchors of the partners' TLS certificates, both directions
    manufacturer_anchors: Path | None = None  # (P) PEM, for platform and attestation certificates
    pva_anchors: Path | None = None  # (P) PEM, for the signers of tickets
    pva_url: str | None = None  # None: devices are managed, not provisioned
    pva_id: str | None = None  # (P) accept tickets of this PVA only; None: of any under the anchors
    shos: dict[str, str] = Field(default_factory=dict)  # (P) SHO id (DNS name in its certificate) → URL
    allowed_registrars: frozenset[str] = frozenset()  # (P) DNS names of those who may ask for bootstraps of devices
    validation_mode: ValidationMode = ValidationMode.SEMI_AUTONOMOUS  # (P)
    limits: Limits = Limits()
    trace_octets: bool = False  # for tests: bodies that are no message stand in the trace file, with what they hold

    def provisioning(self) -> ProvisioningSettings | None:
        """What provisioning needs; None for a server without it.

        Raises:
            ConfigError: a part of it is missing. Half of it is a mistake, not a plain DM server.
        """
        if self.pva_url is None:
            stray = [name for name in _OF_PROVISIONING if name in self.model_fields_set]
            if stray:
                raise ConfigError(
                    f"pva_url is missing, without which there is no use for {', '.join(stray)}",
                    hint="set pva_url, or remove them for a server that provisions no devices",
                )
            return None
        cert, key = self.tls_files()
        ca, manufacturers, pvas = self.tls_ca, self.manufacturer_anchors, self.pva_anchors
        if ca is None or manufacturers is None or pvas is None:
            names = ("tls_ca", "manufacturer_anchors", "pva_anchors")
            missing = [name for name in names if getattr(self, name) is None]
            raise ConfigError(
                f"{', '.join(missing)}: missing, and needed for provisioning",
                hint="without pva_url the server manages devices and provisions none",
            )
        return ProvisioningSettings(
            pva_url=self.pva_url,
            tls_cert=cert,
            tls_key=key,
            tls_ca=ca,
            manufacturer_anchors=manufacturers,
            pva_anchors=pvas,
        )

    def tls_files(self) -> tuple[Path, Path]:
        """Certificate chain and key of the listeners with TLS.

        Raises:
            ConfigError: one of them is not set.
        """
        if self.tls_cert is None or self.tls_key is None:
            missing = "tls_cert" if self.tls_cert is None else "tls_key"
            raise ConfigError(
                f"{missing} is missing", hint="`m2m-ca issue tls` makes both; for tests without TLS: dm.plain_http"
            )
        return self.tls_cert, self.tls_key

    def dm_url(self, port: int) -> str:
        """URL devices are to use when the DM listener is bound to `port`."""
        if self.public_dm_url:
            return self.public_dm_url
        scheme = "http" if self.dm.plain_http else "https"
        host = "127.0.0.1" if self.dm.host == "0.0.0.0" else self.dm.host  # noqa: S104 (compared, not bound)
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{DM_PATH}"

    def announced_dm_url(self) -> str:
        """URL for a bootstrap made by another process than the one that serves.

        Raises:
            ConfigError: the port is chosen by the system and no running server tells it.
        """
        if self.public_dm_url or self.dm.port:
            return self.dm_url(self.dm.port)
        try:
            ports = json.loads((self.ready_file or Path()).read_text(encoding="ascii"))["ports"]
            return self.dm_url(int(ports["dm"]))
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise ConfigError(
                "the address of the DM listener is not known",
                hint="set public_dm_url, or dm.port, or ready_file and start `dmserver serve` first",
            ) from exc
