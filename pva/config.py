"""Settings of the PVA (TOML file, then environment with prefix PVA_)."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from actor_runtime.config import ListenAddress
from actor_runtime.crl_source import RevocationSettings
from mcim.vocabulary import ValidationMode


class PvaSettings(RevocationSettings):
    """What a PVA must know. Trust anchors are configured out of band and typed by purpose (REQ-43)."""

    model_config = SettingsConfigDict(env_prefix="PVA_")

    pva_id: str  # URI, as in the SAN of the signing certificate
    database_url: str = "sqlite:///pva.sqlite"
    partner: ListenAddress = ListenAddress()  # mutual TLS, for DPFs
    tls_cert: Path  # PEM chain
    tls_key: Path
    tls_ca: Path  # anchors of client certificates
    allowed_clients: frozenset[str]  # DNS names in the client certificates of DPFs
    signing_cert: Path  # PEM chain, leaf first
    signing_key: Path
    manufacturer_anchors: Path  # PEM
    modes: frozenset[ValidationMode] = frozenset({ValidationMode.SEMI_AUTONOMOUS})
    challenge_ttl_s: int = Field(default=300, gt=0, le=3600)
    max_challenges: int = Field(default=10_000, gt=0)  # outstanding at a time
    ticket_ttl_s: int = Field(default=3600, gt=0, le=3600)
