"""Node values as Items and back (OMA-TS-DM_RepPro-V1_2 §7; formats of OMA-TS-DM_TND-V1_2 §7.7.2)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import replace

from syncml.codes import Format, MediaType
from syncml.encoding import Encoding
from syncml.errors import RemoteProtocolError
from syncml.model import Item, Meta

NodeValue = str | bytes


def leaf_item(
    uri: str, value: str | bytes | int | bool | None, *, format: Format = Format.CHR, type: str = MediaType.TEXT
) -> Item:
    """An Item that carries a leaf's value to `uri`; octets stay octets until the codec writes them."""
    data: str | bytes | None
    if isinstance(value, bool):
        data = "true" if value else "false"
    elif isinstance(value, int):
        data = str(value)
    else:
        data = value
    return Item(target=uri, meta=Meta(format=format, type=type), data=data)


def node_item(uri: str, mo_type: str | None = None) -> Item:
    """An Item that adds an interior node, with the MO identifier where it is a root."""
    return Item(target=uri, meta=Meta(format=Format.NODE, type=mo_type))


def item_value(item: Item, command_meta: Meta | None = None) -> NodeValue:
    """The value an Item carries: octets for `bin` and `b64`, text for all else.

    Raises:
        RemoteProtocolError: `b64` data that is no Base64.
    """
    meta = command_meta.inherited_by(item.meta) if command_meta is not None else item.meta or Meta()
    if isinstance(item.data, bytes):
        return item.data
    text = item.data or ""
    if meta.format in (Format.B64, Format.BIN):
        try:
            return base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError) as exc:
            raise RemoteProtocolError("b64 data that is no Base64") from exc
    return text


def as_transmitted(item: Item, encoding: Encoding) -> Item:
    """The Item as that encoding carries it: what is cut into chunks and counted (OMA-TS-DM_RepPro-V1_2 §7).

    XML carries octets as Base64 text. WBXML carries them as an opaque of Format `bin`, but as text under `b64`, and a
    document under `xml` as it is.
    """
    if not isinstance(item.data, bytes):
        return item
    meta = item.meta or Meta()
    if encoding is Encoding.XML or meta.format == Format.B64:
        return replace(item, meta=replace(meta, format=Format.B64), data=base64.b64encode(item.data).decode())
    return item if meta.format in (Format.BIN, Format.XML) else replace(item, meta=replace(meta, format=Format.BIN))


def transmitted_size(data: str | bytes) -> int:
    """What `Meta/Size` and MaxObjSize count: octets of the data as it travels, for Base64 those of the text."""
    return len(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)
