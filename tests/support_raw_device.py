"""A device whose messages are written by hand, so that it may speak as badly as real ones do, over real HTTP."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.test_utils import TestClient

from dmserver.store.accounts import Account
from syncml.auth import basic_data, hmac_value, md5_data
from syncml.codec import Encoding, decode, encode
from syncml.codes import AuthType
from syncml.model import Command, Get, Message, Results, Sequence, Status, walk
from tests.support_dmserver import DM_URL
from tests.support_dpf_pki import M2ME_ID

Http = TestClient[web.Request, web.Application]

SESSION_ALERT = "<Alert><CmdID>1</CmdID><Data>1201</Data></Alert>"
DEV_INFO = "<Replace><CmdID>2</CmdID>{}</Replace>".format(
    "".join(
        f"<Item><Source><LocURI>./DevInfo/{name}</LocURI></Source><Data>{value}</Data></Item>"
        for name, value in (("Lang", "en"), ("DmV", "1.2"), ("Mod", "T1"), ("Man", "Acme"), ("DevId", M2ME_ID))
    )
)
PACKAGE_1 = (SESSION_ALERT, DEV_INFO)


def alert(
    code: int, cmd_id: int = 9, *, kind: str = "", data: str = "", source: str = "./X", correlator: str = ""
) -> str:
    """An alert with one Item, or with none when it has no Type."""
    item = (
        f"<Item><Source><LocURI>{source}</LocURI></Source><Meta><Type xmlns='syncml:metinf'>{kind}</Type>"
        f"<Format xmlns='syncml:metinf'>chr</Format></Meta><Data>{data}</Data></Item>"
    )
    told = f"<Correlator>{correlator}</Correlator>" if correlator else ""
    return f"<Alert><CmdID>9</CmdID><Data>{code}</Data>{told}{item if kind else ''}</Alert>"


def statuses(message: Message, *, code: int = 200, header: int = 200, values: Mapping[str, str] | None = None) -> str:
    """Statuses for everything in a message of the server, and Results for its Gets where there is a value."""
    ref, parts = message.header.msg_id, []

    def add(cmd_ref: str, cmd: str, number: int) -> None:
        parts.append(
            f"<Status><CmdID>{len(parts) + 1}</CmdID><MsgRef>{ref}</MsgRef><CmdRef>{cmd_ref}</CmdRef><Cmd>{cmd}</Cmd>"
            f"<Data>{number}</Data></Status>"
        )

    add("0", "SyncHdr", header)
    wanted = [each for each in walk(message.commands) if not isinstance(each, Status)]
    for command in wanted:
        add(command.cmd_id, command.name, 200 if isinstance(command, Sequence) else code)
    for command in wanted:
        for item in command.items if isinstance(command, Get) else ():
            if (value := (values or {}).get(item.target or "")) is not None:
                parts.append(
                    f"<Results><CmdID>{len(parts) + 1}</CmdID><MsgRef>{ref}</MsgRef><CmdRef>{command.cmd_id}</CmdRef>"
                    f"<Item><Source><LocURI>{item.target}</LocURI></Source><Data>{value}</Data></Item></Results>"
                )
    return "".join(parts)


@dataclass
class RawDevice:
    """One session of one device."""

    http: Http
    account: Account
    session_id: str = "1"
    device_id: str = M2ME_ID
    encoding: Encoding = Encoding.XML
    follows_resp_uri: bool = True
    content_type: str = ""
    nonce: bytes = b""
    msg_id: int = 0
    path: str = "/dm"
    server_mac: str | None = None  # x-syncml-hmac of the last answer
    answers: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.nonce = self.nonce or self.account.client_nonce

    def cred(self) -> str:
        """The Cred element of the account's type."""
        name, secret = self.account.client_name, self.account.client_secret
        if self.account.client_auth is AuthType.MAC:
            return ""
        if self.account.client_auth is AuthType.BASIC:
            return self.cred_of(AuthType.BASIC, basic_data(name, secret))
        return self.cred_of(AuthType.MD5, md5_data(name, secret, self.nonce))

    @staticmethod
    def cred_of(kind: str, data: str) -> str:
        return (
            f"<Cred><Meta><Type xmlns='syncml:metinf'>{kind}</Type><Format xmlns='syncml:metinf'>b64</Format></Meta>"
            f"<Data>{data}</Data></Cred>"
        )

    def message(
        self,
        *body: str,
        cred: str | None = None,
        final: bool = True,
        msg_id: str | None = None,
        meta: str = "",
        version: str = "1.2",
        protocol: str = "DM/1.2",
    ) -> bytes:
        """The next message, XML as it would be typed. `cred` None: the right credentials."""
        self.msg_id += 1
        header = (
            f"<VerDTD>{version}</VerDTD><VerProto>{protocol}</VerProto><SessionID>{self.session_id}</SessionID>"
            f"<MsgID>{msg_id or self.msg_id}</MsgID><Target><LocURI>{DM_URL}</LocURI></Target>"
            f"<Source><LocURI>{self.device_id}</LocURI><LocName>{self.account.client_name}</LocName></Source>"
            f"{self.cred() if cred is None else cred}{meta}"
        )
        text = (
            f"<?xml version='1.0' encoding='UTF-8'?><SyncML xmlns='SYNCML:SYNCML1.2'><SyncHdr>{header}</SyncHdr>"
            f"<SyncBody>{''.join(body)}{'<Final/>' if final else ''}</SyncBody></SyncML>"
        ).encode()
        return text if self.encoding is Encoding.XML else encode(decode(text, Encoding.XML), self.encoding)

    def mac_headers(self, body: bytes) -> dict[str, str]:
        """The transport header of an account that is authenticated by HMAC."""
        name, secret = self.account.client_name, self.account.client_secret
        value = hmac_value(name, secret, self.nonce, body)
        return {"x-syncml-hmac": f'algorithm=MD5, username="{name}", mac={value}'}

    async def send(self, body: bytes, headers: Mapping[str, str] | None = None, *, path: str | None = None) -> Message:
        """Post a message and take the answer, with its nonce and RespURI."""
        if headers is None:
            headers = self.mac_headers(body) if self.account.client_auth is AuthType.MAC else {}
        content_type = self.content_type or self.encoding.media_type
        async with self.http.post(
            path or self.path, data=body, headers={"Content-Type": content_type, **headers}
        ) as response:
            octets = await response.read()
            assert response.status == 200, octets
            assert response.content_type == content_type.partition(";")[0].lower()
            self.server_mac = response.headers.get("x-syncml-hmac")
        answer = decode(octets, self.encoding)
        self.answers.append(answer)
        if self.follows_resp_uri and answer.header.resp_uri is not None:
            self.path = "/dm" + answer.header.resp_uri.removeprefix(DM_URL)
        for command in answer.commands:
            if isinstance(command, Status) and command.chal is not None and command.chal.next_nonce is not None:
                self.nonce = command.chal.next_nonce
        return answer

    async def open(self, *more: str) -> Message:
        """Package 1, with more commands."""
        return await self.send(self.message(*PACKAGE_1, *more))


def codes(message: Message) -> dict[str, int]:
    """CmdRef → Status, of a message of the server; "0" is the header."""
    return {each.cmd_ref: each.code for each in message.commands if isinstance(each, Status)}


def wanted(message: Message) -> list[Command]:
    """What the server asks."""
    return [each for each in message.commands if not isinstance(each, Status | Results)]


def b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()
