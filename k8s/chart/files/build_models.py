"""Builds what a repository does not have yet: build_models.py --repository DIR --recipe NAME [-- OPTION...]

Several Pods may start at once on the same volume: the first builds, the others wait and find it built.
All options after -- go to `python -m build` unchanged. Exit code: 0, or that of the build that failed.
"""

import argparse
import fcntl
import subprocess
import sys
from pathlib import Path


def main() -> int:
    arguments = sys.argv[1:]
    at = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--recipe", action="append", required=True)
    options = parser.parse_args(arguments[:at])
    with (options.repository / ".build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for recipe in options.recipe:
            if code := build(options.repository, recipe, arguments[at + 1 :]):
                return code
    return 0


def build(repository: Path, recipe: str, options: list[str]) -> int:
    if any(repository.glob(f"{recipe}_engine/[0-9]*/manifest.json")):
        print(f"{recipe} is built already", flush=True)
        return 0
    command = [sys.executable, "-m", "build", recipe, "--repository", str(repository), *options]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
