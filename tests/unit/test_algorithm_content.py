"""Contents that carry algorithms: constants of an MCIM, tag 02, code that nobody runs."""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmclient.tre.algorithms import require_algorithm
from dmclient.tre.profiles import PROFILES
from dmclient.tre.state import TreState
from mcim import tlv
from mcim.aka import Accepted, generate_vector
from mcim.content import (
    AlgorithmCode,
    AlgorithmContent,
    CodeFormat,
    Content,
    McimContent,
    UpdateContent,
    parse_content,
)
from mcim.errors import PackageRefused
from mcim.milenage import DEFAULT, MilenageConstants
from mcim.network_keys import NetworkKeys
from mcim.tuak import TuakParameters
from mcim.vocabulary import AlgorithmId, Operation, ResultCode, Tag
from tests.support_tre import MCIM_ID, World

BOUND = {
    "mcim_id": UUID(int=1),
    "sho_id": "sho1.example",
    "tre_id": "urn:m2m:tre:1",
    "registration_nonce": bytes(range(32)),
    "sequence": 1,
    "not_before": datetime(2026, 1, 1, tzinfo=UTC),
    "not_after": datetime(2027, 1, 1, tzinfo=UTC),
    "transaction_id": UUID(int=2),
}
K, OPC, TOPC = bytes(range(16)), bytes(range(16, 32)), bytes(range(32, 64))
OWN = MilenageConstants((1, 2, 3, 4, 5), DEFAULT.masks).encode()
TUAK_256 = TuakParameters(iterations=2, mac_length=16, res_length=16, ck_length=32, ik_length=32).encode()
CODE = AlgorithmCode(format=CodeFormat.JAVA, octets=bytes(range(256)) * 300)  # 76 800 octets: two parts

GOOD: dict[str, tuple[Tag, Content]] = {
    "MILENAGE with own constants": (
        Tag.MCIM,
        McimContent(**BOUND, imsi="001010123456789", k=K, opc=OPC, constants=OWN),
    ),
    "TUAK with defaults": (
        Tag.MCIM,
        McimContent(**BOUND, imsi="001010123456789", algorithm=AlgorithmId.TUAK, k=K, opc=TOPC),
    ),
    "TUAK with parameters": (
        Tag.MCIM,
        McimContent(
            **BOUND, imsi="001010123456789", algorithm=AlgorithmId.TUAK, k=K + OPC, opc=TOPC, constants=TUAK_256
        ),
    ),
    "what a TRE may skip": (
        Tag.MCIM,
        McimContent(
            **BOUND, imsi="001010123456789", k=K, opc=OPC, optional=((0x2B, bytes(13)), (0x30, b"a"), (0x37, b"b"))
        ),
    ),
    "update to TUAK": (
        Tag.UPDATE,
        UpdateContent(
            **BOUND,
            keys=NetworkKeys(algorithm=AlgorithmId.TUAK, k=K, opc=TOPC, constants=TUAK_256),
            sqn_init=0,
        ),
    ),
    "new constants": (Tag.ALGORITHM, AlgorithmContent(**BOUND, algorithm=AlgorithmId.MILENAGE, constants=OWN)),
    "new parameters": (Tag.ALGORITHM, AlgorithmContent(**BOUND, algorithm=AlgorithmId.TUAK, constants=TUAK_256)),
    "code": (Tag.ALGORITHM, AlgorithmContent(**BOUND, algorithm=AlgorithmId.CODE, code=CODE)),
    "constants and code for them": (
        Tag.ALGORITHM,
        AlgorithmContent(**BOUND, algorithm=AlgorithmId.TUAK, constants=TUAK_256, code=CODE),
    ),
}


@pytest.mark.parametrize(("tag", "content"), GOOD.values(), ids=GOOD)
def test_round_trip(tag: Tag, content: Content) -> None:
    """REQ-30, REQ-34."""
    assert parse_content(tag, content.to_payload()) == content


def _changed(name: str, **changes: bytes | None) -> tuple[Tag, bytes]:
    tag, content = GOOD[name]
    fields = dict(tlv.decode(content.to_payload(), repeatable=frozenset((0x8041,))))
    for kind, value in ((int(name.removeprefix("t"), 16), value) for name, value in changes.items()):
        fields.pop(kind, None)
        if value is not None:
            fields[kind] = value
    return tag, tlv.encode(fields.items())


