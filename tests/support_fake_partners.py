"""PVA and home operator that answer as they are told: tickets, packages without content, acknowledgements."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from lxml import etree

from dmserver.asks import (
    Ask,
    AskChallenge,
    AskJob,
    AskPackage,
    AskTicket,
    ChallengeGiven,
    Outcome,
    PackageGiven,
    PackageLater,
    ReportAcknowledged,
    TellSho,
    TicketGiven,
)
from mcim.key_id import key_id_of
from mcim.package_header import PackageHeader
from mcim.ticket import Ticket, issue_ticket, ticket_digest
from mcim.vocabulary import (
    MCIM_NAMESPACE,
    Suite,
)
from mcim.xml_header import header_element
from tests.support_dpf_pki import NOW, PVA_ID, pki


def ticket_for(ask: AskTicket, now: datetime = NOW, **changes: object) -> str:
    """What the PVA signs; `changes` make it wrong."""
    platform_key = x509.load_der_x509_certificate(ask.platform_cert).public_key()
    attest_key = x509.load_der_x509_certificate(ask.attest_cert).public_key()
    ticket = Ticket(
        issuer=PVA_ID,
        audience=ask.audience,
        tre_id=ask.tre_id,
        m2me_id=ask.m2me_id,
        req_id=ask.req_id,
        nonce=ask.nonce,
        platform_key_id=key_id_of(platform_key),
        attest_key_id=key_id_of(attest_key),
        mode=ask.mode,
        tre_type="software",
        tre_version="1.0",
        issued_at=now,
        expires_at=now + timedelta(minutes=30),
        ticket_id=str(uuid.uuid4()),
    )
    return issue_ticket(dataclasses.replace(ticket, **changes), pki().pva_key, [pki().pva_cert])


def package_for(ask: AskPackage, now: datetime = NOW, *, filling: int = 2000, **changes: object) -> PackageGiven:
    """A package with a right header and random octets for the rest: all a DPF can see. `changes` make it wrong."""
    header = PackageHeader(
        transaction_id=uuid.uuid4(),
        sequence=ask.next_sequence,
        registration_nonce=ask.nonce,
        m2me_id=ask.m2me_id,
        tre_id=ask.tre_id,
        platform_key_id=key_id_of(pki().platform_key.public_key()),
        sho_id=ask.sho_id,
        dpf_id=ask.dpf_id,
        operation=ask.operation,
        mcim_id=uuid.UUID(ask.mcim_id) if ask.mcim_id else uuid.uuid4(),
        suite=Suite.RSA_GCM_256,
        not_before=now,
        not_after=now + timedelta(days=1),
        ticket_digest=ticket_digest(ask.ticket),
    )
    header = dataclasses.replace(header, **changes)
    root = etree.Element(f"{{{MCIM_NAMESPACE}}}M2MSIMPackage", nsmap={None: MCIM_NAMESPACE}, version="1")
    root.append(header_element(header))
    etree.SubElement(root, "Opaque").text = base64.b64encode(os.urandom(filling)).decode()
    package = etree.tostring(root)
    return PackageGiven(
        package=package,
        mcim_id=str(header.mcim_id),
        sequence=header.sequence,
        package_hash=hashlib.sha256(package).hexdigest(),
        operation=header.operation.label,
    )


@dataclass
class FakePartners:
    """PVA and home operator. `answers` replaces what is said to one kind of ask; every ask is kept."""

    clock: Callable[[], datetime] = lambda: NOW
    answers: dict[type, Callable[[Ask], Outcome]] = field(default_factory=dict)
    asked: list[Ask] = field(default_factory=list)

    async def ask(self, ask: Ask) -> Outcome:
        return self.answer(ask)

    def answer(self, ask: Ask) -> Outcome:
        self.asked.append(ask)
        if type(ask) in self.answers:
            return self.answers[type(ask)](ask)
        match ask:
            case AskChallenge():
                return ChallengeGiven(challenge=os.urandom(32), expires_at=self.clock() + timedelta(minutes=5))
            case AskTicket():
                return TicketGiven(ticket=ticket_for(ask, self.clock()))
            case AskPackage():
                return package_for(ask, self.clock())
            case AskJob():
                return PackageLater(job=ask.job, retry_after_s=30)
            case TellSho():
                return ReportAcknowledged(subscription="armed" if ask.receipt else "none")

    def kinds(self) -> list[str]:
        return [type(ask).__name__ for ask in self.asked]
