"""Whether a schema that refers to itself has values that end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from ...contract.errors import InvalidRequest


def check_ends(schema: dict[str, Any] | bool, path: str) -> None:
    """Raise InvalidRequest where every value of the schema would have to hold itself, without end.

    Each schema is found to end once all (allOf, required properties, $ref) or one (anyOf, oneOf) of those it needs do;
    what needs it is looked at again then, so the work is linear in the number of references between schemas.
    """
    if isinstance(schema, bool):
        return
    needs: dict[str, list[list[str]]] = {}
    for place, node in walk(schema, "#"):
        needs[place] = list(_groups(node, place))
    users: dict[str, list[tuple[str, int]]] = {}
    for place, groups in needs.items():
        for index, group in enumerate(groups):
            for needed in group:
                users.setdefault(needed, []).append((place, index))
    open_groups = {place: set(range(len(groups))) for place, groups in needs.items()}
    ready = [place for place, groups in open_groups.items() if not groups]
    ended: set[str] = set(ready)
    while ready:
        for place, index in users.get(ready.pop(), ()):
            open_groups[place].discard(index)
            if not open_groups[place] and place not in ended:
                ended.add(place)
                ready.append(place)
    if "#" not in ended:
        raise InvalidRequest(
            "No value of this schema can end, as each must hold another of itself. Leave the property out of "
            "`required`, or allow null with anyOf.",
            param=path,
        )


def walk(schema: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Every schema in `schema`, with the place where it stands as a JSON pointer."""
    yield place, schema
    if not isinstance(schema, dict):
        return
    for key, item in schema.items():
        if key in ("properties", "patternProperties", "$defs", "definitions"):
            for name, part in item.items():
                yield from walk(part, f"{place}/{key}/{_step(name)}")
        elif key in ("anyOf", "oneOf", "allOf", "prefixItems"):
            for index, part in enumerate(item):
                yield from walk(part, f"{place}/{key}/{index}")
        elif key in ("items", "additionalProperties"):
            yield from walk(item, f"{place}/{key}")


def _groups(node: Any, place: str) -> Iterator[list[str]]:
    """What a value of `node` needs: of each group, one place must end."""
    if not isinstance(node, dict):
        return
    if "$ref" in node:
        yield [unquote(node["$ref"])]
    for key in ("anyOf", "oneOf"):
        if key in node:
            yield [f"{place}/{key}/{index}" for index in range(len(node[key]))]
    for index in range(len(node.get("allOf", ()))):
        yield [f"{place}/allOf/{index}"]
    kind = node.get("type")
    if kind in ("object", ["object"]):
        for name in node.get("required", ()):
            if name in node.get("properties", {}):
                yield [f"{place}/properties/{_step(name)}"]
    if kind in ("array", ["array"]):
        fixed = len(node.get("prefixItems", ()))
        for index in range(min(node.get("minItems", 0), fixed)):
            yield [f"{place}/prefixItems/{index}"]
        if node.get("minItems", 0) > fixed and "items" in node:
            yield [f"{place}/items"]


def _step(name: str) -> str:
    """A name as a step of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")
