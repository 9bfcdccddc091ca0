from __future__ import annotations

from typing import Any

from typer.testing import CliRunner, Result

from halimede import Client, RetryPolicy
from halimede.cli import app
from halimede.cli.session import Session, Tools
from halimede.testing import FakeTransport


def run(fake: FakeTransport, *arguments: str, charset: str = "utf-8", **options: Any) -> Result:
    """`halimede` with these arguments, over a fake transport and without a terminal."""

    def connect(session: Session) -> Client:
        return Client(transport=fake, model=session.model, retry=RetryPolicy(attempts=1))

    tools = Tools(connect, is_interactive=lambda: False)
    return CliRunner(charset=charset).invoke(app, arguments, obj=tools, catch_exceptions=False, **options)
