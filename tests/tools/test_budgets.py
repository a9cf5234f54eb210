from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.tools.budgets import Budget, Spending
from tunechat.tools.errors import BudgetSpent


def test_rounds_and_calls_end() -> None:
    spending = Spending(Budget(rounds=2, calls=1))
    spending.begin_round()
    spending.begin_round()
    with pytest.raises(BudgetSpent, match="rounds"):
        spending.begin_round()
    spending.begin_call()
    with pytest.raises(BudgetSpent, match="calls"):
        spending.begin_call()


def test_a_call_may_take_no_longer_than_what_is_left() -> None:
    now = 0.0
    spending = Spending(Budget(seconds=100, call_seconds=30), clock=lambda: now)
    assert spending.begin_call() == 30
    now = 90.0
    assert spending.begin_call() == 10
    now = 100.0
    with pytest.raises(BudgetSpent, match="seconds"):
        spending.begin_call()


def test_only_the_time_of_calls_counts() -> None:
    now = 0.0
    spending = Spending(clock=lambda: now)
    now = 50.0
    assert spending.seconds == 0
    spending.begin_call()
    now = 51.0
    spending.begin_call()
    now = 53.0
    spending.end_call()
    assert spending.seconds == 3
    spending.end_call()
    now = 90.0
    assert spending.seconds == 3
    spending.begin_call()
    now = 92.0
    assert spending.seconds == 5


def test_output_is_cut_and_says_so() -> None:
    spending = Spending(Budget(call_bytes=10, output_bytes=15))
    assert spending.take_output("short") == ("short", False)
    text, cut = spending.take_output("a" * 100)
    assert cut and text.startswith("a" * 10 + "\n[cut: 100 bytes") and spending.output_bytes == 15
    with pytest.raises(BudgetSpent, match="bytes"):
        spending.begin_call()


@given(st.text(max_size=60), st.integers(0, 40))
def test_cut_text_is_a_beginning_of_the_text(text: str, room: int) -> None:
    kept, cut = Spending(Budget(call_bytes=room)).take_output(text)
    whole = text.encode("utf-8", "replace").decode()
    if cut:
        head = kept.rpartition("\n[cut:")[0]
        assert whole.startswith(head) and len(head.encode()) <= room
    else:
        assert kept == whole and len(whole.encode()) <= room


def test_the_limit_that_leaves_no_room_is_named() -> None:
    now = 0.0
    spending = Spending(Budget(rounds=1, calls=2, seconds=3, output_bytes=4), clock=lambda: now)
    spending.begin_call()
    assert spending.limit is None
    spending.take_output("12345")
    assert spending.limit == "output_bytes"
    now = 3.0
    assert spending.limit == "seconds"
    spending.calls = 2
    assert spending.limit == "calls"
    spending.begin_round()
    assert spending.limit == "rounds"


def test_usage_is_json() -> None:
    spending = Spending()
    spending.begin_call()
    told = spending.as_json()
    assert told["calls"] == 1 and told["budget"]["calls"] == 32
    json.dumps(told)
