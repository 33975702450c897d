"""Who is let in after authentication, and for what: an ongoing order (REQ-13), operator commands, or being managed."""

from __future__ import annotations

from sqlalchemy import Connection

from actor_runtime.sealing import SealingKey
from actor_runtime.store import Store
from dmserver.conductor import Conductor, ProvisioningRun
from dmserver.operator_policy import OperatorQueue
from dmserver.session_policy import InTurn, SessionPolicy
from dmserver.store.accounts import is_managed
from dmserver.store.operator_commands import has_work
from syncml.codec import Encoding


class Admission:
    """Gives each session its policy: provisioning first, then what operators want."""

    def __init__(self, *, conductor: Conductor, store: Store, seal_key: SealingKey) -> None:
        self._conductor = conductor
        self._store = store
        self._seal_key = seal_key
        self.now = conductor.now

    async def policy_for(self, device_id: str, encoding: Encoding) -> SessionPolicy | None:
        """What is wanted of an authenticated device in this session; None: nothing, it is to be refused (REQ-13)."""
        now = self.now()
        provisioning = await self._conductor.policy_for(device_id)

        def concerns_operators(connection: Connection) -> bool:
            return is_managed(connection, device_id) or has_work(connection, device_id, now)

        policies: list[SessionPolicy] = []
        if provisioning is not None:
            policies.append(ProvisioningRun(self._conductor, provisioning))
        wanted = bool(policies) or await self._store.read(concerns_operators)
        if wanted:
            policies.append(
                OperatorQueue(device_id, store=self._store, seal_key=self._seal_key, encoding=encoding, now=self.now)
            )
        return InTurn(policies) if policies else None
