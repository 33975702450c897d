"""A card without a TRE: whoever has an identity and its keys in a file tries to attach with them (REQ-69, REQ-72).

It shows what the keys of a subscription, or of a provisional identity, are worth at their network, whatever the device
does. It believes any network, so that the network alone decides. `python -m m2m_demo.card --help` tells how to use it.
"""

from __future__ import annotations

import asyncio
import base64
import csv
import json
from pathlib import Path
from typing import Annotated

import typer

from actor_runtime.http import PartnerClient, PartnerRefused, to_base64
from actor_runtime.tls import client_context
from mcim.milenage import Milenage

NOBODY = "udp:127.0.0.1:9"  # where a registration has its bootstrap sent


def subscription_in(file: Path) -> tuple[str, Milenage]:
    """IMSI and keys of the first line of a CSV file with imsi, k, opc (hexadecimal)."""
    with file.open(encoding="ascii", newline="") as lines:
        line = next(csv.DictReader(lines))
    return line["imsi"], Milenage(bytes.fromhex(line["k"]), bytes.fromhex(line["opc"]))


def pcid_in(file: Path) -> tuple[str, Milenage]:
    """The first identity of a file that `ro pcid issue` made for the supplier."""
    entry = json.loads(file.read_text(encoding="ascii"))["identities"][0]
    return entry["pcid"], Milenage(base64.b64decode(entry["k"]), base64.b64decode(entry["opc"]))


async def use(network: PartnerClient, imsi: str, functions: Milenage, register_as: str = "") -> str:
    """Attach, and register as an M2ME where one is named; "attached", the registration's state, or the refusal."""
    try:
        challenge = await network.post("/v1/attach", {"imsi": imsi})
        res = functions.f2(base64.b64decode(challenge["rand"], validate=True))
        answer = await network.post(f"/v1/attach/{challenge['session']}", {"res": to_base64(res)})
        if not register_as:
            return str(answer["result"])
        body = {"m2meId": register_as, "treId": f"{register_as}:tre", "push": NOBODY}
        return str((await network.post("/v1/register", body, bearer=answer["accessToken"]))["state"])
    except PartnerRefused as error:
        return error.code
    finally:
        await network.close()


def main(
    network: Annotated[str, typer.Option(help="URL of the network's access listener.")],
    ca: Annotated[Path, typer.Option(help="Anchors of TLS certificates.")],
    subscription: Annotated[Path | None, typer.Option(help="CSV with imsi, k, opc; the first line counts.")] = None,
    pcid: Annotated[Path | None, typer.Option(help="File of provisional identities; the first one counts.")] = None,
    register_as: Annotated[str, typer.Option(help="With a PCID: register as this M2ME.")] = "",
) -> None:
    """Attach with the keys in a file; prints how it ended."""
    match subscription, pcid:
        case Path() as file, None:
            imsi, functions = subscription_in(file)
        case None, Path() as file:
            imsi, functions = pcid_in(file)
        case _:
            raise typer.BadParameter("one of --subscription and --pcid")
    client = PartnerClient(network, client_context(ca))
    print(json.dumps({"result": asyncio.run(use(client, imsi, functions, register_as))}))


if __name__ == "__main__":
    typer.run(main)
