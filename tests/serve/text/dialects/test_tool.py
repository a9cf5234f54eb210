"""Tools of requests: read, refused with their place, and chosen among."""

from __future__ import annotations

from typing import Any

import pytest

from tunechat.serve.contract.errors import InvalidRequest
from tunechat.serve.text.dialects import Call, ToolChoice, read_tools
from tunechat.serve.text.dialects.json_reader import MAX_DEPTH


def function(**fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", **fields}}


def test_what_is_left_out_has_a_meaning() -> None:
    (tool,) = read_tools([{"function": {"name": "f"}}])
    assert tool.parameters == {"type": "object", "properties": {}} and not tool.strict and tool.description == ""
    assert read_tools([function(parameters={"properties": {"a": {}}}, strict=True)])[0].strict


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ([1], "tools[0].type"),
        ([{"type": "web_search"}], "tools[0].type"),
        ([{"type": "function"}], "tools[0].function"),
        ([function(), {"type": "function", "function": {"name": "a b"}}], "tools[1].function.name"),
        ([function(name="")], "tools[0].function.name"),
        ([function(name="a" * 129)], "tools[0].function.name"),
        ([function(name="ä")], "tools[0].function.name"),
        ([function(name="a\n")], "tools[0].function.name"),
        ([function(), function()], "tools[1].function.name"),
        ([function(description=1)], "tools[0].function.description"),
        ([function(description="x" * 20_000)], "tools[0].function.description"),
        ([function(strict="yes")], "tools[0].function.strict"),
        ([function(parameters=[1])], "tools[0].function.parameters"),
        ([function(parameters={"type": "string"})], "tools[0].function.parameters"),
        ([function(name=f"f{index}") for index in range(129)], "tools"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(tools: list[Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_tools(tools)
    assert caught.value.param == param


def test_choices_know_the_tools() -> None:
    tools = read_tools([function(), function(name="g")])
    assert ToolChoice().of(tools) == tools and ToolChoice("none").of(tools) == ()
    assert [tool.name for tool in ToolChoice.named("g").of(tools)] == ["g"]
    for choice, offered in ((ToolChoice.named("h"), tools), (ToolChoice("required"), ())):
        with pytest.raises(InvalidRequest) as caught:
            choice.of(offered)
        assert caught.value.param == "tool_choice"


def test_arguments_are_written_the_one_way() -> None:
    assert Call("f", '{"b":[1,2],"a":"\\u00e9"}').canonical() == '{"b": [1, 2], "a": "é"}'
    assert Call("f", "").canonical() == "{}"


def test_arguments_as_deep_as_the_reader_takes_are_a_value_under_many_frames() -> None:
    call = Call("f", '{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH)

    def under(frames: int) -> str:
        return under(frames - 1) if frames else call.canonical()

    assert under(300).count("{") == MAX_DEPTH
    with pytest.raises(ValueError, match="too deeply"):
        Call("f", '{"a":' * 200_000 + "1" + "}" * 200_000).value()
