"""Shapes of text by every field that can ask for one, on both routes; refusals name the field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer

from tunechat.serve.contract.errors import ErrorRecord
from tunechat.tests.serve.api.conftest import Serve
from tunechat.tests.serve.api.harness import chat, completion

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
ROUTES = {"/v1/chat/completions": chat, "/v1/completions": completion}
GOOD: dict[str, tuple[dict[str, Any], str, str]] = {
    "json_object": ({"response_format": {"type": "json_object"}}, '{"b": [1]}', "[1]"),
    "json_schema": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
        '{"a": 1}',
        '{"a": "1"}',
    ),
    "json": ({"structured_outputs": {"json": SCHEMA}}, '{"a": 1}', '{"b": 1}'),
    "regex": ({"structured_outputs": {"regex": "[ab]{2}"}}, "ab", "abc"),
    "choice": ({"structured_outputs": {"choice": ["yes", "no"]}}, "no", "maybe"),
    "grammar": ({"structured_outputs": {"grammar": 'start: "x" | "y"'}}, "y", "z"),
    "guided_json": ({"guided_json": json.dumps(SCHEMA)}, '{"a": 1}', '{"b": 1}'),
    "guided_regex": ({"guided_regex": "[ab]{2}"}, "ab", "abc"),
    "guided_choice": ({"guided_choice": ["yes", "no"]}, "no", "maybe"),
    "guided_grammar": ({"guided_grammar": 'root ::= "x" | "y"'}, "y", "z"),
}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "kind": ({"response_format": {"type": "xml"}}, "response_format.type"),
    "no object": ({"response_format": "json"}, "response_format"),
    "keyword": (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}},
        "response_format.json_schema.schema.not",
    ),
    "pattern": ({"structured_outputs": {"regex": "(?:"}}, "structured_outputs.regex"),
    "unknown": ({"structured_outputs": {"structural_tag": "x"}}, "structured_outputs.structural_tag"),
    "two": ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs"),
    "two fields": ({"guided_regex": "a", "response_format": {"type": "json_object"}}, "guided_regex"),
    "guided": ({"guided_json": "{{ 1 }}"}, "guided_json"),
    "guided keyword": ({"guided_json": {"properties": {"a": {"not": {}}}}}, "guided_json.properties.a.not"),
    "guided type": ({"guided_choice": [1]}, "guided_choice[0]"),
}


def allows(grammar: str, text: str) -> bool:
    """Whether `text` is a whole sentence of the grammar."""
    tokenizer = LLTokenizer("byte")
    matcher = LLMatcher(tokenizer, grammar)
    assert not matcher.get_error()
    return matcher.try_consume_tokens(list(text.encode())) == len(text) and matcher.is_accepting()


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("case", GOOD)
async def test_the_engine_is_given_the_shape(serve: Serve, route: str, case: str) -> None:
    fields, right, wrong = GOOD[case]
    served = await serve({"answer": right})
    response = await served.client.post(route, json=ROUTES[route](**fields))
    assert response.status_code == 200
    (choice,) = response.json()["choices"]
    assert (choice["message"]["content"] if "message" in choice else choice["text"]) == right
    grammar = served.engine.submitted[0][1].grammar
    assert allows(grammar, right)
    assert not allows(grammar, wrong)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("case", BAD)
async def test_what_cannot_be_held_is_refused_with_its_place(serve: Serve, route: str, case: str) -> None:
    fields, param = BAD[case]
    served = await serve()
    response = await served.client.post(route, json=ROUTES[route](**fields))
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert not served.engine.submitted


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("fields", [{}, {"response_format": {"type": "text"}}, {"structured_outputs": {}}])
async def test_any_text_needs_no_grammar(serve: Serve, route: str, fields: dict[str, Any]) -> None:
    served = await serve()
    assert (await served.client.post(route, json=ROUTES[route](**fields))).status_code == 200
    assert served.engine.submitted[0][1].grammar == ""


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"structured_outputs": {"grammar": "start: nothing"}}, "structured_outputs"),
        ({"guided_grammar": "start: nothing"}, "guided_grammar"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_the_engine_refuses_names_the_field(
    serve: Serve, fields: dict[str, Any], param: str, stream: bool
) -> None:
    refusal = ErrorRecord(code="invalid_grammar", message="the grammar cannot be used", http_status=400)
    served = await serve({"faults": {0: refusal}})
    response = await served.client.post("/v1/chat/completions", json=chat(**fields, stream=stream))
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("invalid_grammar", param)


async def test_a_field_that_asks_for_no_grammar_is_not_blamed(serve: Serve) -> None:
    refusal = ErrorRecord(code="engine_failed", message="the engine died", http_status=503)
    served = await serve({"faults": {0: refusal}})
    response = await served.client.post("/v1/chat/completions", json=chat(guided_regex="a"))
    assert response.json()["error"]["param"] is None
