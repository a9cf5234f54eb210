"""The JSON reader agrees with a whole parser, wherever the text is cut, and stops where it goes wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunechat.serve.text.dialects.json_reader import MAX_DEPTH, MAX_NUMBER, JsonReader

from .families import cut, json_values


def outcome(pieces: list[str]) -> tuple[bool, bool, int]:
    """Whether the value is whole, whether it failed, and how much was read."""
    reader, read = JsonReader(), 0
    for piece in pieces:
        end = reader.push(piece)
        read += end
        if end < len(piece):
            break
    reader.finish()
    return reader.done, reader.failed, read


def is_json(text: str) -> bool:
    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    try:
        json.loads(text, parse_constant=refuse, parse_int=str, parse_float=str)
    except ValueError:
        return False
    return True


@given(value=json_values, behind=st.sampled_from(["", " ", "x", "]", "}", '"']), cuts=st.lists(st.integers(0, 999)))
@settings(max_examples=80)
def test_a_value_ends_where_it_ends(value: Any, behind: str, cuts: list[int]) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assert outcome(cut(text + behind, cuts)) == (True, False, len(text))


noise = st.text('{}[],:"\\\\ntrueflsu01-+.eE \\n\\x01é', max_size=12)
damaged = st.builds(lambda value, place, more: json.dumps(value)[:place] + more, json_values, st.integers(0, 9), noise)


@given(text=noise | damaged)
@settings(max_examples=300)
def test_it_takes_what_a_parser_takes(text: str) -> None:
    text = text.strip(" \n")
    done, failed, read = outcome([text])
    assert (done and read == len(text)) == is_json(text)
    assert not (done and failed)
    assert outcome(list(text)) == (done, failed, read)


@given(value=json_values, place=st.integers(0, 50))
@settings(max_examples=100)
def test_the_beginning_of_a_value_does_not_fail(value: Any, place: int) -> None:
    text = json.dumps([value])[:-1][:place]
    reader = JsonReader()
    assert reader.push(text) == len(text) and not reader.done and not reader.failed


@pytest.mark.parametrize("text", ["01", "-", "1.", ".5", "1e", "+1", "--1", "1.2.3", "NaN", "Infinity", "tru ", '"\t"'])
def test_what_is_nearly_json_fails(text: str) -> None:
    assert outcome([text])[1]
    assert not is_json(text)


def test_bounds() -> None:
    assert outcome(["[" * MAX_DEPTH + "]" * MAX_DEPTH])[0]
    assert outcome(["[" * (MAX_DEPTH + 1)])[1:] == (True, MAX_DEPTH)
    assert outcome(["9" * MAX_NUMBER])[0] and outcome(["9" * (MAX_NUMBER + 1)])[1]
