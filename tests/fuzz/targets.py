"""All fuzz targets, their seeds, and words that help a fuzzer through text formats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mcim.xml_header import EPHEMERAL, FIELDS, NEW_SHO
from syncml.wbxml.syncml_pages import SYNCML_1_2
from tests.fuzz import ddf_target, message_seeds, message_targets, package_targets, push_targets


def _push(name: str) -> str:
    return name.removeprefix("fuzz_").replace("_", "-")


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    **message_targets.TARGETS,
    **package_targets.TARGETS,
    "ddf": ddf_target.ddf,
    **{_push(name): getattr(push_targets, name) for name in push_targets.PUSH_SEEDS},
}
SEEDS: Final[dict[str, list[bytes]]] = {
    **message_seeds.SEEDS,
    **package_targets.SEEDS,
    "ddf": ddf_target.DDF_SEEDS,
    **{_push(name): seeds for name, seeds in push_targets.PUSH_SEEDS.items()},
}

_MARKUP: Final = ("<!DOCTYPE SyncML ", "<![CDATA[", "]]>", "<!--", "-->", "&amp;", "&#0;", "&#x41;", ' xmlns="', '"')
_PACKAGE: Final = (*FIELDS, EPHEMERAL, NEW_SHO, "ds:Signature", "ds:X509Certificate", "xenc:CipherValue")
_NAMES: Final = sorted({name for names in SYNCML_1_2.tags.values() for name in names.values()})
WORDS: Final[dict[str, tuple[str, ...]]] = {
    name: (*_MARKUP, *(form for tag in tags for form in (f"<{tag}>", f"</{tag}>", f"<{tag}/>")))
    for name, tags in (
        ("xml", _NAMES),
        ("tnds", _NAMES),
        ("ddf", _NAMES),
        ("package", _PACKAGE),
        ("cp-xml", ("wap-provisioningdoc", "characteristic", "parm")),
    )
}
"""Target → words: mutations of single octets seldom leave XML well-formed."""
