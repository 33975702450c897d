"""Nonces between raw octets and the forms that peers make of them (OMA-TS-DM_Security-V1_2 §5.3).

On the wire a nonce is Base64 text, in a digest it is what that text stands for. Not all peers keep the two apart.
"""

from __future__ import annotations

import base64
import binascii


def encode_nonce(nonce: bytes) -> str:
    """The text of a `NextNonce`."""
    return base64.b64encode(nonce).decode()


def decode_nonce(received: str | bytes) -> bytes:
    """Raw octets of a received `NextNonce`.

    Text is Base64; what is none counts as the octets themselves, as some peers send it. An opaque of WBXML holds the
    raw octets (S60 devices; libwbxml reads it so); only when it ends in the padding of Base64 it is taken as text, for
    a nonce out of letters would pass as Base64 as well.
    """
    if isinstance(received, bytes):
        return (_decoded(received) if received.endswith(b"=") else None) or received
    decoded = _decoded(received.encode())
    return received.encode() if decoded is None else decoded


def nonce_forms(nonce: bytes) -> tuple[bytes, ...]:
    """What a peer may have put into its digest for this nonce, the right form first and each form once.

    The octets themselves; the text that stood on the wire, undecoded (Motorola's client tries both); the octets decoded
    once more, for a peer whose text had been encoded twice.
    """
    forms = [nonce, encode_nonce(nonce).encode()]
    decoded = _decoded(nonce)
    if decoded:
        forms.append(decoded)
    return tuple(dict.fromkeys(forms))


def _decoded(text: bytes) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
