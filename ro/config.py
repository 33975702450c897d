"""Settings of the registration operator (TOML file, then environment with prefix RO_)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from actor_runtime.config import ListenAddress
from actor_runtime.crl_source import RevocationSettings
from mcim.vocabulary import ValidationMode


class RoSettings(RevocationSettings):
    """What the functions of an RO before DM must know: CCIF, ICF and DRF. Revocation lists are for the gate."""

    model_config = SettingsConfigDict(env_prefix="RO_")

    ro_id: str = Field(min_length=1, max_length=255)  # FQDN, as in the TLS certificate; audience of tickets at the gate
    database_url: str = "sqlite:///ro.sqlite"
    seal_key: Path = Path("ro-seal.key")  # made when it is missing and nothing is sealed yet
    network: ListenAddress = ListenAddress()  # TLS, for devices: ICF and DRF
    public_url: str = ""  # what attached devices are told to register at; empty: where they attached
    tls_cert: Path  # PEM chain; server for devices, client towards PVA, home operators and DPF
    tls_key: Path
    tls_ca: Path  # anchors of the partners' TLS certificates
    shos: dict[str, str] = Field(default_factory=dict)  # SHO id → URL of its partner listener
    default_sho: str | None = None  # for devices that nothing else decides; None: their registration waits
    dpf_url: str | None = None  # partner listener of the DPF; None: registrations wait there
    validation_gates_attach: bool = False  # no authentication vectors before the PVA vouches for the platform
    pva_url: str | None = None  # for the gate
    pva_anchors: Path | None = None  # for the gate; PEM
    pva_id: str | None = None  # for the gate: accept tickets of this PVA only; None: of any under the anchors
    validation_mode: ValidationMode = ValidationMode.SEMI_AUTONOMOUS
    """At the gate. Not autonomous: certificates are public, and a gate that asks for nothing else opens to whoever
    copies them."""
    gate_challenges_max: int = Field(default=2000, ge=1)  # of the PVA's, outstanding; it has other callers
    pcid_binding: Literal["first-registration", "none"] = "first-registration"  # one identity, one device (T7)
    attaches_per_hour: int = Field(default=12, ge=1)  # successful ones, of one identity
    access_token_s: int = Field(default=600, ge=1, le=3600)  # how long an attached device may call the DRF
    refused_retry_s: int = Field(default=60, ge=0)  # back-off hint, the same with every refusal
    attach_session_ttl_s: float = Field(default=30.0, gt=0)
    attach_sessions_max: int = Field(default=10_000, gt=0)
    visited_networks_max: int = Field(default=1000, ge=1)  # counted one by one; all others together
    push_to_peer_only: bool = True  # a device names no address but the one it calls from
    registration_lifetime_s: int = Field(default=7 * 24 * 3600, ge=60)  # a device that asks again goes on with it
    retry_s: float = Field(default=30.0, gt=0)  # pause between tries of registrations that wait
    partner_timeout_s: float = Field(default=10.0, gt=0)
