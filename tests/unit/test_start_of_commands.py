"""What a command may not spend its time on before it does anything (`actor_runtime.start`, `actor_runtime.later`)."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from actor_runtime import later
from actor_runtime.start import importing


@pytest.mark.parametrize("program", ["dmclient", "dmserver", "m2m_ca", "pva", "ro", "sho"])
def test_a_command_line_loads_neither_aiohttp_nor_alembic_nor_back_ends_of_keys(program: str) -> None:
    """Nearly all commands do without; those that need them load them."""
    look = f"import sys, {program}.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.split()
    assert f"{program}.cli" in loaded
    assert {"aiohttp", "alembic", "pkcs11", "tpm2_pytss"} & set(loaded) == set()


def test_what_is_loaded_later_is_the_module() -> None:
    import aiohttp
    from aiohttp import web

    assert later.aiohttp.ClientSession is aiohttp.ClientSession
    assert later.web.Response is web.Response
    with pytest.raises(AttributeError):
        _ = later.web.no_such_thing


def test_the_collector_is_back_after_the_imports() -> None:
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count()
    gc.unfreeze()
