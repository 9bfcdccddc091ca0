"""A certificate for this machine that signs itself, so that it is its own authority, and its key."""

from __future__ import annotations

import subprocess
from pathlib import Path


def write_certificate(folder: Path) -> None:
    """tls.crt and tls.key."""
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", "tls.key", "-out", "tls.crt"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names, *files]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
