"""One play of the demo, in processes of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

TIMEOUT_S = 240


def played(*arguments: str) -> dict[str, Any]:
    """Report of `m2m-demo` with these arguments."""
    done = subprocess.run(
        [sys.executable, "-m", "m2m_demo", "--json", *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == report["exit"]["status"]
    return report
