"""Sizes for what a schema leaves open: nothing wrong gets in, nothing stays without end, and what is named is kept."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunechat.serve.text.dialects import Tool
from tunechat.serve.text.dialects.brevity import MAX_DIGITS, MAX_ITEMS, MAX_MEMBERS, MAX_STRINGS, brief
from tunechat.serve.text.dialects.turn_grammar import arguments_rule
from tunechat.serve.text.grammars.schema import read_schema
from tunechat.serve.text.grammars.structure import json_rule

from .families import NAMES, accepts, dialect_of, walk

LONG = "a" * (MAX_STRINGS[0] + 1)


def taken(schema: Any, value: Any) -> bool:
    rule = json_rule(brief(read_schema(schema, "s", lenient=True)))
    return accepts(f"start: {rule}", json.dumps(value, ensure_ascii=False), {})


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    ("schema", "fits", "too_large"),
    [
        ({"type": "string"}, LONG[1:], LONG),
        ({"type": ["string", "null"]}, None, LONG),
        ({"type": "string", "maxLength": 9}, "a" * 9, "a" * 10),
        ({"type": "array", "items": {"type": "integer"}}, [1] * MAX_ITEMS, [1] * (MAX_ITEMS + 1)),
        ({"type": "array"}, [["a"], {"b": 1}], [LONG]),
        ({"type": "array", "prefixItems": [{"type": "string"}]}, ["a", 2], [LONG]),
        ({"type": "object"}, {"é ü": {"b": None}, "c": [1]}, {str(n): n for n in range(MAX_MEMBERS + 1)}),
        ({"type": "object", "additionalProperties": {"type": "string"}}, {"a": "b"}, {"a": LONG}),
        ({"type": "array", "items": {"type": "string"}}, ["a" * MAX_STRINGS[1]], ["a" * (MAX_STRINGS[1] + 1)]),
        (
            {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}},
            {"k": ["a" * MAX_STRINGS[2]]},
            {"k": ["a" * (MAX_STRINGS[2] + 1)]},
        ),
        ({}, {"a": ["b", 1.5, True]}, LONG),
        (True, "x", LONG),
        ({"type": "integer"}, -(10**MAX_DIGITS), 10 ** (MAX_DIGITS + 1)),
        ({"type": "integer", "maximum": 7}, 7, -(10 ** (MAX_DIGITS + 1))),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, 3, LONG),
        ({"$ref": "#/properties/v/$defs/a", "$defs": {"a": {"type": "string"}}}, "a", LONG),
    ],
)
def test_what_is_open_gets_a_size(schema: Any, fits: Any, too_large: Any) -> None:
    assert taken(of(v=schema), {"v": fits})
    assert not taken(of(v=schema), {"v": too_large})


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string", "maxLength": 2000}, "a" * 2000),
        ({"type": "string", "minLength": 600}, "a" * 600),
        ({"type": "string", "enum": [LONG]}, LONG),
        ({"const": LONG}, LONG),
        ({"type": "string", "pattern": "^a*$"}, LONG),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 100}, [1] * 100),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 40}, [1] * 40),
        ({"type": "integer", "minimum": 10**17}, 10**17),
        ({"type": "integer", "exclusiveMaximum": -(10**17)}, -(10**17) - 1),
        ({"type": "integer", "multipleOf": 10}, 10**16),
        ({"type": "number"}, 12.5e30),
    ],
)
def test_what_is_named_keeps_its_size(schema: Any, value: Any) -> None:
    assert taken(of(v=schema), {"v": value})


@pytest.mark.parametrize("name", NAMES)
def test_the_form_of_no_other_dialect_is_brief(name: str) -> None:
    assert dialect_of(name).form.brief == dialect_of(name, special=False).form.brief == (name == "generic")


def test_only_the_generic_form_is_brief() -> None:
    tool = Tool("f", "", of(s={"type": "string"}))
    assert f'"maxLength": {MAX_STRINGS[0]}' in arguments_rule(tool, is_brief=True)
    assert "maxLength" not in arguments_rule(tool)


_leaves = st.sampled_from(
    [{}, {"type": "string"}, {"type": "integer", "minimum": 3}, {"type": "array"}, {"type": "object"}, {"enum": [1]}]
)
_schemas = st.recursive(
    _leaves,
    lambda inner: (
        st.builds(lambda parts: of(**parts), st.dictionaries(st.sampled_from("abc"), inner, max_size=3))
        | st.builds(lambda item: {"type": "array", "items": item}, inner)
        | st.builds(lambda parts: {"anyOf": parts}, st.lists(inner, min_size=1, max_size=2))
    ),
    max_leaves=5,
)


@given(schema=st.dictionaries(st.sampled_from("abc"), _schemas, min_size=1, max_size=3), seed=st.integers(0, 999))
@settings(max_examples=25)
def test_what_it_allows_is_valid_for_the_schema(schema: dict[str, Any], seed: int) -> None:
    whole = of(**schema) | {"required": random.Random(seed).sample(sorted(schema), 1)}
    text = walk(f"start: {json_rule(brief(read_schema(whole, 's', lenient=True)))}", seed, limit=200)
    if text is not None:
        jsonschema.validate(json.loads(text), whole)
