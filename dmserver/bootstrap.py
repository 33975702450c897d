"""Bootstrap of a DM account (TR 33.812 §5.1.3.7.1 step 7): fresh credentials, a CP document, a MAC, one datagram."""

from __future__ import annotations

import secrets
import string
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from actor_runtime.errors import ActorError
from actor_runtime.sealing import SealingKey
from dmserver.store.accounts import Account, bootstrap_secret, bootstraps_since, profile_of, put_account
from dmserver.store.orders import ongoing_order
from syncml.bootstrap import BootstrapSecrets, DmBootstrap, DmCredentials, Sec, build_push, protect
from syncml.codes import AuthType

NONCE_LENGTH: Final = 16  # octets; 95 bits of printable ASCII
_PRINTABLE: Final = string.ascii_letters + string.digits


class BootstrapNotAllowed(ActorError):
    """The device is not known, has no order, or was bootstrapped too often (REQ-11)."""


def new_nonce() -> bytes:
    """A nonce whose octets are printable ASCII: some devices hash it as text and would spoil anything else."""
    return "".join(secrets.choice(_PRINTABLE) for _ in range(NONCE_LENGTH)).encode("ascii")


def new_account(device_id: str, server_id: str, profile: int) -> Account:
    """An account with credentials of its own in both directions (OMA-TS-DM_Security-V1_2 §5.3)."""
    return Account(
        device_id=device_id,
        profile=profile,
        client_name=f"m2me-{secrets.token_hex(6)}",
        client_secret=secrets.token_urlsafe(24),
        client_nonce=new_nonce(),
        server_name=server_id,
        server_secret=secrets.token_urlsafe(24),
        server_nonce=new_nonce(),
    )


def bootstrap_push(account: Account, *, dm_url: str, server_id: str, secret: str) -> bytes:
    """The WAP push with the account, under a MAC with the supplier's secret as USERPIN.

    Raises:
        LocalProtocolError: the secret is not printable ASCII, or the URL is no http or https URL.
    """
    document = DmBootstrap(
        server_id=server_id,
        addr=dm_url,
        name=f"{server_id} profile {account.profile}",
        client=DmCredentials(
            auth_type=AuthType.MD5,
            name=account.client_name,
            secret=account.client_secret,
            nonce=account.client_nonce,
        ),
        server=DmCredentials(
            auth_type=AuthType.MD5,
            name=account.server_name,
            secret=account.server_secret,
            nonce=account.server_nonce,
        ),
        connect_now=True,
    )
    return build_push(
        protect(document, BootstrapSecrets(pin=secret), Sec.USERPIN, transaction_id=account.profile & 0xFF)
    )


def prepare_bootstrap(
    connection: Connection,
    key: SealingKey,
    device_id: str,
    *,
    server_id: str,
    dm_url: str,
    per_hour: int,
    now: datetime,
) -> tuple[str, bytes]:
    """Make and keep a new account for a device; return the id of its order and the datagram to send.

    The account the device had before is void from here on.

    Raises:
        BootstrapNotAllowed
    """
    secret = bootstrap_secret(connection, key, device_id)
    if secret is None:
        raise BootstrapNotAllowed(f"{device_id} is not known", hint="dmserver device add")
    order = ongoing_order(connection, device_id, now)
    if order is None:
        raise BootstrapNotAllowed(f"{device_id} has no ongoing order", hint="dmserver order open, or the SHO opens one")
    if bootstraps_since(connection, device_id, now - timedelta(hours=1)) >= per_hour:
        raise BootstrapNotAllowed(
            f"{device_id} was bootstrapped {per_hour} times within the last hour", hint="limits.bootstraps_per_hour"
        )
    account = new_account(device_id, server_id, profile_of(connection, device_id) + 1)
    put_account(connection, key, account, now)
    return order.order_id, bootstrap_push(account, dm_url=dm_url, server_id=server_id, secret=secret.decode("ascii"))
