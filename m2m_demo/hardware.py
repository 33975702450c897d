"""Where the device's TRE keeps its keys, when that is not in software: started here before the TRE is made."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Final

from m2m_demo.cast import Backend, Cast
from m2m_demo.errors import DemoFailed
from m2m_demo.processes import Supervisor
from m2m_demo.tokens import make_softhsm_token, socket_directory, softhsm_missing, start_swtpm, swtpm_missing
from m2m_demo.world import TomlValue, World
from mcim.vocabulary import Suite

EXTRAS: Final[Mapping[Backend, tuple[str, str]]] = {"pkcs11": ("pkcs11", "pkcs11"), "tpm": ("tpm2_pytss", "tpm")}
"""Module that the key store needs, and the extra that brings it."""

NOT_IN_SOFTHSM: Final = frozenset({Suite.RSA_CBC_256, Suite.RSA_GCM_256})
"""They wrap keys with OAEP and SHA-256; SoftHSM2 has OAEP with SHA-1 alone."""


def missing(backend: Backend) -> str:
    """What has to be installed before a TRE can keep its keys there; empty: nothing."""
    tool = {"software": "", "pkcs11": softhsm_missing(), "tpm": swtpm_missing()}[backend]
    if tool or backend not in EXTRAS:
        return tool
    module, extra = EXTRAS[backend]
    if importlib.util.find_spec(module) is None:
        return f"the extra {extra} is not installed: pip install 'm2m-dm[{extra}]', or '.[{extra}]' in the sources"
    return ""


def check(cast: Cast) -> None:
    """See that there is what a TRE of this cast needs.

    Raises:
        DemoFailed: something is not installed, or the token has nothing for the suite.
    """
    if cast.tre == "pkcs11" and cast.suite in NOT_IN_SOFTHSM:
        raise DemoFailed(
            f"{cast.suite.label} needs OAEP with SHA-256, and SoftHSM2 has OAEP with SHA-1 alone; "
            "suites 1, 4 and 5 work with --tre pkcs11"
        )
    if reason := missing(cast.tre):
        raise DemoFailed(f"--tre {cast.tre}: {reason}")


def start_hardware(cast: Cast, world: World, supervisor: Supervisor) -> dict[str, TomlValue]:
    """Make the token, or start the TPM, that a TRE of this cast needs; what table `[tre]` says of it.

    Raises:
        DemoFailed: as `check`, or it does not start.
    """
    check(cast)
    match cast.tre:
        case "software":
            return {}
        case "pkcs11":
            token = make_softhsm_token(world.root / "token")
            supervisor.add_environment(token.environment)
            return {"pkcs11": {"module": token.module, "token_label": token.label, "pin_file": token.pin_file}}
        case "tpm":
            sockets = supervisor.after_the_end.enter_context(socket_directory())
            return {"tpm": {"tcti": start_swtpm(supervisor, world.root / "tpm", sockets).tcti}}