SMALL = b"code"
DIGEST = hashlib.sha256(SMALL).digest()
OWN_NAME, TUAK_NAME = "MILENAGE with own constants", "TUAK with parameters"
FAULTS = {
    "a pair of constants twice": _changed(OWN_NAME, t8027=bytes(85)),
    "a rotation of 128 bits": _changed(OWN_NAME, t8027=b"\x80" + OWN[1:]),
    "constants too short": _changed(OWN_NAME, t8027=OWN[:-1]),
    "empty constants": _changed(OWN_NAME, t8027=b""),
    "constants of TUAK with MILENAGE": _changed(OWN_NAME, t8028=TUAK_256),
    "OPc and OP": _changed(OWN_NAME, t8024=bytes(range(16))),
    "OP instead of OPc": _changed(OWN_NAME, t8023=None, t8024=OPC),
    "TOP instead of TOPc": _changed(TUAK_NAME, t8025=None, t8026=TOPC),
    "no iteration": _changed(TUAK_NAME, t8028=bytes((0, 8, 8, 16, 16))),
    "a MAC of 4 octets": _changed(TUAK_NAME, t8028=bytes((1, 4, 8, 16, 16))),
    "TOPc of 16 octets": _changed(TUAK_NAME, t8025=OPC),
    "K of 24 octets": _changed(TUAK_NAME, t8021=bytes(range(24))),
    "SQN policy too short": _changed("what a TRE may skip", t002b=bytes(12)),
    "code with an MCIM": _changed(OWN_NAME, t8040=b"\1", t8041=SMALL, t8042=DIGEST),
    "a release token in an update": _changed("update to TUAK", t8052=b"token"),
    "constants that may not be used, in an update": _changed("update to TUAK", t8028=bytes(5)),
    "tag 02 without an algorithm": _changed("new constants", t8022=None),
    "tag 02 with an unknown algorithm": _changed("new constants", t8022=b"\x44"),
    "tag 02 with the constants of another algorithm": _changed("new constants", t8022=b"\2"),
    "tag 02 with both constants": _changed("new constants", t8028=TUAK_256),
    "tag 02 without constants": _changed("new constants", t8027=None),
    "tag 02 with constants that may not be used": _changed("new constants", t8027=bytes(85)),
    "tag 02 with parameters that may not be used": _changed("new parameters", t8028=bytes(5)),
    "tag 02 with a key": _changed("new constants", t8021=K),
    "tag 02 as an installation": _changed("new constants", t8009=bytes((Operation.INSTALL,))),
    "code without a format": _changed("code", t8040=None, t8041=SMALL, t8042=DIGEST),
    "code of an unknown format": _changed("code", t8040=b"\4", t8041=SMALL, t8042=DIGEST),
    "code of another digest": _changed("code", t8041=SMALL, t8042=bytes(32)),
    "code without a digest": _changed("code", t8041=SMALL, t8042=None),
    "no code at all": _changed("code", t8040=None, t8041=None, t8042=None),
    "no octet of code": _changed("code", t8041=b"", t8042=hashlib.sha256(b"").digest()),
    "code with constants nobody named": _changed("code", t8027=OWN, t8041=SMALL, t8042=DIGEST),
    "too much code": (
        Tag.ALGORITHM,
        dataclasses.replace(
            GOOD["code"][1], code=AlgorithmCode(format=CodeFormat.STIP, octets=bytes(128 * 1024 + 1))
        ).to_payload(),
    ),
    "a command": (Tag.COMMAND, GOOD[OWN_NAME][1].to_payload()),
}  # fmt: skip


@pytest.mark.parametrize(("tag", "payload"), FAULTS.values(), ids=FAULTS)
def test_content_faults(tag: Tag, payload: bytes) -> None:
    """REQ-30, REQ-34: found when the content is read, not when the network asks (1416)."""
    with pytest.raises(PackageRefused) as caught:
        parse_content(tag, payload)
    assert caught.value.code is ResultCode.CONTENT_INVALID


def test_xor_is_no_algorithm_of_an_mcim() -> None:
    """REQ-30: the test algorithm of TS 34.108 is refused, as constants and as keys (1421)."""
    for name in (OWN_NAME, "new constants"):
        with pytest.raises(PackageRefused) as caught:
            parse_content(*_changed(name, t8022=b"\3"))
        assert caught.value.code is ResultCode.ALGORITHM_UNSUPPORTED


def test_parts_of_code_keep_their_order() -> None:
    """REQ-30: CODE_PART is repeated; in another order the digest does not fit."""
    tag, content = GOOD["code"]
    fields = tlv.decode(content.to_payload(), repeatable=frozenset((0x8041,)))
    parts = [value for kind, value in fields if kind == 0x8041]
    assert [len(part) for part in parts] == [0xFFFF, 76_800 - 0xFFFF]
    others = [field for field in fields if field[0] != 0x8041]
    swapped = tlv.encode([*others, *((0x8041, part) for part in parts[::-1])], repeatable=frozenset((0x8041,)))
    with pytest.raises(PackageRefused, match="another digest"):
        parse_content(tag, swapped)


