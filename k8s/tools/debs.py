"""Programs out of Debian packages, unpacked, not installed: no root is needed."""

from __future__ import annotations

import tempfile
from pathlib import Path

from k8s.tools.failure import SetupFailure
from k8s.tools.place import whole
from k8s.tools.running import run
from k8s.tools.sources import Deb

REMEDY = "Debian 12 (bookworm) on x86-64 with a reachable mirror in its apt sources is needed"


class Apt:
    """apt with lists and caches of its own in `state`, fetched once in a run."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._updated = False

    def download(self, deb: Deb, folder: Path) -> Path:
        """The archive of `deb`, put into `folder`."""
        self._update()
        doing = f"getting {deb.package} {deb.version}"
        version = self._candidate(deb)
        run([*self._command("apt-get"), "download", f"{deb.package}={version}"], doing, REMEDY, cwd=folder)
        return next(folder.glob("*.deb"))

    def _candidate(self, deb: Deb) -> str:
        listed = run([*self._command("apt-cache"), "madison", deb.package], f"finding {deb.package}", REMEDY)
        versions = [line.split("|")[1].strip() for line in listed.splitlines() if line.count("|") == 2]
        fitting = [version for version in versions if version.startswith(deb.version)]
        if not fitting:
            offered = ", ".join(versions) or "none"
            raise SetupFailure(f"{deb.package}: {deb.version} is wanted, apt offers {offered}; {REMEDY}")
        return fitting[0]

    def _update(self) -> None:
        if not self._updated:
            (self._state / "lists" / "partial").mkdir(parents=True, exist_ok=True)
            (self._state / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
            run([*self._command("apt-get"), "update", "--quiet"], "reading the lists of apt", REMEDY)
            self._updated = True

    def _command(self, program: str) -> list[str]:
        options = {
            "Dir::State::Lists": self._state / "lists",
            "Dir::Cache": self._state / "cache",
            # apt as root fetches as another user, who may not enter this folder.
            "APT::Sandbox::User": "root",
        }
        return [program, *(part for name, value in options.items() for part in ("-o", f"{name}={value}"))]


def place_deb(deb: Deb, folder: Path, apt: Apt) -> None:
    """Fill `folder` with what `deb` unpacks to."""
    with whole(folder) as growing, tempfile.TemporaryDirectory() as scratch:
        archive = apt.download(deb, Path(scratch))
        run(["dpkg", "-x", str(archive), str(growing)], f"unpacking {deb.package}", REMEDY)
