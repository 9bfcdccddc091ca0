from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# For programs that import our packages.
PYTHONPATH = os.pathsep.join(str(ROOT / folder) for folder in (".", "client", "server"))
