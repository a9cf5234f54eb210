"""An end for schemas that refer to themselves, so that a model that was not trained to call does not nest for ever."""

from __future__ import annotations

import itertools
from typing import Any
from urllib.parse import unquote

from ...contract.errors import InvalidRequest
from ..grammars.forcing import check_forced
from ..grammars.keywords import ENFORCED, NAMED_SCHEMAS, SCHEMA, SCHEMAS
from ..grammars.schema import Schema
from .references import DEFINITIONS, References, references_of

# How often a value may hold another of its kind inside itself, itself counted.
LEVELS = 4
# Values of a list, and members of a map, whose values go deeper; every level multiplies them.
MAX_BRANCHES = 4

_OF_OBJECTS = ("properties", "patternProperties", "additionalProperties", "required", "minProperties", "maxProperties")
_OF_ARRAYS = ("items", "prefixItems", "minItems", "maxItems")
_KINDS = ("object", "array", "string", "number", "boolean", "null")

_Demands = tuple[frozenset[str], frozenset[str]]


def unrolled(schema: Schema, levels: int = LEVELS) -> Schema:
    """`schema`, as `read_schema` gives it, without references that lead back to where they stand.

    What is referred to is copied once a level, and the last copy has no value where the schema goes on: optional
    properties are not there, lists end before, choices have fewer cases. More levels are taken where the smallest value
    needs them, fewer where the result would be larger than a request may be. Lists and maps of what goes deeper get a
    size where they have none.

    Every text of the result is valid for `schema`, given that the cases of each oneOf exclude each other, which
    llguidance makes sure of. `schema` itself is given back where nothing leads back, or no such form was found.
    """
    if isinstance(schema, bool):
        return schema
    references = References(schema)
    most = references.most_levels()
    if not references.back or most < 1:
        return schema
    # The smallest value holds nothing inside itself again, so it goes back to each place once at the most.
    enough = min(most, max(levels, 1 + len({target for _, target in references.back})))
    count = min(levels, most)
    result = _Copies(references, count).whole()
    while result is False and count < enough:
        count = min(2 * count, enough)
        result = _Copies(references, count).whole()
    try:
        check_forced(result, "")
    except InvalidRequest:
        return schema
    return result if result is not False else schema


