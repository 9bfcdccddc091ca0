"""Options are checked where they are made, and messages name the field, the value and the limit."""

from __future__ import annotations

from typing import Any

import pytest

from build.compress.limits import require_flag, require_share, require_whole
from build.errors import BadInput


@pytest.mark.parametrize("value", [2, 3, 5])
def test_whole_numbers_in_range_pass(value: int) -> None:
    require_whole("p: f", value, 2, 5)


@pytest.mark.parametrize("value", [1, -4, 2.0, True, "3", None])
def test_what_is_too_small_or_not_whole_is_refused(value: Any) -> None:
    with pytest.raises(BadInput, match=f"^p: f: {value!r}, must be a whole number of at least 2: why$"):
        require_whole("p: f", value, 2, 5, "why")


def test_what_is_too_large_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^p: f: 6, must be at most 5$"):
        require_whole("p: f", 6, 2, 5)


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), True, "0.5"])
def test_shares_lie_between_nothing_and_all(value: Any) -> None:
    for share in (0, 0.5, 1):
        require_share("p: f", share)
    with pytest.raises(BadInput, match=r"p: f: .*, must be a number in \[0, 1\]"):
        require_share("p: f", value)


@pytest.mark.parametrize("value", [0, 1, "false", None])
def test_flags_are_true_or_false(value: Any) -> None:
    require_flag("p: f", True)
    with pytest.raises(BadInput, match=f"p: f: {value!r}, must be true or false"):
        require_flag("p: f", value)
