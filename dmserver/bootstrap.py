"""Bootstrap of a DM account (TR 33.812 §5.1.3.7.1 step 7): fresh credentials, a document, a MAC, one push."""

from __future__ import annotations

import re
import secrets
import string
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection

from actor_runtime.errors import ActorError
from actor_runtime.sealing import SealingKey
from dmserver.store.accounts import (
    Account,
    bootstrap_secret,
    bootstraps_since,
    find_account,
    is_known,
    is_managed,
    profile_of,
    put_account,
)
from dmserver.store.orders import ongoing_order
from syncml.bootstrap import (
    BootstrapSecrets,
    DmBootstrap,
    DmCredentials,
    DmSec,
    Sec,
    build_push,
    protect_document,
    to_document,
    typed_number,
)
from syncml.bootstrap.dm_profile import protect_message
from syncml.codes import AuthType
from syncml.wap_push import WapPush

NONCE_LENGTH: Final = 16  # octets; 95 bits of printable ASCII
_PRINTABLE: Final = string.ascii_letters + string.digits


class BootstrapNotAllowed(ActorError):
    """The device is not known, has no order, or was bootstrapped too often (REQ-11)."""


class Profile(StrEnum):
    """Which of the two bootstrap profiles (OMA-TS-DM_Bootstrap-V1_2 §5.3, §5.4)."""

    CP = "cp"
    DM = "dm"


class MacKey(StrEnum):
    """What the MAC key is made of."""

    NETWPIN = "netwpin"  # IMSI
    USERPIN = "userpin"  # the supplier's secret
    USERNETWPIN = "usernetwpin"
    USERPINMAC = "userpinmac"  # the supplier's secret, which is digits then; the user types it with the MAC

    @property
    def cp(self) -> Sec:
        """SEC of the CP profile."""
        return Sec[self.name]

    @property
    def dm(self) -> DmSec:
        """SEC of the DM profile.

        Raises:
            BootstrapNotAllowed: USERPINMAC, which the DM profile does not have.
        """
        names = {
            MacKey.NETWPIN: DmSec.NETWORKID,
            MacKey.USERPIN: DmSec.USERPIN,
            MacKey.USERNETWPIN: DmSec.USERPIN_NETWORKID,
        }
        if self not in names:
            raise BootstrapNotAllowed(f"the DM profile has no {self.name}", hint="--sec userpin")
        return names[self]


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapForm:
    """How a bootstrap is to look; the default is what every device takes."""

    profile: Profile = Profile.CP
    mac_key: MacKey = MacKey.USERPIN
    imsi: str | None = field(default=None, repr=False)  # used for the MAC and not kept
    imsi_text: bool = False  # key of the IMSI's ASCII digits: what some devices expect
    as_xml: bool = False  # CP: text form, for test tools
    client_auth: AuthType = AuthType.MD5
    server_auth: AuthType = AuthType.MD5


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedBootstrap:
    """A bootstrap that is ready to be sent; its account is in force at the server."""

    order_id: str | None  # None: the device is managed without an order
    push: WapPush
    typed: str | None = field(default=None, repr=False)  # what the user has to type for USERPINMAC

    @property
    def datagram(self) -> bytes:
        """The push as WSP octets."""
        return build_push(self.push)

    @property
    def summary(self) -> str:
        """What the trail says of it: nothing secret."""
        sec = self.push.sec.name if isinstance(self.push.sec, Sec | DmSec) else str(self.push.sec)
        profile = "DM" if isinstance(self.push.sec, DmSec) else "CP"
        return f"WAP push: {profile} bootstrap, SEC {sec}, HMAC-SHA1"


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


def account_document(account: Account, *, dm_url: str, server_id: str) -> DmBootstrap:
    """What the device is told of an account.

    Raises:
        LocalProtocolError: the URL is no http or https URL, or the server id cannot stand in an ACL.
    """
    return DmBootstrap(
        server_id=server_id,
        addr=dm_url,
        name=f"{server_id} profile {account.profile}",
        client=DmCredentials(
            auth_type=account.client_auth,
            name=account.client_name,
            secret=account.client_secret,
            nonce=account.client_nonce,
        ),
        server=DmCredentials(
            auth_type=account.server_auth,
            name=account.server_name,
            secret=account.server_secret,
            nonce=account.server_nonce,
        ),
        connect_now=True,
    )


def bootstrap_push(
    account: Account, *, dm_url: str, server_id: str, secret: str, form: BootstrapForm | None = None
) -> WapPush:
    """The push with the account, under a MAC.

    Raises:
        BootstrapNotAllowed: the DM profile has no such MAC, or no XML.
        LocalProtocolError: a secret that the kind of MAC needs is missing or malformed, or the URL cannot be used.
    """
    form = form or BootstrapForm()
    document = account_document(account, dm_url=dm_url, server_id=server_id)
    known = BootstrapSecrets(pin=secret or None, imsi=form.imsi)
    if form.profile is Profile.DM:
        if form.as_xml:
            raise BootstrapNotAllowed("the DM profile is WBXML only", hint="leave out --xml")
        return protect_message(
            document,
            device_id=account.device_id,
            secrets=known,
            sec=form.mac_key.dm,
            imsi_text=form.imsi_text,
            transaction_id=account.profile & 0xFF,
        )
    return protect_document(
        to_document(document),
        known,
        form.mac_key.cp,
        as_xml=form.as_xml,
        imsi_text=form.imsi_text,
        transaction_id=account.profile & 0xFF,
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
    form: BootstrapForm | None = None,
) -> PreparedBootstrap:
    """Make and keep a new account for a device. The account the device had before is void from here on.

    Raises:
        BootstrapNotAllowed
        LocalProtocolError: as `bootstrap_push`.
    """
    form = form or BootstrapForm()
    secret = bootstrap_secret(connection, key, device_id)
    if not is_known(connection, device_id):
        raise BootstrapNotAllowed(f"{device_id} is not known", hint="dmserver devices add")
    if secret is None and form.mac_key is not MacKey.NETWPIN:
        raise BootstrapNotAllowed(f"{device_id} came without a secret", hint="--sec netwpin --imsi-file")
    order = ongoing_order(connection, device_id, now)
    if order is None and not is_managed(connection, device_id):
        raise BootstrapNotAllowed(f"{device_id} has no ongoing order", hint="dmserver order open, or the SHO opens one")
    if bootstraps_since(connection, device_id, now - timedelta(hours=1)) >= per_hour:
        raise BootstrapNotAllowed(
            f"{device_id} was bootstrapped {per_hour} times within the last hour", hint="limits.bootstraps_per_hour"
        )
    pin = "" if secret is None else secret.decode("ascii")
    if form.mac_key is MacKey.USERPINMAC and not re.fullmatch(r"[0-9]{1,20}", pin):
        raise BootstrapNotAllowed(f"the secret of {device_id} cannot be typed", hint="USERPINMAC needs 1 to 20 digits")
    before = find_account(connection, key, device_id)
    account = replace(
        new_account(device_id, server_id, profile_of(connection, device_id) + 1),
        client_auth=form.client_auth,
        server_auth=form.server_auth,
        notified=0 if before is None else before.notified,  # the device remembers the ids it has seen
    )
    put_account(connection, key, account, now)
    push = bootstrap_push(account, dm_url=dm_url, server_id=server_id, secret=pin, form=form)
    return PreparedBootstrap(
        order_id=None if order is None else order.order_id,
        push=push,
        typed=typed_number(pin, push.body) if form.mac_key is MacKey.USERPINMAC else None,
    )
