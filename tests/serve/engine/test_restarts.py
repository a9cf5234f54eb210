from __future__ import annotations

from tunechat.serve.engine.restarts import Restarts


def test_pauses_grow_and_end_in_giving_up() -> None:
    restarts = Restarts(most=5, calm=60.0, first_delay=1.0, longest_delay=3.0)
    assert [restarts.next_delay(at) for at in range(5)] == [1.0, 2.0, 3.0, 3.0, None]


def test_a_calm_time_forgives() -> None:
    restarts = Restarts(most=3, calm=60.0, first_delay=1.0)
    assert [restarts.next_delay(at) for at in (0.0, 10.0, 200.0, 210.0, 220.0)] == [1.0, 2.0, 1.0, 2.0, None]
