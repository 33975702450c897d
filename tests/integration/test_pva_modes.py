"""The three validation modes (TR 33.812), and what a TRE type and version must show in each."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mcim.measurement_log import Measurement
from mcim.vocabulary import ValidationMode
from pva.store import repository
from tests.support_operators import Device, Pki
from tests.support_validation import (
    CAPABILITIES,
    LOG,
    OPTIONAL,
    REFERENCES,
    SoftTpm,
    Validation,
    digest_of,
    last_decision,
    pva_settings,
    read_ticket,
    refused,
    running_pva,
)

AUTONOMOUS, SEMI, REMOTE = ValidationMode.AUTONOMOUS, ValidationMode.SEMI_AUTONOMOUS, ValidationMode.REMOTE


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def device(pki):
    return Device(pki)


@pytest.fixture
async def service(pki, tmp_path):
    async with running_pva(pva_settings(pki, tmp_path), pki) as parts:
        yield parts


WITH_OPTION = (*LOG, Measurement(12, OPTIONAL.name, OPTIONAL.digest))
GOOD = {
    "autonomous": ("autonomous", AUTONOMOUS, None, None),
    "more than an autonomous one must show": ("autonomous", SEMI, None, None),
    "semi-autonomous": ("semi", SEMI, None, None),
    "semi-autonomous with a quote": ("tpm-semi", SEMI, SoftTpm(), None),
    "remote, log by its digest": ("remote", REMOTE, None, LOG),
    "remote, with a component that may be there": ("remote", REMOTE, None, WITH_OPTION),
    "remote, log by a quote": ("tpm", REMOTE, SoftTpm(), LOG),
    "remote, a quoted register that nothing extended": ("tpm", REMOTE, SoftTpm(LOG, (7, 11, 12)), LOG),
}


@pytest.mark.parametrize(("known", "mode", "tpm", "log"), GOOD.values(), ids=GOOD)
async def test_each_mode_gets_its_ticket(service, pki, device, known, mode, tpm, log):
    """REQ-17, REQ-19: the ticket names mode, type and version; capabilities only when the TRE attested them."""
    _, dpf, _ = service
    validation = Validation(device, REFERENCES[known], mode=mode, tpm=tpm, log=log)
    if mode is not AUTONOMOUS:
        await validation.ask(dpf)
    ticket = read_ticket(await validation.validate(dpf), pki)
    assert (ticket.mode, ticket.tre_type, ticket.tre_version) == (
        mode,
        validation.known.tre_type,
        validation.known.version,
    )
    assert ticket.capabilities == (b"" if mode is AUTONOMOUS else CAPABILITIES)


async def test_an_autonomous_decision_repeats_with_its_key_and_is_made_anew_with_another(service, pki, device):
    """REQ-18, REQ-22: a lost answer is fetched again; when the ticket has aged, the next attempt gets a new one."""
    pva, dpf, _ = service
    validation = Validation(device, REFERENCES["autonomous"], mode=AUTONOMOUS)
    first = await validation.validate(dpf, key="1")
    assert await validation.validate(dpf, key="1") == first
    pva.now.ahead = timedelta(hours=2)
    again = read_ticket(await validation.validate(dpf, key="2"), pki, now=pva.now())
    assert again.expires_at > pva.now()


UNKNOWN = Measurement(11, "rootkit", digest_of("rootkit"))
PATCHED = Measurement(11, "kernel", digest_of("patched kernel"))
BAD_LOGS = {
    "none": (None, "measurement-log", "there is none"),
    "empty": ((), "measurements-complete", "bootloader, dm-client, kernel, tre"),
    "unknown component": ((*LOG, UNKNOWN), "measurements-known", "measurements-known: rootkit"),
    "another version of one": (
        (LOG[0], PATCHED, *LOG[2:]), "measurement-values", "measurement-values: kernel"
    ),
    "known and patched": ((*LOG, PATCHED), "measurement-values", "kernel"),
    "a required one is missing": (LOG[1:], "measurements-complete", "measurements-complete: bootloader"),
    "several faults": (
        (*LOG[2:], UNKNOWN), "measurements-known",
        "measurements-known: rootkit; measurements-complete: bootloader, kernel",
    ),
}  # fmt: skip


@pytest.mark.parametrize("quoted", [False, True], ids=["digest", "quote"])
@pytest.mark.parametrize(("log", "reason", "detail"), BAD_LOGS.values(), ids=BAD_LOGS)
async def test_every_measurement_is_compared(service, device, quoted, log, reason, detail):
    """REQ-17, REQ-18, T6: a TRE that truly attests a changed platform is refused, and all that differs is named."""
    pva, dpf, _ = service
    tpm = SoftTpm(log or ()) if quoted else None
    validation = Validation(device, REFERENCES["tpm" if quoted else "remote"], mode=REMOTE, tpm=tpm, log=log)
    await validation.ask(dpf)
    assert await refused(validation.validate(dpf)) == reason
    decision = await last_decision(pva)
    assert (decision["trusted"], decision["reason"]) == (False, reason)
    assert detail in str(decision["detail"])


async def test_remote_validation_needs_something_to_compare_with(service, device):
    """REQ-17: a reference without measurements must not make an empty log a good one."""
    _, dpf, _ = service
    validation = Validation(device, REFERENCES["without measurements"], mode=REMOTE, log=())
    await validation.ask(dpf)
    assert await refused(validation.validate(dpf)) == "measurements-complete"


async def test_a_version_withdrawn_after_a_ticket_gets_no_other(service, device):
    """REQ-17, REQ-22: reference values are asked at each decision."""
    pva, dpf, _ = service
    known = REFERENCES["semi"]
    await (await Validation(device).ask(dpf)).validate(dpf)
    await pva.store.write(lambda c: repository.remove_reference(c, tre_type=known.tre_type, version=known.version))
    assert await refused((await Validation(device).ask(dpf)).validate(dpf)) == "reference-value"
