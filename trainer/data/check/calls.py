"""Whether tools are defined as a server takes them, and calls keep to their definitions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ....serve.contract.errors import InvalidData, InvalidRequest
from ....serve.text.dialects.tool import Tool, read_tools
from ..json_text import read_json
from ..sample import Conversation
from .order import problem
from .schema import TooCostly, breaches

_TOLD = 5


def problems_of_calls(sample: Conversation) -> Iterator[InvalidData]:
    """Definitions that no server takes, calls of tools that are not defined, arguments that break their schema."""
    try:
        tools = {tool.name: tool for tool in read_tools(sample.tools)}
    except InvalidRequest as error:
        yield problem(sample, error.param or "tools", error.message.rstrip("."), "mend it", "tool_definition")
        return
    groups = (("messages", sample.messages), ("rejected", sample.rejected))
    for group, messages in groups:
        for index, message in enumerate(messages):
            calls = message.get("tool_calls") or ()
            if len(calls) > 1 and not sample.parallel_tool_calls:
                what = "several calls in one turn, where parallel_tool_calls is false"
                yield problem(sample, f"{group}[{index}].tool_calls", what, "make them in turn", "parallel_calls")
            for number, call in enumerate(calls):
                yield from _call(sample, call["function"], tools, f"{group}[{index}].tool_calls[{number}].function")


def _call(sample: Conversation, function: Any, tools: dict[str, Tool], path: str) -> Iterator[InvalidData]:
    name = function["name"]
    tool = tools.get(name)
    if tool is None:
        known = f"the tools are {', '.join(list(tools)[:10])}" if tools else "the record has no tools"
        what = f"the tool {name[:80]!r} is not defined"
        yield problem(sample, f"{path}.name", what, f"add it to `tools`; {known}", "undefined_tool")
        return
    try:
        found = breaches(read_json(function["arguments"]), tool.parameters)
    except TooCostly as error:
        what = f"the schema of {name!r} is not followed: {error}"
        yield problem(sample, f"{path}.arguments", what, "make it simpler", "schema_not_followed")
        return
    for where, what in found[:_TOLD]:
        field = f"{path}.arguments{f'.{where}' if where else ''}"
        yield problem(sample, field, what, f"mend the arguments or the schema of {name!r}", "arguments_schema")
