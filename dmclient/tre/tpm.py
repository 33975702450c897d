"""Keys in a TPM 2.0 (extra `tpm`): PK_D and the attestation key are made in it and never leave it.

What the TRE's sealed state keeps are blobs that only this TPM can load. Three things need an explanation.

Decryption. TPM2_RSA_Decrypt can do OAEP, and we do not let it. It wants a label that ends in a zero and hashes that
zero with it, so it cannot open suites 2 and 3, whose label has none. And software TPMs of the libtpms 0.9 family go
into failure mode, for good, when an OAEP block is wrong: one forged package would end the device. So the TPM does the
bare RSA operation (scheme NULL) and `dmclient.tre.oaep` undoes the padding. What that means: the private key stays in
the TPM; the padded block passes through this process, which gets PIK and PCK out of it in either case. Whoever runs
code in this process can use the key as an oracle for bare RSA while he is there, as he could with OAEP.

Receipts. The attestation key is restricted: a TPM signs with it nothing that could be mistaken for its own quotes.
Octets are therefore hashed by the TPM, which gives a ticket unless they start like such a structure, and the key signs
what has a ticket. So one key with one certificate does receipts, requests and quotes.

Registers. Measurements are extended into PCRs of the SHA-256 bank that only a reset of the TPM sets back (11, see
`dmclient.tre.measured_start`); a resettable one (16, 23) would let any program here erase what was measured. Thus a
second start of this program with the same components finds its registers as it left them and extends nothing; with
other components they no longer match any log until the TPM is reset, which is what a verifier should see. Here the
program measures itself: in a product the boot chain measures it before it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from os import urandom
from pathlib import Path
from typing import Any, Final, Protocol

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG
from tpm2_pytss.types import (
    TPM2B_ECC_POINT,
    TPML_DIGEST_VALUES,
    TPML_PCR_SELECTION,
    TPMS_ECC_POINT,
    TPMT_HA,
    TPMT_RSA_DECRYPT,
    TPMT_SIG_SCHEME,
    TPMU_HA,
)

from dmclient.tre.keys import KeyBlobs, KeyStoreError, KeyType
from dmclient.tre.oaep import decode_oaep
from dmclient.tre.tpm_counter import TpmCounter
from dmclient.tre.tpm_device import (
    TpmDevice,
    TpmRefused,
    WrappedKey,
    agreement_key,
    attestation_key,
    rsa_decryption_key,
)
from mcim.errors import StatementInvalid
from mcim.evidence import Evidence, quote_evidence
from mcim.key_id import key_id_of
from mcim.measurement_log import Measurement, replay
from mcim.platform_key import OaepHash, PlatformPublicKey
from mcim.tpm_quote import GENERATED, parse_quote
from mcim.vocabulary import Container, Suite

DEFAULT_REGISTERS: Final = (11,)  # quoted when nothing was measured
_BUFFER: Final = 1024  # octets that one command takes (TPM2_MAX_DIGEST_BUFFER)
_ANY_SCHEME: Final = TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)  # the key's own
_SUITES: Final[dict[KeyType, tuple[Suite, ...]]] = {
    "rsa": (Suite.RSA_GCM_256, Suite.RSA_CBC_256),
    "ec": (Suite.EC_GCM_256, Suite.EC_CBC_256),
}
_CONTAINERS: Final[dict[KeyType, tuple[Container, ...]]] = {
    "rsa": (Container.XML, Container.XML_MGF1P, Container.CMS),
    "ec": (Container.XML, Container.CMS),
}


class TpmSettings(Protocol):
    """Table `[tre.tpm]`."""

    @property
    def tcti(self) -> str:
        """How the TPM is reached, as tpm2-tools write it."""

    @property
    def counter_index(self) -> int:
        """First NV index to try for the counter."""


class TpmPlatformKey:
    """PK_D in a TPM."""

    def __init__(self, device: TpmDevice, key: WrappedKey) -> None:
        self._device = device
        self._key = key
        self._public_key = _public_key(key, rsa_decryption_key(), agreement_key())
        self._key_id = key_id_of(self._public_key)

    def __repr__(self) -> str:
        return f"TpmPlatformKey(key_id={self._key_id.hex()})"

    @property
    def public_key(self) -> PlatformPublicKey:
        """PK_D."""
        return self._public_key

    @property
    def key_id(self) -> bytes:
        """Key id of PK_D, 16 octets."""
        return self._key_id

    def decrypt_oaep(self, ciphertext: bytes, *, hash_name: OaepHash, label: bytes | None) -> bytes:
        """See `PlatformKey.decrypt_oaep`."""
        public = self._public_key
        if not isinstance(public, rsa.RSAPublicKey):
            raise ValueError("not an RSA key")
        length = public.key_size // 8
        # The TPM would refuse both as well; that answer need not be told apart from any other.
        if len(ciphertext) != length or int.from_bytes(ciphertext, "big") >= public.public_numbers().n:
            raise ValueError("not an OAEP block")
        scheme = TPMT_RSA_DECRYPT(scheme=TPM2_ALG.NULL)
        block = self._device.use(
            self._key, lambda esapi, handle: bytes(esapi.rsa_decrypt(handle, ciphertext, scheme, label=b""))
        )
        return decode_oaep(block.rjust(length, b"\0"), hash_name=hash_name, label=label)

    def agree(self, peer: ec.EllipticCurvePublicKey) -> bytes:
        """See `PlatformKey.agree`."""
        if not isinstance(self._public_key, ec.EllipticCurvePublicKey) or not isinstance(peer.curve, ec.SECP256R1):
            raise ValueError("not an EC key on P-256")
        numbers = peer.public_numbers()
        point = TPM2B_ECC_POINT(TPMS_ECC_POINT(x=numbers.x.to_bytes(32, "big"), y=numbers.y.to_bytes(32, "big")))

        def operation(esapi: Any, handle: Any) -> bytes:
            shared = esapi.ecdh_zgen(handle, point)  # in a variable: its members live as long as it does
            return bytes(shared.point.x)

        return self._device.use(self._key, operation).rjust(32, b"\0")


class TpmKeys:
    """Both keys of a TRE in a TPM."""

    def __init__(self, device: TpmDevice, platform: WrappedKey, attest: WrappedKey, store: TpmKeyStore) -> None:
        self.platform = TpmPlatformKey(device, platform)
        self._device = device
        self._key = attest
        self._store = store
        public = _public_key(attest, attestation_key())
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise KeyStoreError("the attestation key is of another kind")
        self._public_key = public

    @property
    def attest_public_key(self) -> ec.EllipticCurvePublicKey:
        """See `TreKeys.attest_public_key`."""
        return self._public_key

    def sign(self, octets: bytes) -> bytes:
        """See `TreKeys.sign`. Nothing that could be taken for a structure of the TPM is signed, here and by it."""
        if octets.startswith(GENERATED):
            raise KeyStoreError("octets that look like a TPM's own are not signed")
        digest, ticket = self._device.run(lambda esapi: _hash(esapi, octets))
        return self._device.use(self._key, lambda esapi, handle: _raw(esapi.sign(handle, digest, _ANY_SCHEME, ticket)))

    def attest(self, evidence: Evidence) -> bytes:
        """See `TreKeys.attest`: a quote over the registers measured into."""
        return quote_evidence(evidence, self._quote)

    def _quote(self, qualifying_data: bytes) -> tuple[bytes, bytes]:
        registers = self._store.registers
        selection = _selection(registers)

        def operation(esapi: Any, handle: Any) -> tuple[bytes, bytes]:
            quoted, signature = esapi.quote(handle, selection, qualifying_data, _ANY_SCHEME)
            return bytes(quoted), _raw(signature)

        attest, signature = self._device.use(self._key, operation)
        try:
            covered = parse_quote(attest).registers
        except StatementInvalid as exc:  # no SHA-256 bank: the TPM leaves out what it does not have
            raise KeyStoreError(f"the TPM quotes something else: {exc}") from exc
        if covered != registers:
            raise KeyStoreError("the TPM does not quote all registers")
        return attest, signature


class TpmKeyStore:
    """A `KeyStore` in a TPM 2.0."""

    name = "tpm"

    def __init__(self, settings: TpmSettings, directory: Path, *, random: Callable[[int], bytes] = urandom) -> None:
        self._device = TpmDevice(settings.tcti)
        self.counter = TpmCounter(self._device, directory, settings.counter_index, random)
        self.registers: tuple[int, ...] = DEFAULT_REGISTERS

    def suites(self, key_type: KeyType, *, legacy: bool) -> tuple[Suite, ...]:
        """See `KeyStore.suites`."""
        return _SUITES[key_type] + ((Suite.LEGACY_1,) if legacy and key_type == "rsa" else ())

    def containers(self, key_type: KeyType) -> tuple[Container, ...]:
        """See `KeyStore.containers`."""
        return _CONTAINERS[key_type]

    def generate(self, key_type: KeyType) -> KeyBlobs:
        """See `KeyStore.generate`."""
        platform = self._device.create(rsa_decryption_key() if key_type == "rsa" else agreement_key())
        attest = self._device.create(attestation_key())
        return KeyBlobs(platform=platform.encode(), attest=attest.encode(bound=self.counter.identity()))

    def load(self, blobs: KeyBlobs) -> TpmKeys:
        """See `KeyStore.load`."""
        platform, attest = WrappedKey.decode(blobs.platform), WrappedKey.decode(blobs.attest)
        if WrappedKey.bound_in(blobs.attest) != self.counter.identity():
            raise KeyStoreError("the counter is not the one that was made with these keys")
        keys = TpmKeys(self._device, platform, attest, self)
        try:
            for each in (platform, attest):  # another TPM, or one whose owner seed was renewed, is found out now
                self._device.use(each, lambda esapi, handle: esapi.read_public(handle))
        except TpmRefused as exc:
            raise KeyStoreError(f"another TPM made these keys, or it was cleared: {exc}") from exc
        return keys

    def keep_only(self, kept: tuple[KeyBlobs, ...]) -> None:
        """See `KeyStore.keep_only`: the TPM holds no keys, and this process forgets how it had others loaded."""
        self._device.forget_all_but(WrappedKey.decode(blob) for keys in kept for blob in (keys.platform, keys.attest))

    def measure(self, measurements: tuple[Measurement, ...]) -> None:
        """See `KeyStore.measure`."""
        wanted = replay(measurements)
        if not wanted:
            return

        def operation(esapi: Any) -> None:
            if {register: _read(esapi, register) for register in wanted} == wanted:
                return  # by an earlier start of the same components, since the TPM was reset
            for each in measurements:
                digest = TPMT_HA(hashAlg=TPM2_ALG.SHA256, digest=TPMU_HA(sha256=each.digest))
                esapi.pcr_extend(ESYS_TR(each.register), TPML_DIGEST_VALUES([digest]))

        self._device.run(operation, repeat=False)  # twice would be another value
        self.registers = tuple(sorted(wanted))

    def close(self) -> None:
        """See `KeyStore.close`."""
        self._device.close()


def _public_key(key: WrappedKey, *templates: Any) -> PlatformPublicKey:
    """The public half of a key that is as one of the templates asks.

    The seal vouches for the blobs; that a key can neither leave nor do anything else is checked all the same.
    """
    made = key.parsed()
    public = None
    for wanted in templates:
        if (made.publicArea.type, int(made.publicArea.objectAttributes)) == (
            wanted.publicArea.type,
            int(wanted.publicArea.objectAttributes),
        ):
            try:
                public = load_der_public_key(made.to_der())
            except ValueError as exc:
                raise KeyStoreError("the public part of a key is broken") from exc
    if not isinstance(public, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise KeyStoreError("a key in the TRE's state has other attributes than it was made with")
    return public


def _hash(esapi: Any, octets: bytes) -> tuple[Any, Any]:
    """Digest and ticket; the TPM sees all octets, for the ticket is its word that they are none of its own."""
    if len(octets) <= _BUFFER:
        return _pair(esapi.hash(octets, TPM2_ALG.SHA256, ESYS_TR.RH_OWNER))
    sequence = esapi.hash_sequence_start(None, TPM2_ALG.SHA256)
    rest = octets
    try:
        while len(rest) > _BUFFER:
            esapi.sequence_update(sequence, rest[:_BUFFER])
            rest = rest[_BUFFER:]
        return _pair(esapi.sequence_complete(sequence, rest, ESYS_TR.RH_OWNER))
    except BaseException:
        esapi.flush_context(sequence)
        raise


def _pair(result: Any) -> tuple[Any, Any]:
    digest, ticket = result
    return digest, ticket


def _raw(signature: Any) -> bytes:
    """r and s of a TPMT_SIGNATURE, 64 octets; TPMs leave out leading zeroes."""
    ecdsa = signature.signature.ecdsa
    return bytes(ecdsa.signatureR).rjust(32, b"\0") + bytes(ecdsa.signatureS).rjust(32, b"\0")


def _selection(registers: tuple[int, ...]) -> Any:
    return TPML_PCR_SELECTION.parse("sha256:" + ",".join(str(each) for each in registers))


def _read(esapi: Any, register: int) -> bytes:
    _, _, digests = esapi.pcr_read(_selection((register,)))
    return b"".join(bytes(each) for each in digests)
