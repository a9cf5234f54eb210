"""Schemas of requests: what passes is held in full, what cannot be held is refused with its place."""

from __future__ import annotations

import json
import time
from typing import Any

import jsonschema
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer

from tunechat.serve.contract.errors import InvalidRequest
from tunechat.serve.text.grammars import read_schema
from tunechat.serve.text.grammars.bounds import MAX_DEPTH
from tunechat.serve.text.grammars.structure import json_rule

from ..dialects.families import accepts, walk


def grammar(schema: Any, **options: bool) -> str:
    return f"start: {json_rule(read_schema(schema, 's', **options))}"


def holds(schema: Any, value: Any, **options: bool) -> bool:
    return accepts(grammar(schema, **options), json.dumps(value), {})


def refused(schema: Any) -> tuple[str | None, str]:
    with pytest.raises(InvalidRequest) as caught:
        read_schema(schema, "s")
    return caught.value.param, str(caught.value)


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        (True, [1, "a", {"b": None}], []),
        ({}, [1, {}], []),
        ({"type": "integer", "minimum": 1, "exclusiveMaximum": 4}, [1, 3], [0, 4, "1", 1.5]),
        ({"type": ["string", "null"]}, ["a", None], [1]),
        ({"enum": ["a", 1, None]}, ["a", 1, None], ["b", 2]),
        ({"const": {"a": [1]}}, [{"a": [1]}], [{"a": [2]}]),
        ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "abc"], ["a", "abcd"]),
        ({"type": "string", "pattern": "^[a-c]+$"}, ["abc"], ["abd", ""]),
        ({"type": "string", "format": "date"}, ["2024-02-29"], ["today"]),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2}, [[1], [1, 2]], [[], [1, 2, 3]]),
        ({"type": "array", "prefixItems": [{"type": "integer"}], "items": False}, [[1]], [["a"], [1, 2]]),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, [1, "a"], [None]),
        ({"properties": {"a": {"type": "integer"}}, "type": "object"}, [{}, {"a": 1}], [{"a": "x"}, {"b": 1}]),
        ({"properties": {"a": {}}, "additionalProperties": True, "type": "object"}, [{"a": 1, "b": 2}], [[]]),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, [{"x": 1}], [{"x": "a"}]),
        ({"type": "object", "required": ["a"]}, [{"a": 1}], [{}]),
        ({"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}, "type": "object"}]}, [{"a": 1, "b": 2}], [[]]),
        ({"$ref": "#/$defs/x~1y", "$defs": {"x/y": {"type": "integer"}}}, [1], ["a"]),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, [1, "a"], [None]),
    ],
)
def test_what_passes_is_held(schema: Any, right: list[Any], wrong: list[Any]) -> None:
    for value in right:
        assert holds(schema, value), value
        jsonschema.validate(value, schema)
    for value in wrong:
        assert not holds(schema, value), value


def test_objects_with_named_properties_have_no_others_unless_they_say_so() -> None:
    """Also where properties are spread over several schemas, which closing one of would make impossible."""
    spread = {"type": "object", "properties": {"a": {}}, "anyOf": [{"properties": {"b": {}}, "required": ["b"]}]}
    assert holds(spread, {"a": 1, "b": 2})
    base = {"$defs": {"base": {"type": "object", "properties": {"a": {}}, "required": ["a"]}}}
    assert holds({**base, "allOf": [{"$ref": "#/$defs/base"}, {"properties": {"b": {}}}]}, {"a": 1, "b": 2})
    assert not holds(
        {"type": "object", "properties": {"a": {"properties": {"b": {}}, "type": "object"}}}, {"a": {"c": 1}}
    )


def test_words_about_a_value_change_nothing() -> None:
    words = {
        "title": "T",
        "description": "D",
        "default": 3,
        "examples": [1],
        "$comment": "c",
        "$schema": "http://x",
        "x-y": 1,
    }
    ids = {"$id": "http://x/y", "deprecated": True, "readOnly": True, "nullable": True, "discriminator": {"a": "b"}}
    assert read_schema({**words, **ids, "type": "integer"}, "s") == {"type": "integer"}


def test_no_schema_can_loosen_the_rules() -> None:
    loose = {"x-guidance": {"lenient": True, "whitespace_flexible": True}, "type": "object", "properties": {"a": {}}}
    assert "x-guidance" not in read_schema(loose, "s")
    assert not accepts(grammar(loose), '{   "a":1}', {})
    assert accepts(grammar(loose), '{\n  "a": 1\n}', {})


