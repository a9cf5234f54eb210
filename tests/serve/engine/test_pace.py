from __future__ import annotations

import pytest

from tunechat.serve.engine.pace import Pace


@pytest.mark.parametrize(("each", "count", "seconds"), [(0.5, 4, 2), (0.01, 3, 1), (2.0, 5, 10), (50.0, 9, 60)])
def test_the_wait_follows_from_how_fast_requests_end(each: float, count: int, seconds: int) -> None:
    pace = Pace()
    for at in range(100):
        pace.note_end(at * each)
    assert pace.seconds_until(count) == seconds


def test_without_any_experience_it_is_a_second() -> None:
    assert Pace().seconds_until(100) == 1
