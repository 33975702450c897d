"""T2, REQ-40, REQ-60: whoever sends broken ciphertexts learns nothing from code, receipt, trail, log or work done.

All packages here are signed by the SHO: nobody else's ciphertext reaches the keys at all (tests of forged packages).
What the sender of an object writes into its clear header (magic, suite, key id) he knows himself, so there a shorter
way is no oracle; from the unwrapping of PIK and PCK on, every way has the same steps.
"""

from __future__ import annotations

import base64
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from lxml import etree

from dmclient.tre.base import CheckRecord
from dmclient.tre.provisioning import MAX_CRYPTO_FAILURES
from mcim import suites
from mcim.content import McimContent
from mcim.data import encode_data
from mcim.errors import PackageRefused
from mcim.mcim_object import EC_POINT, HEADER_LENGTH, SessionKeys, fresh_keys, open_mcim, seal_mcim
from mcim.platform_key import PlatformKey, PlatformPublicKey, SoftwarePlatformKey, oaep
from mcim.receipt import Receipt
from mcim.vocabulary import ResultCode, Suite, Tag
from tests.support_attacks import Arena, refused
from tests.support_pki import rsa_key
from tests.support_tre import IMSI, MCIM_ID, NOW, OPC, SHO, TRE_ID, K
from tests.support_xml import ENCRYPTED, HEADER, M, X, find, octets_of, parse, sign_by_hand

KEYS = {"rsa": (Suite.RSA_GCM_256, Suite.RSA_CBC_256), "ec": (Suite.EC_GCM_256, Suite.EC_CBC_256)}


def _flip(octets: bytes, position: int) -> bytes:
    position %= len(octets)
    return octets[:position] + bytes((octets[position] ^ 1,)) + octets[position + 1 :]


def _label(suite: Suite, key_id: bytes) -> bytes:
    return b"M2M-MCIM-OBJ/1|PK_D|" + bytes((suite,)) + key_id


def broken_objects(suite: Suite, recipient: PlatformPublicKey, data: bytes) -> dict[str, bytes]:
    """One sound object and what can be broken in it, by where it breaks."""
    keys = fresh_keys(suite, os.urandom)
    sound = seal_mcim(data, suite=suite, recipient=recipient, keys=keys)
    cut = HEADER_LENGTH + int.from_bytes(sound[22:24], "big")
    header, wrapped, protected = sound[:HEADER_LENGTH], sound[HEADER_LENGTH:cut], sound[cut:]
    other = seal_mcim(data, suite=suite, recipient=recipient, keys=fresh_keys(suite, os.urandom))
    broken = {
        "wrapped keys, first bit": header + _flip(wrapped, 1) + protected,
        "wrapped keys, last bit": header + _flip(wrapped, -1) + protected,
        "wrapped keys of zeroes": header + bytes(len(wrapped)) + protected,
        "wrapped keys of ones": header + b"\xff" * len(wrapped) + protected,
        "wrapped keys, random": header + os.urandom(len(wrapped)) + protected,
        "wrapped keys of another object": header + other[HEADER_LENGTH:cut] + protected,
        "IV": header + wrapped + _flip(protected, 0),
        "ciphertext, first block": header + wrapped + _flip(protected, 20),
        "ciphertext, last block": header + wrapped + _flip(protected, -40),
        "ciphertext, block left out": header + wrapped + protected[:32] + protected[48:],
        "ciphertext, half a block left out": header + wrapped + protected[:32] + protected[40:],
        "nothing but a MAC": header + wrapped + protected[-32:],
        "MAC, first bit": header + wrapped + _flip(protected, -32),
        "MAC, last bit": header + wrapped + _flip(protected, -1),
        "MAC of zeroes": header + wrapped + protected[:-32] + bytes(32),
        "MAC too short": header + wrapped + protected[:-1],
        "MAC too long": header + wrapped + protected + b"\0",
        "MAC and wrapped keys": header + _flip(wrapped, -1) + _flip(protected, -1),
        "PIK and PCK exchanged": seal_mcim(
            data, suite=suite, recipient=recipient, keys=replace(keys, pik=keys.pck, pck=keys.pik)
        )[:cut]
        + protected,
        "MAC by a foreign PIK": header + wrapped + _remac(suite, keys, header, protected),
    }
    if isinstance(recipient, rsa.RSAPublicKey):
        right = _label(suite, header[6:22])
        for name, secret, label in (
            ("16 octets in place of both keys", bytes(16), right),
            ("no octet in place of both keys", b"", right),
            ("65 octets in place of both keys", bytes(65), right),
            ("label of the outer layer", keys.pik + keys.pck, b"M2M-XENC/1|PK_D"),
            ("no label", keys.pik + keys.pck, None),
            ("label of another suite", keys.pik + keys.pck, _label(Suite(suite ^ 1), header[6:22])),
        ):
            broken[name] = header + recipient.encrypt(secret, oaep("sha256", label)) + protected
    else:
        broken["point that is not on the curve"] = header + b"\x04" + bytes(64) + wrapped[EC_POINT:] + protected
        broken["point of another form"] = header + b"\x02" + wrapped[1:] + protected
    return {"sound": sound, **broken}


