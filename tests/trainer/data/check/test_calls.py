"""What is said of tools and calls."""

from __future__ import annotations

from typing import Any

from tunechat.tests.trainer.data.writing import call, chat, result, tool
from tunechat.trainer.data.check.calls import problems_of_calls

WEATHER = tool(
    "weather",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "maximum": 9}},
        "required": ["city"],
        "additionalProperties": False,
    },
)
Q = ("user", "q")


def found(*messages: Any, **more: Any) -> list[tuple[str, str]]:
    return [(problem.kind, problem.field) for problem in problems_of_calls(chat(*messages, **more))]


def test_calls_that_keep_to_their_schema() -> None:
    assert found(Q, call("weather", '{"city": "Oslo", "days": 3}'), result("1"), tools=(WEATHER,)) == []


def test_each_breach_is_named_by_its_field() -> None:
    path = "messages[1].tool_calls[0].function.arguments"
    assert found(Q, call("weather", '{"days": 10, "x": 1}'), tools=(WEATHER,)) == [
        ("arguments_schema", path),
        ("arguments_schema", f"{path}.days"),
        ("arguments_schema", f"{path}.x"),
    ]


def test_tools_that_are_not_defined() -> None:
    assert found(Q, call("f", "{}")) == [("undefined_tool", "messages[1].tool_calls[0].function.name")]
    assert found(Q, call("f", "{}"), tools=(WEATHER,))[0][0] == "undefined_tool"


def test_definitions_that_no_server_takes() -> None:
    assert found(Q, tools=(tool("no blanks"),)) == [("tool_definition", "tools[0].function.name")]
    assert found(Q, tools=(WEATHER, WEATHER)) == [("tool_definition", "tools[1].function.name")]


def test_several_calls_where_one_may_be() -> None:
    two = call("weather", '{"city": "x"}')
    two["tool_calls"] *= 2
    assert found(Q, two, tools=(WEATHER,)) == []
    assert found(Q, two, tools=(WEATHER,), parallel_tool_calls=False) == [("parallel_calls", "messages[1].tool_calls")]


def test_rejected_answers_are_looked_at_too() -> None:
    assert found(Q, ("assistant", "a"), rejected=(call("f", "{}"),), tools=(WEATHER,)) == [
        ("undefined_tool", "rejected[0].tool_calls[0].function.name")
    ]


def test_schemas_that_are_too_costly_are_said_so() -> None:
    hostile = tool("f", {"type": "object", "properties": {"a": {"pattern": "^(a|aa)+$"}}})
    assert found(Q, call("f", '{"a": "' + "a" * 40 + '!"}'), tools=(hostile,)) == [
        ("schema_not_followed", "messages[1].tool_calls[0].function.arguments")
    ]
