"""Bootstrap of DM accounts, in both profiles (OMA-TS-DM_Bootstrap-V1_2 §5.3, §5.4).

CP profile: `protect` makes the push of an account, `accept` the account of a push: first the MAC, then the document.
"""

from __future__ import annotations

from syncml.bootstrap.connectivity import (
    Connectivity,
    NapAuthInfo,
    NapDef,
    Port,
    PxLogical,
    PxPhysical,
    Validity,
    read_connectivity,
)
from syncml.bootstrap.cp import MAX_DOCUMENT_SIZE, Characteristic, CpDocument, Parm, decode_cp, encode_cp
from syncml.bootstrap.cp_xml import decode_cp_xml, encode_cp_xml
from syncml.bootstrap.errors import BootstrapReason, BootstrapRefused
from syncml.bootstrap.profile import (
    AppAddress,
    DmBootstrap,
    DmCredentials,
    TransportCredentials,
    from_document,
    read_accounts,
    to_document,
)
from syncml.bootstrap.security import (
    BootstrapSecrets,
    DmSec,
    Sec,
    compute_mac,
    imsi_semi_octets,
    sec_of,
    typed_number,
    verify_mac,
)
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
    "CP_TYPES",
    "WAP_PUSH_PORT",
    "AppAddress",
    "BootstrapReason",
    "BootstrapRefused",
    "BootstrapSecrets",
    "Characteristic",
    "Connectivity",
    "CpDocument",
    "DmBootstrap",
    "DmCredentials",
    "DmSec",
    "MalformedPush",
    "NapAuthInfo",
    "NapDef",
    "Parm",
    "Port",
    "PxLogical",
    "PxPhysical",
    "Sec",
    "TransportCredentials",
    "Validity",
    "WapPush",
    "accept",
    "authenticated",
    "build_push",
    "compute_mac",
    "decode_cp",
    "decode_cp_xml",
    "encode_cp",
    "encode_cp_xml",
    "from_document",
    "imsi_semi_octets",
    "parse_push",
    "protect",
    "protect_document",
    "read_accounts",
    "read_connectivity",
    "read_cp",
    "sec_of",
    "to_document",
    "typed_number",
    "verify_mac",
]

CP_TYPES = (MediaType.CONNECTIVITY_WBXML, MediaType.CONNECTIVITY_XML)
"""Content types of the CP profile; the text form is for test tools and documents that are fetched."""


def protect(bootstrap: DmBootstrap, secrets: BootstrapSecrets, sec: Sec, *, transaction_id: int = 0) -> WapPush:
    """The push that carries an account, under a MAC of that kind.

    Raises:
        LocalProtocolError: the secrets do not include what the kind needs, or a value cannot be encoded.
    """
    return protect_document(to_document(bootstrap), secrets, sec, transaction_id=transaction_id)


def protect_document(
    document: CpDocument,
    secrets: BootstrapSecrets,
    sec: Sec,
    *,
    as_xml: bool = False,
    imsi_text: bool = False,
    transaction_id: int = 0,
) -> WapPush:
    """The push that carries a document, under a MAC of that kind. With USERPINMAC the MAC stays out of the push:
    `typed_number` says what the user has to type.

    Raises:
        LocalProtocolError: the secrets do not include what the kind needs, or a value cannot be encoded.
    """
    key = secrets.key(sec, as_text=imsi_text)
    if key is None:
        raise LocalProtocolError(f"no secret for {sec.name}")
    body = encode_cp_xml(document) if as_xml else encode_cp(document)
    return WapPush(
        transaction_id=transaction_id,
        content_type=MediaType.CONNECTIVITY_XML if as_xml else MediaType.CONNECTIVITY_WBXML,
        sec=sec,
        mac=None if sec is Sec.USERPINMAC else compute_mac(key, body),
        body=body,
    )


def authenticated(push: WapPush, secrets: BootstrapSecrets) -> Sec | DmSec:
    """The kind of protection under which a push proved to be authentic. Nothing in its body is looked at.

    Raises:
        BootstrapRefused: UNPROTECTED without SEC or MAC, or with a SEC of the other profile or one for which there is
            no secret; WRONG_MAC, which the caller counts (REQ-08).
        LocalProtocolError: the secrets are no IMSI or PIN.
    """
    sec = sec_of(push.sec)
    if sec is None or isinstance(sec, DmSec) is (push.content_type in CP_TYPES):
        raise BootstrapRefused(BootstrapReason.UNPROTECTED, "no SEC, or one we do not know")
    if push.mac is None and sec is not Sec.USERPINMAC:
        raise BootstrapRefused(BootstrapReason.UNPROTECTED, "no MAC")
    if not secrets.can_verify(sec):
        raise BootstrapRefused(BootstrapReason.UNPROTECTED, f"no secret for {sec.name}")
    if not secrets.verify(sec, push.body, push.mac):
        raise BootstrapRefused(BootstrapReason.WRONG_MAC, "MAC does not match")
    return sec


def read_cp(push: WapPush) -> CpDocument:
    """The document of a push, authentic or not, in the form its content type names.

    Raises:
        BootstrapRefused: as `decode_cp` and `decode_cp_xml`; MALFORMED for another content type.
    """
    if push.content_type == MediaType.CONNECTIVITY_WBXML:
        return decode_cp(push.body)
    if push.content_type == MediaType.CONNECTIVITY_XML:
        return decode_cp_xml(push.body)
    raise BootstrapRefused(BootstrapReason.MALFORMED, "content type is not a provisioning document")


def accept(push: WapPush, secrets: BootstrapSecrets) -> DmBootstrap:
    """The account that a received push carries; nothing in the body is looked at before its MAC is verified.

    Raises:
        BootstrapRefused: OVERSIZED; MALFORMED for another content type; as `authenticated`, then as `read_cp` and
            `from_document`.
        LocalProtocolError: the secrets are no IMSI or PIN.
    """
    if push.content_type not in CP_TYPES:
        raise BootstrapRefused(BootstrapReason.MALFORMED, "content type is not a provisioning document")
    if len(push.body) > MAX_DOCUMENT_SIZE:
        raise BootstrapRefused(BootstrapReason.OVERSIZED, f"document of {len(push.body)} octets")
    authenticated(push, secrets)
    return from_document(read_cp(push))