def _remac(suite: Suite, keys: SessionKeys, header: bytes, protected: bytes) -> bytes:
    row = suites.PARAMETERS[suite]
    return protected[:-32] + suites.mac(row, bytes(len(keys.pik)), header, protected[:-32])


def _headers(sound: bytes) -> dict[str, bytes]:
    """Faults of the clear header of the object, which stand inside the outer encryption."""
    return {
        "magic": b"XXXX" + sound[4:],
        "flags": sound[:5] + b"\1" + sound[6:],
        "suite": sound[:4] + b"\x2a" + sound[5:],
        "key id": sound[:6] + bytes(16) + sound[22:],
        "length of the wrapped keys": sound[:22] + b"\xff\xff" + sound[24:],
        "no wrapped keys": sound[:22] + b"\0\0" + sound[24:],
        "header alone": sound[:HEADER_LENGTH],
        "nothing": b"\0",
    }


def _outer(change: Callable[[bytes], bytes], path: str) -> Callable[[Arena], bytes]:
    """A change of the outer layer, signed by the SHO again."""

    def attack(arena: Arena) -> bytes:
        root = parse(arena.good)
        element = find(root, path)
        changed = change(base64.b64decode(element.text or ""))
        element.text = base64.b64encode(changed).decode()
        sign_by_hand(root, arena.signers[SHO][0])
        return octets_of(root)

    return attack


CONTENT = f"{ENCRYPTED}/{X}CipherData/{X}CipherValue"
WRAPPED = f".//{X}EncryptedKey/{X}CipherData/{X}CipherValue"
OUTER = {
    "outer key, first bit": _outer(lambda octets: _flip(octets, 1), WRAPPED),
    "outer key, last bit": _outer(lambda octets: _flip(octets, -1), WRAPPED),
    "outer key of zeroes": _outer(lambda octets: bytes(len(octets)), WRAPPED),
    "outer key too short": _outer(lambda octets: octets[:-1], WRAPPED),
    "no outer key": _outer(lambda octets: b"", WRAPPED),
    "outer ciphertext": _outer(lambda octets: _flip(octets, 30), CONTENT),
    "outer tag": _outer(lambda octets: _flip(octets, -1), CONTENT),
    "outer nonce": _outer(lambda octets: _flip(octets, 0), CONTENT),
    "outer ciphertext too short": _outer(lambda octets: octets[:20], CONTENT),
    "no outer ciphertext": _outer(lambda octets: b"", CONTENT),
}


def _no_base64(path: str) -> Callable[[Arena], bytes]:
    def attack(arena: Arena) -> bytes:
        root = parse(arena.good)
        find(root, path).text = "\u00e9*"
        sign_by_hand(root, arena.signers[SHO][0])
        return octets_of(root)

    return attack


OUTER["outer key that is no Base64"] = _no_base64(WRAPPED)
OUTER["outer ciphertext that is no Base64"] = _no_base64(CONTENT)


def _payload(arena: Arena) -> bytes:
    registration = arena.tre.registration(NOW)
    return McimContent(
        mcim_id=MCIM_ID,
        sho_id=SHO,
        tre_id=TRE_ID,
        registration_nonce=registration.nonce,
        sequence=1,
        not_before=NOW,
        not_after=NOW.replace(year=2027),
        transaction_id=None,
        imsi=IMSI,
        k=K,
        opc=OPC,
    ).to_payload()


