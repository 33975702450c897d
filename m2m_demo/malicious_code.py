"""A package with code in it, from somebody who has the signing key of a home operator (T15).

All of it is right: encrypted for the TRE, signed by its home operator, fresh. What it brings is a program that would
run beside the keys of every other operator in the TRE.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from actor_runtime.pem_files import read_chain, read_signing_key
from mcim.content import AlgorithmCode, AlgorithmContent, CodeFormat
from mcim.data import encode_data
from mcim.mcim_object import fresh_keys, seal_mcim
from mcim.package import build_package
from mcim.package_header import is_cms, peek_header
from mcim.vocabulary import AlgorithmId, Container, Tag

CODE: Final = b"\x7fELF" + bytes(range(256))  # what matters is that it is code, not what it would do
REVISION: Final = 2  # above that of the MCIM in the TRE


def package_with_code(genuine: bytes, platform_cert: bytes, signer: Path) -> bytes:
    """The package of an update, with code in the place of what it brings.

    Args:
        genuine: the home operator's package, whose header is taken as it is.
        platform_cert: of the TRE, DER.
        signer: directory with signing.key and signing.crt of the home operator.
    """
    header = peek_header(genuine)
    recipient = x509.load_der_x509_certificate(platform_cert).public_key()
    assert isinstance(recipient, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
    content = AlgorithmContent(
        mcim_id=header.mcim_id,
        sho_id=header.sho_id,
        tre_id=header.tre_id,
        registration_nonce=header.registration_nonce,
        sequence=header.sequence,
        not_before=header.not_before,
        not_after=header.not_after,
        transaction_id=header.transaction_id,
        algorithm=AlgorithmId.CODE,
        code=AlgorithmCode(format=CodeFormat.NATIVE, octets=CODE),
    )
    sealed = seal_mcim(
        encode_data(Tag.ALGORITHM, content.to_payload(), REVISION),
        suite=header.suite,
        recipient=recipient,
        keys=fresh_keys(header.suite, os.urandom),
    )
    chain = read_chain(signer / "signing.crt", "signing certificate")
    return build_package(
        header,
        sealed,
        recipient_public_key=recipient,
        signing_key=read_signing_key(signer / "signing.key", chain[0]),
        signer_chain=chain,
        container=Container.CMS if is_cms(genuine) else Container.XML,
    )
