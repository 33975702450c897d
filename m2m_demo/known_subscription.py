"""A subscription whose values are known, so that they can be looked for where they must not be."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from m2m_demo.secret_search import forms_of_digits, forms_of_key

IMSI: Final = "001017300946218"


class KnownSubscription:
    """Keys made here, and the IMSI above."""

    def __init__(self) -> None:
        self.key = secrets.token_bytes(16)
        self.opc = secrets.token_bytes(16)

    def write(self, path: Path) -> Path:
        """As a file for `sho subscription import`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"imsi,k,opc\n{IMSI},{self.key.hex()},{self.opc.hex()}\n")
        return path

    @property
    def forms(self) -> dict[str, bytes]:
        """K, OPc and IMSI in every form (`m2m_demo.secret_search`)."""
        return forms_of_key("K", self.key) | forms_of_key("OPc", self.opc) | forms_of_digits("IMSI", IMSI)
