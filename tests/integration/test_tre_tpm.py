"""What is special about keys in a TPM: what it refuses, what its reset means, and what survives."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dmclient.config import TpmSection
from dmclient.tre.base import TreError
from dmclient.tre.counter_reference import REFERENCE_NAME, ReferenceFile
from dmclient.tre.keys import KeyStoreError, KeyType
from dmclient.tre.measured_start import REGISTER
from mcim.evidence import Evidence, verify_evidence
from mcim.measurement_log import Measurement, composite_digest, replay
from mcim.platform_key import oaep
from mcim.statements import verify_raw
from mcim.tpm_quote import GENERATED
from mcim.vocabulary import ResultCode, ValidationMode
from tests.support_tokens import RunningTpm, missing, running_tpm
from tests.support_tre import NOW, World

pytestmark = pytest.mark.skipif(bool(missing("tpm")), reason=missing("tpm") or "-")

EVIDENCE = Evidence(
    mode=ValidationMode.REMOTE,
    m2me_id="urn:imei:004999010640000",
    tre_id="urn:m2m:tre:0001",
    tre_type="tpm",
    tre_version="1.0",
    tre_state="ok",
    platform_key_id=b"k" * 16,
    challenge=b"c" * 32,
    nonce=b"n" * 32,
    req_id=UUID(int=1),
    counter=3,
)
GOOD = (Measurement(REGISTER, "a", b"\1" * 32), Measurement(REGISTER, "b", b"\2" * 32))
OTHER = (*GOOD[:1], Measurement(REGISTER, "b", b"\3" * 32))


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[RunningTpm]:
    with running_tpm(tmp_path) as running:
        yield running


def store_in(tpm: RunningTpm, directory: Path, **settings: Any) -> Any:
    from dmclient.tre.tpm import TpmKeyStore

    directory.mkdir(exist_ok=True)
    return TpmKeyStore(TpmSection(tcti=tpm.tcti, **settings), directory)


def quoted(store: Any, keys: Any) -> bytes:
    """Digest over the registers, as a verifier finds it."""
    evidence = verify_evidence(keys.attest(EVIDENCE), keys.attest_public_key)
    assert evidence.quote is not None
    assert dataclasses.replace(evidence, quote=None) == EVIDENCE
    assert evidence.quote.registers == store.registers
    return evidence.quote.pcr_digest


# -- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key_type", ["rsa", "ec"])
def test_keys_are_bound_to_the_tpm_and_do_one_thing(tpm: RunningTpm, tmp_path: Path, key_type: KeyType) -> None:
    """REQ-42, REQ-45: made inside, fixed to this TPM and its storage key; one decrypts, one signs, restricted."""
    from tpm2_pytss.constants import TPMA_OBJECT

    from dmclient.tre.tpm_device import WrappedKey

    blobs = store_in(tpm, tmp_path).generate(key_type)
    fixed = TPMA_OBJECT.FIXEDTPM | TPMA_OBJECT.FIXEDPARENT | TPMA_OBJECT.SENSITIVEDATAORIGIN
    for blob, use, not_use in (
        (blobs.platform, TPMA_OBJECT.DECRYPT, TPMA_OBJECT.SIGN_ENCRYPT),
        (blobs.attest, TPMA_OBJECT.SIGN_ENCRYPT | TPMA_OBJECT.RESTRICTED, TPMA_OBJECT.DECRYPT),
    ):
        public = WrappedKey.decode(blob).parsed()
        attributes = int(public.publicArea.objectAttributes)
        assert attributes & fixed == fixed
        assert attributes & use == use
        assert not attributes & not_use


def test_the_private_part_cannot_be_duplicated(tpm: RunningTpm, tmp_path: Path) -> None:
    """REQ-42: TPM2_Duplicate, the one command that gives a key to another parent, is refused."""
    from tpm2_pytss import ESYS_TR, TSS2_Exception
    from tpm2_pytss.constants import TPM2_ALG
    from tpm2_pytss.types import TPM2B_DATA, TPMT_SYM_DEF_OBJECT

    from dmclient.tre.tpm_device import WrappedKey

    store = store_in(tpm, tmp_path)
    key = WrappedKey.decode(store.generate("rsa").platform)
    none = TPMT_SYM_DEF_OBJECT(algorithm=TPM2_ALG.NULL)

    def duplicate(esapi: Any, handle: Any) -> None:
        with pytest.raises(TSS2_Exception):
            esapi.duplicate(handle, ESYS_TR.RH_NULL, TPM2B_DATA(), none)

    store._device.use(key, duplicate)


def test_keys_of_another_tpm_do_not_load(tpm: RunningTpm, tmp_path: Path) -> None:
    """REQ-42: the blobs are worth nothing without the TPM that made them."""
    blobs = store_in(tpm, tmp_path / "one").generate("ec")
    (tmp_path / "other").mkdir()
    with running_tpm(tmp_path / "other") as other:
        store = store_in(other, tmp_path / "two")
        reference = tmp_path / "one" / REFERENCE_NAME
        (tmp_path / "two" / REFERENCE_NAME).write_bytes(reference.read_bytes())
        with pytest.raises(KeyStoreError, match="another TPM"):
            store.load(blobs)


def test_keys_with_other_attributes_are_refused(
    tpm: RunningTpm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REQ-42, REQ-45: a key that could leave, or an attestation key that signs anything, is not taken."""
    from tpm2_pytss.constants import TPM2_ALG, TPMA_OBJECT

    from dmclient.tre import tpm as module
    from dmclient.tre import tpm_device

    store = store_in(tpm, tmp_path)
    unrestricted = tpm_device._public(TPM2_ALG.ECC, tpm_device.OWN | TPMA_OBJECT.SIGN_ENCRYPT, tpm_device._p256())
    leaving = tpm_device._public(
        TPM2_ALG.ECC,
        (tpm_device.OWN | TPMA_OBJECT.DECRYPT) & ~(TPMA_OBJECT.FIXEDTPM | TPMA_OBJECT.FIXEDPARENT),
        tpm_device._p256(),
    )
    for name, template in (("attestation_key", unrestricted), ("agreement_key", leaving)):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, lambda template=template: template)
            blobs = store.generate("ec")
        with pytest.raises(KeyStoreError, match="attributes"):
            store.load(blobs)


