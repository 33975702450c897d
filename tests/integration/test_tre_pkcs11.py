"""What is special about keys in a PKCS #11 token: attributes, what the token can do, and losing it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from actor_runtime.errors import ConfigError
from actor_runtime.sealing import SealingKey
from dmclient.tre.counter_reference import ReferenceFile
from dmclient.tre.keys import KeyStoreError, KeyType
from mcim.platform_key import OaepHash, oaep
from mcim.statements import verify_raw
from mcim.vocabulary import Container, ResultCode, Suite
from tests.support_tokens import missing, token
from tests.support_tre import World

pytestmark = pytest.mark.skipif(bool(missing("pkcs11")), reason=missing("pkcs11") or "-")

KINDS = pytest.mark.parametrize("key_type", ["rsa", "ec"])


def store_in(directory: Path, **options: Any) -> Any:
    from dmclient.tre.pkcs11 import Pkcs11KeyStore
    from dmclient.tre.pkcs11_session import TokenSession

    made = token()
    session = TokenSession.of(made.module, made.label, options.pop("pin", made.pin))
    return Pkcs11KeyStore(session, directory, label_prefix="m2m-tre", **options)


@pytest.fixture(autouse=True)
def alone() -> None:
    """The process has one session with a token: whatever another module's tests left open ends here."""
    from dmclient.tre.pkcs11_session import TokenSession

    for session in tuple(TokenSession._shared.values()):
        session._users = 1
        session.close()


@pytest.fixture
def store(tmp_path: Path) -> Any:
    opened = store_in(tmp_path)
    yield opened
    opened.close()


def private_keys(store: Any, blobs: Any) -> dict[str, Any]:
    from pkcs11 import ObjectClass

    from dmclient.tre.pkcs11 import TokenKey

    idents = {"platform": TokenKey.decode(blobs.platform).ident, "attest": TokenKey.decode(blobs.attest).ident}
    return {
        role: store._session.run(lambda session, ident=ident: session.get_key(ObjectClass.PRIVATE_KEY, id=ident))
        for role, ident in idents.items()
    }


# -- attributes -------------------------------------------------------------------------------------------------------


@KINDS
def test_private_keys_stay_and_do_one_thing(store: Any, key_type: KeyType) -> None:
    """REQ-42, REQ-45: as the token itself says it."""
    from pkcs11 import Attribute

    keys = private_keys(store, store.generate(key_type))
    for role, key in keys.items():
        assert [key[each] for each in (Attribute.SENSITIVE, Attribute.ALWAYS_SENSITIVE, Attribute.PRIVATE)] == [
            True
        ] * 3
        assert [key[each] for each in (Attribute.EXTRACTABLE, Attribute.MODIFIABLE)] == [False] * 2
        assert [key[each] for each in (Attribute.NEVER_EXTRACTABLE, Attribute.LOCAL)] == [True] * 2
        uses = (Attribute.DECRYPT, Attribute.DERIVE, Attribute.SIGN, Attribute.UNWRAP)
        wanted = Attribute.SIGN if role == "attest" else Attribute.DECRYPT if key_type == "rsa" else Attribute.DERIVE
        assert [each for each in uses if key[each]] == [wanted]


@KINDS
def test_private_keys_do_not_come_out(store: Any, key_type: KeyType) -> None:
    """REQ-42: not as values, not wrapped by another key, and no attribute can be changed."""
    from pkcs11 import Attribute, Mechanism
    from pkcs11 import KeyType as TokenKeyType
    from pkcs11.exceptions import AttributeSensitive, KeyUnextractable, PKCS11Error

    keys = private_keys(store, store.generate(key_type))
    wrapping = store._session.run(lambda session: session.generate_key(TokenKeyType.AES, 256, store=False))
    for role, key in keys.items():
        secret = Attribute.PRIVATE_EXPONENT if (role, key_type) == ("platform", "rsa") else Attribute.VALUE
        with pytest.raises(AttributeSensitive):
            key[secret]
        with pytest.raises(KeyUnextractable):
            wrapping.wrap_key(key, mechanism=Mechanism.AES_KEY_WRAP_PAD)
        for attribute, value in ((Attribute.EXTRACTABLE, True), (Attribute.SENSITIVE, False), (Attribute.SIGN, True)):
            with pytest.raises(PKCS11Error):  # CKR_ACTION_PROHIBITED, or read-only
                key[attribute] = value


