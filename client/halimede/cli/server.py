"""halimede health and metrics: the state of a server."""

from __future__ import annotations

from typing import Annotated

import typer

from halimede.cli.exits import Exit
from halimede.cli.output import print_json
from halimede.cli.session import Session

__all__ = ["health", "metrics"]


def health(session: Session) -> None:
    """Show whether the server and the model are ready. The exit code is 3 if not."""
    with session.client() as client:
        found = client.health()
    if session.json:
        print_json(found)
    else:
        versions = ", ".join(found.model_versions)
        print(f"server  {'ready' if found.ready else 'live' if found.live else 'not live'}", end="")
        print(f"  {found.server_name} {found.server_version} at {session.url}")
        print(f"model   {'ready' if found.model_ready else 'not ready'}  {found.model} {versions}")
    if not found.ok:
        raise typer.Exit(Exit.UNAVAILABLE)


def metrics(
    session: Session,
    prefix: Annotated[
        str, typer.Argument(help="Show the metrics whose names start with this.")
    ] = "halimede_",
) -> None:
    """Show the server's metrics, the buckets of histograms only with --json."""
    with session.client() as client:
        samples = [s for s in client.metrics().samples if s.name.startswith(prefix)]
    if session.json:
        print_json(samples)
        return
    for sample in samples:
        if not sample.name.endswith("_bucket"):
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            print(f"{sample.name}{{{labels}}} {sample.value:g}")
