"""OpenAI's form: what is kept to the character, what is brought up to date, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tunechat.serve.contract.errors import InvalidData
from tunechat.tests.trainer.data.writing import call, calls, record, result, said, tool
from tunechat.trainer.data.formats.openai import OpenAI

USER = {"role": "user", "content": "hi"}
ANSWER = {"role": "assistant", "content": "yo"}


def read(**value: Any) -> Any:
    return OpenAI().read(record(value))


def test_messages_come_as_they_are() -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "ann"},
        call("f", '{"b": 1.50,  "a": "\\u00e9"}', "c1"),
        result("3", "c1"),
        {"role": "assistant", "content": "yo", "weight": 0, "reasoning_content": "hm"},
    ]
    schema = {"type": "object", "properties": {"z": {"type": "number"}, "a": {"enum": [1.0, "x"]}}}
    sample = read(messages=messages, tools=[tool("f", schema)], parallel_tool_calls=False)
    assert list(sample.messages) == messages
    assert json.dumps(sample.tools[0]) == json.dumps(tool("f", schema))
    assert sample.parallel_tool_calls is False and sample.place.line == 7


def test_arguments_that_are_an_object_become_text_in_their_order() -> None:
    function = {"name": "f", "arguments": {"z": 1, "a": {"é": [1.5, None, True]}}}
    sample = read(messages=[USER, {"role": "assistant", "content": None, "tool_calls": [{"function": function}]}])
    assert calls(sample) == [("f", '{"z": 1, "a": {"é": [1.5, null, true]}}')]
    assert sample.messages[1]["tool_calls"][0]["id"] == "call_1"
    assert "content" not in sample.messages[1]


def test_functions_become_tools() -> None:
    asks = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"a": 1}'}}
    gives = {"role": "function", "name": "f", "content": "3"}
    sample = read(messages=[USER, asks, gives, ANSWER], functions=[{"name": "f", "parameters": {"type": "object"}}])
    assert sample.tools == (tool("f"),)
    assert sample.messages[1]["tool_calls"][0]["id"] == sample.messages[2]["tool_call_id"] == "call_1"
    assert sample.messages[2]["role"] == "tool"


def test_lists_may_be_json_text_as_tables_have_them() -> None:
    sample = read(messages=json.dumps([USER, ANSWER]), tools=json.dumps([{"name": "f"}]))
    assert said(sample) == [("user", "hi"), ("assistant", "yo")]
    assert sample.tools == ({"type": "function", "function": {"name": "f"}},)


@pytest.mark.parametrize(
    ("field", "value", "weight"),
    [("weight", 0, 0), ("weight", 0.5, 0.5), ("loss", False, 0), ("loss", "True", 1), ("train", True, 1)],
)
def test_weights_under_all_their_names(field: str, value: object, weight: float) -> None:
    assert read(messages=[USER, {**ANSWER, field: value}]).messages[1]["weight"] == weight


def asking(**function: Any) -> list[Any]:
    return [USER, {"role": "assistant", "tool_calls": [{"id": "c", "function": function}]}]


IMAGE = {"type": "image_url", "image_url": {"url": "x"}}


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"messages": [USER, {"role": "wizard", "content": "x"}]}, "messages[1].role"),
        ({"messages": [USER, "x"]}, "messages[1]"),
        ({"messages": {"a": 1}}, "messages"),
        ({"messages": "[oops"}, "messages"),
        ({"messages": [{"role": "user", "content": {"a": 1}}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content[0]"),
        ({"messages": [USER, {**ANSWER, "weight": -1}]}, "messages[1].weight"),
        ({"messages": [USER, {**ANSWER, "weight": "much"}]}, "messages[1].weight"),
        ({"messages": asking(name="f", arguments="{")}, "messages[1].tool_calls[0].function.arguments"),
        ({"messages": asking(name="f", arguments="[1]")}, "messages[1].tool_calls[0].function.arguments"),
        ({"messages": asking(name="f", arguments='{"a": NaN}')}, "messages[1].tool_calls[0].function.arguments"),
        ({"messages": asking(name="f", arguments=5)}, "messages[1].tool_calls[0].function.arguments"),
        ({"messages": asking(arguments="{}")}, "messages[1].tool_calls[0].function.name"),
        ({"messages": [USER, ANSWER], "tools": {"name": "f"}}, "tools"),
        ({"messages": [USER, ANSWER], "tools": ["f"]}, "tools[0]"),
        ({"messages": [USER, ANSWER], "parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"messages": []}, ""),
    ],
)
def test_what_is_wrong_is_named(value: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidData) as raised:
        OpenAI().read(record(value))
    assert (raised.value.file, raised.value.line, raised.value.field) == ("data.jsonl", 7, field)
    assert raised.value.mend


def test_recognises_roles_not_speakers() -> None:
    form = OpenAI()
    assert form.recognises({"messages": [USER]}) and form.recognises({"messages": "[]"})
    assert not form.recognises({"messages": [{"from": "human", "value": "x"}]})
    assert not form.recognises({"messages": []}) and not form.recognises({"text": "x"})
