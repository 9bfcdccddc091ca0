"""A certificate for this machine that signs itself, so that it is its own authority, and its key."""

from __future__ import annotations

import subprocess
from pathlib import Path


def write_certificate(folder: Path, authority: bool = True) -> None:
    """tls.crt and tls.key. Some clients take no authority for a server, others trust nothing else."""
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    names += [] if authority else ["-addext", "basicConstraints=critical,CA:FALSE"]
    files = ["-keyout", "tls.key", "-out", "tls.crt"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names, *files]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
