"""Settings of the SHO (TOML file, then environment with prefix SHO_)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from actor_runtime.config import ListenAddress
from actor_runtime.crl_source import RevocationSettings
from mcim.vocabulary import Container, Suite

_DAY_S = 86_400


def _default_suites() -> frozenset[str]:
    """Everything but the suite of the seed's example, which is there for comparison."""
    return frozenset(suite.label for suite in Suite if suite is not Suite.LEGACY_1)


def _all_containers() -> frozenset[Container]:
    return frozenset(Container)


class ShoSettings(RevocationSettings):
    """What an SHO must know. Trust anchors are configured out of band and typed by purpose (REQ-43)."""

    model_config = SettingsConfigDict(env_prefix="SHO_")

    sho_id: str  # FQDN, as in the SAN of the signing certificate and of the TLS certificate
    database_url: str = "sqlite:///sho.sqlite"
    seal_key: Path = Path("sho-seal.key")  # made when it is missing and nothing is sealed yet
    partner: ListenAddress = ListenAddress()  # mutual TLS, for DPFs
    network: ListenAddress = ListenAddress()  # TLS, for devices that attach
    tls_cert: Path  # PEM chain
    tls_key: Path
    tls_ca: Path  # anchors of the partners' TLS certificates, both directions
    allowed_clients: frozenset[str]  # DNS names in the client certificates of DPFs
    allowed_registrars: frozenset[str] = frozenset()  # DNS names of registration operators; their devices get orders
    dpf_url: str | None = None  # partner listener of the DPF where registrations open their orders
    registration_order_s: int = Field(default=7 * _DAY_S, ge=60, le=90 * _DAY_S)  # life of such an order
    signing_cert: Path  # PEM chain, leaf first
    signing_key: Path
    manufacturer_anchors: Path  # PEM, for platform and attestation certificates
    pva_anchors: Path  # PEM
    pva_id: str | None = None  # accept tickets of this PVA only; None: of any under the anchors
    suites: frozenset[str] = Field(default_factory=_default_suites)  # labels; the order is the TRE's
    containers: frozenset[Container] = Field(default_factory=_all_containers)  # made here; the order is the TRE's
    mcim_policy: frozenset[Literal["signed-lifecycle", "release-required", "two-phase-update"]] = frozenset(
        {"signed-lifecycle"}
    )  # of MCIMs whose subscription has no policy of its own
    preparation: Literal["prefer", "never"] = "prefer"  # whether prepared objects are used where they fit
    answer: Literal["at-once", "later", "approved"] = "at-once"  # when packages are made; approved: by a person
    later_delay_s: float = Field(default=0.0, ge=0)  # before a package is made, with `later`
    delivery_retry_s: float = Field(default=2.0, gt=0)  # first pause after a failed delivery; doubled each time
    dpfs: dict[str, str] = Field(default_factory=dict)  # DPF id → URL for late packages; else the order's
    require_order: bool = True  # give subscriptions only to devices for which this SHO opened an order
    mcim_validity_days: int = Field(default=3650, gt=0)
    sqn_init_ahead: int = Field(default=32, ge=0, lt=2**28)
    """Steps of SEQ by which an MCIM's SQN starts ahead of the AuC. Vectors made for the same identity before delivery
    (for another device that failed to install it, or in a test) are then stale at the new TRE; the price is one
    resynchronisation at the first attach. 0 switches it off."""
    failed_quarantine_s: int = Field(default=_DAY_S, ge=0)
    """A subscription whose installation failed is kept for its device alone this long: at least the life of the
    TRE's nonce, for the same package could still be installed on a later try."""
    attach_session_ttl_s: float = Field(default=30.0, gt=0)
    attach_sessions_max: int = Field(default=10_000, gt=0)
    partner_timeout_s: float = Field(default=10.0, gt=0)