# -- signatures -------------------------------------------------------------------------------------------------------


def test_signs_octets_of_any_length(tpm: RunningTpm, tmp_path: Path) -> None:
    """REQ-67: one command up to 1024 octets, a sequence above; r and s have their full length each time."""
    store = store_in(tpm, tmp_path)
    keys = store.load(store.generate("ec"))
    for length in (0, 1, 1023, 1024, 1025, 2048, 5000):
        verify_raw(keys.attest_public_key, keys.sign(b"x" * length), b"x" * length)
    for number in range(40):  # a leading zero comes once in 128
        octets = number.to_bytes(2, "big")
        verify_raw(keys.attest_public_key, keys.sign(octets), octets)


@pytest.mark.parametrize("length", [0, 4, 140, 2000])
def test_a_quote_cannot_be_forged_with_the_attestation_key(tpm: RunningTpm, tmp_path: Path, length: int) -> None:
    """T6, REQ-18: we refuse octets that look like the TPM's own, and the TPM refuses them without us."""
    from dmclient.tre import tpm as module
    from dmclient.tre.tpm_device import TpmRefused

    store = store_in(tpm, tmp_path)
    keys = store.load(store.generate("ec"))
    forged = GENERATED + b"\x80\x18" + bytes(length)
    with pytest.raises(KeyStoreError, match="look like"):
        keys.sign(forged)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "GENERATED", b"nothing starts like this")
        with pytest.raises(TpmRefused, match="ticket"):
            keys.sign(forged)
    assert keys.sign(forged[1:])


