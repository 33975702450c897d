"""One package or command on its way through a TRE: the checks it passed, and the receipt of what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from dmclient.tre.base import CheckRecord
from dmclient.tre.state import Origin
from mcim.errors import PackageRefused
from mcim.package_header import PackageHeader
from mcim.receipt import Receipt
from mcim.vocabulary import ResultCode


class CheckList:
    """The checks of one package in their order, and how far it came."""

    def __init__(self) -> None:
        self.records: list[CheckRecord] = []
        self.sender_at_fault = False  # past the point where only the home operator itself can have failed

    def passed(self, name: str, *req: str) -> None:
        """Note a check that was passed."""
        self.records.append(CheckRecord(name=name, passed=True, req=req))

    def failed(self, name: str, *req: str, refusal: PackageRefused) -> None:
        """Note the check that ends it; why a ciphertext did not open stays here (REQ-60)."""
        detail = "" if refusal.code is ResultCode.CRYPTO_FAILURE else str(refusal)
        self.records.append(CheckRecord(name=name, passed=False, req=req, detail=detail))

    @contextmanager
    def check(self, name: str, *req: str) -> Iterator[None]:
        """Run one check; `PackageRefused` out of it is noted and goes on."""
        try:
            yield
        except PackageRefused as refusal:
            self.failed(name, *req, refusal=refusal)
            raise
        self.passed(name, *req)


@dataclass(slots=True, kw_only=True)
class Action:
    """One package or command under way."""

    digest: bytes  # SHA-256 of it
    now: datetime
    checks: CheckList = field(default_factory=CheckList)
    header: PackageHeader | None = None  # once its signature is verified

    def remember(self, header: PackageHeader) -> None:
        """Its signature is verified: from now on the receipt names what it was."""
        self.header = header

    def origin(self, header: PackageHeader) -> Origin:
        """What an MCIM keeps of the package that brought it."""
        return Origin(
            operation=header.operation,
            sequence=header.sequence,
            nonce=header.registration_nonce,
            package_hash=self.digest,
        )

    def receipt(self, tre_id: str, code: ResultCode, counter: int, *, revision: int | None = None) -> Receipt:
        """The receipt of its outcome (REQ-67)."""
        header = self.header
        return Receipt(
            tre_id=tre_id,
            operation=header.operation if header else None,
            mcim_id=header.mcim_id if header else None,
            sho_id=header.sho_id if header else None,
            sequence=header.sequence if header else None,
            nonce=header.registration_nonce if header else None,
            revision=revision,
            package_hash=self.digest,
            result=code,
            counter=counter,
            time=self.now,
        )
