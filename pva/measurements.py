"""Remote validation: is the log the one that the evidence vouches for, and is everything in it known to be good?"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from mcim.errors import StatementInvalid
from mcim.evidence import Evidence
from mcim.measurement_log import DIGEST, Measurement, composite_digest, decode_log, replay
from mcim.tpm_quote import TpmQuote
from pva.references import Reference

MAX_NAMED: Final = 10  # faults named in one finding


@dataclass(frozen=True, slots=True)
class Finding:
    """One check of the log. `fault` is empty when it held."""

    name: str
    fault: str = ""


def check_log(octets: bytes | None, evidence: Evidence, reference: Reference) -> list[Finding]:
    """All checks of a measurement log, in order. After one that makes the rest meaningless there are no more."""
    if octets is None:
        return [Finding("measurement-log", "there is none")]
    try:
        log = decode_log(octets)
    except StatementInvalid as exc:
        return [Finding("measurement-log", str(exc))]
    bound = check_binding(octets, log, evidence)
    if bound.fault:
        return [Finding("measurement-log"), bound]
    return [Finding("measurement-log"), bound, *compare(log, reference)]


def check_binding(octets: bytes, log: Sequence[Measurement], evidence: Evidence) -> Finding:
    """The log is the sender's word until signed evidence binds it: by its digest, or by what a TPM quotes."""
    if evidence.log_digest and not hmac.compare_digest(evidence.log_digest, hashlib.sha256(octets).digest()):
        return Finding("log-digest", "the evidence is about another log")
    if evidence.quote is not None:
        return Finding("log-replay", check_quote(evidence.quote, log))
    return Finding("log-digest", "" if evidence.log_digest else "the evidence is about no log")


def check_quote(quote: TpmQuote, log: Sequence[Measurement]) -> str:
    """Replay the log over the quoted registers, no more and no fewer; what is wrong, empty when nothing is.

    A register without an entry has its value after a reset, zeroes.
    """
    values = replay(log)
    outside = sorted(set(values) - set(quote.registers))
    if outside:
        return f"not quoted: registers {', '.join(map(str, outside))}"
    quoted = {register: values.get(register, bytes(DIGEST)) for register in quote.registers}
    if not hmac.compare_digest(composite_digest(quoted), quote.pcr_digest):
        return "the log does not lead to the quoted registers"
    return ""


def compare(log: Sequence[Measurement], reference: Reference) -> list[Finding]:
    """Every component against its reference value; nothing unknown, nothing that must be there is missing."""
    known = {each.name: each for each in reference.measurements}
    required = {each.name for each in reference.measurements if each.required}
    unknown = [each.name for each in log if each.name not in known]
    changed = [each.name for each in log if each.name in known and each.digest != known[each.name].digest]
    missing = required - {each.name for each in log}
    return [
        Finding("measurements-known", _named(unknown)),
        Finding("measurement-values", _named(changed)),
        # An empty list of required components would make an empty log a good one.
        Finding("measurements-complete", _named(missing) if required else "the reference demands none"),
    ]


def _named(names: Iterable[str]) -> str:
    found = sorted(set(names))
    more = f" and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
    return ", ".join(found[:MAX_NAMED]) + more
