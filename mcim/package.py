"""The package of a home operator: an MCIM object, encrypted for one TRE and signed, in one of several containers.

Encrypted first, signed last: the receiver knows who sent it before its private key is used. Whoever uses a package
knows its header, its signer and the name of its container; the rest is the business of the container's module.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from mcim import cms_package, xml_package
from mcim.certificates import TrustAnchors
from mcim.errors import InvalidArgument, PackageRefused
from mcim.package_header import PackageHeader, is_cms
from mcim.platform_key import PlatformKey, PlatformPublicKey
from mcim.verified_package import SignerRules, VerifiedPackage
from mcim.vocabulary import Container, ResultCode

__all__ = ["XML_ONLY", "VerifiedPackage", "build_package", "open_package", "verify_package"]

XML_ONLY: Final = frozenset({Container.XML})


def build_package(
    header: PackageHeader,
    mcim_object: bytes | None,
    *,
    recipient_public_key: PlatformPublicKey,
    signing_key: ec.EllipticCurvePrivateKey,
    signer_chain: Sequence[x509.Certificate],
    container: Container = Container.XML,
) -> bytes:
    """Encrypt `mcim_object` for PK_D, put the header beside it, sign all.

    A life-cycle command and a release token are a signed header alone: `mcim_object` is None then.

    Args:
        header: what is signed in clear; its `ephemeral_key` is set here where a container needs it.
        mcim_object: from `mcim.mcim_object`.
        recipient_public_key: PK_D.
        signing_key: the SHO's.
        signer_chain: its certificate first, then what leads to a root.
        container: one that the TRE offers.

    Raises:
        InvalidArgument: no certificate for the signer, a recipient key for which the container has no scheme, or an
            object with an operation that carries none (and the reverse).
    """
    if not signer_chain:
        raise InvalidArgument("the signer's certificate is missing")
    if header.operation.carries_object is (mcim_object is None):
        raise InvalidArgument(f"{header.operation.label} with an object, or without the one it needs")
    if container is Container.CMS:
        return cms_package.build(
            header, mcim_object, recipient=recipient_public_key, signing_key=signing_key, chain=signer_chain
        )
    return xml_package.build(
        header,
        mcim_object,
        recipient=recipient_public_key,
        signing_key=signing_key,
        chain=signer_chain,
        container=container,
    )


def verify_package(
    package: bytes,
    *,
    anchors: TrustAnchors,
    now: datetime,
    expected_sho_id: str,
    crls: Sequence[x509.CertificateRevocationList] = (),
    containers: frozenset[Container] = XML_ONLY,
) -> VerifiedPackage:
    """Steps 1 to 5 of the order of checks: structure, algorithms, signer, signature.

    Args:
        package: the octets as received.
        anchors: SHO roots of the TRE.
        now: UTC.
        expected_sho_id: the SHO selected in this registration.
        crls: revocation lists, for whoever has some.
        containers: those the TRE takes; a weaker one cannot be put in their place on the way (T16).

    Raises:
        PackageRefused: MALFORMED, UNSUPPORTED_SUITE, SIGNER_NOT_ACCEPTABLE, CERTIFICATE_REVOKED or SIGNATURE_INVALID.
    """
    rules = SignerRules(anchors=anchors, now=now, expected_sho_id=expected_sho_id, crls=crls)
    if not is_cms(package):
        return xml_package.verify(package, rules, containers)
    if Container.CMS not in containers:
        raise PackageRefused(ResultCode.UNSUPPORTED_SUITE, "the container is not accepted")
    return cms_package.verify(package, rules)


def open_package(verified: VerifiedPackage, key: PlatformKey) -> bytes:
    """Step 9: the MCIM object out of a verified package.

    Raises:
        PackageRefused: CRYPTO_FAILURE for every cause.
    """
    if verified.sealed is None:
        raise PackageRefused(ResultCode.CRYPTO_FAILURE, "there is nothing to open")
    return verified.sealed.open(key)
