"""The command line: a delivery from one source to one folder, `seal` and `verify`."""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from deliver.faults import BadInput, Corrupt, Fault, NotWritten
from deliver.listing import NAME, parse, problems, seal

_EXAMPLES = """examples:
  python -m deliver seal model_repository                 before it is uploaded: writes files.json
  python -m deliver s3://bucket/models /models            all of it
  python -m deliver gs://bucket/models /models --model smollm2 --model gpt2
  python -m deliver https://host/models.tar.gz /models --sha256 3b0c…
  python -m deliver file:///mnt/models /models            from another volume
  python -m deliver verify /models                        every file against files.json

exit codes: 0 delivered, or nothing is wrong; 1 the source did not deliver; 2 the command is wrong, or the
  source is not sealed; 3 content does not match its sha256; 4 the destination is full or cannot be read or
  written; 130 interrupted
environment: AWS_… and GOOGLE_… as in the providers' own tools; DELIVER_AUTHORIZATION, a header for
http(s)://; HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE
"""


def main(arguments: Sequence[str]) -> int:
    """The exit code; errors are one line on stderr."""
    commands = {"seal": _seal, "verify": _verify}
    try:
        if arguments and arguments[0] in commands:
            commands[arguments[0]](arguments[1:])
        else:
            _deliver(arguments)
    except Fault as fault:
        print(f"deliver: error: {fault}", file=sys.stderr)
        return fault.exit_code
    except OSError as error:
        print(f"deliver: error: {error.filename}: {error.strerror}", file=sys.stderr)
        return NotWritten.exit_code
    except KeyboardInterrupt:
        print("deliver: interrupted: run the same command to continue", file=sys.stderr)
        return 130
    return 0


def _deliver(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m deliver",
        description="Copy a sealed model repository into a folder, every file checked against its hash.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "source",
        type=_url,
        help="file://, http(s)://, s3:// or gs:// of a repository or of a tar archive of one",
    )
    add("destination", type=Path, help="the folder; created if it does not exist")
    add("--model", action="append", default=[], metavar="NAME", help="repeatable; default: all models")
    add("--sha256", type=_digest, metavar="HEX", help="of files.json, or of the archive, as `seal` prints it")
    add("--jobs", type=_count, default=4, metavar="N", help="files at a time; %(default)s")
    add("--attempts", type=_count, default=5, metavar="N", help="in a row without progress; %(default)s")
    found = parser.parse_args(arguments)
    try:
        from deliver.delivery import Order, deliver  # noqa: PLC0415  `seal` and `verify` need no extra
    except ImportError as error:
        raise BadInput(f"{error.name} is missing: pip install 'halimede[deliver]'") from error
    deliver(
        Order(found.source, found.destination, tuple(found.model), found.sha256, found.jobs, found.attempts),
        lambda line: print(f"deliver: {line}", file=sys.stderr, flush=True),
    )


def _seal(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        "python -m deliver seal", description="Write files.json into a repository."
    )
    parser.add_argument("repository", type=Path)
    repository: Path = parser.parse_args(arguments).repository
    content = seal(repository).encode()
    new = repository / f".{NAME}"
    new.write_bytes(content)
    new.replace(repository / NAME)
    print(f"{hashlib.sha256(content).hexdigest()}  {repository / NAME}")


def _verify(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser("python -m deliver verify", description="Check every file of a folder.")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args(arguments).folder
    try:
        listing = parse((folder / NAME).read_bytes())
    except OSError as error:
        raise BadInput(f"{folder / NAME}: {error.strerror}: run python -m deliver seal {folder}") from error
    if wrong := problems(listing, folder):
        for line in wrong:
            print(line)
        raise Corrupt(
            f"{folder}: {len(wrong)} of {len(listing.files)} files are not as listed: deliver again"
        )
    print(f"{folder}: {len(listing.files)} files, {listing.size / 1e6:.0f} MB, all as listed")


def _url(text: str) -> str:
    try:
        urlsplit(text)
    except ValueError as error:  # without the URL in it, which may be signed
        raise argparse.ArgumentTypeError(f"{error}: must be a URL or a folder") from error
    return text


def _digest(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError(f"{text!r}, must be 64 hexadecimal digits")
    return text.lower()


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 64:
        raise argparse.ArgumentTypeError(f"{text}, must be 1 to 64")
    return value
