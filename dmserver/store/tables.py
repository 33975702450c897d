"""Tables of the DPF. Times are UTC without zone; secrets are sealed octets; the package is opaque octets."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from actor_runtime.trail_store import trail_table

metadata = MetaData()

devices = Table(
    "devices",
    metadata,
    Column("device_id", String(255), primary_key=True),  # M2MEId, also DevInfo/DevId and Source of DM messages
    Column("bootstrap_secret", LargeBinary, nullable=False),  # sealed; the supplier's shared secret; empty: none
    Column("managed", Boolean, nullable=False),  # may have sessions without an order, for operator commands and tests
    Column("peer_profile", String(32), nullable=False),  # name in `syncml.peer_profile`
    Column("push", String(255), nullable=True),  # where its package 0 goes, such as udp:HOST:PORT
    Column("created_at", DateTime, nullable=False),
)

accounts = Table(
    "accounts",
    metadata,
    Column("device_id", String(255), ForeignKey("devices.device_id"), primary_key=True),
    Column("profile", Integer, nullable=False),  # of the bootstrap, from 1: a device refuses an older one
    Column("client_name", String(64), nullable=False),
    Column("client_secret", LargeBinary, nullable=False),  # sealed
    Column("client_auth", String(32), nullable=False),  # `syncml.codes.AuthType`: what we demand
    Column("per_message", Boolean, nullable=False),  # every message of the device is to carry credentials
    Column("client_nonce", LargeBinary, nullable=False),  # the one WE issued last
    Column("client_nonce_before", LargeBinary, nullable=False),  # the one before, good once more; empty: none
    Column("server_name", String(255), nullable=False),
    Column("server_secret", LargeBinary, nullable=False),  # sealed
    Column("server_auth", String(32), nullable=False),  # what we prove ourselves with
    Column("server_nonce", LargeBinary, nullable=False),  # the one the device issued last
    Column("notified", Integer, nullable=False),  # session id of the last package 0, 0: none yet
    Column("resync", Boolean, nullable=False),  # the last package 0 used the special nonce
    Column("created_at", DateTime, nullable=False),
)

bootstraps = Table(
    "bootstraps",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("device_id", String(255), ForeignKey("devices.device_id"), nullable=False),
    Column("sent_at", DateTime, nullable=False),
    Index("ix_bootstraps_device_sent", "device_id", "sent_at"),
)

bootstrap_requests = Table(
    "bootstrap_requests",
    metadata,
    Column("key_digest", String(64), primary_key=True),  # SHA-256 of registrar and idempotency key, hexadecimal
    Column("device_id", String(255), ForeignKey("devices.device_id"), nullable=False),
    Column("profile", Integer, nullable=False),  # number of the bootstrap profile made for it
    Column("push", String(255), nullable=False),  # where it was sent: udp:HOST:PORT
    Column("created_at", DateTime, nullable=False),
)

bootstrap_pulls = Table(
    "bootstrap_pulls",
    metadata,
    Column("token_digest", String(64), primary_key=True),  # SHA-256 of the token in the URL, hexadecimal
    Column("device_id", String(255), ForeignKey("devices.device_id"), nullable=False),
    Column("content_type", String(255), nullable=False),  # with SEC and MAC
    Column("body", LargeBinary, nullable=False),  # sealed; the document
    Column("expires_at", DateTime, nullable=False),
)

notifications = Table(
    "notifications",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("device_id", String(255), ForeignKey("devices.device_id"), nullable=False),
    Column("sent_at", DateTime, nullable=False),
    Index("ix_notifications_device_sent", "device_id", "sent_at"),
)

orders = Table(
    "orders",
    metadata,
    Column("order_id", String(36), primary_key=True),
    Column("device_id", String(255), ForeignKey("devices.device_id"), nullable=False),
    Column("sho_id", String(255), nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("operation", String(16), nullable=False),  # label of `mcim.vocabulary.Operation`
    Column("brought_by", String(36), nullable=True),  # order that brought the MCIM this one is about
    Column("state", String(16), nullable=False),
    Column("detail", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", DateTime, nullable=False),
    Column("updated_at", DateTime, nullable=False),
    Column("expires_at", DateTime, nullable=False),
    Column("idempotency_key", String(255), nullable=True),  # of the home operator that opened it
    Column("req_id", String(64), nullable=True),
    Column("nonce", LargeBinary, nullable=True),
    Column("tre_id", String(255), nullable=True),
    Column("attest_cert", LargeBinary, nullable=True),
    Column("cert_chain", Text, nullable=False),  # JSON list of Base64 DER
    Column("attempt", Integer, nullable=False),
    Column("challenge", LargeBinary, nullable=True),
    Column("challenge_exp", DateTime, nullable=True),
    Column("ticket", Text, nullable=True),
    Column("ticket_exp", DateTime, nullable=True),
    Column("mcim_id", String(36), nullable=True),
    Column("sequence", BigInteger, nullable=True),
    Column("package_hash", String(64), nullable=True),
    Column("packaging", String(16), nullable=False),  # `mcim.vocabulary.Container`
    Column("token_ref", String(64), nullable=True),
    Column("node", String(255), nullable=True),  # name of the container on the device, where it is not ours
    Column("pushes", Integer, nullable=False),
    Column("receipt", LargeBinary, nullable=True),
    Column("result", Integer, nullable=True),
    Column("left_state", Integer, nullable=True),  # of the container when the receipt was read
    Column("attach", Integer, nullable=True),  # what the last NetworkAttach alert said
    Column("report_owed", Boolean, nullable=False),  # see `Order.report_owed`
    Column("job", String(64), nullable=True),  # at the home operator
    Column("job_at", DateTime, nullable=True),
    Column("calls", Integer, nullable=False),
    Column("call_at", DateTime, nullable=True),
    Index("ix_orders_device_state", "device_id", "state"),
    UniqueConstraint("sho_id", "idempotency_key", name="uq_orders_idempotency"),
)

requests = Table(
    "requests",
    metadata,
    Column("order_id", String(36), ForeignKey("orders.order_id"), primary_key=True),
    Column("req_id", String(64), primary_key=True),
    Column("opened_at", DateTime, nullable=False),
    Column("closed", Boolean, nullable=False),  # a later request of the same order took its place
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("order_id", String(36), ForeignKey("orders.order_id"), nullable=False, index=True),
    Column("taken_at", DateTime, nullable=False),
    Column("document", Text, nullable=False),  # JSON, without nonce and provisional identity
)

packages = Table(
    "packages",
    metadata,
    Column("order_id", String(36), ForeignKey("orders.order_id"), primary_key=True),
    Column("package", LargeBinary, nullable=False),  # opaque; removed when the order ends
)

operator_requests = Table(
    "operator_requests",
    metadata,
    Column("request_id", String(36), primary_key=True),
    Column("device_id", String(255), ForeignKey("devices.device_id"), nullable=False),
    Column("number", Integer, nullable=False),  # place in the queue of the device, from 1
    Column("state", String(16), nullable=False),
    Column("grouping", String(16), nullable=False),
    Column("idempotent", Boolean, nullable=False),
    Column("attempt", Integer, nullable=False),  # how often it was sent; who settles it names the attempt it saw
    Column("created_at", DateTime, nullable=False),
    Column("expires_at", DateTime, nullable=False),
    Column("code", Integer, nullable=True),
    Column("detail", Text, nullable=False),
    Column("idempotency_key", String(128), nullable=True),
    Index("ix_operator_requests_state", "device_id", "state"),
    UniqueConstraint("device_id", "number", name="uq_operator_requests_number"),
    UniqueConstraint("device_id", "idempotency_key", name="uq_operator_requests_idempotency"),
)

operator_commands = Table(
    "operator_commands",
    metadata,
    Column("request_id", String(36), ForeignKey("operator_requests.request_id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("document", LargeBinary, nullable=False),  # sealed: the command with its values, JSON
    Column("code", Integer, nullable=True),  # Status of the command
    Column("outcome", LargeBinary, nullable=True),  # sealed: Statuses of its Items and Results, JSON
    Column("alert", LargeBinary, nullable=True),  # sealed: the generic alert that ended it, JSON
)

sightings = Table(
    "sightings",
    metadata,
    Column("device_id", String(255), ForeignKey("devices.device_id"), primary_key=True),
    Column("seen_at", DateTime, nullable=False),  # start of its last session with right credentials
    Column("dev_info", Text, nullable=False),  # JSON: node URI → value, as the device announced it
)

trail = trail_table(metadata)
