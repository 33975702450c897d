"""Errors of the MCIM library. Their text is for the log of whoever raised them, never for the peer."""

from __future__ import annotations

from mcim.vocabulary import ResultCode


class MCIMError(Exception):
    """Root of all errors of this package; never raised itself."""


class InvalidArgument(MCIMError):
    """Our own caller passed what the profile forbids: fix the caller."""


class PackageRefused(MCIMError):
    """A received package, object or command is not acceptable; `code` is the result code to report."""

    def __init__(self, code: ResultCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class CertificateRefused(MCIMError):
    """A certificate or its chain is not acceptable for the role asked.

    `reason` is one of `mcim.certificates.Reason`, for records and tests; the exception text says more.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class StatementInvalid(MCIMError):
    """A receipt, evidence or ticket is malformed, not signed by the key expected, or bound to something else."""


class UnsealFailed(MCIMError):
    """Sealed octets do not open with this key: changed, or sealed with another."""
