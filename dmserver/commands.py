"""The SyncML commands the DPF sends. Every one is plain: no Atomic, which devices need not have."""

from __future__ import annotations

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


def make_evidence(m2m_root: str, challenge: bytes) -> tuple[Command, ...]:
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
    return (sequence, *read_evidence(m2m_root))


def read_evidence(m2m_root: str) -> tuple[Command, ...]:
    """Read the evidence, which a device may make after its session (Status 202 to Generate)."""
    return get_nodes((f"{m2m_root}/{M2MNode.ATTESTATION_EVIDENCE}",))


def push_package(  # the clear leaves of one container and the package: a value class would only repeat this list
    container: str, *, mcim_id: str, sho_id: str, req_id: str, nonce: bytes, package: bytes
) -> tuple[Command, ...]:
    """Create `container` (a node URI) with its clear leaves and, last, the package.

    The package comes last because the device reacts on its presence (REQ-63). It is a large object when it does not
    fit into a message, and therefore stands in a command of its own.
    """
    leaves = (
        leaf_item(f"{container}/{ContainerNode.MCIM_ID}", mcim_id, format=Format.CHR),
        leaf_item(f"{container}/{ContainerNode.SHO_ID}", sho_id, format=Format.CHR),
        leaf_item(f"{container}/{ContainerNode.REQ_ID}", req_id, format=Format.CHR),
        leaf_item(f"{container}/{ContainerNode.NONCE_ECHO}", nonce, format=Format.BIN, type="application/octet-stream"),
        leaf_item(f"{container}/{ContainerNode.CONTENT_TYPE}", PACKAGE_MEDIA_TYPE, format=Format.CHR),
        leaf_item(f"{container}/{ContainerNode.AUTO_PROVISION}", True, format=Format.BOOL),
    )
    return (
        Add(items=(node_item(container, None),)),
        *(Add(items=(leaf,)) for leaf in leaves),
        Add(
            items=(
                leaf_item(f"{container}/{ContainerNode.PACKAGE}", package, format=Format.BIN, type=PACKAGE_MEDIA_TYPE),
            )
        ),
    )


def drop_container(container: str) -> tuple[Command, ...]:
    """Remove a container that holds nothing installed."""
    return (Delete(items=(Item(target=container),)),)


def provision(container: str) -> tuple[Command, ...]:
    """Nudge a device that has the whole package and did not react on it."""
    return (Exec(items=(Item(target=f"{container}/{ContainerNode.PROVISION}"),)),)


def ask_outcome(container: str) -> tuple[Command, ...]:
    """Ask what became of a container."""
    return get_nodes(
        tuple(f"{container}/{leaf}" for leaf in (ContainerNode.STATE, ContainerNode.RESULT, ContainerNode.RECEIPT))
    )
