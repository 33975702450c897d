"""Tables of the SHO. What is named `sealed` is under the sealing key; times are UTC without zone."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from actor_runtime.store import NAMES
from actor_runtime.trail_store import trail_table

metadata: Final = MetaData(naming_convention=NAMES)

subscriptions: Final = Table(
    "subscription",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("imsi_index", LargeBinary(32), nullable=False, unique=True),  # HMAC-SHA-256 of the IMSI: for lookups
    Column("imsi_sealed", LargeBinary, nullable=False),
    Column("k_sealed", LargeBinary, nullable=False),
    Column("opc_sealed", LargeBinary, nullable=False),
    Column("imsi_mask", String(15), nullable=False),  # network code and last two digits
    Column("amf", LargeBinary(2), nullable=False),
    Column("sqn", BigInteger, nullable=False),  # SQN_HE, 48 bits: the last one used
    Column("state", String(16), nullable=False, index=True),  # repository.FREE and so on
    Column("m2me_id", String(255), nullable=True, index=True),  # device that has it, or last failed to install it
    Column("tre_id", String(255), nullable=True),
    Column("mcim_id", String(36), nullable=True, index=True),
    Column("available_from", DateTime, nullable=True),  # not for another device before
    Column("attached_at", DateTime, nullable=True),  # last successful AKA
    Column("created_at", DateTime, nullable=False),
    Column("algorithm", String(16), nullable=False, server_default="milenage"),  # as TREs list it: tuak256 …
    Column("constants_sealed", LargeBinary, nullable=True),  # the operator's own; NULL: the defaults
    Column("policy", Integer, nullable=True),  # McimPolicy of its own; NULL: the setting's
    Column("barred_at", DateTime, nullable=True),  # by the operator, whatever its state; NULL: it is not
)

subscription_updates: Final = Table(
    "subscription_update",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("subscription_id", Integer, ForeignKey("subscription.id"), nullable=False, index=True),
    # The credential as it is to become; once applied, as it was before: the device may fall back to that.
    Column("imsi_index", LargeBinary(32), nullable=False, index=True),
    Column("imsi_sealed", LargeBinary, nullable=False),
    Column("k_sealed", LargeBinary, nullable=False),
    Column("opc_sealed", LargeBinary, nullable=False),
    Column("constants_sealed", LargeBinary, nullable=True),
    Column("algorithm", String(16), nullable=False),
    Column("imsi_mask", String(15), nullable=False),
    Column("amf", LargeBinary(2), nullable=False),
    Column("policy", Integer, nullable=True),
    Column("changes", String(64), nullable=False),  # of imsi, keys, constants, amf, policy: those that differ
    Column("state", String(16), nullable=False),  # pending, applied, dropped
    Column("created_at", DateTime, nullable=False),
)

orders: Final = Table(
    "sho_order",
    metadata,
    Column("id", String(36), primary_key=True),  # ours, made before the DPF is asked
    Column("order_id", String(64), nullable=True, unique=True),  # the DPF's
    Column("m2me_id", String(255), nullable=False, index=True),
    Column("dpf_url", String(255), nullable=False),
    Column("reason", String(32), nullable=False),
    Column("state", String(16), nullable=False),  # requested, open, handed-over, fulfilled, failed, refused, fell-back
    Column("created_at", DateTime, nullable=False),
    Column("operation", String(16), nullable=False, server_default="install"),
    Column("mcim_id", String(36), nullable=True),  # what an operation other than install and replace is about
    Column("replaces", String(36), nullable=True),  # MCIM that the new one takes the place of
    Column("release_token", LargeBinary, nullable=True),  # that operator's; signed, not secret
)

handovers: Final = Table(
    "handover",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("m2me_id", String(255), nullable=False),
    Column("req_id", String(36), nullable=False),
    Column("order_id", String(64), nullable=False),
    Column("dpf_id", String(255), nullable=False),
    Column("tre_id", String(255), nullable=False),
    Column("platform_key_id", LargeBinary(16), nullable=False),
    Column("attest_key_id", LargeBinary(16), nullable=False),
    Column("nonce", LargeBinary(64), nullable=False),
    Column("suite", Integer, nullable=False),
    Column("subscription_id", Integer, ForeignKey("subscription.id"), nullable=False),
    Column("mcim_id", String(36), nullable=False, index=True),
    Column("transaction_id", String(36), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("not_before", DateTime, nullable=False),
    Column("not_after", DateTime, nullable=False),
    Column("ticket_digest", String(64), nullable=False),
    Column("sqn_init", BigInteger, nullable=False),
    Column("package_sealed", LargeBinary, nullable=True),  # for identical retries
    Column("package_hash", LargeBinary(32), nullable=True),  # SHA-256
    Column("state", String(16), nullable=False),  # allocated, packaged, superseded, confirmed, failed, fell-back
    Column("result", Integer, nullable=True),
    Column("receipt", LargeBinary, nullable=True),
    Column("created_at", DateTime, nullable=False),
    Column("operation", Integer, nullable=False, server_default="1"),
    Column("container", String(16), nullable=False, server_default="xml"),
    Column("revision", Integer, nullable=False, server_default="1"),  # of the MCIM after it
    Column("token_ref", String(36), nullable=True),  # device token inside the package
    Column("update_id", Integer, nullable=True),  # subscription_update that an update carries
    Column("prepared_id", Integer, nullable=True),  # prepared object in the package; NULL: made on demand
    UniqueConstraint("m2me_id", "req_id", name="uq_handover_request"),
)

tres: Final = Table(
    "tre",
    metadata,
    Column("tre_id", String(255), primary_key=True),
    Column("sequence", BigInteger, nullable=False),  # of the last package made for it
    Column("receipt_counter", BigInteger, nullable=False),  # of the last receipt taken from it
)

releases: Final = Table(
    "release",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("mcim_id", String(36), nullable=False, index=True),
    Column("tre_id", String(255), nullable=False),
    Column("new_sho_id", String(255), nullable=False),
    Column("not_after", DateTime, nullable=False),
    Column("created_at", DateTime, nullable=False),
)

device_tokens: Final = Table(
    "device_token",
    metadata,
    Column("m2me_id", String(255), primary_key=True),
    Column("token_ref", String(36), nullable=False, unique=True),  # random: says which, never what
    Column("token_sealed", LargeBinary, nullable=False),
    Column("created_at", DateTime, nullable=False),
)

jobs: Final = Table(
    "job",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("handover_id", Integer, ForeignKey("handover.id"), nullable=False, unique=True),
    Column("dpf_id", String(255), nullable=False),
    Column("certificates", Text, nullable=False),  # JSON: the platform certificate and its chain, Base64 of DER
    Column("state", String(16), nullable=False, index=True),  # approval, waiting, made, delivered, refused, over
    Column("code", String(64), nullable=True),  # why it was refused
    Column("attempts", Integer, nullable=False),
    Column("due_at", DateTime, nullable=False),  # next time that something is to be done
    Column("created_at", DateTime, nullable=False),
)

platforms: Final = Table(
    "platform",
    metadata,
    Column("key_id", LargeBinary(16), primary_key=True),  # of PK_D
    Column("tre_id", String(255), nullable=False, index=True),
    Column("m2me_id", String(255), nullable=False),
    Column("certificates", Text, nullable=False),  # as of a job
    Column("suites", String(255), nullable=False),  # as the TRE lists them, parted by spaces
    Column("containers", String(255), nullable=False),
    Column("algorithms", String(255), nullable=False),
    Column("created_at", DateTime, nullable=False),
)

revocations: Final = Table(
    "revocation",
    metadata,
    Column("subject", String(255), primary_key=True),  # TRE id, or key id of PK_D in hex
    Column("created_at", DateTime, nullable=False),
)

prepared_objects: Final = Table(
    "prepared_object",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", String(36), nullable=False),
    Column("platform_key_id", LargeBinary(16), nullable=False, index=True),
    Column("tre_id", String(255), nullable=False, index=True),
    Column("m2me_id", String(255), nullable=False),
    Column("subscription_id", Integer, ForeignKey("subscription.id"), nullable=False),
    Column("mcim_id", String(36), nullable=False, unique=True),
    Column("sequence", BigInteger, nullable=False),
    Column("suite", Integer, nullable=False),
    Column("not_before", DateTime, nullable=False),
    Column("not_after", DateTime, nullable=False),
    Column("sqn_init", BigInteger, nullable=False),
    Column("token_ref", String(36), nullable=True),
    Column("object", LargeBinary, nullable=True),  # MCIM object, encrypted for PK_D; NULL: dropped
    Column("state", String(16), nullable=False),  # ready, used, dropped
    Column("created_at", DateTime, nullable=False),
)

prepare_jobs: Final = Table(
    "prepare_job",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("created_at", DateTime, nullable=False),
)

prepare_items: Final = Table(
    "prepare_item",
    metadata,
    Column("job_id", String(36), ForeignKey("prepare_job.id"), primary_key=True),
    Column("platform_key_id", LargeBinary(16), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("state", String(16), nullable=False),  # waiting, prepared, skipped, failed
    Column("reason", String(255), nullable=True),
)

trail: Final = trail_table(metadata)
