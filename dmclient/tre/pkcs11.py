"""Keys in a PKCS #11 token (extra `pkcs11`): PK_D and the attestation key are made in it and not extractable.

What the TRE's sealed state keeps are the names of the key objects and their public halves. Each key may do one thing:
PK_D decrypts (RSA) or derives (EC), the attestation key signs.

Tokens differ in what they know of OAEP: SoftHSM2 knows SHA-1 without a label alone, which is enough for suite 1 and the
container xml-mgf1p. So with RSA a token is tried, once, before it is said what it can; EC needs nothing but ECDH.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from os import urandom
from pathlib import Path
from typing import Any, Final, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from pkcs11 import KDF, MGF, Attribute, Mechanism, MechanismFlag, ObjectClass
from pkcs11 import KeyType as TokenKeyType
from pkcs11.exceptions import NoSuchKey, PKCS11Error
from pkcs11.util.ec import encode_named_curve_parameters

from dmclient.tre.keys import KeyBlobs, KeyStoreError, KeyType
from dmclient.tre.pkcs11_counter import Pkcs11Counter
from dmclient.tre.pkcs11_session import LOST, TokenSession
from mcim.errors import StatementInvalid
from mcim.evidence import Evidence, sign_evidence
from mcim.key_id import key_id_of
from mcim.measurement_log import Measurement
from mcim.platform_key import OaepHash, PlatformPublicKey, oaep
from mcim.statements import SIGNATURE_LENGTH, verify_raw
from mcim.vocabulary import Container, Suite

RSA_BITS: Final = 2048
_ID: Final = 16  # octets
_SECRET: Final = 32  # octets that ECDH on P-256 gives
_OAEP: Final = {"sha1": (Mechanism.SHA_1, MGF.SHA1), "sha256": (Mechanism.SHA256, MGF.SHA256)}
_TRIAL: Final = b"M2M"
_PLATFORM, _ATTEST = "platform", "attest"  # roles, in the labels of key objects

_GUARDED: Final = {
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.MODIFIABLE: False,
}
_PROOFS: Final = {
    **_GUARDED,
    Attribute.ALWAYS_SENSITIVE: True,
    Attribute.NEVER_EXTRACTABLE: True,
    Attribute.LOCAL: True,
}
"""What the token must say of a private key after it was made, whatever it was asked for."""

_USES: Final = {
    MechanismFlag.DECRYPT: Attribute.DECRYPT,
    MechanismFlag.SIGN: Attribute.SIGN,
    MechanismFlag.DERIVE: Attribute.DERIVE,
    MechanismFlag.UNWRAP: Attribute.UNWRAP,
}


T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenKey:
    """A private key in a token."""

    ident: bytes  # CKA_ID
    public_key: PlatformPublicKey
    counter: str = ""  # of the TRE; beside the attestation key

    def encode(self) -> bytes:
        """The blob for the TRE's sealed state."""
        spki = self.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        entry = {"id": self.ident.hex(), "spki": base64.b64encode(spki).decode("ascii"), "counter": self.counter}
        return json.dumps(entry).encode("ascii")

    @classmethod
    def decode(cls, octets: bytes) -> TokenKey:
        """Reverse of `encode`.

        Raises:
            KeyStoreError: not such a blob.
        """
        try:
            entry = json.loads(octets)
            public = load_der_public_key(base64.b64decode(entry["spki"], validate=True))
            ident, counter = bytes.fromhex(entry["id"]), str(entry["counter"])
        except (ValueError, KeyError, TypeError, UnsupportedAlgorithm) as exc:
            raise KeyStoreError("the TRE's keys are not those of a token") from exc
        if not isinstance(public, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
            raise KeyStoreError("the TRE's keys are of another kind")
        return cls(ident=ident, public_key=public, counter=counter)

    def use(self, session: TokenSession, operation: Callable[[Any], T]) -> T:
        """Do something with the private key.

        Raises:
            KeyStoreError: the token is lost, refuses, or does not have it.
        """

        def found(open_session: Any) -> T:
            try:
                key = open_session.get_key(object_class=ObjectClass.PRIVATE_KEY, id=self.ident)
            except NoSuchKey as exc:
                raise KeyStoreError("the key is not in this token") from exc
            return operation(key)

        return session.run(found)


class Pkcs11PlatformKey:
    """PK_D in a token."""

    def __init__(self, session: TokenSession, key: TokenKey) -> None:
        self._session = session
        self._key = key
        self._key_id = key_id_of(key.public_key)

    def __repr__(self) -> str:
        return f"Pkcs11PlatformKey(key_id={self._key_id.hex()})"

    @property
    def public_key(self) -> PlatformPublicKey:
        """PK_D."""
        return self._key.public_key

    @property
    def key_id(self) -> bytes:
        """Key id of PK_D, 16 octets."""
        return self._key_id

    def modulus(self) -> int:
        """That of the RSA key in the token, whatever the blob says.

        Raises:
            KeyStoreError: the token is lost or refuses.
        """
        return self._key.use(self._session, lambda key: int.from_bytes(bytes(key[Attribute.MODULUS]), "big"))

    def decrypt_oaep(self, ciphertext: bytes, *, hash_name: OaepHash, label: bytes | None) -> bytes:
        """See `PlatformKey.decrypt_oaep`."""
        public = self._key.public_key
        if not isinstance(public, rsa.RSAPublicKey) or len(ciphertext) != public.key_size // 8:
            raise ValueError("not an RSA key, or not its ciphertext")
        if hash_name == "sha1" and label is not None:  # SoftHSM2 would take any label for none
            raise ValueError("SHA-1 goes without a label here")
        plain = self._key.use(self._session, lambda key: _decrypt(key, ciphertext, hash_name, label))
        if plain is None:
            raise ValueError("the ciphertext does not decrypt")
        return plain

    def agree(self, peer: ec.EllipticCurvePublicKey) -> bytes:
        """See `PlatformKey.agree`."""
        if not isinstance(self._key.public_key, ec.EllipticCurvePublicKey) or not isinstance(peer.curve, ec.SECP256R1):
            raise ValueError("not an EC key on P-256")
        point = peer.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return self._key.use(self._session, lambda key: _agree(key, point))


class Pkcs11Keys:
    """Both keys of a TRE in a token."""

    def __init__(self, session: TokenSession, platform: TokenKey, attest: TokenKey) -> None:
        public = attest.public_key
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise KeyStoreError("the attestation key is of another kind")
        self.platform = Pkcs11PlatformKey(session, platform)
        self._session = session
        self._key = attest
        self._public_key = public

    @property
    def attest_public_key(self) -> ec.EllipticCurvePublicKey:
        """See `TreKeys.attest_public_key`."""
        return self._public_key

    def sign(self, octets: bytes) -> bytes:
        """See `TreKeys.sign`."""
        digest = hashlib.sha256(octets).digest()
        signature = self._key.use(self._session, lambda key: bytes(key.sign(digest, mechanism=Mechanism.ECDSA)))
        if len(signature) != SIGNATURE_LENGTH:
            raise KeyStoreError("the token gives another form of signature")
        return signature

    def attest(self, evidence: Evidence) -> bytes:
        """See `TreKeys.attest`."""
        return sign_evidence(evidence, self.sign)


class Pkcs11KeyStore:
    """A `KeyStore` in a PKCS #11 token."""

    name = "pkcs11"

    def __init__(
        self,
        session: TokenSession,
        directory: Path,
        *,
        label_prefix: str,
        random: Callable[[int], bytes] = urandom,
    ) -> None:
        self._session = session
        self._random = random
        self._oaep: frozenset[OaepHash] | None = None  # not tried yet
        self.counter = Pkcs11Counter(session, directory, label_prefix, random)

    def suites(self, key_type: KeyType, *, legacy: bool) -> tuple[Suite, ...]:
        """See `KeyStore.suites`."""
        if key_type == "ec":
            return (Suite.EC_GCM_256, Suite.EC_CBC_256)
        can = self._oaep_hashes()
        modern = (Suite.RSA_GCM_256, Suite.RSA_CBC_256) if "sha256" in can else ()
        return modern + ((Suite.LEGACY_1,) if legacy and "sha1" in can else ())

    def containers(self, key_type: KeyType) -> tuple[Container, ...]:
        """See `KeyStore.containers`."""
        if key_type == "ec":
            return (Container.XML, Container.CMS)
        can = self._oaep_hashes()
        rows = ((Container.XML, "sha256"), (Container.XML_MGF1P, "sha1"), (Container.CMS, "sha256"))
        return tuple(container for container, needed in rows if needed in can)

    def generate(self, key_type: KeyType) -> KeyBlobs:
        """See `KeyStore.generate`."""
        counter = self.counter.identity().decode("ascii")
        platform = self._session.run(lambda session: self._platform(session, key_type), repeat=False)
        attest = self._session.run(lambda session: self._ec(session, _ATTEST, MechanismFlag.SIGN), repeat=False)
        return KeyBlobs(
            platform=TokenKey(ident=platform[0], public_key=platform[1]).encode(),
            attest=TokenKey(ident=attest[0], public_key=attest[1], counter=counter).encode(),
        )

    def load(self, blobs: KeyBlobs) -> Pkcs11Keys:
        """See `KeyStore.load`. Each key does its work once, to see that the private half is the one in the token."""
        platform, attest = TokenKey.decode(blobs.platform), TokenKey.decode(blobs.attest)
        if attest.counter.encode("ascii", "replace") != self.counter.identity():
            raise KeyStoreError("the counter is not the one that was made with these keys")
        platform.use(self._session, lambda key: _require_guarded(key, _platform_use(platform)))
        attest.use(self._session, lambda key: _require_guarded(key, MechanismFlag.SIGN))
        keys = Pkcs11Keys(self._session, platform, attest)
        if not _works(keys, self._random(_SECRET)):
            raise KeyStoreError("the private keys in the token are others")
        return keys

    def keep_only(self, kept: tuple[KeyBlobs, ...]) -> None:
        """See `KeyStore.keep_only`. A TRE's key objects are known by their labels."""
        idents = {TokenKey.decode(blob).ident for keys in kept for blob in (keys.platform, keys.attest)}
        labels = [self.counter.label_of(role) for role in (_PLATFORM, _ATTEST)]

        def operation(session: Any) -> None:
            for kind, label in itertools.product((ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY), labels):
                for each in list(session.get_objects({Attribute.CLASS: kind, Attribute.LABEL: label})):
                    if bytes(each[Attribute.ID]) not in idents:
                        each.destroy()

        self._session.run(operation)

    def measure(self, measurements: tuple[Measurement, ...]) -> None:
        """See `KeyStore.measure`: there are no registers."""

    def close(self) -> None:
        """See `KeyStore.close`."""
        self._session.close()

    # -- generation ----------------------------------------------------------------------------------------------------

    def _platform(self, session: Any, key_type: KeyType) -> tuple[bytes, PlatformPublicKey]:
        if key_type == "ec":
            return self._ec(session, _PLATFORM, MechanismFlag.DERIVE)
        ident = self._random(_ID)
        pair = session.generate_keypair(
            TokenKeyType.RSA,
            RSA_BITS,
            id=ident,
            label=self.counter.label_of(_PLATFORM),
            store=True,
            capabilities=MechanismFlag.DECRYPT | MechanismFlag.ENCRYPT,
            private_template=_template(MechanismFlag.DECRYPT),
        )
        _keep_if_guarded(pair, MechanismFlag.DECRYPT)
        return ident, _rsa_public(pair[0])

    def _ec(self, session: Any, role: str, use: Any) -> tuple[bytes, PlatformPublicKey]:
        ident = self._random(_ID)
        parameters = session.create_domain_parameters(
            TokenKeyType.EC, {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}, local=True
        )
        pair = parameters.generate_keypair(
            id=ident,
            label=self.counter.label_of(role),
            store=True,
            capabilities=use | MechanismFlag.VERIFY if use is MechanismFlag.SIGN else use,
            private_template=_template(use),
        )
        _keep_if_guarded(pair, use)
        return ident, _ec_public(pair[0])

    def _oaep_hashes(self) -> frozenset[OaepHash]:
        if self._oaep is None:
            self._oaep = self._session.run(_try_oaep)
        return self._oaep


def _template(use: Any) -> dict[Any, bool]:
    return {**_GUARDED, **{attribute: flag is use for flag, attribute in _USES.items()}}


def _keep_if_guarded(pair: Any, use: Any) -> None:
    public, private = pair
    try:
        _require_guarded(private, use)
    except KeyStoreError:
        public.destroy()
        private.destroy()
        raise


def _require_guarded(private: Any, use: Any) -> None:
    """Refuse a private key that could leave the token or do more than it is for.

    Raises:
        KeyStoreError: an attribute is other than it must be, or the token does not tell it.
    """
    wanted = {**_PROOFS, **{attribute: flag is use for flag, attribute in _USES.items()}}
    for attribute, value in wanted.items():
        try:
            found = private[attribute]
        except PKCS11Error as exc:
            raise KeyStoreError(f"the token does not tell {attribute.name} of its key") from exc
        if bool(found) is not value:
            raise KeyStoreError(f"the token makes keys with {attribute.name} {found}: they would not be safe in it")


def _platform_use(key: TokenKey) -> Any:
    return MechanismFlag.DECRYPT if isinstance(key.public_key, rsa.RSAPublicKey) else MechanismFlag.DERIVE


def _works(keys: Pkcs11Keys, challenge: bytes) -> bool:
    """Whether both private keys are those of the public ones."""
    platform = keys.platform.public_key
    try:
        verify_raw(keys.attest_public_key, keys.sign(challenge), challenge)
        if isinstance(platform, rsa.RSAPublicKey):
            return keys.platform.modulus() == platform.public_numbers().n
        other = ec.generate_private_key(ec.SECP256R1())
        return other.exchange(ec.ECDH(), platform) == keys.platform.agree(other.public_key())
    except (StatementInvalid, ValueError):
        return False


def _rsa_public(public: Any) -> rsa.RSAPublicKey:
    modulus, exponent = (
        int.from_bytes(bytes(public[attribute]), "big") for attribute in (Attribute.MODULUS, Attribute.PUBLIC_EXPONENT)
    )
    try:
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError as exc:
        raise KeyStoreError("the token made an RSA key that is none") from exc


def _ec_public(public: Any) -> ec.EllipticCurvePublicKey:
    point = bytes(public[Attribute.EC_POINT])
    if len(point) == 67:  # DER OCTET STRING around it, as PKCS #11 has it
        point = point[2:]
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError as exc:
        raise KeyStoreError("the token made an EC key that is not on P-256") from exc


def _decrypt(key: Any, ciphertext: bytes, hash_name: OaepHash, label: bytes | None) -> bytes | None:
    """None when it does not decrypt; tokens have no common word for that."""
    digest, mask = _OAEP[hash_name]
    try:
        return bytes(
            key.decrypt(ciphertext, mechanism=Mechanism.RSA_PKCS_OAEP, mechanism_param=(digest, mask, label or b""))
        )
    except PKCS11Error as exc:
        if isinstance(exc, LOST):
            raise
        return None


def _agree(key: Any, point: bytes) -> bytes:
    secret = key.derive_key(
        TokenKeyType.GENERIC_SECRET,
        _SECRET * 8,
        mechanism_param=(KDF.NULL, None, point),
        store=False,
        template={Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True},
    )
    try:
        return bytes(secret[Attribute.VALUE]).rjust(_SECRET, b"\0")
    finally:
        secret.destroy()


def _try_oaep(session: Any) -> frozenset[OaepHash]:
    """With which hashes the token undoes OAEP as our suites need it: SHA-256 with a label, SHA-1 without one."""
    public, private = session.generate_keypair(
        TokenKeyType.RSA,
        RSA_BITS,
        store=False,
        capabilities=MechanismFlag.DECRYPT | MechanismFlag.ENCRYPT,
    )
    key = _rsa_public(public)
    rows: tuple[tuple[OaepHash, bytes | None], ...] = (("sha1", None), ("sha256", _TRIAL))
    try:
        return frozenset(
            hash_name
            for hash_name, label in rows
            if _decrypt(private, key.encrypt(_TRIAL, oaep(hash_name, label)), hash_name, label) == _TRIAL
        )
    finally:
        public.destroy()
        private.destroy()