LAX: dict[str, Callable[[Any], dict[Any, bool]]] = {
    "extractable": lambda a: {a.EXTRACTABLE: True},
    "not sensitive": lambda a: {a.SENSITIVE: False},
    "modifiable": lambda a: {a.MODIFIABLE: True},
    "signs and decrypts": lambda a: {a.SIGN: True, a.DECRYPT: True, a.DERIVE: True},
    "unwraps": lambda a: {a.UNWRAP: True},
}


@pytest.mark.parametrize("lax", LAX.values(), ids=LAX)
@KINDS
def test_a_token_that_makes_other_keys_is_refused(
    store: Any, key_type: KeyType, lax: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REQ-42, REQ-45: and what it made is destroyed."""
    from pkcs11 import Attribute, ObjectClass

    from dmclient.tre import pkcs11 as module

    def count() -> int:
        found = store._session.run(
            lambda session: list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY}))
        )
        return len(found)

    before, template = count(), module._template
    monkeypatch.setattr(module, "_template", lambda use: {**template(use), **lax(Attribute)})
    with pytest.raises(KeyStoreError, match="would not be safe"):
        store.generate(key_type)
    assert count() == before


def test_keys_that_are_not_in_the_token(store: Any, tmp_path: Path) -> None:
    """REQ-42: destroyed, or not those of the public halves."""
    from dmclient.tre.keys import KeyBlobs
    from dmclient.tre.pkcs11 import TokenKey

    first, second = store.generate("ec"), store.generate("ec")
    crossed = TokenKey(
        ident=TokenKey.decode(first.platform).ident, public_key=TokenKey.decode(second.platform).public_key
    )
    with pytest.raises(KeyStoreError, match="are others"):
        store.load(KeyBlobs(platform=crossed.encode(), attest=first.attest))
    mine = TokenKey.decode(first.attest)
    forged = TokenKey(ident=mine.ident, public_key=TokenKey.decode(second.attest).public_key, counter=mine.counter)
    with pytest.raises(KeyStoreError, match="are others"):
        store.load(KeyBlobs(platform=first.platform, attest=forged.encode()))
    private_keys(store, first)["attest"].destroy()
    with pytest.raises(KeyStoreError, match="not in this token"):
        store.load(first)
    assert store.load(second)


# -- what the token can -----------------------------------------------------------------------------------------------


def test_rsa_in_a_token_that_knows_sha_1_alone(store: Any) -> None:
    """REQ-39: no modern RSA suite, and the legacy one only when it is allowed."""
    assert store.suites("rsa", legacy=False) == ()
    assert store.suites("rsa", legacy=True) == (Suite.LEGACY_1,)
    assert store.containers("rsa") == (Container.XML_MGF1P,)
    keys = store.load(store.generate("rsa"))
    public = keys.platform.public_key
    assert isinstance(public, rsa.RSAPublicKey)
    good = public.encrypt(b"secret", oaep("sha1", None))
    assert keys.platform.decrypt_oaep(good, hash_name="sha1", label=None) == b"secret"
    attempts: list[tuple[bytes, OaepHash, bytes | None]] = [
        (good[:-1], "sha1", None),
        (bytes(256), "sha1", None),
        (b"\xff" * 256, "sha1", None),
        (good, "sha1", b"label"),
        (public.encrypt(b"secret", oaep("sha1", b"label")), "sha1", b"label"),
        (public.encrypt(b"secret", oaep("sha256", None)), "sha256", None),
    ]
    for ciphertext, hash_name, label in attempts:
        with pytest.raises(ValueError, match=r"decrypt|label|RSA"):
            keys.platform.decrypt_oaep(ciphertext, hash_name=hash_name, label=label)
    assert keys.platform.decrypt_oaep(good, hash_name="sha1", label=None) == b"secret"


def test_rsa_in_a_token_that_knows_sha_256(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """REQ-39: it is found out by trying, and gives the modern suites. (The token's bare RSA stands in for it here.)"""
    from pkcs11 import Mechanism

    from dmclient.tre import pkcs11 as module
    from dmclient.tre.oaep import decode_oaep

    def decrypt(key: Any, ciphertext: bytes, hash_name: OaepHash, label: bytes | None) -> bytes | None:
        block = bytes(key.decrypt(ciphertext, mechanism=Mechanism.RSA_X_509))
        try:
            return decode_oaep(block.rjust(256, b"\0"), hash_name=hash_name, label=label)
        except ValueError:
            return None

    monkeypatch.setattr(module, "_decrypt", decrypt)
    assert store.suites("rsa", legacy=False) == (Suite.RSA_GCM_256, Suite.RSA_CBC_256)
    assert store.suites("rsa", legacy=True)[-1] is Suite.LEGACY_1
    assert store.containers("rsa") == (Container.XML, Container.XML_MGF1P, Container.CMS)
    keys = store.load(store.generate("rsa"))
    ciphertext = keys.platform.public_key.encrypt(b"secret", oaep("sha256", b"label"))
    assert keys.platform.decrypt_oaep(ciphertext, hash_name="sha256", label=b"label") == b"secret"


def test_ecdh_and_signatures(store: Any) -> None:
    """REQ-29, REQ-67: the secret of plain ECDH; the wrong operation for a key is refused."""
    keys = store.load(store.generate("ec"))
    for _ in range(10):
        peer = ec.generate_private_key(ec.SECP256R1())
        assert keys.platform.agree(peer.public_key()) == peer.exchange(ec.ECDH(), keys.platform.public_key)
        octets = hashlib.sha256(peer.exchange(ec.ECDH(), keys.platform.public_key)).digest()
        verify_raw(keys.attest_public_key, keys.sign(octets), octets)
    with pytest.raises(ValueError, match="not an EC key on P-256"):
        keys.platform.agree(ec.generate_private_key(ec.SECP384R1()).public_key())
    with pytest.raises(ValueError, match="not an RSA key"):
        keys.platform.decrypt_oaep(bytes(256), hash_name="sha1", label=None)


def test_no_derived_secret_stays_in_the_token(store: Any) -> None:
    """REQ-42: what ECDH gave is destroyed after it was read."""
    from pkcs11 import Attribute, ObjectClass

    def count() -> int:
        wanted = {Attribute.CLASS: ObjectClass.SECRET_KEY}
        return len(store._session.run(lambda session: list(session.get_objects(wanted))))

    keys = store.load(store.generate("ec"))
    before = count()
    keys.platform.agree(ec.generate_private_key(ec.SECP256R1()).public_key())
    assert count() == before


# -- losing the token -------------------------------------------------------------------------------------------------


def test_a_token_that_was_lost_is_opened_again(store: Any) -> None:
    """REQ-48: all sessions are gone, as after a reader was pulled out; nobody above notices."""
    import pkcs11

    keys = store.load(store.generate("ec"))
    before = store.counter.increment()
    pkcs11.lib(str(token().module)).reinitialize()
    verify_raw(keys.attest_public_key, keys.sign(b"x"), b"x")
    pkcs11.lib(str(token().module)).reinitialize()
    assert store.counter.increment() == before + 1
    store._session._session.close()  # and somebody else of this process logs out
    verify_raw(keys.attest_public_key, keys.sign(b"x"), b"x")


def test_a_good_package_outlives_a_lost_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """REQ-56, REQ-60: pulled out between signature and decryption: no try is lost, and it installs later."""
    from pkcs11.exceptions import DeviceRemoved

    from dmclient.tre.pkcs11_session import TokenSession

    world = World(tmp_path, key_type="ec", open_key_store=store_in)
    world.register()
    package = world.package()

    def removed(_: object) -> Any:
        raise DeviceRemoved

    with monkeypatch.context() as patch:
        patch.setattr(TokenSession, "_alive", removed)
        assert world.provision(package).code in (ResultCode.INTERNAL_ERROR, ResultCode.STORAGE_FAILURE)
    assert world.tre._state.registration.crypto_failures == 0
    assert world.reopen().facts().state == "ok"
    assert world.provision(package).code is ResultCode.SUCCESS


def test_a_tre_that_does_not_open_lets_go_of_the_token(tmp_path: Path) -> None:
    """REQ-48: whatever keeps it from opening; who tries again and again holds no more sessions than before."""
    from dmclient.app import open_tre
    from dmclient.config import ClientSettings
    from dmclient.tre.pkcs11_session import TokenSession

    made = token()
    section = {"module": made.module, "token_label": made.label, "pin_file": made.pin_file}
    settings = ClientSettings(
        m2me_id="urn:imei:004999010640000",
        state_dir=tmp_path,
        seal_key_file=tmp_path / "key",
        tre={"backend": "pkcs11", "pkcs11": section},
    )
    SealingKey.generate(tmp_path / "key")
    for _ in range(3):
        with pytest.raises(ConfigError, match="No such file"):
            open_tre(settings)
    assert not TokenSession._shared


def test_the_last_of_several_stores_logs_out(tmp_path: Path) -> None:
    """REQ-64: the others keep on working until then."""
    stores = [store_in(tmp_path) for _ in range(3)]
    keys = stores[0].load(stores[0].generate("ec"))
    for each in stores[1:]:
        each.close()
        assert keys.sign(b"x")
    stores[0].close()
    assert stores[0]._session._session is None


def test_a_wrong_pin(tmp_path: Path, store: Any) -> None:
    """REQ-42: a typed error, whether somebody is logged in already or not, and no PIN in any text."""
    from dmclient.tre.pkcs11_session import TokenSession

    wrong = "00-wrong-pin-00"
    store.counter.read()
    with pytest.raises(KeyStoreError, match="PIN is wrong") as caught:
        store_in(tmp_path, pin=wrong)
    assert wrong not in f"{caught.value!r}"
    store.close()
    session = TokenSession.of(token().module, token().label, wrong)
    try:
        with pytest.raises(KeyStoreError, match="PIN is wrong") as caught:
            session.run(lambda _: None)
        assert wrong not in f"{caught.value!r} {caught.value.__cause__!r} {session!r}"
    finally:
        session.close()
        TokenSession.of(token().module, token().label, token().pin)  # for the fixture, which closes it


@pytest.mark.parametrize("case", ["no such token", "no such library"])
def test_what_is_not_there(case: str) -> None:
    """REQ-48: typed errors that name it."""
    from dmclient.tre.pkcs11_session import TokenSession

    module = token().module if case == "no such token" else Path("/nonexistent/libnothing.so")
    session = TokenSession.of(module, "nobody", "0000")
    with pytest.raises(KeyStoreError, match="nobody"):
        session.run(lambda _: None)
    session.close()


# -- counter ----------------------------------------------------------------------------------------------------------


def counter_objects(store: Any, tmp_path: Path) -> list[Any]:
    from dmclient.tre.pkcs11_counter import _objects

    reference = ReferenceFile(tmp_path).read()
    assert reference is not None
    return list(store._session.run(lambda session: list(_objects(session, reference))))


def test_the_counter_after_a_power_cut_in_its_increment(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T3: the new object is there and the old one as well: the higher one counts, and the next increment tidies up."""
    from dmclient.tre import pkcs11_counter as module

    before = store.counter.read()
    reference = ReferenceFile(tmp_path).read()
    assert reference is not None
    store._session.run(lambda session: module._create(session, reference, before + 1))
    assert len(counter_objects(store, tmp_path)) == 2
    assert store.counter.read() == before + 1
    assert store.counter.increment() == before + 2
    assert len(counter_objects(store, tmp_path)) == 1

    def fail(*_: object) -> None:
        raise KeyStoreError("the power went")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_create", fail)
        with pytest.raises(OSError, match="the power went"):
            store.counter.increment()
    assert store.counter.read() == before + 2


def test_a_counter_destroyed_starts_somewhere_else(store: Any, tmp_path: Path) -> None:
    """T3: so that no old store fits it; and a counter that holds no number is none."""
    from pkcs11 import Attribute, ObjectClass

    before = store.counter.read()
    for each in counter_objects(store, tmp_path):
        each.destroy()
    assert abs(store.counter.read() - before) > 1000  # by chance once in 500 million runs
    reference = ReferenceFile(tmp_path).read()
    assert reference is not None
    store._session.run(
        lambda session: session.create_object(
            {
                Attribute.CLASS: ObjectClass.DATA,
                Attribute.TOKEN: True,
                Attribute.PRIVATE: True,
                Attribute.LABEL: reference.name,
                Attribute.VALUE: b"no number",
            }
        )
    )
    with pytest.raises(OSError, match="no number"):
        store.counter.read()
