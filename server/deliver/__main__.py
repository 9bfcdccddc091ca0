"""`python -m deliver`, or the folder itself: `python3 /opt/halimede/server/deliver`."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # the folder itself was started: replace it on the path by its parent
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from deliver.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
