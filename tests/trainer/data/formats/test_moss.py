"""MOSS-003 with plugins."""

from __future__ import annotations

from typing import Any

import pytest

from tunechat.serve.contract.errors import InvalidData
from tunechat.tests.trainer.data.writing import calls, record, said
from tunechat.trainer.data.formats.moss import Moss

META = """You are MOSS.
Capabilities and tools that MOSS can possess.
- Inner thoughts: enabled.
- Web search: enabled. API: Search(query)
- Calculator: enabled. API: Calculate(expression)
- Equation solver: disabled.
"""


def turn(question: str, thought: str, commands: str, results: str, answer: str) -> dict[str, str]:
    return {
        "Human": f"<|Human|>: {question}<eoh>\n",
        "Inner Thoughts": f"<|Inner Thoughts|>: {thought}<eot>\n",
        "Commands": f"<|Commands|>: {commands}<eoc>\n",
        "Tool Responses": f"<|Results|>:\n{results}<eor>\n",
        "MOSS": f"<|MOSS|>: {answer}<eom>\n",
    }


def read(**turns: dict[str, str]) -> Any:
    value = {"conversation_id": 1, "meta_instruction": META, "num_turns": len(turns), "chat": turns}
    assert Moss().recognises(value)
    return Moss().read(record(value))


def test_plugins_become_tools_and_commands_calls() -> None:
    sample = read(
        turn_10=turn("bye", "None", "None", "None", "Bye."),
        turn_2=turn("who?", "look it up", 'Search("who \\"is\\" it (now)")', "Search => he", "He is."),
    )
    assert said(sample) == [
        ("system", "You are MOSS."),
        ("user", "who?"),
        ("assistant", None),
        ("tool", "Search => he"),
        ("assistant", "He is."),
        ("user", "bye"),
        ("assistant", "Bye."),
    ]
    assert calls(sample) == [("Search", '{"query": "who \\"is\\" it (now)"}')]
    assert sample.messages[2]["reasoning_content"] == "look it up"
    assert [tool["function"]["name"] for tool in sample.tools] == ["Search", "Calculate"]
    assert sample.tools[1]["function"]["parameters"]["required"] == ["expression"]


def test_several_commands_are_parallel_calls() -> None:
    sample = read(turn_1=turn("q", "None", 'Calculate("1+1"), Calculate("2+2"), Solve("x=1")', "2; 4; 1", "a"))
    assert calls(sample) == [
        ("Calculate", '{"expression": "1+1"}'),
        ("Calculate", '{"expression": "2+2"}'),
        ("Solve", '{"equation": "x=1"}'),
    ]
    results = [message for message in sample.messages if message["role"] == "tool"]
    assert [message["tool_call_id"] for message in results] == ["call_1", "call_2", "call_3"]


@pytest.mark.parametrize("commands", ["look around", 'Search("a") and then', "Search("])
def test_commands_that_are_none(commands: str) -> None:
    with pytest.raises(InvalidData) as raised:
        read(turn_1=turn("q", "None", commands, "r", "a"))
    assert raised.value.field == "chat.turn_1.Commands"
