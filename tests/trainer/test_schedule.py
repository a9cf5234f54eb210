from __future__ import annotations

import pytest

from tunechat.trainer.schedule import Schedule


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
def test_rises_to_the_peak_and_falls_as_asked(kind: str) -> None:
    schedule = Schedule(peak=1.0, steps=20, warmup=0.25, kind=kind)
    rates = [schedule.rate(step) for step in range(20)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5:] == ([1.0] * 15 if kind == "constant" else sorted(rates[5:], reverse=True))
    assert all(rate > 0 for rate in rates)
    assert kind == "constant" or rates[-1] < 0.1


def test_a_single_step_is_made_at_the_peak() -> None:
    assert Schedule(peak=0.5, steps=1, warmup=1.0).rate(0) == 0.5
