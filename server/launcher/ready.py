"""The line that tells programs that the server is ready, and its ports."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

LINE = re.compile(r"^READY (\{.*\})$", re.MULTILINE)
SECONDS = "seconds"


def ready_line(ports: Mapping[str, int], seconds: float) -> str:
    return f"READY {json.dumps({**ports, SECONDS: round(seconds, 3)})}"


def ports_told(log: str) -> dict[str, int] | None:
    """None as long as the line is not there."""
    found = LINE.search(log)
    if found is None:
        return None
    told: dict[str, int] = json.loads(found[1])
    del told[SECONDS]
    return told
