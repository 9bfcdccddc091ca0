from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from safety.rules.mask import mask
from safety.rules.rule import Finding

SPANS = st.lists(
    st.tuples(st.sampled_from(["email", "phone"]), st.integers(0, 30), st.integers(1, 9)).map(
        lambda drawn: Finding(drawn[0], drawn[1], drawn[1] + drawn[2])
    )
)


def test_overlaps_become_one_and_neighbours_stay_two() -> None:
    findings = [
        Finding("phone", 2, 5),
        Finding("email", 0, 3),
        Finding("email", 5, 6),
        Finding("phone", 3, 4),
    ]
    assert mask("0123456789", findings) == "<email|phone><email>6789"


@given(SPANS)
def test_nothing_of_a_finding_stays_and_all_else_does(findings: list[Finding]) -> None:
    text = "".join(chr(0x4E00 + place) for place in range(40))
    hidden = {place for one in findings for place in range(one.start, one.end)}
    shown = [character for character in mask(text, findings) if ord(character) >= 0x4E00]
    assert shown == [character for place, character in enumerate(text) if place not in hidden]
