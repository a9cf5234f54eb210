"""Schemas that refer to themselves get an end: nothing wrong gets in, and nothing that fits the levels is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tunechat.serve.contract.errors import InvalidRequest
from tunechat.serve.text.dialects import Tool
from tunechat.serve.text.dialects.brevity import brief
from tunechat.serve.text.dialects.turn_grammar import arguments_rule
from tunechat.serve.text.dialects.unrolling import LEVELS, MAX_BRANCHES, unrolled
from tunechat.serve.text.grammars.attempt import problem_of
from tunechat.serve.text.grammars.bounds import MAX_CHARACTERS, MAX_VALUES
from tunechat.serve.text.grammars.schema import Schema, read_schema
from tunechat.serve.text.grammars.structure import json_rule

from .families import accepts, walk

ROOT = {"$ref": "#"}


def read(schema: Any) -> Schema:
    return read_schema(schema, "s", lenient=True)


def taken(schema: Any, value: Any, levels: int = LEVELS) -> bool:
    return fits(json_rule(unrolled(read(schema), levels)), value)


def fits(rule: str, value: Any) -> bool:
    return accepts(f"start: {rule}", json.dumps(value), {})


def of(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


def nest(inside: Any, count: int, around: Callable[[Any], Any]) -> Any:
    for _ in range(count):
        inside = around(inside)
    return inside


def either(schema: Any) -> dict[str, Any]:
    """That, by way of a reference, or 0."""
    return {"anyOf": [{"$ref": "#/$defs/one"}, {"const": 0}], "$defs": {"one": schema}}


def member(inner: Any) -> Any:
    return {"a": inner}


def listed(inner: Any) -> Any:
    return [inner]


@pytest.mark.parametrize(
    ("schema", "around", "last"),
    [
        (of(a=ROOT), member, {}),
        (of("a", a={"anyOf": [ROOT, {"type": "null"}]}), member, {"a": None}),
        ({"type": "array", "items": ROOT, "maxItems": 1}, listed, []),
        ({"type": "array", "prefixItems": [{"const": 1}, ROOT]}, lambda inner: [1, inner], [1]),
        ({"type": "object", "additionalProperties": ROOT}, member, {}),
        ({"type": "object", "patternProperties": {"^a": ROOT}}, member, {}),
        ({"anyOf": [of("a", a=ROOT), {"const": 0}]}, member, 0),
        ({"anyOf": [{"type": "array", "items": ROOT, "minItems": 1}, {"const": 0}]}, listed, 0),
        ({"properties": {"a": ROOT}, "required": ["a"]}, member, "text"),
        ({**of("a", a=ROOT), "type": ["object", "null"]}, member, None),
        ({"type": ["array", "null"], "items": ROOT, "minItems": 1}, listed, None),
        ({"allOf": [of(a=ROOT), of(b={"const": 1})]}, member, {}),
        ({"anyOf": [{"allOf": [{"properties": {"a": ROOT}}, of("a")]}, {"const": 0}]}, member, 0),
        (of(a={"anyOf": [{**ROOT, "required": ["a"]}, {"const": 0}]}), member, {"a": 0}),
        (either(of("a", a=ROOT)), member, 0),
        (either({"anyOf": [of("a", a=ROOT)]}), member, 0),
        (either({"allOf": [of("a", a=ROOT), of(b=True)]}), member, 0),
        (either({"type": "object", "additionalProperties": ROOT, "required": ["a"]}), member, 0),
        (either({"type": "array", "items": ROOT, "minItems": 1}), listed, 0),
        (either({"type": "object", "additionalProperties": ROOT, "minProperties": 1}), member, 0),
        ({**of(b={"const": 1}), "additionalProperties": ROOT}, member, {}),
        (
            {"type": "object", "additionalProperties": {"anyOf": [ROOT, {"const": 0}]}, "minProperties": 1},
            member,
            {"a": 0},
        ),
        ({"$ref": "#/$defs/x~1%20y", "$defs": {"x/ y": of(a={"$ref": "#/$defs/x~1%20y"})}}, member, {}),
        ({"$ref": "#/definitions/x", "definitions": {"x": of(a={"anyOf": [ROOT, {"const": 0}]})}}, member, {}),
    ],
)
def test_what_holds_itself_comes_to_an_end(schema: dict[str, Any], around: Callable[[Any], Any], last: Any) -> None:
    for depth in range(LEVELS):
        assert taken(schema, nest(last, depth, around)), depth
    assert not taken(schema, nest(last, LEVELS + 1, around))
    assert taken(schema, nest(last, LEVELS + 3, around), levels=LEVELS + 4)


def test_a_pointer_may_lead_into_what_is_around() -> None:
    schema = of(a=of(b={"$ref": "#/properties/a"}), c={"$ref": "#/properties/a/properties/b"})
    for name, most in (("a", LEVELS), ("c", LEVELS - 1)):
        assert taken(schema, {name: nest({}, most, lambda inner: {"b": inner})})
        assert not taken(schema, {name: nest({}, most + 1, lambda inner: {"b": inner})})


def test_what_is_left_out_cannot_come_as_something_else() -> None:
    schema = {"type": "object", "properties": {"a": ROOT}, "patternProperties": {"^b": {"const": 1}}}
    assert taken(schema, nest({"b": 1}, LEVELS - 1, member))
    assert taken(schema, nest({"c": 1}, LEVELS - 1, member))
    assert not taken(schema, nest({"a": 1}, LEVELS - 1, member))


def test_a_name_that_is_demanded_from_elsewhere_may_be_impossible() -> None:
    schema = {**of(a={"$ref": "#/$defs/x"}, b=ROOT), "$defs": {"x": {**ROOT, "required": ["b"]}}}
    assert taken(schema, {"a": {"b": {}}}) and not taken(schema, {"a": {}})


def test_as_many_levels_are_taken_as_the_smallest_value_needs() -> None:
    last = LEVELS + 3
    steps = {f"d{n}": of("up", down={"$ref": f"#/$defs/d{n + 1}"}, up={"$ref": f"#/$defs/d{n - 1}"}) for n in range(9)}
    steps |= {"d0": of(down={"$ref": "#/$defs/d1"}), f"d{last}": of("up", up={"$ref": f"#/$defs/d{last - 1}"})}
    steps = {f"d{n}": steps[f"d{n}"] for n in range(last + 1)}
    schema = {**of("go", first={"$ref": "#/$defs/d0"}, go={"$ref": f"#/$defs/d{last}"}), "$defs": steps}
    assert unrolled(read(schema), 1) != read(schema)
    assert taken(schema, {"go": nest({}, last, lambda inner: {"up": inner})}, levels=1)


def test_what_does_not_lead_back_stays_as_it_is() -> None:
    for schema in (True, {}, {**of(a={"$ref": "#/$defs/x"}), "$defs": {"x": of(b={"$ref": "#/$defs/y"}), "y": True}}):
        whole = read(schema)
        assert unrolled(whole) is whole


def test_lists_and_maps_of_what_goes_deeper_get_a_size() -> None:
    many = [[]] * MAX_BRANCHES
    assert taken({"type": "array", "items": ROOT}, many) and not taken({"type": "array", "items": ROOT}, [*many, []])
    named = {"type": "object", "additionalProperties": ROOT}
    members: dict[str, Any] = {str(n): {} for n in range(MAX_BRANCHES + 1)}
    assert not taken(named, members)
    assert taken({**named, "maxProperties": 9}, members)
    assert taken({"type": "array", "items": ROOT, "maxItems": 9}, [*many, []])
    longer = {"anyOf": [{"type": "array", "items": ROOT, "minItems": MAX_BRANCHES + 1}, {"const": []}]}
    assert taken(longer, [*many, []]) and not taken(longer, [*many, [], []])


@pytest.mark.parametrize(("size", "levels"), [(1 << 16, 3), (1 << 17, 1), (200_000, 1)])
def test_no_more_levels_than_fit(size: int, levels: int) -> None:
    schema = read(of(a=ROOT, b={"type": "string", "enum": [f"{n:0{size // 1000}}" for n in range(1000)]}))
    result = unrolled(schema)
    assert len(json.dumps(result)) <= MAX_CHARACTERS
    assert json.dumps(result).count('"enum"') == levels


def test_many_values_take_fewer_levels() -> None:
    schema = read(of(a=ROOT, b={"enum": list(range(MAX_VALUES // 5))}, **{f"p{n}": True for n in range(4000)}))
    assert json.dumps(unrolled(schema)).count('"enum"') == 2


def test_long_ways_round_take_no_stack() -> None:
    chain = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(2000)} | {"d2000": of(a={"$ref": "#/$defs/d0"})}
    result = unrolled(read({"$ref": "#/$defs/d0", "$defs": chain}))
    assert isinstance(result, dict) and len(result["$defs"]) > 2000 and is_acyclic(result)


TREE = {
    **of("name", name={"type": "string"}, parts={"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2}),
    "additionalProperties": False,
}


def test_only_brief_arguments_end() -> None:
    tool = Tool("f", "", {**of("root", root={"$ref": "#/$defs/tree"}), "$defs": {"tree": TREE}})
    shallow, deep = (
        {"root": nest({"name": "x"}, count, lambda inner: {"name": "x", "parts": [inner]})}
        for count in (LEVELS - 1, LEVELS)
    )
    assert fits(arguments_rule(tool, is_brief=True), shallow) and fits(arguments_rule(tool), shallow)
    assert not fits(arguments_rule(tool, is_brief=True), deep) and fits(arguments_rule(tool), deep)
    assert not fits(arguments_rule(tool, is_brief=True), {"root": {"name": "x" * 300}})


def test_arguments_that_find_no_end_get_sizes() -> None:
    """Where the demand for a name meets a map without values, by way of references."""
    ends = {"$ref": "#/properties/a", "required": ["a"]}
    maps = {"type": "object", "additionalProperties": {"anyOf": [{"$ref": "#/$defs/x"}, {"type": "string"}]}}
    schema = {**of(a=maps, b={"$ref": "#/$defs/x"}), "$defs": {"x": ends}}
    lost = {**of(a={"type": "object", "additionalProperties": {"$ref": "#/$defs/x"}}), "$defs": {"x": ends}}
    assert fits(arguments_rule(Tool("f", "", schema), is_brief=True), {"b": {"a": "text"}})
    whole = read(lost)
    assert not problem_of(f"start: {json_rule(brief(whole))}")
    assert problem_of(f"start: {json_rule(brief(unrolled(whole)))}")
    assert arguments_rule(Tool("f", "", lost), is_brief=True) == json_rule(brief(whole))


def is_acyclic(schema: Any) -> bool:
    """Whether no definition is needed for itself; all references are to `$defs` of the root."""
    needs = {
        name: {part.split('"')[0] for part in json.dumps(each).split('"$ref": "#/$defs/')[1:]}
        for name, each in schema["$defs"].items()
    }
    assert all(names <= needs.keys() for names in needs.values())
    ready = [name for name, names in needs.items() if not names]
    users: dict[str, list[str]] = {}
    for name, names in needs.items():
        for each in names:
            users.setdefault(each, []).append(name)
    for done in ready:
        for user in users.get(done, ()):
            needs[user].discard(done)
            if not needs[user]:
                ready.append(user)
    return len(ready) == len(needs)


_references = ["#", "#/$defs/x", "#/$defs/y", "#/definitions/z", "#/properties/a"]
_leaves = st.sampled_from(
    [
        *({"$ref": reference} for reference in _references * 2),
        *({"type": "integer", "minimum": 0, "maximum": 9}, {"const": "k"}, {"enum": [None, 1]}, {"type": "boolean"}),
        {"$ref": "#/$defs/x", "required": ["a"]},
    ]
)


def _lists(items: Any, prefix: list[Any], least: int, more: int) -> dict[str, Any]:
    rest = {"prefixItems": prefix} if prefix else {}
    return {"type": "array", "items": items, "minItems": least, "maxItems": least + more, **rest}


def _grown(inner: Any) -> Any:
    names, few = st.sampled_from("abc"), st.lists(inner, min_size=1, max_size=2)
    kinds = st.sampled_from([{"type": "object"}, {"type": ["object", "null"]}, {}])
    objects = st.builds(
        lambda kind, parts, required, rest: {**kind, "properties": parts, "required": required, **rest},
        kinds,
        st.dictionaries(names, inner, min_size=1, max_size=3),
        st.lists(names, max_size=2, unique=True),
        st.just({}) | st.builds(lambda rest: {"additionalProperties": rest}, st.just(False) | inner),
    )
    maps = st.builds(
        lambda value, rest: {"type": "object", "patternProperties": {"^a": value}, "additionalProperties": rest},
        inner,
        inner | st.just(False),
    )
    lists = st.builds(_lists, inner, st.lists(inner, max_size=2), st.integers(0, 2), st.integers(0, 2))
    unions = st.builds(lambda key, parts: {key: parts}, st.sampled_from(["anyOf", "anyOf", "allOf"]), few)
    return objects | maps | lists | unions


_nodes = st.recursive(_leaves, _grown, max_leaves=4)
_wholes = st.builds(
    lambda a, b, x, y, z, required: {
        **of(*required, a=a, b=b),
        "$defs": {"x": x, "y": y},
        "definitions": {"z": z},
    },
    *[_nodes] * 5,
    st.lists(st.sampled_from("ab"), max_size=2, unique=True),
)


@given(schema=_wholes, seed=st.integers(0, 999))
@settings(max_examples=80)
def test_what_it_allows_is_valid_for_the_schema(schema: dict[str, Any], seed: int) -> None:
    try:
        whole = read(schema)
    except InvalidRequest:
        assume(False)
    result = unrolled(whole)
    assume(result is not whole)
    assert is_acyclic(result)
    grammar = f"start: {json_rule(brief(result))}"
    text = None if problem_of(grammar) else walk(grammar, seed, limit=200)
    assume(text is not None)
    try:
        jsonschema.validate(json.loads(str(text)), schema)
    except RecursionError:
        # References that lead back to themselves with nothing between take the validator round without end.
        assume(False)