@given(st.sampled_from([Tag.MCIM, Tag.ALGORITHM, Tag.UPDATE]), st.sampled_from(list(GOOD)), st.data())
def test_any_octets_of_a_field_give_a_content_or_a_refusal(tag: Tag, name: str, data: st.DataObject) -> None:
    """REQ-30: whatever a signed payload holds, the answer is a content or a typed refusal."""
    fields = dict(tlv.decode(GOOD[name][1].to_payload(), repeatable=frozenset((0x8041,))))
    kind = data.draw(st.sampled_from(sorted(fields)) | st.integers(0x8020, 0x8043) | st.integers(0x2A, 0x38))
    fields[kind] = data.draw(st.binary(max_size=90))
    try:
        content = parse_content(tag, tlv.encode(fields.items()))
    except PackageRefused as refusal:
        code = refusal.code
    else:
        code = ResultCode.SUCCESS
        assert parse_content(tag, content.to_payload()) == content
    assert code in (ResultCode.SUCCESS, ResultCode.CONTENT_INVALID, ResultCode.ALGORITHM_UNSUPPORTED)


def test_new_constants_apply_to_an_mcim_of_that_algorithm_alone() -> None:
    """REQ-70: keys stay, constants change; constants of another algorithm and code change nothing."""
    keys = NetworkKeys(algorithm=AlgorithmId.MILENAGE, k=K, opc=OPC)
    content = GOOD["new constants"][1]
    assert isinstance(content, AlgorithmContent)
    assert content.applied_to(keys) == NetworkKeys(algorithm=AlgorithmId.MILENAGE, k=K, opc=OPC, constants=OWN)
    refused = {
        "new parameters": ResultCode.CONTENT_INVALID,
        "code": ResultCode.ALGORITHM_UNSUPPORTED,
        "constants and code for them": ResultCode.ALGORITHM_UNSUPPORTED,
    }
    for name, code in refused.items():
        content = GOOD[name][1]
        assert isinstance(content, AlgorithmContent)
        with pytest.raises(PackageRefused) as caught:
            content.applied_to(keys)
        assert caught.value.code is code


def test_no_code_in_a_repr() -> None:
    assert repr(CODE.octets)[:20] not in repr(GOOD["code"][1])
    assert repr(K) not in repr(GOOD["update to TUAK"][1])


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> TreState:
    world = World(tmp_path_factory.mktemp("tre"), key_type="ec")
    return world.tre._state


TAKEN = {
    ("software", "MILENAGE with own constants"): True,
    ("software", "TUAK with parameters"): True,
    ("software", "update to TUAK"): True,
    ("software", "new parameters"): True,
    ("software", "code"): False,
    ("java", "code"): False,  # the profile names the format, but there is no interpreter
    ("java", "constants and code for them"): False,
    ("stip", "code"): False,
    ("uicc", "MILENAGE with own constants"): True,
    ("uicc", "TUAK with defaults"): False,
    ("uicc", "update to TUAK"): False,
}


@pytest.mark.parametrize(("profile", "name"), TAKEN, ids=str)
def test_algorithms_of_a_profile(state: TreState, profile: str, name: str) -> None:
    """T15 REQ-30: a TRE takes the algorithms it lists, and code never (1421)."""
    kind = PROFILES[profile]
    of_profile = dataclasses.replace(state, algorithms=kind.algorithms, code_formats=kind.code_formats)
    if TAKEN[profile, name]:
        require_algorithm(GOOD[name][1], of_profile)
        return
    with pytest.raises(PackageRefused) as caught:
        require_algorithm(GOOD[name][1], of_profile)
    assert caught.value.code is ResultCode.ALGORITHM_UNSUPPORTED


def test_the_tre_refuses_what_it_does_not_list(tmp_path: Path) -> None:
    """T15 T16 REQ-30: in a package that is right in everything else, and the registration ends."""
    world = World(tmp_path, key_type="ec", profile=dataclasses.replace(PROFILES["software"], algorithms=("milenage",)))
    world.register()
    package = world.package(content={"algorithm": AlgorithmId.TUAK, "opc": TOPC})
    outcome = world.provision(package)
    assert (outcome.code, outcome.checks[-1].name) == (ResultCode.ALGORITHM_UNSUPPORTED, "algorithm")
    assert world.tre.mcims() == ()


@pytest.mark.parametrize("mac", [8, 32])
def test_a_tuak_mcim_authenticates(tmp_path: Path, mac: int) -> None:
    """REQ-30 REQ-69: from the package to the response, out of the sealed store after a restart."""
    world = World(tmp_path, key_type="ec")
    world.register()
    parameters = TuakParameters(mac_length=mac, iterations=3).encode()
    keys = NetworkKeys(algorithm=AlgorithmId.TUAK, k=K + OPC, opc=TOPC, constants=parameters)
    package = world.package(
        content={"algorithm": AlgorithmId.TUAK, "k": keys.k, "opc": keys.opc, "constants": parameters}
    )
    assert world.provision(package).code is ResultCode.SUCCESS
    vector = generate_vector(keys.functions(), rand=bytes(16), sqn=0x421)
    answer = world.reopen().authenticate(MCIM_ID, vector.rand, vector.autn)
    assert isinstance(answer, Accepted)
    assert answer.res == vector.xres
