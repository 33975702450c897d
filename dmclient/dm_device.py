"""A DM device between sessions: tree, standard objects, accounts, alerts, and the file that keeps them.

It is all that a session needs. What makes an M2ME of it, the trusted environment and its objects, stands in
`dmclient.device`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from actor_runtime.errors import StoreError
from actor_runtime.trail import Trail
from dmclient.alerts import AlertQueue
from dmclient.behaviour import USUAL, Behaviour
from dmclient.bootstrap_receiver import BootstrapMemory
from dmclient.calls import CallMemory
from dmclient.dm_account import mount_accounts
from dmclient.executor import Operator, Surroundings
from dmclient.management_tree import ManagementTree
from dmclient.objects.described import DescribedObjects
from dmclient.objects.device import DeviceFacts, build_device_objects, dev_info_of
from dmclient.store.state_file import StateFile
from dmclient.user_interaction import UserInterface
from mo_definitions import Ddf
from syncml.encoding import Encoding


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSetup:
    """What a tester gives the device on its way: objects, behaviour, and somebody who answers."""

    ddfs: tuple[Ddf, ...] = ()
    behaviour: Behaviour = USUAL
    user: UserInterface | None = None  # None: nobody to ask
    scratch_node: str = ""  # name of a node below the root where servers may create what they want; empty: none
    operator: Operator | None = None  # None: nobody decides by hand


class DmDevice:
    """One device. `save` writes everything that must survive.

    A subclass mounts its own objects after this constructor, and calls `remember` as the last step of its own.
    """

    def __init__(
        self,
        *,
        facts: DeviceFacts,
        state_file: StateFile,
        trail: Trail,
        now: Callable[[], datetime],
        setup: DeviceSetup | None = None,
    ) -> None:
        self.facts = facts
        self.trail = trail
        self.now = now
        self.alerts = AlertQueue()
        self.sessions = 0  # sessions begun so far
        self.previous_nonces: dict[str, bytes] = {}  # server id → server nonce before the present one
        self.bootstrap = BootstrapMemory()
        self.calls = CallMemory()
        self._state_file = state_file
        self._setup = setup if setup is not None else DeviceSetup()
        self.tree = ManagementTree(now=now)
        build_device_objects(self.tree, facts)
        mount_accounts(self.tree)
        if self._setup.scratch_node:
            self.tree.free_area((self._setup.scratch_node,))
        self.described = DescribedObjects(self.tree, self._setup.ddfs)

    def surroundings(self, encoding: Encoding) -> Surroundings:
        """What the executor of a session needs to know beside the tree."""
        return Surroundings(
            behaviour=self._setup.behaviour,
            user=self._setup.user,
            operator=self._setup.operator,
            alerts=self.alerts,
            encoding=encoding,
        )

    @property
    def device_id(self) -> str:
        """Source of every message."""
        return self.facts.device_id

    @property
    def dev_info(self) -> dict[str, str]:
        """DevInfo leaves for package 1."""
        return dev_info_of(self.facts)

    def next_session_id(self) -> str:
        """A SessionID not used by the sessions before: at most four characters, saved before it is used."""
        self.sessions += 1
        self.save()
        return f"{self.sessions % 0xFFFF + 1:X}"

    # -- memory -----------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the state file.

        Raises:
            StoreError: it cannot be written; what was there before still is.
        """
        self._state_file.save(self.dump())

    def dump(self) -> dict[str, Any]:
        """What must survive, as plain JSON data."""
        return {
            "tree": self.tree.dump(),
            "alerts": self.alerts.dump(),
            "bootstrap": self.bootstrap.dump(),
            "calls": self.calls.dump(),
            "sessions": self.sessions,
            "previousNonces": {each: nonce.hex() for each, nonce in self.previous_nonces.items()},
            "described": self.described.known,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Take back what `dump` gave.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: it is something else.
        """
        self.tree.restore(saved["tree"])
        self.alerts.restore(saved["alerts"])
        self.bootstrap = BootstrapMemory.load(saved["bootstrap"])
        if "calls" in saved:  # the first version had none
            self.calls = CallMemory.load(saved["calls"])
        self.sessions = int(saved["sessions"])
        self.previous_nonces = {each: bytes.fromhex(nonce) for each, nonce in saved["previousNonces"].items()}
        self.described.known = [str(each) for each in saved.get("described", [])]

    def remember(self) -> None:
        """Load the state file over what the factory made.

        Raises:
            StoreError: it is damaged.
        """
        saved = self._state_file.load()
        if saved is not None:
            try:
                self.restore(saved)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise StoreError("the device state is damaged", hint="was it written by another version?") from error
        self.described.complete()
