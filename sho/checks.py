"""Checks with a memory: each leaves a record in the trail, and the first that fails ends the request (REQ-71)."""

from __future__ import annotations

from actor_runtime.trail import Trail


class RequestRefused(Exception):
    """A hand-over or report is not acceptable. `code` goes to the partner, the text to the log and the trail."""

    def __init__(self, code: str, reason: str, *, status: int = 403) -> None:
        super().__init__(reason)
        self.code, self.status = code, status


class Checks:
    """The checks of one request at one step."""

    def __init__(self, trail: Trail, *, step: str, order: str) -> None:
        self._trail, self._step, self._order = trail, step, order

    def require(
        self, name: str, passed: bool, req: tuple[str, ...], *, code: str, detail: str = "", status: int = 403
    ) -> None:
        """Record the check; raise when it failed.

        Raises:
            RequestRefused.
        """
        self._trail.check(name, passed, req=req, step=self._step, order=self._order, detail=detail)
        if not passed:
            raise RequestRefused(code, f"{name}: {detail}" if detail else name, status=status)

    def passed(self, name: str, req: tuple[str, ...], detail: str = "") -> None:
        """Record a check that held."""
        self._trail.check(name, True, req=req, step=self._step, order=self._order, detail=detail)

    def failed(self, name: str, req: tuple[str, ...], *, code: str, detail: str, status: int = 403) -> RequestRefused:
        """Record a check that failed and give the error to raise."""
        self._trail.check(name, False, req=req, step=self._step, order=self._order, detail=detail)
        return RequestRefused(code, f"{name}: {detail}", status=status)
