"""The score of tool calls: what counts as right, and that nothing else does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.api.tuning.scores import Call, RowScore, is_same_json, score_row, sum_up

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=3)
NAMES = st.sampled_from(["find", "add", "send"])
CALLS = st.lists(st.builds(lambda name, value: Call(name, json.dumps(value)), NAMES, OBJECTS), max_size=4)
RIGHT = Call("find", '{"city": "Oslo", "days": 2}')


def turned(value: Any) -> Any:
    """The same JSON, written otherwise: keys backwards, whole numbers as floats."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return [turned(one) for one in value]
    is_whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**1000
    return float(value) if is_whole and float(value) == value else value


@given(VALUES)
def test_json_is_the_same_however_it_is_written(value: Any) -> None:
    assert is_same_json(value, turned(json.loads(json.dumps(value))))


@given(VALUES, VALUES)
def test_other_json_is_not_the_same(first: Any, second: Any) -> None:
    def text(value: Any) -> str:
        return json.dumps(turned(value), sort_keys=True)

    def plain(value: Any) -> bool:
        return text(value) == text(json.loads(text(value))) and "-0.0" not in text(value)

    if plain(first) and plain(second):
        assert is_same_json(first, second) == (text(first) == text(second))


@pytest.mark.parametrize(
    ("first", "second"), [(True, 1), (False, 0), ("1", 1), (None, False), ([1, 2], [2, 1]), ({}, [])]
)
def test_kinds_and_orders_are_told_apart(first: Any, second: Any) -> None:
    assert not is_same_json(first, second)
    assert not is_same_json([first], [second])


@given(CALLS, st.randoms())
def test_the_right_calls_in_any_order_are_right(calls: list[Call], random: Any) -> None:
    made = [Call(call.name, json.dumps(turned(json.loads(call.arguments)))) for call in calls]
    random.shuffle(made)
    score = score_row(calls, made, {"find", "add", "send"})
    assert score.call_or_not
    assert score.name is score.arguments is (True if calls else None)
    assert (score.calls, score.valid_json, score.invented) == (len(calls), len(calls), 0)


@given(CALLS, CALLS)
def test_right_arguments_have_right_names_and_those_a_call(right: list[Call], made: list[Call]) -> None:
    score = score_row(right, made, {"find"})
    assert not score.arguments or score.name
    assert not score.name or score.call_or_not
    assert score.invented == sum(call.name != "find" for call in made)
    assert score_row(made, right, {"find"}).call_or_not == score.call_or_not


@given(st.lists(st.tuples(CALLS, CALLS), max_size=6))
def test_figures_are_parts_of_one(rows: list[tuple[list[Call], list[Call]]]) -> None:
    figures = sum_up(score_row(right, made, {"find", "add"}) for right, made in rows)
    assert figures.pop("rows") == len(rows)
    assert all(figure is None or 0 <= figure <= 1 for figure in figures.values())
    assert (figures["arguments"] or 0) <= (figures["name"] or 0)


@pytest.mark.parametrize(
    ("made", "score"),
    [
        ([RIGHT], RowScore(True, True, True, 1, 1, 0)),
        ([Call("find", '{"days": 2.0, "city": "Oslo"}')], RowScore(True, True, True, 1, 1, 0)),
        ([], RowScore(False, False, False, 0, 0, 0)),
        ([Call("find", '{"city": "Rome", "days": 2}')], RowScore(True, True, False, 1, 1, 0)),
        ([Call("find", '{"city": "Oslo"}')], RowScore(True, True, False, 1, 1, 0)),
        ([Call("find", '{"city": "Os')], RowScore(True, True, False, 1, 0, 0)),
        ([Call("find", '["Oslo", 2]')], RowScore(True, True, False, 1, 0, 0)),
        ([Call("find", '{"days": NaN}')], RowScore(True, True, False, 1, 0, 0)),
        ([Call("find", '{"a": ' + "[" * 5000 + "]" * 5000 + "}")], RowScore(True, True, False, 1, 0, 0)),
        ([RIGHT, RIGHT], RowScore(True, False, False, 2, 2, 0)),
        ([Call("look", RIGHT.arguments)], RowScore(True, False, False, 1, 1, 1)),
    ],
)
def test_each_mistake_is_counted_where_it_belongs(made: list[Call], score: RowScore) -> None:
    assert score_row([RIGHT], made, {"find", "send"}) == score


def test_no_call_is_right_where_none_was_to_be_made() -> None:
    assert score_row([], [], {"find"}) == RowScore(True, None, None, 0, 0, 0)
    assert score_row([], [RIGHT], {"find"}) == RowScore(False, None, None, 1, 1, 0)


def test_figures_count_only_what_could_be_judged() -> None:
    rows = [score_row([RIGHT], [RIGHT], {"find"}), score_row([], [], {"find"}), score_row([RIGHT], [], {"find"})]
    assert sum_up(rows) == {
        "call_or_not": 0.6667,
        "name": 0.5,
        "arguments": 0.5,
        "valid_json": 1.0,
        "invented": 0.0,
        "rows": 3,
    }
    assert sum_up([])["call_or_not"] is None
