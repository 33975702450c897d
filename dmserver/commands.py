"""The SyncML commands the DPF sends. Every one is plain: no Atomic, which devices need not have."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from mcim.vocabulary import PACKAGE_MEDIA_TYPE
from mo_definitions.m2m import ContainerNode, M2MNode
from syncml.codes import Format
from syncml.model import Add, Command, Delete, Exec, Get, Item, Replace, Sequence
from syncml.values import leaf_item, node_item

ITEMS_PER_GET: Final = 4
"""A command is never split over messages (OMA-TS-DM_Protocol-V1_2 §8.4), and a device may announce 2 KiB messages."""


def get_nodes(uris: tuple[str, ...]) -> tuple[Command, ...]:
    """Gets for all `uris`, a few in each command."""
    return tuple(
        Get(items=tuple(Item(target=uri) for uri in uris[start : start + ITEMS_PER_GET]))
        for start in range(0, len(uris), ITEMS_PER_GET)
    )


def renew_registration(m2m_root: str, sho_id: str | None) -> tuple[Command, ...]:
    """Ask the TRE for a fresh request id and nonce; with `sho_id`, for that home operator.

    The TRE takes a home operator into a registration when it opens one, so naming one means renewing (REQ-50).
    """
    renew = Exec(items=(Item(target=f"{m2m_root}/{M2MNode.REGISTRATION_RENEW}"),))
    if sho_id is None:
        return (renew,)
    select = Replace(items=(leaf_item(f"{m2m_root}/{M2MNode.REGISTRATION_SHO}", sho_id, format=Format.CHR),))
    return (Sequence(commands=(select, renew)),)


def make_evidence(m2m_root: str, challenge: bytes, *, with_log: bool = False) -> tuple[Command, ...]:
    """Set the PVA's challenge, have evidence made over it, read it (REQ-18)."""
    sequence = Sequence(
        commands=(
            Replace(
                items=(
                    leaf_item(
                        f"{m2m_root}/{M2MNode.ATTESTATION_CHALLENGE}",
                        challenge,
                        format=Format.BIN,
                        type="application/octet-stream",
                    ),
                )
            ),
            Exec(items=(Item(target=f"{m2m_root}/{M2MNode.ATTESTATION_GENERATE}"),)),
        )
    )
    return (sequence, *read_evidence(m2m_root, with_log=with_log))


def read_evidence(m2m_root: str, *, with_log: bool = False) -> tuple[Command, ...]:
    """Read the evidence, which a device may make after its session (Status 202 to Generate).

    The measurement log of remote mode has a Get of its own: it may be a large object.
    """
    log = get_nodes((f"{m2m_root}/{M2MNode.ATTESTATION_LOG}",)) if with_log else ()
    return (*get_nodes((f"{m2m_root}/{M2MNode.ATTESTATION_EVIDENCE}",)), *log)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """What a container gets: the clear leaves, and a package or a signed command."""

    mcim_id: str
    sho_id: str
    req_id: str
    nonce: bytes = field(repr=False)
    package: bytes = field(repr=False)
    media_type: str = PACKAGE_MEDIA_TYPE
    token_ref: str | None = None


def push_package(container: str, given: Delivered) -> tuple[Command, ...]:
    """Create `container` (a node URI) with its clear leaves and, last, the package.

    The package comes last because the device reacts on its presence (REQ-63). It is a large object when it does not
    fit into a message, and therefore stands in a command of its own.
    """
    leaves = (
        leaf_item(f"{container}/{ContainerNode.MCIM_ID}", given.mcim_id, format=Format.CHR),
        leaf_item(f"{container}/{ContainerNode.SHO_ID}", given.sho_id, format=Format.CHR),
        *_changing_leaves(container, given),
        leaf_item(f"{container}/{ContainerNode.AUTO_PROVISION}", True, format=Format.BOOL),
    )
    return (
        Add(items=(node_item(container, None),)),
        *(Add(items=(leaf,)) for leaf in leaves),
        Add(items=(_octets(container, ContainerNode.PACKAGE, given),)),
    )


def replace_package(container: str, given: Delivered, *, there: frozenset[str]) -> tuple[Command, ...]:
    """Put another package into a container that has the leaves named in `there`, the package last (flows F4)."""
    items = (*_changing_leaves(container, given), _octets(container, ContainerNode.PACKAGE, given))
    return tuple(_put(item, there=(item.target or "").rpartition("/")[2] in there) for item in items)


def put_command(container: str, given: Delivered, *, there: bool) -> tuple[Command, ...]:
    """Put a signed life-cycle command into its container; `there`: one was put there before (flows F5)."""
    return (_put(_octets(container, ContainerNode.COMMAND, given), there=there),)


def operate(uri: str, correlator: str) -> tuple[Command, ...]:
    """Set off an operation; the alert that ends it carries the correlator."""
    return (Exec(items=(Item(target=uri),), correlator=correlator),)


def list_containers(sim_root: str, names: tuple[str, ...]) -> tuple[Command, ...]:
    """Ask which MCIM each container is for, and which leaves it has."""
    return get_nodes(tuple(f"{sim_root}/{name}{end}" for name in names for end in ("", f"/{ContainerNode.MCIM_ID}")))


def _put(item: Item, *, there: bool) -> Command:
    return Replace(items=(item,)) if there else Add(items=(item,))


def _changing_leaves(container: str, given: Delivered) -> tuple[Item, ...]:
    """The clear leaves that differ from one package to the next of the same MCIM."""
    token = (
        ()
        if given.token_ref is None
        else (leaf_item(f"{container}/{ContainerNode.TOKEN_REF}", given.token_ref, format=Format.CHR),)
    )
    nonce = leaf_item(
        f"{container}/{ContainerNode.NONCE_ECHO}", given.nonce, format=Format.BIN, type="application/octet-stream"
    )
    return (
        leaf_item(f"{container}/{ContainerNode.REQ_ID}", given.req_id, format=Format.CHR),
        nonce,
        leaf_item(f"{container}/{ContainerNode.CONTENT_TYPE}", given.media_type, format=Format.CHR),
        *token,
    )


def _octets(container: str, leaf: ContainerNode, given: Delivered) -> Item:
    return leaf_item(f"{container}/{leaf}", given.package, format=Format.BIN, type=given.media_type)


def drop_container(container: str) -> tuple[Command, ...]:
    """Remove a container that holds nothing installed."""
    return (Delete(items=(Item(target=container),)),)


def provision(container: str) -> tuple[Command, ...]:
    """Nudge a device that has the whole package and did not react on it."""
    return (Exec(items=(Item(target=f"{container}/{ContainerNode.PROVISION}"),)),)


def ask_outcome(container: str, *, beside: tuple[str, ...] = ()) -> tuple[Command, ...]:
    """Ask what became of a container, and for the nodes `beside`."""
    leaves = (ContainerNode.STATE, ContainerNode.RESULT, ContainerNode.RECEIPT)
    return get_nodes((*(f"{container}/{leaf}" for leaf in leaves), *beside))
