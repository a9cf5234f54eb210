"""How numbers are summed up."""

from __future__ import annotations

from array import array

from hypothesis import given, settings
from hypothesis import strategies as st

from tunechat.trainer.data.check.spread import Spread


@settings(max_examples=60)
@given(st.lists(st.integers(0, 10_000), min_size=1))
def test_every_number_is_in_its_bin(numbers: list[int]) -> None:
    spread = Spread.of(array("Q", numbers))
    assert (spread.count, spread.total) == (len(numbers), sum(numbers))
    assert (spread.least, spread.most) == (min(numbers), max(numbers))
    assert spread.least <= spread.median <= spread.p95 <= spread.most
    assert sum(count for _, count in spread.bins) == len(numbers)
    for index, (top, count) in enumerate(spread.bins):
        below = spread.bins[index - 1][0] if index else -1
        assert count == sum(below < number <= top for number in numbers)


def test_nothing() -> None:
    assert Spread.of(array("Q")).as_json() == {
        "count": 0,
        "total": 0,
        "min": 0,
        "median": 0,
        "p95": 0,
        "max": 0,
        "histogram": [],
    }
