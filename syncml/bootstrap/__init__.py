"""Bootstrap of a DM account over WAP push, CP profile (OMA-TS-DM_Bootstrap-V1_2 §5.3).

`protect` makes the push of an account, `accept` the account of a push: first the MAC, then the document.
"""

from __future__ import annotations

from syncml.bootstrap.cp import MAX_DOCUMENT_SIZE, Characteristic, CpDocument, Parm, decode_cp, encode_cp
from syncml.bootstrap.errors import BootstrapReason, BootstrapRefused
from syncml.bootstrap.profile import DmBootstrap, DmCredentials, NapDef, from_document, to_document
from syncml.bootstrap.security import BootstrapSecrets, Sec, compute_mac, imsi_semi_octets, verify_mac
from syncml.codes import MediaType
from syncml.errors import LocalProtocolError
from syncml.wap_push import (
    APPLICATION_SYNCML_DM,
    WAP_PUSH_PORT,
    MalformedPush,
    WapPush,
    build_push,
    parse_push,
)

__all__ = [
    "APPLICATION_SYNCML_DM",
    "WAP_PUSH_PORT",
    "BootstrapReason",
    "BootstrapRefused",
    "BootstrapSecrets",
    "Characteristic",
    "CpDocument",
    "DmBootstrap",
    "DmCredentials",
    "MalformedPush",
    "NapDef",
    "Parm",
    "Sec",
    "WapPush",
    "accept",
    "build_push",
    "compute_mac",
    "decode_cp",
    "encode_cp",
    "from_document",
    "imsi_semi_octets",
    "parse_push",
    "protect",
    "to_document",
    "verify_mac",
]


def protect(bootstrap: DmBootstrap, secrets: BootstrapSecrets, sec: Sec, *, transaction_id: int = 0) -> WapPush:
    """The push that carries an account, under a MAC of that kind.

    Raises:
        LocalProtocolError: the secrets do not include what the kind needs, or a value cannot be encoded.
    """
    key = secrets.key(sec)
    if key is None:
        raise LocalProtocolError(f"no secret for {sec.name}")
    body = encode_cp(to_document(bootstrap))
    return WapPush(
        transaction_id=transaction_id,
        content_type=MediaType.CONNECTIVITY_WBXML,
        sec=sec,
        mac=compute_mac(key, body),
        body=body,
    )


def accept(push: WapPush, secrets: BootstrapSecrets) -> DmBootstrap:
    """The account that a received push carries; nothing in the body is looked at before its MAC is verified.

    Raises:
        BootstrapRefused: OVERSIZED; UNPROTECTED without SEC and MAC, or with a SEC for which there is no secret;
            WRONG_MAC, which the caller counts (REQ-08); MALFORMED for another content type; else as `decode_cp`
            and `from_document`.
        LocalProtocolError: the secrets are no IMSI or PIN.
    """
    if push.content_type != MediaType.CONNECTIVITY_WBXML:
        raise BootstrapRefused(BootstrapReason.MALFORMED, "content type is not a provisioning document")
    if len(push.body) > MAX_DOCUMENT_SIZE:
        raise BootstrapRefused(BootstrapReason.OVERSIZED, f"document of {len(push.body)} octets")
    if push.sec is None or push.mac is None:
        raise BootstrapRefused(BootstrapReason.UNPROTECTED, "no SEC or no MAC")
    key = secrets.key(Sec(push.sec)) if push.sec in tuple(Sec) else None
    if key is None:
        raise BootstrapRefused(BootstrapReason.UNPROTECTED, f"no secret for SEC {push.sec}")
    if not verify_mac(key, push.body, push.mac):
        raise BootstrapRefused(BootstrapReason.WRONG_MAC, "MAC does not match")
    return from_document(decode_cp(push.body))
