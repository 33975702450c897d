"""Statuses that both roles make of what they receive (OMA-TS-SyncML_RepPro-V1_2 §6.1.13, §6.6.16)."""

from __future__ import annotations

from collections.abc import Sequence

from syncml.codec import Encoding, encode
from syncml.model import Chal, Command, Message, Status, SyncHdr, walk
from syncml.outbox import Ending, Outbox


def status_of_header(header: SyncHdr, code: int, chal: Chal | None = None) -> Status:
    """The Status of a received SyncHdr. A peer's empty Target or Source is not repeated."""
    return Status(
        msg_ref=header.msg_id,
        cmd_ref="0",
        cmd="SyncHdr",
        code=code,
        chal=chal,
        target_refs=(header.target,) if header.target else (),
        source_refs=(header.source,) if header.source else (),
    )


def status_of(header: SyncHdr, command: Command, code: int) -> Status:
    """The Status of a whole command of the message with this header."""
    return Status(msg_ref=header.msg_id, cmd_ref=command.cmd_id, cmd=command.name, code=code)


def refusals(message: Message, code: int) -> list[Status]:
    """The same Status for every command of a message, through groups as well; a Status is never answered with one."""
    return [
        status_of(message.header, command, code)
        for command in walk(message.commands)
        if not isinstance(command, Status)
    ]


def refusal(outbox: Outbox, header: SyncHdr, header_status: Status | None, statuses: list[Status]) -> Message:
    """The answer to a message whose sender is not who he should be: Statuses and nothing else.

    What waits in `outbox` stays there (OMA-TS-DM_Security-V1_2 §5.3: a failure answer has no commands).
    """
    alone = Outbox(outbox.encoding)
    alone.peer_size = outbox.peer_size
    alone.owed = statuses
    return alone.fill(header, header_status, Ending.FINAL).message


def fit_in_one_message(
    header: SyncHdr, header_status: Status, statuses: Sequence[Status], encoding: Encoding, limit: int
) -> bool:
    """Whether a message with these Statuses, and the header's, has no more than `limit` octets."""
    commands = tuple(
        Status(
            cmd_id=str(number),
            msg_ref=status.msg_ref,
            cmd_ref=status.cmd_ref,
            cmd=status.cmd,
            code=status.code,
            target_refs=status.target_refs,
            source_refs=status.source_refs,
            chal=status.chal,
        )
        for number, status in enumerate((header_status, *statuses), start=1)
    )
    return len(encode(Message(header=header, commands=commands, final=True), encoding)) <= limit
