"""Properties of the decoders: what is written is read again, and any octets give a value or a typed error."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncml.codec import Encoding, decode, encode
from syncml.errors import RemoteProtocolError
from syncml.model import Message
from syncml.tnds import MalformedTnds, Tnds, decode_tnds, encode_tnds
from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS
from tests.support_strategies import TREES, messages

# Most of what a reader meets: tokens, short strings, page switches.
TOKENS = st.lists(
    st.sampled_from([b"\0\0", b"\0\1", b"\0\2", b"\1", b"\3a\0", b"\3200\0", b"\xc3\2\0\xff", b"\x83\0", b"\x02\x41"])
    | st.integers(0x40, 0x7F).map(lambda octet: bytes((octet,)))
    | st.binary(max_size=3),
    max_size=60,
).map(b"".join)


@settings(max_examples=3000)
@given(messages(Encoding.XML))
def test_messages_survive_xml(message: Message) -> None:
    assert decode(encode(message, Encoding.XML), Encoding.XML) == message


@settings(max_examples=3000)
@given(messages(Encoding.WBXML))
def test_messages_survive_wbxml(message: Message) -> None:
    assert decode(encode(message, Encoding.WBXML), Encoding.WBXML) == message


@settings(max_examples=3000)
@given(TREES)
def test_trees_survive_both_encodings(tree: Tnds) -> None:
    for encoding in Encoding:
        assert decode_tnds(encode_tnds(tree, encoding)) == tree


HEAD = bytes.fromhex("02a4016a00 6d 6c 6503310001 5b03310001 67570361000101 01 6b")  # a header, and a body begins


@given(st.binary(max_size=200) | TOKENS.map(lambda each: HEAD + each + b"\1\1"))
def test_any_octets_give_a_message_or_a_typed_error(octets: bytes) -> None:
    """XS-037."""
    for encoding in Encoding:
        try:
            assert decode(octets, encoding).header.source
        except RemoteProtocolError:
            continue


TREE_HEAD = bytes.fromhex("02016a00 0002 60 7703312e320001 64 66036100 01 6f 5c 4b 01 01")  # a node begins


@given(st.binary(max_size=200) | st.text(max_size=100) | TOKENS.map(lambda each: TREE_HEAD + each + b"\1\1"))
def test_any_octets_give_a_tree_or_a_typed_error(data: bytes | str) -> None:
    """XC-065."""
    try:
        tree = decode_tnds(data)
    except MalformedTnds:
        return
    assert tree.nodes


@pytest.mark.parametrize("name", TARGETS)
def test_targets_take_their_seeds_and_what_is_cut_from_them(name: str) -> None:
    """XS-037: the byte-level targets hold on real documents, on all their beginnings and with octets changed."""
    assert SEEDS[name]
    for seed in SEEDS[name]:
        TARGETS[name](seed)
        for length in range(0, len(seed), 7):
            TARGETS[name](seed[:length])
            TARGETS[name](seed[:length] + bytes((seed[length] ^ 0x41,)) + seed[length + 1 :])