@pytest.mark.parametrize(
    ("schema", "param"),
    [
        ({"type": "foo"}, "s.type"),
        ({"type": []}, "s.type"),
        ({"type": None}, "s.type"),
        ({"pattern": "(?:"}, "s.pattern"),
        ({"pattern": 1}, "s.pattern"),
        ({"pattern": "a" * 3000}, "s.pattern"),
        ({"properties": {"a": {"pattern": "(?=b)"}}}, "s.properties.a.pattern"),
        ({"pattern": r"(a)\1"}, "s.pattern"),
        ({"patternProperties": {"(": {}}}, "s.patternProperties.("),
        ({"format": "zip"}, "s.format"),
        ({"items": [{}]}, "s.items"),
        ({"items": 1}, "s.items"),
        ({"anyOf": []}, "s.anyOf"),
        ({"anyOf": [{}, {"enum": []}]}, "s.anyOf[1].enum"),
        ({"properties": []}, "s.properties"),
        ({"required": "a"}, "s.required"),
        ({"minLength": -1}, "s.minLength"),
        ({"minLength": True}, "s.minLength"),
        ({"maxItems": 10**9}, "s.maxItems"),
        ({"minimum": "1"}, "s.minimum"),
        ({"exclusiveMinimum": True}, "s.exclusiveMinimum"),
        ({"multipleOf": 0}, "s.multipleOf"),
        ({"multipleOf": 1e-300}, "s.multipleOf"),
        ({"multipleOf": 1e9}, "s.multipleOf"),
        ({"minimum": 10**30}, "s.minimum"),
        ({"minimum": float("inf")}, "s.minimum"),
        ({"const": float("nan")}, "s.const"),
        ({"const": "\ud800"}, "s.const"),
        ({"properties": {"\udfff": {}}}, "s.properties"),
        ({"$ref": "http://169.254.169.254/x"}, "s.$ref"),
        ({"$ref": "file:///etc/passwd"}, "s.$ref"),
        ({"$ref": "#/$defs/none"}, "s.$ref"),
        ({"$ref": "#/components/x", "components": {"x": {}}}, "s.$ref"),
        ({"not": {}}, "s.not"),
        ({"if": {}, "then": {"type": "string"}}, "s.if"),
        ({"contains": {}}, "s.contains"),
        ({"uniqueItems": True}, "s.uniqueItems"),
        ({"dependentRequired": {"a": ["b"]}}, "s.dependentRequired"),
        ({"propertyNames": {"maxLength": 3}}, "s.propertyNames"),
        ({"unevaluatedProperties": False}, "s.unevaluatedProperties"),
        ({"$ref": "#"}, "s"),
        ({"allOf": [{"$ref": "#"}]}, "s"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "s"),
        ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, "s"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "s"),
        ([], "s"),
        ("x", "s"),
    ],
)
def test_what_cannot_be_held_is_refused_with_its_place(schema: Any, param: str) -> None:
    assert refused(schema)[0] == param


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["next"]},
        {"type": "array", "items": {"$ref": "#"}},
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
        {"uniqueItems": False, "unevaluatedProperties": True, "dependentRequired": {}},
    ],
)
def test_what_ends_is_allowed(schema: Any) -> None:
    assert not LLMatcher.validate_grammar(grammar(schema))


def test_lenient_leaves_out_what_cannot_be_held() -> None:
    wild = {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "not": {"const": 1}, "multipleOf": 1e-9},
            "b": {"type": "string", "pattern": "(?=x)", "format": "zip"},
            "c": {"type": "array", "items": [{}], "maxItems": 10**9, "uniqueItems": True},
        },
    }
    kept = read_schema(wild, "s", lenient=True)
    assert kept == {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "string"}, "c": {"type": "array"}},
        "additionalProperties": False,
    }
    assert read_schema({"oneOf": [{}, {}]}, "s", lenient=True) == {"anyOf": [{}, {}]}
    for wrong in ({"type": "foo"}, {"$ref": "#"}, {"anyOf": []}):
        with pytest.raises(InvalidRequest):
            read_schema(wrong, "s", lenient=True)


def nested(levels: int) -> Any:
    schema: Any = {}
    for _ in range(levels):
        schema = {"properties": {"a": schema}}
    return schema


