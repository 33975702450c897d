"""A hand on the device, for tests: what an attacker with its disk can do, so that the next step shows the refusal.

Nothing here knows a secret that an owner of the disk does not have; what is sealed is changed as octets.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from actor_runtime.errors import ActorError
from dmclient.config import ClientSettings
from dmclient.device import Device
from dmclient.objects.m2msim import M2MSIM
from dmclient.tre.counter import COUNTER_NAME
from dmclient.tre.store import STORE_NAME

SAVED_NAME: Final = "tre.sealed.saved"


def flip_bit(path: Path) -> str:
    """Change one bit in the middle of a file.

    Raises:
        ActorError: there is no such file, or nothing in it.
    """
    try:
        octets = bytearray(path.read_bytes())
    except OSError as error:
        raise ActorError(f"{path}: {error.strerror}") from error
    if not octets:
        raise ActorError(f"{path}: empty")
    octets[len(octets) // 2] ^= 1
    path.write_bytes(bytes(octets))
    return f"one bit of {path}"


def _package_bit(settings: ClientSettings, open_device: Callable[[], Device]) -> str:
    """In a container that waits; without one in the package that was kept, for `replay`."""
    device = open_device()
    for name in device.m2msim.ready():
        path = (*M2MSIM, name, "Package")
        package = device.tree.nodes.value(path)
        if isinstance(package, bytes) and package:
            middle = len(package) // 2
            changed = package[:middle] + bytes((package[middle] ^ 1,)) + package[middle + 1 :]
            device.tree.nodes.put(path, changed, like=device.tree.described(path))
            device.save()
            return f"one bit of the package in {'/'.join(path)}"
    return flip_bit(settings.kept_package_file)


def _hint(settings: ClientSettings, open_device: Callable[[], Device]) -> str:
    device = open_device()
    for name in device.m2msim.ready():
        path = (*M2MSIM, name, "SHOId")
        device.tree.nodes.put(path, "another.example", like=device.tree.described(path))
        device.save()
        return "/".join(path)
    raise ActorError("no package waits in a container")


def _save_store(settings: ClientSettings, open_device: Callable[[], Device]) -> str:
    store = settings.tre_dir / STORE_NAME
    try:
        shutil.copyfile(store, settings.state_dir / SAVED_NAME)
    except OSError as error:
        raise ActorError(f"{store}: {error.strerror}") from error
    return f"nothing; {store} was copied"


def _old_store(settings: ClientSettings, open_device: Callable[[], Device]) -> str:
    saved = settings.state_dir / SAVED_NAME
    try:
        shutil.copyfile(saved, settings.tre_dir / STORE_NAME)
    except OSError as error:
        raise ActorError(f"{saved}: {error.strerror}", hint="`dmclient tamper save-store` makes it") from error
    return f"{settings.tre_dir / STORE_NAME} is the saved one again"


def _counter(settings: ClientSettings, open_device: Callable[[], Device]) -> str:
    path = settings.tre_dir / COUNTER_NAME
    if not path.exists():
        raise ActorError("this TRE's counter is not in a file")
    path.write_text("0", encoding="ascii")
    return f"{path} was turned back"


KINDS: Final[dict[str, Callable[[ClientSettings, Callable[[], Device]], str]]] = {
    "package-bit": _package_bit,
    "hint": _hint,
    "save-store": _save_store,
    "old-store": _old_store,
    "counter": _counter,
    "store-bit": lambda settings, _: flip_bit(settings.tre_dir / STORE_NAME),
    "state": lambda settings, _: flip_bit(settings.state_file),
}
