"""`POST /v1/attach` and `POST /v1/attach/{session}`: the network a device attaches to, as HTTP.

Every refusal is the same answer, whatever its cause: whoever asks learns nothing of identities, keys or states.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Final

import structlog

from actor_runtime.http import Base64, Body, Name, ProblemError, read_body, to_base64
from actor_runtime.later import web
from home_network.sessions import Attached, AttachRefused, AttachSessions, Challenge

MAX_ATTACH_BODY: Final = 4096  # octets; this listener is open to everybody

_log = structlog.get_logger(__name__)


class AttachBody(Body):
    """`POST /v1/attach`."""

    imsi: Name


class AttachAnswerBody(Body):
    """`POST /v1/attach/{session}`: exactly one of the members."""

    res: Base64 | None = None
    auts: Base64 | None = None
    failure: str | None = None


def challenge_document(challenge: Challenge, *, result: str | None = None) -> dict[str, Any]:
    """What the device gets of a challenge; `result` when it follows another answer."""
    answer = {
        "session": challenge.session,
        "rand": to_base64(challenge.rand),
        "autn": to_base64(challenge.autn),
    }
    return answer if result is None else {"result": result, **answer}


async def answer_challenge(
    sessions: AttachSessions,
    session_id: str,
    body: AttachAnswerBody,
    now: datetime,
    *,
    on_attached: Callable[[Attached], Awaitable[dict[str, Any]]],
) -> dict[str, Any]:
    """What the device gets for its RES, AUTS or failure. `on_attached` says what an attached device gets.

    Raises:
        AttachRefused: it is not let in.
        ProblemError: not exactly one of the members.
    """
    if body.res is not None and body.auts is None and body.failure is None:
        return await on_attached(await sessions.respond(session_id, body.res, now))
    if body.auts is not None and body.res is None and body.failure is None:
        return challenge_document(await sessions.resynchronise(session_id, body.auts), result="challenge")
    if body.failure == "mac" and body.res is None and body.auts is None:
        sessions.fail(session_id)
    raise ProblemError(400, "malformed-request", "exactly one of res, auts, failure is needed")


def refusal(reason: AttachRefused, *, retry_after_s: int | None = None) -> ProblemError:
    """The one answer to everything that is refused; the reason goes to the log."""
    _log.info("attach.refused", reason=str(reason))
    return ProblemError(403, "attach-refused", retry_after_s=retry_after_s)


async def read_attach(request: web.Request) -> AttachBody:
    """The body of `POST /v1/attach`."""
    return await read_body(request, AttachBody)


async def read_answer(request: web.Request) -> AttachAnswerBody:
    """The body of `POST /v1/attach/{session}`."""
    return await read_body(request, AttachAnswerBody)
