"""How much text a schema forces: what stands in every value of it, from one choice to the next."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote

from ...contract.errors import InvalidRequest
from .patterns import expanded_length

# The engine finds such text to its end in one go, at about a third of a microsecond a character.
MAX_FORCED = 200_000


def check_forced(schema: dict[str, Any] | bool, path: str) -> None:
    """Raise InvalidRequest where a schema may force more text than any answer has. Linear, and without recursion."""
    if _Forcing(schema).of_all().length > MAX_FORCED:
        raise InvalidRequest(
            f"Values of this schema may have to hold more than {MAX_FORCED} given characters; make `minItems`, "
            "constants or the counts in patterns smaller, or write patterns that hold one text together as one.",
            param=path,
        )


class _Forced(NamedTuple):
    """A bound on the characters between two choices, and whether a value may be without any choice.

    `period` bounds what the patterns that hold the same text force together: (aa)* and (aaa)* meet at every sixth.
    """

    length: int
    is_through: bool
    period: int = 1


class _Forcing:
    """What each schema of a document forces, found from the inside out."""

    def __init__(self, root: dict[str, Any] | bool) -> None:
        self._root = root
        self._known: dict[int, _Forced] = {}

    def of_all(self) -> _Forced:
        """The root's, after all it is made of."""
        opened: set[int] = set()
        stack: list[tuple[Any, bool]] = [(self._root, False)]
        while stack:
            node, has_parts = stack.pop()
            if not isinstance(node, dict):
                continue
            if has_parts:
                self._known[id(node)] = self._measure(node)
            elif id(node) not in opened:
                opened.add(id(node))
                stack.append((node, True))
                stack.extend((part, False) for part in self._parts(node))
        return self._of(self._root)

    def _parts(self, node: dict[str, Any]) -> Iterator[Any]:
        for key in ("properties", "patternProperties"):
            yield from node.get(key, {}).values()
        for key in ("allOf", "anyOf", "oneOf", "prefixItems"):
            yield from node.get(key, ())
        for key in ("items", "additionalProperties"):
            if key in node:
                yield node[key]
        if "$ref" in node:
            yield self._at(unquote(node["$ref"]))

    def _of(self, node: Any) -> _Forced:
        """What leads back to itself has a choice on the way, or no value that ends."""
        return self._known.get(id(node), _Forced(0, False))

    def _measure(self, node: dict[str, Any]) -> _Forced:
        parts = [_Forced(2, True)]
        if "const" in node:
            parts.append(_Forced(_written(node["const"]), True))
        if "enum" in node:
            parts.append(_Forced(max(map(_written, node["enum"])), len(node["enum"]) == 1))
        if "pattern" in node:
            parts.append(_Forced(0, True, max(1, expanded_length(node["pattern"]))))
        if "$ref" in node:
            parts.append(self._of(self._at(unquote(node["$ref"]))))
        parts.extend(self._of(part) for part in node.get("allOf", ()))
        parts.extend(self._either(node[key]) for key in ("anyOf", "oneOf") if key in node)
        period = min(MAX_FORCED + 1, math.prod(part.period for part in parts))
        parts.append(_Forced(period - 1, True))
        parts.extend(self._named(node.get("properties", {})))
        parts.extend(self._named(node.get("patternProperties", {})))
        parts.extend(self._of(part) for part in node.get("prefixItems", ()))
        if isinstance(node.get("additionalProperties"), dict):
            parts.append(self._of(node["additionalProperties"]))
        if "items" in node:
            length, is_through, _ = self._of(node["items"])
            parts.append(_Forced(length * max(1, node.get("minItems", 0) if is_through else 1), is_through))
        is_plain = node.keys() <= {"type", "format", "minLength", "maxLength", "$defs", "definitions"}
        is_through = not is_plain and all(part.is_through for part in parts)
        return _Forced(sum(part.length for part in parts), is_through, period)

    def _either(self, options: list[Any]) -> _Forced:
        measured = [self._of(option) for option in options]
        return _Forced(
            max(option.length for option in measured),
            any(option.is_through for option in measured),
            max(option.period for option in measured),
        )

    def _named(self, properties: dict[str, Any]) -> list[_Forced]:
        measured = ((name, self._of(part)) for name, part in properties.items())
        return [_Forced(length + len(name) + 4, is_through) for name, (length, is_through, _) in measured]

    def _at(self, pointer: str) -> Any:
        """The schema that a reference, which was checked, leads to."""
        node: Any = self._root
        for step in pointer.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            node = node[int(name)] if isinstance(node, list) else node[name]
        return node


def _written(value: Any) -> int:
    return len(json.dumps(value))