# -- decryption -------------------------------------------------------------------------------------------------------


def test_forged_ciphertexts_do_not_stop_the_tpm(tpm: RunningTpm, tmp_path: Path) -> None:
    """T12, REQ-60: a wrong OAEP block would bring some TPMs into failure mode, were it theirs to judge."""
    store = store_in(tpm, tmp_path)
    keys = store.load(store.generate("rsa"))
    public = keys.platform.public_key
    assert isinstance(public, rsa.RSAPublicKey)
    modulus = public.public_numbers().n.to_bytes(256, "big")
    good = public.encrypt(b"secret", oaep("sha256", b"label"))
    broken = [bytes(256), b"\0" * 255 + b"\1", modulus, b"\xff" * 256, good[:-1], good + b"\0", b"", good[::-1]]
    for ciphertext in broken:
        with pytest.raises(ValueError, match="not an OAEP block"):
            keys.platform.decrypt_oaep(ciphertext, hash_name="sha256", label=b"label")
    for hash_name, label in (("sha1", b"label"), ("sha256", None), ("sha256", b"label\0")):
        with pytest.raises(ValueError, match="not an OAEP block"):
            keys.platform.decrypt_oaep(good, hash_name=hash_name, label=label)
    assert keys.platform.decrypt_oaep(good, hash_name="sha256", label=b"label") == b"secret"
    with pytest.raises(ValueError, match="not an EC key"):
        keys.platform.agree(ec.generate_private_key(ec.SECP256R1()).public_key())


def test_an_ec_key_agrees_and_does_not_decrypt(tpm: RunningTpm, tmp_path: Path) -> None:
    """REQ-29: the secret is that of plain ECDH, with its leading zeroes."""
    store = store_in(tpm, tmp_path)
    platform = store.load(store.generate("ec")).platform
    for _ in range(20):
        peer = ec.generate_private_key(ec.SECP256R1())
        assert platform.agree(peer.public_key()) == peer.exchange(ec.ECDH(), platform.public_key)
    with pytest.raises(ValueError, match="not an EC key on P-256"):
        platform.agree(ec.generate_private_key(ec.SECP384R1()).public_key())
    with pytest.raises(ValueError, match="not an RSA key"):
        platform.decrypt_oaep(bytes(256), hash_name="sha256", label=None)


# -- registers --------------------------------------------------------------------------------------------------------


def test_registers_show_what_was_measured_since_the_reset(tpm: RunningTpm, tmp_path: Path) -> None:
    """REQ-18, T17: the same again changes nothing, anything else is seen until the reset, and a reset is seen."""
    store = store_in(tpm, tmp_path)
    keys = store.load(store.generate("ec"))
    assert quoted(store, keys) == composite_digest({REGISTER: bytes(32)})
    store.measure(())
    store.measure(GOOD)
    good = composite_digest(replay(GOOD))
    assert quoted(store, keys) == good
    again = store_in(tpm, tmp_path)  # the program starts anew, the TPM does not
    again.measure(GOOD)
    assert quoted(again, keys) == good
    again.measure(OTHER)  # another program
    assert quoted(again, keys) not in (good, composite_digest(replay(OTHER)))
    again.measure(GOOD)  # and it cannot wash that off
    assert quoted(again, keys) != good
    tpm.reset()
    assert quoted(again, keys) == composite_digest({REGISTER: bytes(32)})
    again.measure(GOOD)
    assert quoted(again, keys) == good


def test_all_registers_measured_are_quoted(tpm: RunningTpm, tmp_path: Path) -> None:
    """REQ-18: in one quote, in ascending order."""
    store = store_in(tpm, tmp_path)
    keys = store.load(store.generate("ec"))
    measured = (Measurement(13, "c", b"\4" * 32), *GOOD)
    store.measure(measured)
    assert store.registers == (REGISTER, 13)
    assert quoted(store, keys) == composite_digest(replay(measured))


