"""Sizes for what a schema leaves open, so that the calls of a model that was not trained to make any come to an end."""

from __future__ import annotations

from typing import Any

from ..grammars.keywords import ENFORCED, NAMED_SCHEMAS, SCHEMA, SCHEMAS
from ..grammars.schema import Schema

# Calls of a turn.
MAX_CALLS = 8
# Characters of a string, of one in a list, and of one in a list of lists; there may be as many as the list has values.
MAX_STRINGS = (256, 64, 32)
# Values of a list, members of an object, digits of a whole number.
MAX_ITEMS = 16
MAX_MEMBERS = 8
MAX_DIGITS = 15
_MOST = 10**MAX_DIGITS

# Keywords by whose side a size is not missed: they say themselves what a value may be.
_SETTLED = frozenset({"enum", "const", "$ref", "anyOf", "oneOf", "allOf"})
# Keywords whose schema is that of many values.
_MANY = frozenset({"items", "additionalProperties", "patternProperties"})
_KEY = r"^[^\x00-\x1f\x22\x5c]{1,32}$"
_SCALARS = ("string", "integer", "number", "boolean", "null")


def brief(schema: Schema, depth: int = 0) -> Schema:
    """`schema`, as `read_schema` gives it, with a size for every string, list and object that has none.

    Every text of the result is valid for `schema`. What names its size keeps it, however large. `depth` counts the
    lists and maps around the value.
    """
    if isinstance(schema, bool):
        return _anything(depth) if schema else schema
    copy = {key: _brief_part(key, item, depth + (key in _MANY)) for key, item in schema.items()}
    if copy.keys() & _SETTLED:
        return copy
    if "type" not in copy:
        return copy if copy.keys() - {"$defs", "definitions"} else {**copy, **_anything(depth)}
    types = copy["type"] if isinstance(copy["type"], list) else [copy["type"]]
    for name, sizes in _SIZES.items():
        if name in types:
            sizes(copy, depth)
    return copy


def _brief_part(key: str, item: Any, depth: int) -> Any:
    kind = ENFORCED[key]
    if kind == SCHEMA and not (key == "additionalProperties" and isinstance(item, bool)):
        return brief(item, depth)
    if kind == SCHEMAS:
        return [brief(part, depth) for part in item]
    if kind == NAMED_SCHEMAS:
        return {name: brief(part, depth) for name, part in item.items()}
    return item


def _size_string(schema: dict[str, Any], depth: int) -> None:
    if not schema.keys() & {"maxLength", "pattern", "format"}:
        schema["maxLength"] = max(MAX_STRINGS[min(depth, 2)], schema.get("minLength", 0))


def _size_array(schema: dict[str, Any], depth: int) -> None:
    least = max(schema.get("minItems", 0), len(schema.get("prefixItems", ())))
    schema.setdefault("maxItems", max(MAX_ITEMS, least))
    if schema["maxItems"] > len(schema.get("prefixItems", ())):
        schema.setdefault("items", _anything(depth + 1))


def _size_object(schema: dict[str, Any], depth: int) -> None:
    if not schema.keys() & {"properties", "patternProperties", "additionalProperties"} and not schema.get("required"):
        schema |= _members(depth) | {key: schema[key] for key in ("minProperties", "maxProperties") if key in schema}


def _size_integer(schema: dict[str, Any], depth: int) -> None:
    lower, upper = {"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}
    named = [abs(schema[key]) for key in lower | upper if key in schema]
    if "multipleOf" in schema or max(named, default=0) >= _MOST:
        return
    if not schema.keys() & lower:
        schema["minimum"] = -_MOST
    if not schema.keys() & upper:
        schema["maximum"] = _MOST


_SIZES = {"string": _size_string, "array": _size_array, "object": _size_object, "integer": _size_integer}


def _anything(depth: int) -> dict[str, Any]:
    """Any value at `depth`, of lists and objects down to the second."""
    scalars = [brief({"type": name}, depth) for name in _SCALARS]
    if depth > 1:
        return {"anyOf": scalars}
    members = {"type": "object", **_members(depth)}
    return {"anyOf": [*scalars, {"type": "array", "items": _anything(depth + 1), "maxItems": MAX_ITEMS}, members]}


def _members(depth: int) -> dict[str, Any]:
    """An object's members of any name and value."""
    values = {_KEY: _anything(depth + 1)}
    return {"patternProperties": values, "additionalProperties": False, "maxProperties": MAX_MEMBERS}
