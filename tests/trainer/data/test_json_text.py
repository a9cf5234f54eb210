"""JSON is read strictly, and nothing that text can hold exhausts the reader."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunechat.trainer.data.json_text import MAX_DEPTH, BadJson, depth_of, read_json, write_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=50)
@given(VALUES)
def test_reads_what_it_writes(value: object) -> None:
    text = write_json(value)
    assert read_json(text) == value
    assert "\n" not in text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": NaN}', "NaN is no JSON"),
        ('{"a": -Infinity}', "Infinity is no JSON"),
        ('{"a": 1e999}', "too large a number"),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' stands twice"),
        ('{"a": {"b": 1, "b": 1}}', "the key 'b' stands twice"),
        ('{"a": "\\ud800"}', "half of a surrogate pair"),
        ('{"a": "\\uDC00"}', "half of a surrogate pair"),
        ('{"a": "x\ny"}', "control character"),
        ('{"a": 1', "at column 8"),
        ('{"a": 1} x', "Extra data"),
        ("", "column 1"),
        ("9" * 5000, "digits"),
        ("[" * 100_000, "nested more than"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested more than"),
    ],
)
def test_refuses(text: str, told: str) -> None:
    with pytest.raises(BadJson, match=told):
        read_json(text)


def test_takes_what_is_just_deep_enough() -> None:
    assert depth_of(read_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)) == MAX_DEPTH


def test_many_small_objects_are_not_deep() -> None:
    assert len(read_json(json.dumps([{"a": []}] * 1000))) == 1000


def test_whole_surrogate_pairs_are_characters() -> None:
    assert read_json('"\\ud83d\\ude00"') == "😀"


def test_never_writes_what_it_would_refuse() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(math.nan)
