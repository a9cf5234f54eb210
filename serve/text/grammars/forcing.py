"""How much text a schema forces: what stands in every value of it, from one choice to the next."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from ...contract.errors import InvalidRequest
from .patterns import expanded_length

# The engine finds such text to its end in one go, at about a third of a microsecond a character.
MAX_FORCED = 200_000


def check_forced(schema: dict[str, Any] | bool, path: str) -> None:
    """Raise InvalidRequest where a schema may force more text than any answer has. Linear, and without recursion."""
    length, _ = _Forcing(schema).of_all()
    if length > MAX_FORCED:
        raise InvalidRequest(
            f"Values of this schema may have to hold more than {MAX_FORCED} given characters; make `minItems`, "
            "constants or the counts in patterns smaller.",
            param=path,
        )


class _Forcing:
    """A bound on the characters between two choices, and whether a value may be without any choice."""

    def __init__(self, root: dict[str, Any] | bool) -> None:
        self._root = root
        self._known: dict[int, tuple[int, bool]] = {}

    def of_all(self) -> tuple[int, bool]:
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

    def _of(self, node: Any) -> tuple[int, bool]:
        """What leads back to itself has a choice on the way, or no value that ends."""
        return self._known.get(id(node), (0, False))

    def _measure(self, node: dict[str, Any]) -> tuple[int, bool]:
        parts = [(2, True)]
        if "const" in node:
            parts.append((_written(node["const"]), True))
        if "enum" in node:
            parts.append((max(map(_written, node["enum"])), len(node["enum"]) == 1))
        if "pattern" in node:
            parts.append((expanded_length(node["pattern"]), True))
        if "$ref" in node:
            parts.append(self._of(self._at(unquote(node["$ref"]))))
        parts.extend(self._of(part) for part in node.get("allOf", ()))
        parts.extend(self._either(node[key]) for key in ("anyOf", "oneOf") if key in node)
        parts.extend(self._named(node.get("properties", {})))
        parts.extend(self._named(node.get("patternProperties", {})))
        parts.extend(self._of(part) for part in node.get("prefixItems", ()))
        if isinstance(node.get("additionalProperties"), dict):
            parts.append(self._of(node["additionalProperties"]))
        if "items" in node:
            length, is_through = self._of(node["items"])
            parts.append((length * max(1, node.get("minItems", 0) if is_through else 1), is_through))
        is_plain = node.keys() <= {"type", "format", "minLength", "maxLength", "$defs", "definitions"}
        return sum(length for length, _ in parts), not is_plain and all(is_through for _, is_through in parts)

    def _either(self, options: list[Any]) -> tuple[int, bool]:
        measured = [self._of(option) for option in options]
        return max(length for length, _ in measured), any(is_through for _, is_through in measured)

    def _named(self, properties: dict[str, Any]) -> list[tuple[int, bool]]:
        measured = ((name, self._of(part)) for name, part in properties.items())
        return [(length + len(name) + 4, is_through) for name, (length, is_through) in measured]

    def _at(self, pointer: str) -> Any:
        """The schema that a reference, which was checked, leads to."""
        node: Any = self._root
        for step in pointer.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            node = node[int(name)] if isinstance(node, list) else node[name]
        return node


def _written(value: Any) -> int:
    return len(json.dumps(value))
