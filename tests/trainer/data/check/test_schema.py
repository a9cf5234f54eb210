"""Schemas are followed as jsonschema follows them, and hostile ones within bounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tunechat.trainer.data.check.schema import TooCostly, breaches, same

NAMES = st.sampled_from(["a", "b", "c"])
SMALL = st.integers(-2, 3)
VALUES = st.recursive(
    st.none() | st.booleans() | SMALL | st.sampled_from([0.5, 1.0, "", "ab", "abc", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
TYPES = st.sampled_from(["object", "array", "string", "integer", "number", "boolean", "null"])
COUNTS = st.integers(0, 3)


def keywords(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {},
        optional={
            "type": TYPES | st.lists(TYPES, min_size=1, max_size=2, unique=True),
            "enum": st.lists(VALUES, min_size=1, max_size=3),
            "const": VALUES,
            "properties": st.dictionaries(NAMES, inner, max_size=2),
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "b|c"]), inner, max_size=1),
            "propertyNames": inner,
            "additionalProperties": inner,
            "required": st.lists(NAMES, max_size=2, unique=True),
            "dependentRequired": st.dictionaries(NAMES, st.lists(NAMES, max_size=1), max_size=1),
            "items": inner,
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "contains": inner,
            "uniqueItems": st.booleans(),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
            "if": inner,
            "then": inner,
            "else": inner,
            "$ref": st.just("#/$defs/d"),
            "pattern": st.sampled_from(["^a", "b$", "x|c"]),
            "multipleOf": st.integers(1, 3),
            "minimum": SMALL,
            "maximum": SMALL,
            "exclusiveMinimum": SMALL,
            "exclusiveMaximum": SMALL,
            **{f"{end}{what}": COUNTS for end in ("min", "max") for what in ("Length", "Items", "Properties")},
        },
    )


STRINGS = {"items": {"type": "string"}}
SCHEMAS = st.recursive(st.booleans() | st.just({}), keywords, max_leaves=8)


@settings(max_examples=250)
@given(VALUES, SCHEMAS, keywords(st.booleans()))
def test_agrees_with_jsonschema(value: Any, schema: Any, defined: dict[str, Any]) -> None:
    defined.pop("$ref", None)
    if isinstance(schema, dict):
        schema = {**schema, "$defs": {"d": defined}}
    assert (not breaches(value, schema)) == Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize(
    ("value", "schema", "where", "told"),
    [
        (
            {"a": {"b": ["x", 1]}},
            {"properties": {"a": {"properties": {"b": STRINGS}}}},
            "a.b[1]",
            "string",
        ),
        ({"z": 1}, {"additionalProperties": False}, "z", "no such field"),
        ({}, {"required": ["city"]}, "", "'city' is missing"),
        ("c", {"enum": ["a", "b"]}, "", "one of ['a', 'b']"),
    ],
)
def test_tells_where_and_what(value: Any, schema: Any, where: str, told: str) -> None:
    ((path, what),) = breaches(value, schema)
    assert path == where and told in what


def doubling(depth: int) -> dict[str, Any]:
    """A schema that refers to itself twice a level: 2 to the power of `depth` steps."""
    ways = {f"l{n}": {"allOf": [{"$ref": f"#/$defs/l{n + 1}"}] * 2} for n in range(depth)}
    return {"$ref": "#/$defs/l0", "$defs": {**ways, f"l{depth}": {"type": "string"}}}


def deep(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"not": schema}
    return schema


@pytest.mark.parametrize(
    ("value", "schema", "told"),
    [
        (1, {"$ref": "#"}, "refers to itself"),
        (1, {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}, "refers to itself"),
        (1, deep(5000), "nested"),
        ("x", doubling(20), "steps"),
        ([[n] for n in range(5000)], {"uniqueItems": True}, "steps"),
        ("a" * 40 + "!", {"pattern": "^(a|aa)+$"}, "takes too long"),
        ("x" * 100_000, {"pattern": "x"}, "characters"),
        ("x", {"pattern": "(" * 1000}, "no regular expression"),
        ("x", {"pattern": "x" * 10_000}, "pattern has more"),
        ("x", {"$ref": "http://localhost/schema.json"}, "outside"),
        ("x", {"$ref": "#/$defs/none"}, "refers to nothing"),
    ],
)
def test_hostile_schemas_are_given_up(value: Any, schema: Any, told: str) -> None:
    with pytest.raises(TooCostly, match=told):
        breaches(value, schema)


def test_schemas_that_are_none_hold_anything() -> None:
    for schema in (None, 3, "x", [], {"type": 3, "required": 5, "properties": [], "anyOf": {}, "minimum": "x"}):
        assert breaches({"a": 1}, schema) == []


def test_equality_is_that_of_json() -> None:
    assert same(1, 1.0) and same([{"a": 1}], [{"a": 1.0}])
    assert not same(True, 1) and not same(0, False) and not same([1], [True]) and not same({}, [])
