"""ShareGPT and those that descend from it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tunechat.serve.contract.errors import InvalidData
from tunechat.tests.trainer.data.writing import calls, record, said
from tunechat.trainer.data.formats.sharegpt import ShareGPT


def read(*turns: tuple[str, str], **more: Any) -> Any:
    conversations = [{"from": role, "value": text} for role, text in turns]
    return ShareGPT().read(record({"conversations": conversations, **more}))


@pytest.mark.parametrize("user", ["human", "user", "Human", " prompter "])
@pytest.mark.parametrize("assistant", ["gpt", "chatgpt", "assistant", "bing", "bard", "model"])
def test_roles_as_people_spell_them(user: str, assistant: str) -> None:
    assert said(read(("system", "s"), (user, "q"), (assistant, "a"))) == [
        ("system", "s"),
        ("user", "q"),
        ("assistant", "a"),
    ]


def test_calls_and_observations() -> None:
    tools = json.dumps([{"name": "f", "description": "d", "parameters": {"type": "object"}}])
    one = '{"name": "f", "arguments": {"a": 1.0}}'
    sample = read(
        ("human", "q"),
        ("function_call", one),
        ("observation", "3"),
        ("function_call", f"[{one}, {one}]"),
        ("observation", "4"),
        ("tool", "5"),
        ("gpt", "a"),
        tools=tools,
        system="s",
    )
    assert calls(sample) == [("f", '{"a": 1.0}')] * 3
    assert [m.get("tool_call_id") for m in sample.messages if m["role"] == "tool"] == ["call_1", "call_2", "call_3"]
    assert said(sample)[0] == ("system", "s")
    assert sample.tools[0]["type"] == "function" and sample.tools[0]["function"]["description"] == "d"


def test_role_and_content_under_conversations() -> None:
    value = {"conversation": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    assert ShareGPT().recognises(value)
    assert said(ShareGPT().read(record(value))) == [("user", "q"), ("assistant", "a")]


@pytest.mark.parametrize("text", ["f(1)", "3", "[]", '{"arguments": {}}', '{"name": "f", "arguments": "x"}'])
def test_calls_that_are_none_are_named(text: str) -> None:
    with pytest.raises(InvalidData) as raised:
        read(("human", "q"), ("function_call", text))
    assert raised.value.field.startswith("conversations[1].value")


def test_an_unknown_speaker_is_named() -> None:
    with pytest.raises(InvalidData, match="unknown role 'narrator'") as raised:
        read(("human", "q"), ("narrator", "x"))
    assert raised.value.field == "conversations[1].from"
