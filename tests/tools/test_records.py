from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.tools.errors import ToolFailed
from tunechat.tools.records import MAX_ARGUMENTS, Decision, Permission, Status, ToolCall, ToolResult, ToolSpec


def test_blank_arguments_are_none() -> None:
    assert ToolCall.of_json("1", "now", "").arguments == {}
    assert ToolCall.of_json("1", "now", " \n").arguments == {}


@pytest.mark.parametrize(
    "text", ["[1]", "1", '"a"', "{", "{'a': 1}", "__import__('os')", '{"a": NaN}', '{"a": -Infinity}', "[" * 200_000]
)
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(ToolFailed):
        ToolCall.of_json("1", "x", text)


def test_long_arguments_are_refused_unread() -> None:
    with pytest.raises(ToolFailed, match="longer"):
        ToolCall.of_json("1", "x", '{"a": "' + "b" * MAX_ARGUMENTS + '"}')


@given(
    st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none() | st.booleans(), max_size=4)
)
def test_arguments_come_back(arguments: dict[str, object]) -> None:
    assert ToolCall.of_json("1", "x", json.dumps(arguments)).arguments == arguments


def test_records_are_json() -> None:
    spec = ToolSpec("x", "does", {"type": "object"}, "builtin", Permission.ASK)
    result = ToolResult("1", "x", Status.REFUSED, "no", decision=Decision(Permission.NEVER, False))
    for record in (spec, ToolCall("1", "x", {"a": 1}), result):
        json.dumps(record.as_json())
    assert spec.as_function() == {
        "type": "function",
        "function": {"name": "x", "description": "does", "parameters": {"type": "object"}},
    }
    assert not result.ok
