"""Which session a request belongs to, whatever stands in its query."""

from __future__ import annotations

import pytest

from dmserver.sessions import LiveSession, SessionRegistry
from syncml.codec import Encoding
from tests.support_syncml import DEVICE, server_session

TOKENS = {"letter": "é", "no UTF-8": "\udcff", "nothing": "", "with NUL": "token\0", "long": "😀" * 100}


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
def test_any_query_is_a_wrong_token(token: str) -> None:
    """XS-036: whoever writes something else into the query than the token of RespURI is not in the session."""
    registry = SessionRegistry(max_sessions=4, idle_s=60.0, dead_s=60.0)
    session = LiveSession(
        device_id=DEVICE,
        session_id="1",
        engine=server_session(session_id="1"),
        encoding=Encoding.XML,
        known=True,
        recorded=True,
        authenticated=True,
        token="token",  # of this test alone
    )
    registry.put(session)

    def routed(shown: str) -> LiveSession | None:
        return registry.route(DEVICE, "1", msg_id="2", token=shown, digest=b"d", opens=False)

    assert routed("token") is session
    assert routed(token) is None
