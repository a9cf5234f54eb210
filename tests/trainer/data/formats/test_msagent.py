"""MS-Agent: calls and results out of the text of answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tunechat.serve.contract.errors import InvalidData
from tunechat.tests.trainer.data.writing import calls, record, said
from tunechat.trainer.data.formats.msagent import MSAgent

LISTED = {
    "name": "speech",
    "description": "says text",
    "parameters": [
        {"name": "text", "description": "what", "required": "True"},
        {"name": "voice", "description": "how", "required": "False"},
    ],
}
SYSTEM = f"You can call:\n\n1. {json.dumps(LISTED)}\n\n2. {{broken\n\nBe kind."
CALL = '```JSON\n{"api_name": "speech", "url": "u", "parameters": {"text": "hi {x}"}}\n```'
ANSWER = f'I do.\n<|startofthink|>{CALL}<|endofthink|>\n\n<|startofexec|>```JSON\n{{"ok": 1}}\n```<|endofexec|>\nDone.'


def value(answer: str) -> dict[str, Any]:
    turns = [("system", SYSTEM), ("user", "say hi"), ("assistant", answer)]
    return {"id": 1, "conversations": [{"from": role, "value": text} for role, text in turns]}


def test_calls_results_and_tools() -> None:
    sample = MSAgent().read(record(value(ANSWER)))
    assert said(sample) == [
        ("system", "You can call:\n\n2. {broken\n\nBe kind."),
        ("user", "say hi"),
        ("assistant", "I do."),
        ("tool", '{"ok": 1}'),
        ("assistant", "Done."),
    ]
    assert calls(sample) == [("speech", '{"text": "hi {x}"}')]
    parameters = sample.tools[0]["function"]["parameters"]
    assert parameters["required"] == ["text"] and list(parameters["properties"]) == ["text", "voice"]


def test_turns_that_are_the_text_of_a_python_list() -> None:
    turns = value(ANSWER)["conversations"]
    for text in (str(turns), json.dumps(turns)):
        assert MSAgent().recognises({"conversations": text}) == 3
        assert calls(MSAgent().read(record({"conversations": text}))) == [("speech", '{"text": "hi {x}"}')]


@pytest.mark.parametrize("text", ["[__import__('os')]", "[" * 5000, "[1, 2"])
def test_text_that_is_no_list_is_not_run(text: str) -> None:
    with pytest.raises(InvalidData):
        MSAgent().read(record({"conversations": text}))


@pytest.mark.parametrize("call", ["speech(x)", '{"parameters": {}}', "[]"])
def test_calls_that_are_none(call: str) -> None:
    with pytest.raises(InvalidData) as raised:
        MSAgent().read(record(value(f"<|startofthink|>{call}<|endofthink|>")))
    assert raised.value.field == "conversations[2].value"


def test_turns_without_calls_are_less_sure() -> None:
    assert MSAgent().recognises(value("hello")) < MSAgent().recognises(value(ANSWER))
    assert said(MSAgent().read(record(value("hello"))))[-1] == ("assistant", "hello")
