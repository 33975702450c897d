"""Attach sessions of a home network, without a database: what one device can cost all others."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from actor_runtime.trail import Trail
from home_network.sessions import MAX_REFUSALS, AttachRefused, AttachSessions, Subscriber
from mcim.aka import SyncFailure, UsimState
from mcim.milenage import Milenage

KNOWN = "001010000000001"


class Functions(Milenage):
    """MILENAGE that remembers by which thread it was run."""

    threads: set[threading.Thread] = set()

    def f1(self, rand, sqn, amf):
        self.threads.add(threading.current_thread())
        return super().f1(rand, sqn, amf)

    def f1_star(self, rand, sqn, amf):
        self.threads.add(threading.current_thread())
        return super().f1_star(rand, sqn, amf)


class Subscribers:
    """One identity in memory."""

    step, eligible = "16", ("subscription-armed", "REQ-68", "16")

    def __init__(self):
        self.own = Functions(b"k" * 16, b"o" * 16)

    def index(self, imsi):
        return imsi.encode()

    async def use_next_sqn(self, index, *, after):
        if index != KNOWN.encode():
            raise AttachRefused("unknown")
        return Subscriber(functions=self.own, amf=b"\x80\x00", sqn=64 if after is None else after + 33)

    async def functions(self, index):
        return self.own

    async def mark_attached(self, index, now):
        return "00101********01"


async def test_the_functions_do_not_hold_up_the_other_devices():
    """REQ-69, T12: TUAK with many iterations takes long; it is not the event loop that computes."""
    Functions.threads.clear()
    sessions = AttachSessions(Subscribers(), Trail("SHO"), session_ttl_s=30, max_sessions=9)
    challenge = await sessions.start(KNOWN)
    own, usim = Milenage(b"k" * 16, b"o" * 16), UsimState.initial(1 << 20)
    usim, answer = usim.verify(own, rand=challenge.rand, autn=challenge.autn)
    assert isinstance(answer, SyncFailure)
    challenge = await sessions.resynchronise(challenge.session, answer.auts)
    _, answer = usim.verify(own, rand=challenge.rand, autn=challenge.autn)
    assert await sessions.respond(challenge.session, answer.res, datetime.now(UTC))
    assert threading.current_thread() not in Functions.threads
    assert Functions.threads


async def test_strangers_do_not_fill_the_trail():
    """T12, REQ-71: whoever asks with identities that there are not leaves so many records in a minute, and no more."""
    seen, now = [], [0.0]
    sessions = AttachSessions(
        Subscribers(), Trail("SHO", sink=seen.append), session_ttl_s=30, max_sessions=9, clock=lambda: now[0]
    )
    for minute in (1, 2):
        for _ in range(MAX_REFUSALS + 5):
            with pytest.raises(AttachRefused):
                await sessions.start("001019999999999")
        assert len(seen) == minute * MAX_REFUSALS
        now[0] += 60