def test_sizes_have_bounds() -> None:
    assert refused(nested(5000))[0] == "s"
    assert "levels" in refused(nested(MAX_DEPTH))[1]
    assert not LLMatcher.validate_grammar(grammar(nested(MAX_DEPTH // 2 - 1)))
    assert "large" in refused({"enum": [str(index) for index in range(10**5)]})[1]
    assert refused({"enum": list(range(6000))})[0] == "s.enum"
    assert "large" in refused({"description": "x" * 300_000})[1]
    assert refused({"properties": {f"p{index}": True for index in range(6000)}})[0] == "s.properties"
    many = {"properties": {f"p{index}": {"pattern": f"a{index}"} for index in range(300)}}
    assert "patterns" in refused(many)[1]


@pytest.mark.parametrize(
    "make",
    [
        lambda size: {"properties": {f"p{index}": {"type": "string"} for index in range(size)}},
        lambda size: {"anyOf": [{"$ref": "#/$defs/a"}] * size, "$defs": {"a": {"type": "null"}}},
        lambda size: {"$defs": {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(size)} | {f"d{size}": {}}},
        lambda size: {"enum": ["x" * 20] * size},
    ],
)
def test_the_work_is_linear(make: Any) -> None:
    def best(size: int) -> float:
        schema, times = make(size), []
        for _ in range(3):
            start = time.process_time()
            read_schema(schema, "s")
            times.append(time.process_time() - start)
        return min(times)

    small, large = best(600), best(3000)
    assert large < 12 * small + 0.02


keywords = st.sampled_from(
    [
        "type",
        "enum",
        "const",
        "properties",
        "required",
        "items",
        "anyOf",
        "allOf",
        "oneOf",
        "$ref",
        "$defs",
        "not",
        "pattern",
        "format",
        "minLength",
        "maximum",
        "multipleOf",
        "additionalProperties",
        "prefixItems",
        "minItems",
    ]
)
scalars = st.sampled_from(["object", "string", "integer", "array", "#", "#/$defs/a", "a", 0, 1, 2.5, True, False, None])
wild_schemas = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keywords | st.just("a"), inner, max_size=4),
    max_leaves=12,
)


@given(schema=wild_schemas, lenient=st.booleans())
@settings(max_examples=150)
def test_any_schema_is_read_or_refused(schema: Any, lenient: bool) -> None:
    try:
        rule = grammar(schema, lenient=lenient)
    except InvalidRequest as error:
        assert str(error.param).startswith("s")
    else:
        matcher = LLMatcher.validate_grammar(rule)
        assert isinstance(matcher, str)


SCHEMAS = [
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": [1, "x"]}}, "required": ["b"]},
    {"type": "array", "items": {"type": "string", "maxLength": 4}, "minItems": 1, "maxItems": 3},
    {"type": "object", "properties": {"n": {"$ref": "#"}, "v": {"type": "number", "minimum": -2, "maximum": 2}}},
    {"anyOf": [{"type": "boolean"}, {"type": "array", "items": {"$ref": "#"}, "maxItems": 2}]},
    {"type": "object", "additionalProperties": {"type": ["integer", "null"]}},
    {"type": "string", "format": "date-time"},
]


@given(schema=st.sampled_from(SCHEMAS), seed=st.integers(0, 1 << 30))
@settings(max_examples=40)
def test_whatever_a_grammar_gives_is_valid(schema: Any, seed: int) -> None:
    text = walk(grammar(schema), seed, limit=300)
    assume(text is not None and "\ufffd" not in text)
    jsonschema.validate(json.loads(str(text)), schema)


@pytest.mark.parametrize(
    ("counts", "fits"), [((2, 3), True), ((97, 89), True), ((2, 3, 5, 7, 11, 13), False), ((997, 991), False)]
)
def test_patterns_that_hold_one_text_together_have_a_bound(counts: tuple[int, ...], fits: bool) -> None:
    """(a{2})* and (a{3})* meet at every sixth: the text that both force is as long as their product."""
    patterns: list[dict[str, Any]] = [{"pattern": f"^(a{{{count}}})*$"} for count in counts]
    schema = {"type": "object", "properties": {"x": {"allOf": patterns[1:], **patterns[0], "type": "string"}}}
    if fits:
        read_schema(schema, "schema")
        return
    with pytest.raises(InvalidRequest, match="write patterns that hold one text together as one"):
        read_schema(schema, "schema")


def test_what_a_schema_forces_has_a_bound() -> None:
    long = {"type": "array", "items": {"const": "x" * 100}, "minItems": 9_000}
    assert "minItems" in refused(long)[1]
    assert (
        "minItems" in refused({"type": "array", "items": {"$ref": "#/$defs/a"}, "minItems": 9, "$defs": {"a": long}})[1]
    )
    assert read_schema({**long, "items": {"type": "string"}}, "s")
    assert read_schema({**long, "minItems": 1_000}, "s")
    chain = {f"d{at}": {"$ref": f"#/$defs/d{at + 1}"} for at in range(3_000)} | {"d3000": long}
    assert "minItems" in refused({"$ref": "#/$defs/d0", "$defs": chain})[1]


@given(schema=wild_schemas, seed=st.integers(0, 99))
@settings(max_examples=60)
def test_whatever_compiles_has_a_first_token(schema: Any, seed: int) -> None:
    """No schema that is taken sends a matcher into an error that is not one of the grammar."""
    try:
        rule = grammar(schema)
    except InvalidRequest:
        return
    matcher = LLMatcher(LLTokenizer("byte"), rule, log_level=0)
    if not matcher.is_error():
        matcher.compute_bitmask()
    assert "panic" not in matcher.get_error()
