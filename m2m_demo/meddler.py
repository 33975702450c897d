"""A registration operator gone bad: a proxy with the DPF's own TLS keys that alters what passes through (T8, T10).

It stands between the DPF and a partner, holds everything an insider at the DPF holds, and breaks one rule at a time.
`python -m m2m_demo.meddler --help` tells how to start it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import aiohttp
import typer
from aiohttp import web

from actor_runtime.http import Listener, new_application, serve
from actor_runtime.tls import client_context, server_context
from m2m_demo.malicious_code import package_with_code
from mcim.vocabulary import Operation

Body = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hand:
    """What the meddler has in his hand when he alters something."""

    loot: Body  # JSON members that he brought along
    asked: Body  # the request; with an answer, the one it answers
    signer: Path | None  # directory with the signing key of a home operator, when he has that


Edit = Callable[[Body, Hand], Body]

PASSED_ON: Final = ("content-type", "idempotency-key")  # headers
HANDOVER: Final = "/v1/handover"
REPORT: Final = "/v1/report"
VALIDATE: Final = "/v1/validate"


class Meddler:
    """Passes calls on; `rule` says what is altered."""

    def __init__(
        self, target: str, rule: str, loot: Path | None, capture: Path | None = None, signer: Path | None = None
    ) -> None:
        self._target = target.rstrip("/")
        self._rule = RULES[rule]
        self._loot = json.loads(loot.read_text()) if loot is not None else {}
        self._capture = capture
        self._signer = signer

    async def pass_on(self, request: web.Request, client: aiohttp.ClientSession) -> web.Response:
        """One call."""
        octets = await request.read()
        asked = octets
        if self._meddles(request, "request"):
            octets = self._altered(octets, asked)
        headers = {name: value for name, value in request.headers.items() if name.lower() in PASSED_ON}
        async with client.request(
            request.method, self._target + request.path_qs, data=octets or None, headers=headers
        ) as answer:
            body = await answer.read()
            if self._capture is not None:
                with self._capture.open("ab") as file:
                    file.write(octets + b"\n" + body + b"\n")
            if answer.status == 200 and self._meddles(request, "answer"):
                body = self._altered(body, asked)
            return web.Response(status=answer.status, body=body, content_type=answer.content_type)

    def _meddles(self, request: web.Request, where: str) -> bool:
        path, side, _ = self._rule
        return (request.path, where) == (path, side)

    def _altered(self, octets: bytes, asked: bytes) -> bytes:
        hand = Hand(loot=self._loot, asked=json.loads(asked), signer=self._signer)
        return json.dumps(self._rule[2](json.loads(octets), hand)).encode()


def _flipped(text: str, place: int) -> str:
    octets = bytearray(base64.b64decode(text))
    octets[place % len(octets)] ^= 1
    return base64.b64encode(octets).decode()


def _swap_platform_key(body: Body, hand: Hand) -> Body:
    """Have the MCIM made for another genuine TRE, the ticket being that of the device."""
    return body | hand.loot


def _offer_the_weakest_first(body: Body, _: Hand) -> Body:
    return body | {"suites": list(reversed(body["suites"]))}


def _alter_the_signature(body: Body, _: Hand) -> Body:
    """One character of the signature's value; the hash beside it is made to fit."""
    package = base64.b64decode(body["package"])
    place = package.index(b"SignatureValue>") + 40
    other = b"A" if package[place : place + 1] != b"A" else b"B"
    altered = package[:place] + other + package[place + 1 :]
    return _with_package(body, altered)


def _with_package(body: Body, package: bytes) -> Body:
    return body | {"package": base64.b64encode(package).decode(), "packageHash": hashlib.sha256(package).hexdigest()}


def _bring_code(body: Body, hand: Hand) -> Body:
    """Code for an algorithm in the place of an update, encrypted and signed as the home operator does it (T15)."""
    if hand.asked["operation"] != Operation.UPDATE.label:
        return body
    if hand.signer is None:
        raise ValueError("this rule needs the signing key of the home operator")
    key = base64.b64decode(hand.asked["platformCert"])
    return _with_package(body, package_with_code(base64.b64decode(body["package"]), key, hand.signer))


def _forge_the_receipt(body: Body, _: Hand) -> Body:
    return body | {"receipt": _flipped(body["receipt"], -1)}


def _claim_success_without_receipt(body: Body, _: Hand) -> Body:
    return body | {"receipt": "", "attestCert": "", "chain": [], "result": 1200}


def _vouch_for_other_evidence(body: Body, _: Hand) -> Body:
    return body | {"evidence": _flipped(body["evidence"], -1)}


def _speak_of_another_platform(body: Body, _: Hand) -> Body:
    return body | {"treId": body["treId"] + ":other"}


RULES: Final[dict[str, tuple[str, str, Edit]]] = {
    "listen": ("", "", lambda body, _: body),
    "swap-platform-key": (HANDOVER, "request", _swap_platform_key),
    "offer-the-weakest-first": (HANDOVER, "request", _offer_the_weakest_first),
    "alter-package": (HANDOVER, "answer", _alter_the_signature),
    "bring-code": (HANDOVER, "answer", _bring_code),
    "forge-receipt": (REPORT, "request", _forge_the_receipt),
    "claim-success": (REPORT, "request", _claim_success_without_receipt),
    "flip-evidence": (VALIDATE, "request", _vouch_for_other_evidence),
    "another-platform": (VALIDATE, "request", _speak_of_another_platform),
}
"""Name → path, whether the request or the answer is altered, and how."""


async def run(
    *,
    target: str,
    rule: str,
    tls: Path,
    ca: Path,
    ready_file: Path,
    loot: Path | None,
    capture: Path | None = None,
    signer: Path | None = None,
) -> None:
    """Serve until told to stop; `tls` is the directory with tls.crt and tls.key of the DPF."""
    meddler = Meddler(target, rule, loot, capture, signer)
    outward = client_context(ca, cert=tls / "tls.crt", key=tls / "tls.key")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=outward)) as client:
        app = new_application()

        async def handle(request: web.Request) -> web.Response:
            return await meddler.pass_on(request, client)

        app.router.add_route("*", "/v1/{rest:.*}", handle)
        listener = Listener(
            name="partner",
            app=app,
            host="127.0.0.1",
            port=0,
            ssl_context=server_context(tls / "tls.crt", tls / "tls.key", client_ca=ca),
        )
        await serve([listener], ready_file=ready_file)


def main(
    target: Annotated[str, typer.Option(help="URL of the partner.")],
    rule: Annotated[str, typer.Option(help=", ".join(RULES))],
    tls: Annotated[Path, typer.Option(help="Directory with tls.crt and tls.key of the DPF.")],
    ca: Annotated[Path, typer.Option(help="Anchors of TLS certificates.")],
    ready_file: Annotated[Path, typer.Option(help="Where the port is told.")],
    loot: Annotated[Path | None, typer.Option(help="JSON members that a rule puts in.")] = None,
    capture: Annotated[Path | None, typer.Option(help="File that gets everything that passes, inside TLS.")] = None,
    signer: Annotated[Path | None, typer.Option(help="Directory with signing.key and signing.crt of the SHO.")] = None,
) -> None:
    """Stand between the DPF and a partner and break one rule."""
    asyncio.run(
        run(target=target, rule=rule, tls=tls, ca=ca, ready_file=ready_file, loot=loot, capture=capture, signer=signer)
    )


if __name__ == "__main__":
    typer.run(main)
