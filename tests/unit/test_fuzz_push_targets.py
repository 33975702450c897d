"""The fuzz targets for pushes take their seeds, and what a few random changes make of them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncml.bootstrap import decode_cp, decode_cp_xml, parse_push
from syncml.bootstrap.dm_profile import read_message
from syncml.notification import parse_notification
from tests.fuzz import push_targets
from tests.fuzz.push_targets import PUSH_SEEDS

READERS = {
    "fuzz_cp": decode_cp,
    "fuzz_cp_xml": decode_cp_xml,
    "fuzz_package0": parse_notification,
    "fuzz_dm_bootstrap": read_message,
}


@pytest.mark.parametrize("name", PUSH_SEEDS)
def test_seeds_reach_the_inside(name):
    """XC-091, XC-094, XC-095: a seed that is refused would test nothing."""
    for seed in PUSH_SEEDS[name]:
        getattr(push_targets, name)(seed)
    for reader in [READERS[name]] if name in READERS else []:
        assert all(reader(seed) is not None for seed in PUSH_SEEDS[name])
    if name == "fuzz_wap_push":
        assert sum(seed.startswith(b"\0\6") and parse_push(seed).body != b"" for seed in PUSH_SEEDS[name]) == 9


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_changed_seeds(data):
    """XC-091, XC-094, XC-095: any octets give a value or a typed error."""
    name = data.draw(st.sampled_from(sorted(PUSH_SEEDS)))
    octets = bytearray(data.draw(st.sampled_from(PUSH_SEEDS[name])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(octets)))
        octets[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    getattr(push_targets, name)(bytes(octets))
