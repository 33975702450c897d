"""T15, REQ-30: code of an authentication algorithm, signed by the SHO itself, for every kind of TRE."""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from dmclient.tre.profiles import PROFILES
from mcim import tlv
from mcim.content import AlgorithmCode, AlgorithmContent, CodeFormat, McimContent
from mcim.vocabulary import AlgorithmId, Operation, ResultCode, Tag
from tests.support_attacks import Arena, make_arena, refused, state_of, still_provisions
from tests.support_tre import IMSI, MCIM_ID, NOW, OPC, SHO, TRE_ID, K

CODE = b"\xca\xfe\xba\xbe" + bytes(range(256))
FORMATS = {"java": CodeFormat.JAVA, "stip": CodeFormat.STIP, "software": CodeFormat.NATIVE}


@pytest.fixture(params=FORMATS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Arena:
    """A TRE of a kind; java and stip list the format of the code that comes."""
    return make_arena(tmp_path / "tre", key_type="ec", profile=PROFILES[request.param])


def _bound(arena: Arena) -> dict[str, Any]:
    registration = arena.tre.registration(NOW)
    return {
        "mcim_id": MCIM_ID,
        "sho_id": SHO,
        "tre_id": TRE_ID,
        "registration_nonce": registration.nonce,
        "sequence": registration.next_sequence,
        "not_before": NOW - timedelta(minutes=1),
        "not_after": NOW + timedelta(days=1),
        "transaction_id": UUID(int=7),
    }


def test_code_for_an_installed_mcim(target: Arena) -> None:
    """T15 REQ-30: tag 02 with code in the TRE's own format: refused, and the MCIM authenticates as before."""
    still_provisions(target)
    target.register()
    before = state_of(target.tre)[0]
    code = AlgorithmCode(format=FORMATS.get(target.tre.facts().tre_type, CodeFormat.NATIVE), octets=CODE)
    content = AlgorithmContent(**_bound(target), algorithm=AlgorithmId.CODE, code=code)
    package = target.package(
        header={"operation": Operation.UPDATE}, payload=content.to_payload(), tag=Tag.ALGORITHM, revision=2
    )
    outcome = target.provision(package)
    assert outcome.code in (ResultCode.ALGORITHM_UNSUPPORTED, ResultCode.REFUSED)  # the latter: no updates at all
    assert target.tre.mcims() == before
    assert target.tre.attach_identity(MCIM_ID) == IMSI


def test_mcim_that_brings_its_algorithm(target: Arena) -> None:
    """T15 REQ-30: tag 01 that says its algorithm is code (1421), and one that has code beside MILENAGE (1416)."""
    good = McimContent(**_bound(target), imsi=IMSI, k=K, opc=OPC)
    fields = dict(tlv.decode(good.to_payload()))
    code = {0x8040: b"\1", 0x8041: CODE, 0x8042: hashlib.sha256(CODE).digest()}
    beside = tlv.encode((fields | code).items())
    refused(target, target.package(payload=beside), ResultCode.CONTENT_INVALID, ends=True)
    target.register()
    fields = dict(tlv.decode(dataclasses.replace(good, **_bound(target)).to_payload()))
    named = tlv.encode((fields | {0x8022: b"\x80"}).items())
    refused(target, target.package(payload=named), ResultCode.ALGORITHM_UNSUPPORTED, ends=True)
    target.register()
    still_provisions(target, target.package())


def test_algorithm_that_the_tre_does_not_list(tmp_path: Path) -> None:
    """T15 T16 REQ-30: TUAK for a TRE that has MILENAGE alone, and XOR, which is for tests, for any TRE."""
    profile = dataclasses.replace(PROFILES["software"], algorithms=("milenage",))
    arena = make_arena(tmp_path / "tre", key_type="ec", profile=profile)
    tuak = {"algorithm": AlgorithmId.TUAK, "opc": bytes(range(32))}
    refused(arena, arena.package(content=tuak), ResultCode.ALGORITHM_UNSUPPORTED, ends=True)
    arena.register()
    fields = dict(tlv.decode(McimContent(**_bound(arena), imsi=IMSI, k=K, opc=OPC).to_payload()))
    xor = tlv.encode((fields | {0x8022: b"\3"}).items())
    refused(arena, arena.package(payload=xor), ResultCode.ALGORITHM_UNSUPPORTED, ends=True)
