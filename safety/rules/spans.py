"""Spans of a text that overlap: cut apart without forgetting a character, or joined."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def apart(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """In the order of their starts; a span that overlaps an earlier one begins where that one ends.

    Whether a span is shown depends on those that touch it alone. To drop all that overlap the last one shown
    would depend on the whole chain before it, and a stream would differ from its whole text.
    """
    reached = 0
    for start, end in spans:
        if end > reached:
            yield max(start, reached), end
            reached = end
