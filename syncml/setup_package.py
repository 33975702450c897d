"""What a server reads of package 1: the session alert and DevInfo (OMA-TS-DM_Protocol-V1_2 §8.2).

Devices write DevInfo in every form: Items without Meta, `Target` for `Source`, interior nodes, nodes that are missing,
one Replace or several, in one message or in several.
"""

from __future__ import annotations

from typing import Final

from syncml.codes import AlertCode, Format, StatusCode
from syncml.model import Alert, Message, Meta, Replace

SESSION_ALERTS: Final = (AlertCode.SERVER_INITIATED_MGMT, AlertCode.CLIENT_INITIATED_MGMT)
DEV_ID: Final = "./DevInfo/DevId"
MAX_NODES: Final = 256  # of DevInfo; the standard object has about ten
MAX_VALUE: Final = 4096  # characters of one


class SetupPackage:
    """The parts of package 1 as they come in."""

    def __init__(self) -> None:
        self.alert_code: int | None = None
        self.dev_info: dict[str, str] = {}  # node URI → value

    def take_dev_info(self, command: Replace) -> int:
        """Take nodes and values; the Status to answer."""
        for item in command.items:
            uri = item.source or item.target
            meta = (command.meta or Meta()).inherited_by(item.meta)
            if not uri or not isinstance(item.data, str) or meta.format == Format.NODE:
                continue  # an interior node tells nothing that its leaves do not
            uri = "./" + uri.removeprefix("./")
            if (len(self.dev_info) >= MAX_NODES and uri not in self.dev_info) or len(item.data) > MAX_VALUE:
                return StatusCode.REQUEST_ENTITY_TOO_LARGE
            self.dev_info[uri] = item.data
        return StatusCode.OK

    def read(self, message: Message) -> None:
        """Take all there is in a message."""
        for command in message.commands:
            if isinstance(command, Alert) and command.code in SESSION_ALERTS:
                self.alert_code = command.code
            elif isinstance(command, Replace):
                self.take_dev_info(command)

    def complete_from(self, unproved: SetupPackage, source: str) -> None:
        """Fill what is missing from the package 1 that was refused for its credentials.

        Some devices do not send the alert and DevInfo again with the credentials we asked for. Only a session whose
        client has proved itself since gets here. A DevId that never came is the `source` of the messages.
        """
        if self.alert_code is None:
            self.alert_code = unproved.alert_code
        if not self.dev_info:
            self.dev_info = dict(unproved.dev_info)
        self.dev_info.setdefault(DEV_ID, source)