# -- the device itself ------------------------------------------------------------------------------------------------


def test_a_tpm_that_is_gone_and_comes_back(tpm: RunningTpm, tmp_path: Path) -> None:
    """REQ-48: a typed error while it is gone; afterwards the same keys and the same counter."""
    store = store_in(tpm, tmp_path)
    keys = store.load(store.generate("rsa"))
    before = store.counter.increment()
    tpm.stop()
    for failing in (lambda: keys.sign(b"x"), lambda: keys.attest(EVIDENCE), lambda: store.generate("ec")):
        with pytest.raises(KeyStoreError, match="no answer"):
            failing()
    for counting in (store.counter.read, store.counter.increment):
        with pytest.raises(OSError, match="no answer"):
            counting()
    tpm.start()
    verify_raw(keys.attest_public_key, keys.sign(b"x"), b"x")
    assert store.counter.read() == before
    ciphertext = keys.platform.public_key.encrypt(b"hi", oaep("sha256", b"L"))
    assert keys.platform.decrypt_oaep(ciphertext, hash_name="sha256", label=b"L") == b"hi"
    store.close()
    store.close()
    assert store.counter.increment() == before + 1  # it connects again


def test_what_dead_processes_left_in_the_tpm_is_taken_away(
    tpm: RunningTpm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T12: without a resource manager there is room for three objects, and nobody else frees it."""
    from dmclient.tre import tpm_device

    monkeypatch.setattr(tpm_device, "SLOT_WAIT_S", 0.0)
    store = store_in(tpm, tmp_path)
    keys = store.load(store.generate("ec"))
    for _ in range(3):
        store._device.run(lambda esapi: tpm_device._storage_key(esapi))
    verify_raw(keys.attest_public_key, keys.sign(b"x"), b"x")


@pytest.mark.parametrize("gone", ["capabilities", "a handle"])
def test_a_tpm_that_fails_while_room_is_made(
    tpm: RunningTpm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    """T12: somebody else flushed the object meanwhile, or the connection broke there: typed, or done all the same."""
    from tpm2_pytss import ESAPI, TSS2_Exception

    from dmclient.tre import tpm_device

    monkeypatch.setattr(tpm_device, "SLOT_WAIT_S", 0.0)
    monkeypatch.setattr(tpm_device, "SLOT_TRIES", 2)
    store = store_in(tpm, tmp_path)
    keys = store.load(store.generate("ec"))
    for _ in range(3):
        store._device.run(lambda esapi: tpm_device._storage_key(esapi))
    rc = 0x000A000A if gone == "capabilities" else 0x18B

    def fail(*_: object, **__: object) -> None:
        raise TSS2_Exception(rc)

    with monkeypatch.context() as patch:
        patch.setattr(ESAPI, "get_capability" if gone == "capabilities" else "tr_from_tpmpublic", fail)
        with pytest.raises(KeyStoreError):
            keys.sign(b"x")
    verify_raw(keys.attest_public_key, keys.sign(b"x"), b"x")


@pytest.mark.parametrize("step", ["sequence_update", "sequence_complete", "context_save", "sign"])
def test_nothing_stays_loaded_after_a_failure(
    tpm: RunningTpm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """T12: a TPM has room for three objects; each way out of an operation gives its place back."""
    from tpm2_pytss import ESAPI, TSS2_Exception
    from tpm2_pytss.constants import TPM2_CAP, TPM2_HC

    store = store_in(tpm, tmp_path)
    keys = store.load(store.generate("ec"))
    store._device._contexts.clear()

    def fail(*_: object, **__: object) -> None:
        raise TSS2_Exception(0x101)

    with monkeypatch.context() as patch:
        patch.setattr(ESAPI, step, fail)
        with pytest.raises(KeyStoreError, match="refuses"):
            keys.sign(b"x" * 3000)

    def loaded(esapi: Any) -> list[int]:
        _, data = esapi.get_capability(TPM2_CAP.HANDLES, TPM2_HC.TRANSIENT_FIRST, 16)
        return list(data.data.handles)

    assert store._device.run(loaded) == []
    verify_raw(keys.attest_public_key, keys.sign(b"x" * 3000), b"x" * 3000)


def test_a_good_package_outlives_a_tpm_that_is_gone(tpm: RunningTpm, tmp_path: Path) -> None:
    """REQ-56, REQ-60: pulled out before, or between signature and decryption: no try is lost, and it installs later."""
    world = World(tmp_path / "tre", key_type="ec", open_key_store=lambda directory: store_in(tpm, directory))
    world.register()
    package = world.package()
    tpm.stop()
    assert world.provision(package).code in (ResultCode.INTERNAL_ERROR, ResultCode.STORAGE_FAILURE)
    with pytest.raises(TreError):
        world.tre.generate_evidence(bytes(32), ValidationMode.AUTONOMOUS, NOW)
    tpm.start()
    assert world.tre._state.registration.crypto_failures == 0
    assert world.reopen().facts().state == "ok"
    assert world.provision(package).code is ResultCode.SUCCESS


# -- counter ----------------------------------------------------------------------------------------------------------


def test_a_counter_whose_making_was_interrupted(tpm: RunningTpm, tmp_path: Path) -> None:
    """T3: the power goes after the reference is written, or before the first increment: it is made all the same."""
    from dmclient.tre.tpm_counter import _define

    store = store_in(tpm, tmp_path)
    reference = store.counter._choose()
    assert ReferenceFile(tmp_path).read() == reference
    assert store.counter.read() == 1
    other = store_in(tpm, tmp_path / "other")
    second = other.counter._choose()
    other._device.run(lambda esapi: _define(esapi, second))
    assert other.counter.increment() == 2
    assert second.name != reference.name


def test_a_counter_removed_and_made_anew_does_not_go_back(tpm: RunningTpm, tmp_path: Path) -> None:
    """T3: not even the owner of the TPM turns it back."""
    store = store_in(tpm, tmp_path)
    while store.counter.read() < 5:
        store.counter.increment()
    reference = ReferenceFile(tmp_path).read()
    assert reference is not None

    def remove(esapi: Any) -> None:
        esapi.nv_undefine_space(esapi.tr_from_tpmpublic(int(reference.name, 16)))

    store._device.run(remove)
    assert store.counter.read() > 5


def test_the_counter_of_somebody_else_is_not_touched(tpm: RunningTpm, tmp_path: Path) -> None:
    """T3: an index answers only to who has its authorisation; taken indices are passed over."""
    first, second = store_in(tpm, tmp_path / "one"), store_in(tpm, tmp_path / "two")
    assert first.counter.read() == 1
    assert second.counter.read() == 1
    own = ReferenceFile(tmp_path / "two").read()
    foreign = ReferenceFile(tmp_path / "one").read()
    assert own is not None
    assert foreign is not None
    ReferenceFile(tmp_path / "two").write(dataclasses.replace(own, name=foreign.name))
    with pytest.raises(OSError, match="refuses"):
        second.counter.increment()
    assert first.counter.read() == 1
    for name in ("x", "0x7fffffff", "0x81000001", "0xffffffffffffffffff", "-0x1"):
        ReferenceFile(tmp_path / "two").write(dataclasses.replace(own, name=name))
        with pytest.raises(OSError, match="no NV index"):
            second.counter.read()


def test_no_room_for_a_counter(tpm: RunningTpm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """T3: a typed error that names the setting."""
    from dmclient.tre import tpm_counter

    monkeypatch.setattr(tpm_counter, "INDICES", 1)
    store_in(tpm, tmp_path / "one").counter.read()
    with pytest.raises(OSError, match=r"tre\.tpm\.counter_index"):
        store_in(tpm, tmp_path / "two").counter.read()
    assert store_in(tpm, tmp_path / "two", counter_index=0x01804E00).counter.read() == 1
