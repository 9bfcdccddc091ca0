"""What is made of the contract is up to date, and what is written by hand agrees with it."""

from __future__ import annotations

import subprocess
import sys

from engine.core import errors
from halimede.errors import ServerError
from halimede.wire.faults import server_error
from tests.contract import rows
from tests.paths import ROOT


def test_what_is_made_of_it_is_up_to_date() -> None:
    command = [sys.executable, "contract/write.py", "--check"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_engine_has_its_error_codes() -> None:
    classes = [one for one in vars(errors).values() if isinstance(one, type)]
    kinds = {one for one in classes if issubclass(one, errors.EngineError)}
    assert {(kind.code, kind.status) for kind in kinds} == {
        (row["code"], row["status"]) for row in rows("errors", "error")
    }


def test_the_client_knows_each_error_code_and_whether_to_try_again() -> None:
    for row in rows("errors", "error"):
        error = server_error(f"{row['code']}: field: value, limit", None)
        assert type(error) is not ServerError
        assert (error.code, error.retryable) == (row["code"], row["retry"])
