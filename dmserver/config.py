"""Settings of the DPF (TOML file, then environment with prefix DMSERVER_)."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from actor_runtime.config import ActorSettings, ListenAddress, Section
from actor_runtime.errors import ConfigError
from dmserver.news import AlertRules, UnknownTypes, plain_type
from mcim.vocabulary import ValidationMode

DM_PATH = "/dm"


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
    bootstraps_per_hour: int = Field(default=6, ge=1)  # for one device
    partner_timeout_s: float = Field(default=15.0, gt=0)  # one call to PVA or SHO
    report_retry_s: float = Field(default=30.0, gt=0)  # pause between repetitions of unacknowledged reports


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


class DmServerSettings(ActorSettings):
    """What a DPF must know. Trust anchors are configured out of band and typed by purpose (REQ-43)."""

    model_config = SettingsConfigDict(env_prefix="DMSERVER_")

    server_id: str = Field(min_length=1, max_length=255)  # ServerID on devices, DPFId in packages, audience of tickets
    public_dm_url: str = ""  # what devices are told; empty: made from the address of the DM listener
    database_url: str = "sqlite:///dmserver.sqlite"
    seal_key: Path = Path("dmserver-seal.key")  # made when it is missing and nothing is sealed yet
    dm: DmAddress = DmAddress()  # TLS, for devices
    partner: ListenAddress = ListenAddress()  # mutual TLS, for home operators that open orders
    operator: OperatorAddress = OperatorAddress()  # operator API
    alerts: AlertSettings = AlertSettings()
    tls_cert: Path  # PEM chain; server on all listeners, client towards PVA and home operators
    tls_key: Path
    tls_ca: Path  # anchors of the partners' TLS certificates, both directions
    manufacturer_anchors: Path  # PEM, for platform and attestation certificates
    pva_anchors: Path  # PEM, for the signers of tickets
    pva_url: str
    pva_id: str | None = None  # accept tickets of this PVA only; None: of any under the anchors
    crl_files: tuple[Path, ...] = ()  # PEM or DER, of the manufacturers
    shos: dict[str, str] = Field(default_factory=dict)  # SHO id (DNS name in its certificate) → URL
    validation_mode: ValidationMode = ValidationMode.SEMI_AUTONOMOUS
    limits: Limits = Limits()

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
