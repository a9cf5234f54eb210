"""The tools that there are, by name: LangChain tools with what tunechat knows about each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..serve.contract.errors import ConfigError, NotFound
from .records import Permission, ToolSpec

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
MAX_TOOLS = 512
MAX_DESCRIPTION = 4096  # characters


@dataclass(frozen=True, slots=True)
class Entry:
    """One tool: what runs, and what is said about it."""

    tool: BaseTool
    spec: ToolSpec


class Registry:
    """Tools by name. Names are unique, in OpenAI's form: letters, digits, `_` and `-`, at most 64."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def add(
        self,
        tool: BaseTool,
        *,
        origin: str = "builtin",
        permission: Permission = Permission.ASK,
        effects: bool = False,
        parameters: dict[str, Any] | None = None,
    ) -> Entry:
        """Registers `tool`. `parameters` replaces the schema that its arguments have.

        Raises ConfigError for a name that is taken or no name, a missing description, or too many tools.
        """
        if not NAME.fullmatch(tool.name):
            raise ConfigError(
                f"{tool.name[:100]!r} of {origin} is no name of a tool: letters, digits, _ and -, at most 64"
            )
        if taken := self._entries.get(tool.name):
            raise ConfigError(f"{origin} and {taken.spec.origin} both have a tool {tool.name!r}")
        if len(self._entries) >= MAX_TOOLS:
            raise ConfigError(f"there may be {MAX_TOOLS} tools, and {origin} has one more")
        # Characters that are not seen (escapes, directions, tags) would tell a model what its user cannot read.
        words = " ".join((tool.description or "").split())
        description = "".join(character for character in words if character.isprintable())[:MAX_DESCRIPTION]
        if not description:
            raise ConfigError(f"the tool {tool.name!r} of {origin} has no description")
        if description != tool.description:
            tool = tool.model_copy(update={"description": description})
        schema = parameters if parameters is not None else parameters_of(tool)
        entry = Entry(tool, ToolSpec(tool.name, description, schema, origin, permission, effects))
        self._entries[tool.name] = entry
        return entry

    def remove(self, name: str) -> None:
        """Forgets a tool; nothing happens when there is none of that name."""
        self._entries.pop(name, None)

    def get(self, name: str) -> Entry:
        """Raises NotFound that lists what there is."""
        if name not in self._entries:
            raise NotFound(
                f"there is no tool {name[:100]!r}; there are {', '.join(self._entries) or 'none'}", param="name"
            )
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)


def parameters_of(tool: BaseTool) -> dict[str, Any]:
    """The JSON Schema of the tool's arguments, without the titles that pydantic adds."""
    schema = tool.args_schema
    if isinstance(schema, dict):
        return dict(schema)
    plain: Any = tool.tool_call_schema
    cleaned = _untitled(plain if isinstance(plain, dict) else plain.model_json_schema())
    cleaned.pop("description", None)
    cleaned.setdefault("type", "object")
    cleaned.setdefault("properties", {})
    return cleaned


def _untitled(schema: dict[str, Any]) -> dict[str, Any]:
    """A copy without `title` keywords; a property that is called title stays."""
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "title" and isinstance(value, str):
            continue
        if key in {"properties", "$defs"} and isinstance(value, dict):
            result[key] = {
                name: _untitled(inner) if isinstance(inner, dict) else inner for name, inner in value.items()
            }
        elif isinstance(value, dict):
            result[key] = _untitled(value)
        elif isinstance(value, list):
            result[key] = [_untitled(item) if isinstance(item, dict) else item for item in value]
        else:
            result[key] = value
    return result