class _Copies:
    """The copies of what references lead to, made from the last level up. False is a schema without values."""

    def __init__(self, references: References, levels: int) -> None:
        self._references = references
        self._levels = levels
        self._place = "#"
        self._level = 0
        self._copies: dict[str, Schema] = {}
        self._demands: dict[str, _Demands] = {}
        self._numbers = {place: number for number, place in enumerate(references.order)}

    def whole(self) -> Schema:
        """The root's copy of the first level, with those that it needs as definitions."""
        for level, place in itertools.product(range(self._levels), self._references.order):
            if level == 0 or place in self._references.deep:
                self._level, self._place = level, place
                copy = self._copy(self._references.schemas[place])
                name = self._name(place, level)
                self._copies[name], self._demands[name] = copy, self._demands_of(copy)
        root = self._copies[self._name("#", self._levels - 1)]
        if isinstance(root, bool):
            return root
        needed: dict[str, Schema] = {}
        todo: list[Schema] = [root]
        while todo:
            for reference in references_of(todo.pop()):
                if reference not in needed:
                    needed[reference] = self._copies[reference]
                    todo.append(needed[reference])
        return {**root, "$defs": {name.removeprefix("#/$defs/"): copy for name, copy in needed.items()}}

    def _name(self, place: str, level: int) -> str:
        """The reference to a copy."""
        return f"#/$defs/{self._numbers[place]}-{level if place in self._references.deep else 0}"

    def _copy(self, schema: Schema) -> Schema:
        if isinstance(schema, bool):
            return schema
        copy = {key: self._part(key, item) for key, item in schema.items() if key not in DEFINITIONS}
        for key in ("anyOf", "oneOf"):
            if key in copy:
                copy[key] = [part for part in copy[key] if part is not False]
        if copy.get("$ref") is False or [] in (copy.get("anyOf"), copy.get("oneOf")) or False in copy.get("allOf", ()):
            return False
        self._end_lists(copy, schema)
        self._end_maps(copy, schema)
        impossible = {
            "object": _OF_OBJECTS if _lacks_members(copy, schema) else (),
            "array": _OF_ARRAYS if copy.get("minItems", 0) > copy.get("maxItems", copy.get("minItems", 0)) else (),
        }
        for kind, keys in impossible.items():
            if keys:
                kinds = copy.get("type", list(_KINDS))
                copy["type"] = [name for name in ([kinds] if isinstance(kinds, str) else kinds) if name != kind]
                for key in keys:
                    copy.pop(key, None)
        required, banned = self._demands_of(copy)
        return False if copy.get("type") == [] or required & banned else copy

    def _part(self, key: str, item: Any) -> Any:
        kind = ENFORCED[key]
        if key == "$ref":
            return self._reference(unquote(item))
        if kind == SCHEMA:
            return self._copy(item)
        if kind == SCHEMAS:
            return [self._copy(part) for part in item]
        if kind == NAMED_SCHEMAS:
            return {name: self._copy(part) for name, part in item.items()}
        return item

    def _reference(self, target: str) -> str | bool:
        level = self._level - ((self._place, target) in self._references.back)
        name = self._name(target, level)
        return False if level < 0 or self._copies[name] is False else name

    def _end_lists(self, copy: dict[str, Any], schema: dict[str, Any]) -> None:
        """End lists before the first value that cannot be."""
        prefix = copy.get("prefixItems", [])
        ends = [index for index, part in enumerate(prefix) if part is False]
        if not ends and copy.get("items") is False:
            ends = [len(prefix)]
        if ends:
            copy["maxItems"] = min(ends[0], copy.get("maxItems", ends[0]))
            copy.pop("items", None)
            if prefix[: ends[0]]:
                copy["prefixItems"] = prefix[: ends[0]]
            else:
                copy.pop("prefixItems", None)
        elif "items" in copy and self._references.goes_deeper(schema["items"]):
            copy.setdefault("maxItems", max(MAX_BRANCHES, len(prefix), copy.get("minItems", 0)))

    def _end_maps(self, copy: dict[str, Any], schema: dict[str, Any]) -> None:
        """Give maps of what goes deeper a size; llguidance knows none for objects whose properties are optional."""
        values = [schema.get("additionalProperties", False), *schema.get("patternProperties", {}).values()]
        if "properties" not in schema and any(map(self._references.goes_deeper, values)):
            least = max(copy.get("minProperties", 0), len(copy.get("required", ())))
            copy.setdefault("maxProperties", max(MAX_BRANCHES, least))

    def _demands_of(self, copy: Schema) -> _Demands:
        """The names that an object must have, and those that it cannot have, by all that is said of one value."""
        if isinstance(copy, bool):
            return frozenset(), frozenset()
        parts = [self._demands_of(part) for part in copy.get("allOf", ())]
        if "$ref" in copy:
            parts.append(self._demands[copy["$ref"]])
        impossible = (name for name, part in copy.get("properties", {}).items() if part is False)
        return (
            frozenset(copy.get("required", ())).union(*(required for required, _ in parts)),
            frozenset(impossible).union(*(banned for _, banned in parts)),
        )


def _lacks_members(copy: dict[str, Any], schema: dict[str, Any]) -> bool:
    """Whether no object has all that it needs, or may not: a name may fit a pattern that was taken away."""
    properties = copy.get("properties", {})
    others = [copy.get("additionalProperties", True), *copy.get("patternProperties", {}).values()]
    were = [schema.get("additionalProperties", True), *schema.get("patternProperties", {}).values()]
    is_less = any(now is False and before is not False for now, before in zip(others, were, strict=True))
    if any(properties.get(name, not is_less) is False for name in copy.get("required", ())):
        return True
    # Where others are left, so are enough.
    possible = sum(part is not False for part in properties.values())
    return not any(part is not False for part in others) and possible < copy.get("minProperties", 0)
