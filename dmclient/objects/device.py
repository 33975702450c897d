"""DevInfo, DevDetail and Inbox: what every device has (OMA-TS-DM_StdObj-V1_2 §5.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dmclient.management_tree import ManagementTree
from dmclient.nodes import Path
from dmclient.objects import description

DEV_INFO: Final[Path] = ("DevInfo",)
DEV_DETAIL: Final[Path] = ("DevDetail",)
INBOX: Final[Path] = ("Inbox",)
DM_VERSION: Final = "1.2"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What the factory prints on the device; all text."""

    device_id: str  # a URN; also the M2ME identity and the Source of every message
    manufacturer: str = "Example"
    model: str = "M2ME simulator"
    language: str = "en"
    device_type: str = "m2m"
    oem: str = "Example"
    firmware_version: str = "1.0"
    software_version: str = "1.0"
    hardware_version: str = "1.0"


def build_device_objects(tree: ManagementTree, facts: DeviceFacts) -> None:
    """Mount DevInfo, DevDetail and the Inbox, and fill them."""
    tree.mount(DEV_INFO, description("DevInfo"))
    tree.built_in(DEV_INFO)
    for name, value in _dev_info_leaves(facts).items():
        tree.built_in((*DEV_INFO, name), value)
    tree.mount(DEV_DETAIL, description("DevDetail"))
    tree.built_in(DEV_DETAIL)
    tree.built_in((*DEV_DETAIL, "URI"))
    details = {
        ("URI", "MaxDepth"): str(tree.limits.max_depth),
        ("URI", "MaxTotLen"): str(tree.limits.max_total_length),
        ("URI", "MaxSegLen"): str(tree.limits.max_segment_length),
        ("DevTyp",): facts.device_type,
        ("OEM",): facts.oem,
        ("FwV",): facts.firmware_version,
        ("SwV",): facts.software_version,
        ("HwV",): facts.hardware_version,
        ("LrgObj",): "true",
    }
    for path, value in details.items():
        tree.built_in((*DEV_DETAIL, *path), value)
    tree.mount(INBOX, description("Inbox"))
    tree.built_in(INBOX)


def dev_info_of(facts: DeviceFacts) -> dict[str, str]:
    """The leaves of DevInfo by URI, as package 1 carries them."""
    return {f"./DevInfo/{name}": value for name, value in _dev_info_leaves(facts).items()}


def _dev_info_leaves(facts: DeviceFacts) -> dict[str, str]:
    return {
        "DevId": facts.device_id,
        "Man": facts.manufacturer,
        "Mod": facts.model,
        "DmV": DM_VERSION,
        "Lang": facts.language,
    }
