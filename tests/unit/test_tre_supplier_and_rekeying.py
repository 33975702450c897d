"""After manufacture: what the supplier may still change in a TRE, and new keys for one in the field."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from dmclient.tre.base import TreError
from dmclient.tre.rekeying import der
from mcim.certificates import Role
from mcim.measurement_log import Measurement, decode_log
from mcim.vocabulary import RegistrationState, ResultCode, ValidationMode
from tests.support_tre import IMSI, MCIM_ID, NOW, World


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, dict[str, bytes]]:
    world = World(tmp_path_factory.mktemp("tre"), key_type="ec", token=b"label-2026")
    return world, world.snapshot()


@pytest.fixture
def world(made: tuple[World, dict[str, bytes]]) -> World:
    world, files = made
    world.restore(files)
    return world


def attempt(world: World, token: bytes) -> ResultCode:
    world.register()
    return world.provision(world.package(content={"auth_token": token})).code


# -- supplier ---------------------------------------------------------------------------------------------------------


def test_supplier_unlocks_the_token(world: World) -> None:
    """REQ-61: five wrong guesses lock; the supplier gives the tries back, and the lock works as before."""
    assert [attempt(world, b"guess") for _ in range(6)] == [ResultCode.TOKEN_WRONG] * 5 + [ResultCode.TOKEN_LOCKED]
    assert world.tre.supplier_command(world.supplier(), NOW) is ResultCode.SUCCESS
    world.reopen()
    assert attempt(world, b"guess") is ResultCode.TOKEN_WRONG
    assert attempt(world, b"label-2026") is ResultCode.SUCCESS


def test_supplier_replaces_the_roots(world: World) -> None:
    """REQ-44: other roots by a signed command: who was below the old ones is nobody now."""
    roots = tuple(der(each) for each in world.certificates[2])
    assert world.tre.supplier_command(world.supplier(sho_roots=roots), NOW) is ResultCode.SUCCESS
    assert world.reopen()._state.sho_anchors == roots
    assert attempt(world, b"label-2026") is ResultCode.SIGNER_NOT_ACCEPTABLE


REFUSED: dict[str, tuple[dict[str, Any], ResultCode]] = {
    "another TRE": ({"tre_id": "urn:m2m:tre:2"}, ResultCode.WRONG_RECIPIENT),
    "expired": ({"not_after": NOW}, ResultCode.OUTSIDE_VALIDITY),
    "a home operator": ({"role": Role.SHO}, ResultCode.SIGNER_NOT_ACCEPTABLE),
    "a TRE": ({"role": Role.ATTEST}, ResultCode.SIGNER_NOT_ACCEPTABLE),
    "below the root of home operators": ({"issuer": "Operators"}, ResultCode.SIGNER_NOT_ACCEPTABLE),
}


@pytest.mark.parametrize(("changes", "code"), REFUSED.values(), ids=REFUSED)
def test_nobody_else_commands(world: World, changes: dict[str, Any], code: ResultCode) -> None:
    """REQ-44, REQ-46: another role, root, TRE or time: nothing changes and the command may still come rightly."""
    before = world.tre._state
    assert world.tre.supplier_command(world.supplier(**changes), NOW) is code
    assert world.tre._state == before
    assert world.tre.supplier_command(world.supplier(), NOW) is ResultCode.SUCCESS


def test_a_supplier_command_is_good_once(world: World) -> None:
    """REQ-44, REQ-53: its counter only rises, across a restart, too."""
    command = world.supplier(counter=5)
    assert world.tre.supplier_command(command, NOW) is ResultCode.SUCCESS
    assert world.reopen().supplier_command(command, NOW) is ResultCode.REPLAY
    assert world.tre.supplier_command(world.supplier(counter=4), NOW) is ResultCode.REPLAY
    assert world.tre.supplier_command(b"anything", NOW) is ResultCode.MALFORMED


def test_without_roots_for_suppliers_none_commands(tmp_path: Path) -> None:
    """REQ-44: roots for suppliers come at manufacture, with the others or never."""
    world = World(tmp_path, key_type="ec")
    command = world.supplier()
    world.tre._memory.commit(
        type(world.tre._state)(
            **{name: getattr(world.tre._state, name) for name in world.tre._state.__slots__} | {"supplier_anchors": ()}
        )
    )
    assert world.tre.supplier_command(command, NOW) is ResultCode.SIGNER_NOT_ACCEPTABLE
    with pytest.raises(TreError):
        world.tre.install_certificates(*world.certificates, supplier_anchors=world.certificates[2])


# -- new keys ---------------------------------------------------------------------------------------------------------


def proved(request: dict[str, str], name: str, pem: str) -> bool:
    key = load_pem_public_key(pem.encode())
    assert isinstance(key, ec.EllipticCurvePublicKey)
    members = {each: request[each] for each in ("m2meId", "treId", "platformKey", "attestKey")}
    proof = base64.b64decode(request[name])
    signature = encode_dss_signature(int.from_bytes(proof[:32], "big"), int.from_bytes(proof[32:], "big"))
    body = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
    key.verify(signature, body, ec.ECDSA(hashes.SHA256()))
    return True


def test_new_keys(world: World) -> None:
    """REQ-21: asked for by old and new key, in use with their certificates; the MCIM stays, the request is renewed."""
    assert attempt(world, b"label-2026") is ResultCode.SUCCESS
    old_request = world.tre.certification_request()
    old_id = world.tre.facts().platform_key_id
    opened = world.register()
    request = world.tre.begin_rekey()
    assert proved(request, "proof", request["attestKey"])
    assert proved(request, "oldProof", old_request["attestKey"])
    assert request["attestKey"] != old_request["attestKey"]
    again = world.reopen().begin_rekey()
    assert (again["platformKey"], again["attestKey"]) == (request["platformKey"], request["attestKey"])
    assert world.tre.facts().platform_key_id == old_id  # until the certificates are there
    assert world.tre.registration(NOW) == opened
    world.tre.complete_rekey(*world.take_over(request), world.certificates[2], NOW)
    for tre in (world.tre, world.reopen()):
        assert tre.facts().platform_key_id != old_id
        assert tre.attach_identity(MCIM_ID) == IMSI
        assert tre._state.next_keys is None
        renewed = tre.registration(NOW)
        assert (renewed.state, renewed.nonce != opened.nonce) == (RegistrationState.REQUESTED, True)
        assert world.evidence_of(tre.generate_evidence(bytes(32), ValidationMode.SEMI_AUTONOMOUS, NOW)).nonce
    assert attempt(world, b"label-2026") is ResultCode.ALREADY_DONE


def test_a_package_for_the_old_key_is_for_nobody(world: World) -> None:
    """REQ-64: what was made for PK_D before is refused by its key id."""
    key = world.platform_key
    new = world.take_over(world.tre.begin_rekey())
    world.tre.complete_rekey(*new, world.certificates[2], NOW)
    world.platform_key = key
    assert attempt(world, b"label-2026") is ResultCode.WRONG_RECIPIENT


def test_certificates_of_other_keys_change_nothing(world: World) -> None:
    """REQ-21: nothing is completed that was not begun, or with certificates of anybody else."""
    platform, attest, chain, _ = world.certificates
    with pytest.raises(TreError):
        world.tre.complete_rekey(platform, attest, chain, NOW)
    world.tre.begin_rekey()
    with pytest.raises(TreError) as caught:
        world.tre.complete_rekey(platform, attest, chain, NOW)
    assert caught.value.code is ResultCode.WRONG_RECIPIENT
    assert attempt(world, b"label-2026") is ResultCode.SUCCESS


# -- measured start ---------------------------------------------------------------------------------------------------


def test_measurement_log_and_evidence(world: World) -> None:
    """REQ-18: in remote mode the evidence is bound to the log; what was loaded is told once at a start."""
    log = (Measurement(0, "boot", bytes(32)), Measurement(1, "tre", b"\x01" * 32))
    assert world.tre.measurement_log() == b""
    world.tre.take_measurements(log)
    with pytest.raises(TreError):
        world.tre.take_measurements(log)
    octets = world.tre.measurement_log()
    assert decode_log(octets) == log
    world.register()
    remote = world.evidence_of(world.tre.generate_evidence(bytes(32), ValidationMode.REMOTE, NOW))
    assert remote.log_digest == hashlib.sha256(octets).digest()
    plain = world.evidence_of(world.tre.generate_evidence(bytes(32), ValidationMode.SEMI_AUTONOMOUS, NOW))
    assert plain.log_digest == b""
