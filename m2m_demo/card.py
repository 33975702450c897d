"""A card without a TRE: whoever has an identity and its keys in a file tries to attach with them (REQ-69).

It shows what the keys of a subscription are worth at its network, whatever the device does. It believes any network,
so that the network alone decides. `python -m m2m_demo.card --help` tells how to use it.
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


async def attach(network: PartnerClient, imsi: str, functions: Milenage) -> str:
    """Attach; "attached", or what the network said."""
    try:
        challenge = await network.post("/v1/attach", {"imsi": imsi})
        res = functions.f2(base64.b64decode(challenge["rand"], validate=True))
        answer = await network.post(f"/v1/attach/{challenge['session']}", {"res": to_base64(res)})
    except PartnerRefused as error:
        return error.code
    finally:
        await network.close()
    return str(answer["result"])


def main(
    subscription: Annotated[Path, typer.Option(help="CSV with imsi, k, opc; the first line counts.")],
    network: Annotated[str, typer.Option(help="URL of the home network's access listener.")],
    ca: Annotated[Path, typer.Option(help="Anchors of TLS certificates.")],
) -> None:
    """Attach with the keys in a file; prints how it ended."""
    with subscription.open(encoding="ascii", newline="") as file:
        line = next(csv.DictReader(file))
    functions = Milenage(bytes.fromhex(line["k"]), bytes.fromhex(line["opc"]))
    print(
        json.dumps({"result": asyncio.run(attach(PartnerClient(network, client_context(ca)), line["imsi"], functions))})
    )


if __name__ == "__main__":
    typer.run(main)
