"""Packages: what each operation says to the TRE, sealed for PK_D where it carries an object, signed by this SHO."""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection

from actor_runtime.store import Store
from actor_runtime.trail import Trail
from mcim.certificates import ValidatedCertificate
from mcim.content import AlgorithmContent, BoundContent, Content, McimContent, UpdateContent
from mcim.data import encode_data
from mcim.mcim_object import fresh_keys, seal_mcim
from mcim.package import build_package
from mcim.package_header import PackageHeader
from mcim.platform_key import PlatformPublicKey
from mcim.vocabulary import BindMode, ContainerState, McimPolicy, Operation, Suite, Tag
from sho.checks import Checks, RequestRefused
from sho.identity import ShoIdentity
from sho.platform_checks import platform_key
from sho.store import handovers, prepared, repository, tokens, updates
from sho.store.prepared import PreparedRow
from sho.store.repository import HandoverRow, SubscriptionRow, Terms
from sho.store.tokens import TokenRow
from sho.store.updates import UpdateRow
from sho.subscriptions import Vault

STEP: Final = "12"
FIRST_REVISION: Final = 1  # of a new MCIM
_TAGS: Final = {McimContent: Tag.MCIM, UpdateContent: Tag.UPDATE, AlgorithmContent: Tag.ALGORITHM}


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What the DPF gets; it cannot open the package."""

    package: bytes = field(repr=False)
    row: HandoverRow
    package_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ingredients:
    """What the database gives for one package."""

    subscription: SubscriptionRow
    terms: Terms
    update: UpdateRow | None
    token: TokenRow | None
    prepared_object: bytes | None = field(repr=False)


class PackageMaker:
    """Makes the package of a hand-over once, and keeps it for identical retries."""

    def __init__(
        self, *, store: Store, vault: Vault, trail: Trail, identity: ShoIdentity, mcim_policy: McimPolicy
    ) -> None:
        self._store, self._vault, self._trail = store, vault, trail
        self._identity, self._mcim_policy = identity, mcim_policy

    async def package(self, row: HandoverRow, platform: ValidatedCertificate, checks: Checks) -> Delivery:
        """The package of a hand-over, made now unless it was made before.

        Raises:
            RequestRefused: nothing can be made of what is stored.
        """
        if row.package_sealed is None:
            parts = await self._store.read(lambda c: _ingredients(c, row))
            # RSA, AES and XML-Sig: some milliseconds that the event loop need not wait for.
            package = await asyncio.to_thread(self._make, row, parts, platform_key(platform))
            sealed, digest = self._vault.seal_package(package, _place(row)), hashlib.sha256(package).digest()
            token_ref = row.token_ref if parts.prepared_object is not None else None
            token_ref = parts.token.token_ref if parts.token is not None else token_ref
            row = await self._store.write(
                lambda c: handovers.keep_package(c, row.id, sealed=sealed, digest=digest, token_ref=token_ref)
            )
            if row.state == repository.FAILED:  # a person refused its job while it was made
                raise checks.failed(
                    "package-still-wanted", ("REQ-26",), code="refused", detail="the job was refused", status=409
                )
            self._trail.message(
                step=STEP, direction="SHO→DPF", order=row.order_id, octets=len(package),
                summary=f"{row.operation.label} package for {row.tre_id}, suite {row.suite.label}, "
                f"container {row.container.value}, sequence {row.sequence}"
                + (", object prepared before" if row.prepared_id is not None else ""),
            )  # fmt: skip
            checks.passed("package-made-and-kept", ("REQ-29", "REQ-37"), f"SHA-256 {digest.hex()}")
        else:
            self._trail.note("same request again: the same package", step=STEP, order=row.order_id)
        return self.kept(row)

    def kept(self, row: HandoverRow) -> Delivery:
        """The package that was made for a hand-over.

        Raises:
            RequestRefused: there is none.
        """
        if row.package_sealed is None or row.package_hash is None:
            raise RequestRefused("internal-error", "no package is stored", status=500)
        return Delivery(
            package=self._vault.open_package(row.package_sealed, _place(row)), row=row, package_hash=row.package_hash
        )

    def seal_content(self, content: Content, *, suite: Suite, recipient: PlatformPublicKey, revision: int) -> bytes:
        """The MCIM object of a content: fresh PIK and PCK, used once and forgotten (REQ-37)."""
        return seal_mcim(
            encode_data(_TAGS[type(content)], content.to_payload(), revision),
            suite=suite,
            recipient=recipient,
            keys=fresh_keys(suite, os.urandom),
        )

    def prepare_object(
        self, row: PreparedRow, subscription: SubscriptionRow, token: TokenRow | None, recipient: PlatformPublicKey
    ) -> bytes:
        """An MCIM object without nonce and transaction: those will stand in the header alone (REQ-65)."""
        bound = BoundContent(
            mcim_id=uuid.UUID(row.mcim_id),
            sho_id=self._identity.sho_id,
            tre_id=row.tre_id,
            registration_nonce=None,
            sequence=row.sequence,
            not_before=row.not_before,
            not_after=row.not_after,
            transaction_id=None,
            bind_mode=BindMode.PREPARED,
            auth_token=self._token(token),
        )
        content = self._new_mcim(bound, subscription, row.sqn_init, Terms())
        return self.seal_content(content, suite=row.suite, recipient=recipient, revision=FIRST_REVISION)

    def _make(self, row: HandoverRow, parts: _Ingredients, recipient: PlatformPublicKey) -> bytes:
        mcim_object = parts.prepared_object
        if row.operation.carries_object and mcim_object is None:
            content = self._content(row, parts)
            mcim_object = self.seal_content(content, suite=row.suite, recipient=recipient, revision=row.revision)
        has_token = parts.token is not None or (parts.prepared_object is not None and row.token_ref is not None)
        header = PackageHeader(
            transaction_id=uuid.UUID(row.transaction_id),
            sequence=row.sequence,
            registration_nonce=row.nonce,
            m2me_id=row.m2me_id,
            tre_id=row.tre_id,
            platform_key_id=row.platform_key_id,
            sho_id=self._identity.sho_id,
            dpf_id=row.dpf_id,
            operation=row.operation,
            mcim_id=uuid.UUID(row.mcim_id),
            suite=row.suite,
            not_before=row.not_before,
            not_after=row.not_after,
            ticket_digest=row.ticket_digest,
            auth_mode="token" if has_token else "none",
        )
        return build_package(
            header,
            mcim_object,
            recipient_public_key=recipient,
            signing_key=self._identity.signing_key,
            signer_chain=self._identity.chain,
            container=row.container,
        )

    def _content(self, row: HandoverRow, parts: _Ingredients) -> Content:
        bound = BoundContent(
            mcim_id=uuid.UUID(row.mcim_id),
            sho_id=self._identity.sho_id,
            tre_id=row.tre_id,
            registration_nonce=row.nonce,
            sequence=row.sequence,
            not_before=row.not_before,
            not_after=row.not_after,
            transaction_id=uuid.UUID(row.transaction_id),
            operation=row.operation,
            auth_token=self._token(parts.token),
        )
        if row.operation is Operation.UPDATE:
            if parts.update is None:
                raise RequestRefused("no-update", "nothing is to be changed", status=409)
            return self._changes(bound, parts.update, row.sqn_init)
        return self._new_mcim(bound, parts.subscription, row.sqn_init, parts.terms)

    def _new_mcim(self, bound: BoundContent, subscription: SubscriptionRow, sqn_init: int, terms: Terms) -> McimContent:
        credential = self._vault.open(subscription.sealed)
        return McimContent(
            **_fields(bound),
            imsi=credential.imsi,
            k=credential.k,
            algorithm=credential.algorithm,
            opc=credential.opc,
            constants=credential.constants,
            sqn_init=sqn_init,
            amf=subscription.amf,
            initial_state=ContainerState.ACTIVATED,  # the AuC lets it in only after the receipt all the same (REQ-68)
            policy=self._mcim_policy if subscription.policy is None else subscription.policy,
            replaces=uuid.UUID(terms.replaces) if terms.replaces is not None else None,
            release_token=terms.release_token,
        )

    def _changes(self, bound: BoundContent, change: UpdateRow, sqn_init: int) -> UpdateContent | AlgorithmContent:
        credential, keys = self._vault.open(change.sealed), updates.KEYS in change.changes
        if updates.CONSTANTS in change.changes:  # K and SQN stay where they are, and on no wire again
            return AlgorithmContent(
                **_fields(bound), algorithm=credential.algorithm, constants=credential.keys.explicit_constants
            )
        policy = self._mcim_policy if change.policy is None else change.policy
        return UpdateContent(
            **_fields(bound),
            imsi=credential.imsi if "imsi" in change.changes else None,
            keys=credential.keys if keys else None,
            sqn_init=sqn_init if keys else None,
            amf=change.amf if "amf" in change.changes else None,
            policy=policy if "policy" in change.changes else None,
        )

    def _token(self, token: TokenRow | None) -> bytes | None:
        return self._vault.open_token(token.sealed, token.token_ref) if token is not None else None


def _fields(bound: BoundContent) -> dict[str, Any]:
    return {name: getattr(bound, name) for name in BoundContent.__dataclass_fields__}


def _place(row: HandoverRow) -> str:
    """What the package is sealed to; those of the first release are sealed to their MCIM."""
    first_form = row.operation is Operation.INSTALL and row.prepared_id is None
    return row.mcim_id if first_form else f"{row.mcim_id}|{row.transaction_id}"


def _ingredients(connection: Connection, row: HandoverRow) -> _Ingredients:
    ready = prepared.get_object(connection, row.prepared_id).object if row.prepared_id is not None else None
    on_demand = row.operation.carries_object and ready is None
    return _Ingredients(
        subscription=repository.get_subscription(connection, row.subscription_id),
        terms=repository.terms_of(connection, row.order_id) or Terms(operation=row.operation),
        update=updates.get_update(connection, row.update_id) if row.update_id is not None else None,
        token=tokens.find(connection, row.m2me_id) if on_demand else None,
        prepared_object=ready,
    )