def _answers(made: Arena, directory: Path, suite: Suite) -> Iterator[tuple[str, Receipt, tuple[CheckRecord, ...]]]:
    data = encode_data(Tag.MCIM, _payload(made), 1)
    objects = broken_objects(suite, made.platform_key, data)
    sound = objects.pop("sound")
    packages = {
        name: made.package(header={"suite": suite}, mcim_object=octets)
        for name, octets in {**objects, **_headers(sound)}.items()
    }
    packages |= {name: attack(made) for name, attack in OUTER.items()}
    if isinstance(made.platform_key, ec.EllipticCurvePublicKey):
        packages["outer ephemeral key"] = _outer(
            lambda octets: ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers().x.to_bytes(32, "big"),
            f"{HEADER}/{M}EphemeralKey",
        )(made)
    for number, (name, package) in enumerate(packages.items()):
        arena = made.copied(directory / str(number))
        outcome = refused(arena, package, ResultCode.CRYPTO_FAILURE)
        yield name, arena.receipt_of(outcome), outcome.checks


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("mode", ["gcm", "cbc"])
def test_one_answer_for_whatever_does_not_open(
    made_rsa: Arena, made_ec: Arena, tmp_path: Path, kind: str, mode: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """T2 REQ-60: some forty kinds of broken ciphertext: one code, one receipt, one trail, nothing in any log."""
    made = made_rsa if kind == "rsa" else made_ec
    suite = KEYS[kind][mode == "cbc"]
    answers = set()
    for name, receipt, checks in _answers(made, tmp_path, suite):
        same = replace(receipt, package_hash=b"", counter=0)
        answers.add((repr(same), receipt.nonce, same.revision, repr(checks)))
        assert len(answers) == 1, name
        assert checks[-1].detail == "", name
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


@pytest.mark.parametrize("kind", KEYS)
def test_frame_is_read_behind_a_right_mac_alone(made_rsa: Arena, made_ec: Arena, tmp_path: Path, kind: str) -> None:
    """T2 REQ-35 REQ-40: a broken frame says 1410 when its sender knew PIK, and 1414 when not: no padding oracle."""
    made = made_rsa if kind == "rsa" else made_ec
    frames = {
        "filling": encode_data(Tag.MCIM, _payload(made), 1)[:-1] + b"\1",
        "length": b"\1\xff\xff\xff\xff" + bytes(59),
        "no frame": bytes(64),
    }
    for suite in KEYS[kind]:
        for number, frame in enumerate(frames.values()):
            arena = made.copied(tmp_path / f"{suite}-{number}")
            octets = seal_mcim(frame, suite=suite, recipient=arena.platform_key, keys=fresh_keys(suite, os.urandom))
            header = {"suite": suite}
            refused(arena, arena.package(header=header, mcim_object=octets), ResultCode.MALFORMED)
            wrong = arena.package(header=header, mcim_object=_flip(octets, -1))
            refused(arena, wrong, ResultCode.CRYPTO_FAILURE)


class Counted:
    """A platform key that counts what it is asked for."""

    def __init__(self, key: PlatformKey) -> None:
        self._key = key
        self.calls: list[str] = []

    @property
    def public_key(self) -> PlatformPublicKey:
        return self._key.public_key

    @property
    def key_id(self) -> bytes:
        return self._key.key_id

    def decrypt_oaep(self, ciphertext: bytes, *, hash_name: suites.OaepHash, label: bytes | None) -> bytes:
        self.calls.append("key")
        return self._key.decrypt_oaep(ciphertext, hash_name=hash_name, label=label)

    def agree(self, peer: ec.EllipticCurvePublicKey) -> bytes:
        self.calls.append("key")
        return self._key.agree(peer)


SOFTWARE = {
    "rsa": SoftwarePlatformKey(rsa_key()),
    "ec": SoftwarePlatformKey(ec.generate_private_key(ec.SECP256R1())),
}
REFUSED_BEFORE_THE_KEY = {
    "point that is not on the curve",
    "point of another form",
    "wrapped keys of zeroes",
    "wrapped keys of ones",
    "wrapped keys, random",
    "wrapped keys, first bit",
}


@pytest.mark.parametrize(("kind", "suite"), [(kind, suite) for kind, both in KEYS.items() for suite in both], ids=str)
def test_same_steps_for_whatever_does_not_open(kind: str, suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """T2 REQ-40 REQ-60: one private-key operation, one MAC over the same octets, and never a decryption."""
    key = SOFTWARE[kind]
    calls: list[str] = []
    lengths: list[int] = []
    real_mac, real_decrypt = suites.mac, suites.decrypt

    def mac(row: suites.SuiteParameters, pik: bytes, header: bytes, ciphertext: bytes) -> bytes:
        calls.append("mac")
        lengths.append(len(ciphertext))
        return real_mac(row, pik, header, ciphertext)

    def decrypt(row: suites.SuiteParameters, pck: bytes, ciphertext: bytes, header: bytes) -> bytes:
        calls.append("decrypt")
        return real_decrypt(row, pck, ciphertext, header)

    data = encode_data(Tag.MCIM, bytes(300), 1)
    objects = broken_objects(suite, key.public_key, data)
    monkeypatch.setattr(suites, "mac", mac)
    monkeypatch.setattr(suites, "decrypt", decrypt)
    sound = objects.pop("sound")
    counted = Counted(key)
    assert open_mcim(sound, counted, accepted=frozenset({suite}), random=os.urandom) == data
    assert (counted.calls, calls) == (["key"], ["mac", "decrypt"])
    for name, octets in objects.items():
        counted = Counted(key)
        calls.clear()
        with pytest.raises(PackageRefused) as caught:
            open_mcim(octets, counted, accepted=frozenset({suite}), random=os.urandom)
        assert caught.value.code is ResultCode.CRYPTO_FAILURE
        assert calls == ["mac"], name
        if kind == "ec" and name in REFUSED_BEFORE_THE_KEY:
            continue  # an EC point that is none: everybody can see that, no secret is in it
        assert counted.calls == ["key"], name


KINDS = ("wrapped keys, last bit", "MAC, last bit", "ciphertext, last block", "ciphertext, first block")
ROUNDS, SAMPLES, BOUND = 6, 31, 1.5


@pytest.mark.parametrize("kind", KEYS)
def test_same_time_for_whatever_does_not_open(kind: str) -> None:
    """T2 REQ-60: medians of interleaved samples do not differ, with an object whose MAC takes longer than an EC key.

    (With RSA the private key takes most of the time; that no other step is left out there, the steps above show.)
    A busy machine can only add noise, which is on all kinds alike: one quiet round of some is enough, while a step left
    out would be missing in every round.
    """
    suite, key = KEYS[kind][0], SOFTWARE[kind]
    objects = broken_objects(suite, key.public_key, encode_data(Tag.MCIM, bytes(200_000), 1))

    def measure(octets: bytes) -> int:
        start = time.thread_time_ns()
        with pytest.raises(PackageRefused):
            open_mcim(octets, key, accepted=frozenset({suite}), random=os.urandom)
        return time.thread_time_ns() - start

    ratios = []
    for _ in range(ROUNDS):
        samples: dict[str, list[int]] = {name: [] for name in KINDS}
        for _ in range(SAMPLES):
            for name in KINDS:
                samples[name].append(measure(objects[name]))
        medians = [statistics.median(each) for each in samples.values()]
        ratios.append(max(medians) / min(medians))
        if ratios[-1] < BOUND:
            return
    pytest.fail(f"{kind}: slowest to fastest kind {ratios}")


def test_guessing_ends_the_registration(arena: Arena) -> None:
    """T2 REQ-60: after ten ciphertexts that did not open, none is tried any more for this nonce."""
    octets = b"MCO1" + bytes(200)
    attempts = [arena.package(mcim_object=octets) for _ in range(MAX_CRYPTO_FAILURES)]
    for package in attempts[:-1]:
        refused(arena, package, ResultCode.CRYPTO_FAILURE)
    refused(arena, attempts[-1], ResultCode.CRYPTO_FAILURE, ends=True)
    arena.reopen()
    refused(arena, arena.good, ResultCode.REPLAY)


def test_strangers_cannot_use_up_the_tries(arena: Arena) -> None:
    """T12 REQ-60: broken ciphertexts that the SHO did not sign cost no try, and the private key is not used."""
    root = parse(arena.good)
    find(root, CONTENT).text = base64.b64encode(os.urandom(300)).decode()
    for _ in range(MAX_CRYPTO_FAILURES + 2):
        refused(arena, octets_of(root), ResultCode.SIGNATURE_INVALID)
    assert arena.provision(arena.good).code is ResultCode.SUCCESS


def test_no_plaintext_is_left_anywhere(arena: Arena, capfd: pytest.CaptureFixture[str]) -> None:
    """T1 REQ-55 REQ-60: neither a refusal behind the decryption nor a success prints or returns a secret."""
    outcomes = [
        refused(arena, arena.package(content={"imsi": "000000"}), ResultCode.CONTENT_INVALID, ends=True),
    ]
    arena.register()
    outcomes.append(arena.provision(arena.package()))
    printed = capfd.readouterr()
    text = printed.out + printed.err + repr(outcomes) + repr(arena.tre.mcims())
    octets = text.encode() + b"".join(each.receipt for each in outcomes)
    for secret in (K, OPC, IMSI.encode()):
        for form in (secret, secret.hex().encode(), base64.b64encode(secret), repr(secret)[2:-1].encode()):
            assert form not in octets
    assert etree.tostring(parse(arena.good)).count(K) == 0
