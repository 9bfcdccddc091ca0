"""Files of others are carried unmodified, and each is listed."""

from __future__ import annotations

import hashlib
import re

from tests.paths import ROOT

# Where nothing of our own stands.
CARRIED = ("k8s/crds",)


def test_every_file_is_listed_with_its_hash() -> None:
    table = (ROOT / "THIRD_PARTY.md").read_text("utf-8")
    listed = dict(re.findall(r"^\| `([^`]+)` \| .+ \| `([0-9a-f]{64})` \|$", table, re.MULTILINE))
    found = {
        str(path.relative_to(ROOT)): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in CARRIED
        for path in (ROOT / folder).iterdir()
    }
    assert found
    assert listed == found
