"""Tools that a model may call, the calls it makes, and which of them a request asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ...contract.errors import InvalidRequest

MAX_TOOLS = 128
MAX_DESCRIPTION = 1 << 14
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")


@dataclass(frozen=True, slots=True)
class Tool:
    """One function: its name, what it does, and the JSON Schema of its arguments (of type object).

    `strict` promises that arguments match the schema in every detail, or that the request is refused; else they match
    as far as the schema can be followed, and are a JSON object in any case. `path` is where the request has the tool.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    strict: bool = False
    path: str = "tools"

    def definition(self) -> dict[str, Any]:
        """The tool as OpenAI writes it and as chat templates expect it."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Call:
    """One call: the tool's name and the JSON text of an object, the arguments."""

    name: str
    arguments: str = "{}"

    @staticmethod
    def of(name: str, arguments: Mapping[str, Any]) -> Call:
        """A call from arguments that are a mapping."""
        return Call(name, json.dumps(dict(arguments), ensure_ascii=False))

    def value(self) -> dict[str, Any]:
        """The arguments as a dict. Raises ValueError where they are not a JSON object."""
        try:
            value = json.loads(self.arguments or "{}", parse_constant=_refuse)
        except RecursionError as error:
            raise ValueError("the arguments are nested too deeply") from error
        if not isinstance(value, dict):
            raise ValueError("the arguments are not a JSON object")
        return value

    def canonical(self) -> str:
        """The arguments as models are trained to write them: one line, a blank after commas and colons."""
        return json.dumps(self.value(), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether the turn may (`auto`), must (`required`) or must not (`none`) call, and which tools alone (None: any)."""

    mode: Literal["none", "auto", "required"] = "auto"
    names: frozenset[str] | None = None

    @staticmethod
    def named(name: str) -> ToolChoice:
        """The one tool `name` must be called."""
        return ToolChoice("required", frozenset({name}))

    def of(self, tools: Sequence[Tool]) -> tuple[Tool, ...]:
        """Those of `tools` that may be called. Raises InvalidRequest for a name that is none of them."""
        if self.mode == "none":
            return ()
        known = {tool.name for tool in tools}
        for name in sorted(self.names or ()):
            if name not in known:
                raise InvalidRequest(f"tool_choice names {name!r}, which is not one of the tools.", param="tool_choice")
        chosen = tuple(tool for tool in tools if self.names is None or tool.name in self.names)
        if self.mode == "required" and not chosen:
            raise InvalidRequest("tool_choice asks for a call, but the request has no tools.", param="tool_choice")
        return chosen


def read_tools(values: Sequence[Any], *, param: str = "tools") -> tuple[Tool, ...]:
    """Tools from OpenAI's `tools`. Raises InvalidRequest, with the path of the field, for what is wrong with one.

    The schema of the parameters is not looked into here; making a grammar of it does that.
    """
    if len(values) > MAX_TOOLS:
        raise InvalidRequest(f"A request may have {MAX_TOOLS} tools; this one has {len(values)}.", param=param)
    tools: dict[str, Tool] = {}
    for index, value in enumerate(values):
        tool = _read_tool(value, f"{param}[{index}]")
        if tool.name in tools:
            raise InvalidRequest(f"Two tools are named {tool.name!r}.", param=f"{param}[{index}].function.name")
        tools[tool.name] = tool
    return tuple(tools.values())


def _read_tool(value: Any, path: str) -> Tool:
    function = value.get("function") if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or value.get("type", "function") != "function":
        raise InvalidRequest('A tool must be an object of type "function".', param=f"{path}.type")
    if not isinstance(function, Mapping):
        raise InvalidRequest("A tool must have an object `function`.", param=f"{path}.function")
    path += ".function"
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidRequest(
            "A tool's name must have 1 to 128 characters: letters of ASCII, digits, `_` and `-`.", param=f"{path}.name"
        )
    description = function.get("description") or ""
    if not isinstance(description, str) or len(description) > MAX_DESCRIPTION:
        raise InvalidRequest(
            f"A tool's description must be a string of at most {MAX_DESCRIPTION} characters.",
            param=f"{path}.description",
        )
    strict = function.get("strict") or False
    if not isinstance(strict, bool):
        raise InvalidRequest("`strict` must be true or false.", param=f"{path}.strict")
    return Tool(name, description, _parameters(function.get("parameters"), f"{path}.parameters"), strict, path)


def _parameters(value: Any, path: str) -> dict[str, Any]:
    if not value:
        return {"type": "object", "properties": {}}
    if not isinstance(value, Mapping) or value.get("type", "object") != "object":
        raise InvalidRequest('A tool\'s parameters must be a JSON Schema of type "object".', param=path)
    return {"type": "object", **value}


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
