"""`data = tag | payload_length | payload | version | filling_data` (S3-090792), big-endian."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from mcim.errors import InvalidArgument, PackageRefused
from mcim.vocabulary import ResultCode, Tag

FORMAT_MAJOR: Final = 1
FORMAT_MINOR: Final = 0
MAX_PAYLOAD: Final = 262_144  # octets a TRE accepts
BLOCK: Final = 16  # octets; `data` is whole AES blocks, so CBC needs no padding of its own
DEFAULT_BUCKET: Final = 64  # octets; a larger bucket hides more of the payload's length
MAX_FILLING: Final = 256  # octets


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """One decoded `data`. `payload` holds secrets and stays out of the repr."""

    tag: Tag
    payload: bytes = field(repr=False)
    revision: int  # MCIM revision, from 1
    format_minor: int = FORMAT_MINOR


def encode_data(tag: Tag, payload: bytes, revision: int, *, bucket: int = DEFAULT_BUCKET) -> bytes:
    """Frame a payload and fill it to a multiple of `bucket` octets.

    Raises:
        InvalidArgument: payload too long, revision outside 1…65535, or a bucket that is no multiple of 16 up to 256.
    """
    if len(payload) > MAX_PAYLOAD or not 1 <= revision <= 0xFFFF:
        raise InvalidArgument("payload too long or revision out of range")
    if bucket % BLOCK or not BLOCK <= bucket <= MAX_FILLING:
        raise InvalidArgument("bucket must be a multiple of 16 octets, 16 to 256")
    version = bytes((FORMAT_MAJOR, FORMAT_MINOR)) + revision.to_bytes(2, "big")
    frame = bytes((tag,)) + len(payload).to_bytes(4, "big") + payload + version
    filling = bucket - len(frame) % bucket  # 1 to bucket: there is always the 0x80
    return frame + b"\x80" + bytes(filling - 1)


def decode_data(octets: bytes) -> Data:
    """Take a decrypted `data` apart. Call it only after the MAC was found right (REQ-35, REQ-40).

    Raises:
        PackageRefused: MALFORMED for a broken frame or filling, CONTENT_INVALID for a tag nobody defined.
    """
    if len(octets) < BLOCK or len(octets) % BLOCK:
        raise PackageRefused(ResultCode.MALFORMED, "data is not whole blocks")
    length = int.from_bytes(octets[1:5], "big")
    end = 5 + length
    if length > MAX_PAYLOAD or end + 4 >= len(octets):
        raise PackageRefused(ResultCode.MALFORMED, "payload_length runs over the data")
    version, filling = octets[end : end + 4], octets[end + 4 :]
    if len(filling) > MAX_FILLING or filling != b"\x80" + bytes(len(filling) - 1):
        raise PackageRefused(ResultCode.MALFORMED, "filling_data is not 80 00 … 00")
    if version[0] != FORMAT_MAJOR:
        raise PackageRefused(ResultCode.MALFORMED, f"data format {version[0]} is unknown")
    revision = int.from_bytes(version[2:4], "big")
    if revision < 1:
        raise PackageRefused(ResultCode.MALFORMED, "revision 0")
    try:
        tag = Tag(octets[0])
    except ValueError as exc:
        raise PackageRefused(ResultCode.CONTENT_INVALID, f"tag {octets[0]:02X} is reserved") from exc
    return Data(tag=tag, payload=octets[5:end], revision=revision, format_minor=version[1])
