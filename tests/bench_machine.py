"""The machine of reports that tests make up."""

from __future__ import annotations

MACHINE = {
    "cpu": "a CPU",
    "kernels": "avx2",
    "cores": 2,
    "date": "today",
    "commit": "abc",
    "uncommitted_changes": False,
}
