from __future__ import annotations

from hypothesis import settings

# No test is timed, on machines that are shared least of all.
settings.register_profile("halimede", deadline=None)
settings.load_profile("halimede")
