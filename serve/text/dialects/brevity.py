"""Sizes for what a schema leaves open, so that the calls of a model that was not trained to make any come to an end."""

from __future__ import annotations

from typing import Any

from ..grammars.keywords import ENFORCED, NAMED_SCHEMAS, SCHEMA, SCHEMAS
from ..grammars.schema import Schema

# Characters of a string, values of a list, members of an object, digits of a whole number.
MAX_STRING = 512
MAX_ITEMS = 32
MAX_MEMBERS = 16
MAX_DIGITS = 15
_MOST = 10**MAX_DIGITS

# Keywords by whose side a size is not missed: they say themselves what a value may be.
_SETTLED = frozenset({"enum", "const", "$ref", "anyOf", "oneOf", "allOf"})
_KEY = r"^[^\x00-\x1f\x22\x5c]{1,48}$"
_SCALARS = ("string", "integer", "number", "boolean", "null")


def brief(schema: Schema) -> Schema:
    """`schema`, as `read_schema` gives it, with a size for every string, list and object that has none.

    Every text of the result is valid for `schema`. What names its size keeps it, however large.
    """
    if isinstance(schema, bool):
        return _anything(2) if schema else schema
    copy: dict[str, Any] = {}
    for key, item in schema.items():
        kind = ENFORCED[key]
        if kind == SCHEMA and not (key == "additionalProperties" and isinstance(item, bool)):
            copy[key] = brief(item)
        elif kind == SCHEMAS:
            copy[key] = [brief(part) for part in item]
        elif kind == NAMED_SCHEMAS:
            copy[key] = {name: brief(part) for name, part in item.items()}
        else:
            copy[key] = item
    if copy.keys() & _SETTLED:
        return copy
    if "type" not in copy:
        return copy if copy.keys() - {"$defs", "definitions"} else {**copy, **_anything(2)}
    types = copy["type"] if isinstance(copy["type"], list) else [copy["type"]]
    for name, sizes in _SIZES.items():
        if name in types:
            sizes(copy)
    return copy


def _size_string(schema: dict[str, Any]) -> None:
    if not schema.keys() & {"maxLength", "pattern", "format"}:
        schema["maxLength"] = max(MAX_STRING, schema.get("minLength", 0))


def _size_array(schema: dict[str, Any]) -> None:
    least = max(schema.get("minItems", 0), len(schema.get("prefixItems", ())))
    schema.setdefault("maxItems", max(MAX_ITEMS, least))
    if schema["maxItems"] > len(schema.get("prefixItems", ())):
        schema.setdefault("items", _anything(2))


def _size_object(schema: dict[str, Any]) -> None:
    if not schema.keys() & {"properties", "patternProperties", "additionalProperties"} and not schema.get("required"):
        schema |= _members(2) | {key: schema[key] for key in ("minProperties", "maxProperties") if key in schema}


def _size_integer(schema: dict[str, Any]) -> None:
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
    """Any value, of lists and objects in `depth` levels at most."""
    scalars = [brief({"type": name}) for name in _SCALARS]
    if not depth:
        return {"anyOf": scalars}
    members = {"type": "object", **_members(depth - 1)}
    return {"anyOf": [*scalars, {"type": "array", "items": _anything(depth - 1), "maxItems": MAX_ITEMS}, members]}


def _members(depth: int) -> dict[str, Any]:
    """An object's members of any name and value."""
    return {"patternProperties": {_KEY: _anything(depth)}, "additionalProperties": False, "maxProperties": MAX_MEMBERS}
