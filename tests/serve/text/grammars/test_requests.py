"""What requests ask of texts, in each of the forms that clients use."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tunechat.serve.contract.errors import InvalidRequest, Unsupported
from tunechat.serve.text.grammars import read_response_format, read_structured_outputs

from ..dialects.families import accepts

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def takes(text: str, **asked: Any) -> bool:
    structure = read_structured_outputs(asked)
    assert structure is not None
    return accepts(structure.to_grammar(), text, {})


def test_response_formats() -> None:
    assert read_response_format(None) is None and read_response_format({"type": "text"}) is None
    any_object = read_response_format({"type": "json_object"})
    nested = read_response_format({"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}})
    flat = read_response_format({"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}, "text.format")
    assert any_object and nested and flat
    assert accepts(any_object.to_grammar(), '{"x": [{"y": "z"}]}', {}) and not accepts(
        any_object.to_grammar(), "[]", {}
    )
    for structure in (nested, flat):
        assert accepts(structure.to_grammar(), '{"a": 1}', {}) and not accepts(structure.to_grammar(), "{}", {})


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ([], "f.type"),
        ({}, "f.type"),
        ({"type": "xml"}, "f.type"),
        ({"type": "json_schema"}, "f.schema"),
        ({"type": "json_schema", "json_schema": {"name": "n"}}, "f.json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}, "f.json_schema.schema.type"),
        ({"type": "json_schema", "json_schema": {"schema": {"not": {}}}}, "f.json_schema.schema.not"),
    ],
)
def test_wrong_response_formats(value: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_response_format(value, "f")
    assert caught.value.param == param


def test_a_schema_that_is_not_strict_is_followed_as_far_as_it_can_be() -> None:
    loose = read_response_format(
        {"type": "json_schema", "json_schema": {"schema": {**SCHEMA, "not": {}}, "strict": False}}
    )
    assert loose and not accepts(loose.to_grammar(), "{}", {})


def test_structured_outputs() -> None:
    assert read_structured_outputs(None) is None and read_structured_outputs({"json": None}) is None
    assert takes('{"a": 1}', json=SCHEMA) and not takes("{}", json=SCHEMA)
    assert takes('{"a": 1}', json='{"type": "object", "properties": {"a": {}}}') and takes("{}", json_object=True)
    assert takes("yes", choice=["yes", "no"]) and not takes("maybe", choice=["yes", "no"])
    assert takes('"ü"\n😀', choice=['"ü"\n😀']) and takes("ab", choice=["a", "ab"])
    assert takes("12-x/y", regex="[0-9]{2}-x/y") and not takes("a12-x/y", regex="[0-9]{2}-x/y")
    assert takes("abc", regex="^abc$") and takes("a\nb", regex="a\nb")
    assert takes("a1b", grammar='start: "a" /[0-9]/ "b"') and not takes("ab", grammar='start: "a" /[0-9]/ "b"')
    assert takes("a1", grammar='root ::= "a" digit\ndigit ::= [0-9]') and takes("x", grammar='\n\nstart : "x"')
    assert takes("x", grammar='%llguidance {}\nstart: "x"')


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ([], "s"),
        ({"json": {}, "regex": "a"}, "s"),
        ({"xml": 1}, "s.xml"),
        ({"structural_tag": "{}"}, "s.structural_tag"),
        ({"json": "{"}, "s.json"),
        ({"json": "[" * 100_000}, "s.json"),
        ({"json": '"' + "x" * 300_000}, "s.json"),
        ({"json_object": 1}, "s.json_object"),
        ({"regex": "("}, "s.regex"),
        ({"regex": "(?<=a)b"}, "s.regex"),
        ({"regex": 7}, "s.regex"),
        ({"regex": "a" * 5000}, "s.regex"),
        ({"choice": []}, "s.choice"),
        ({"choice": "ab"}, "s.choice"),
        ({"choice": ["a", 1]}, "s.choice"),
        ({"choice": ["\ud800"]}, "s.choice[0]"),
        ({"choice": [str(index) for index in range(10_000)]}, "s.choice"),
        ({"grammar": ""}, "s.grammar"),
        ({"grammar": {"x": 1}}, "s.grammar"),
        ({"grammar": '{"grammars": []}'}, "s.grammar"),
        ({"grammar": "root ::= ("}, "s.grammar"),
        ({"grammar": "x" * 100_000}, "s.grammar"),
        ({"grammar": 'start: "\udc00"'}, "s.grammar"),
    ],
)
def test_wrong_structured_outputs(value: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_structured_outputs(value, "s")
    assert caught.value.param == param
    assert isinstance(caught.value, Unsupported) == (param in ("s.xml", "s.structural_tag"))


HOSTILE = {"parentheses": "(", "blanks": " \n", "literals": '"a" ', "bars": "a|", "rules": "a::=b\n", "quotes": '"\\'}


@pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE)
def test_hostile_grammars_are_read_in_linear_time(piece: str) -> None:
    def best(size: int) -> float:
        times = []
        for _ in range(2):
            start = time.process_time()
            try:
                read_structured_outputs({"grammar": "root ::= " + piece * (size // len(piece))})
            except InvalidRequest as error:
                times.append(time.process_time() - start)
                assert error.param == "structured_outputs.grammar"
            else:
                times.append(time.process_time() - start)
        return min(times)

    assert best(60_000) < 16 * best(10_000) + 0.05


@pytest.mark.parametrize("regex", ["(a+)+$", "(a|a)*b", "(.*a){12}", "((a{1,50}){1,50}){1,50}", "[^x]{1,2000}"])
def test_costly_expressions_end_soon(regex: str) -> None:
    """Taken or refused, within the bounds that the check sets itself."""
    start = time.process_time()
    try:
        read_structured_outputs({"regex": regex})
    except InvalidRequest as error:
        assert error.param == "structured_outputs.regex"
    assert time.process_time() - start < 5
