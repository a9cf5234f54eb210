from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLMatcher

from tunechat.serve.contract.errors import InvalidRequest
from tunechat.serve.text.grammars.lark import read_lark


def problem(text: str) -> str:
    return LLMatcher.validate_grammar(read_lark(text, "g"))


@pytest.mark.parametrize(
    "text",
    [
        'start: "a & ~b" | /[&~]\\/&/i | "\\"&" // & ~',
        'start: <[5]> | "x" # ~',
        'start: %json {"type": "string", "pattern": "&~"} "x"',
        '%llguidance {"no_forcing": false}\nstart: "x"',
        'start: %regex {"substring_words": "this & that"}',
        "%ignore / +/\nstart: A{3}\nA: /a/",
    ],
)
def test_what_is_taken_keeps_its_meaning(text: str) -> None:
    assert not problem(text)
    assert 'no_forcing": true' in read_lark(text, "g")
    assert read_lark(text, "g").count("&") == text.count("&")


@pytest.mark.parametrize(
    "text",
    [
        "start: A & B\nA: /a/\nB: /b/",
        "start: A\nA: ~/a/",
        'start: "a" /* */ & "b"',
        'start: "unclosed & /a/',
        "start: %json [",
        "start: %llguidance",
        'start: %json {"not": {}}',
    ],
)
def test_what_has_no_bound_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_lark(text, "g")
    assert str(caught.value.param).startswith("g")


def test_schemas_in_it_are_closed_like_others() -> None:
    read = read_lark('start: %json {"type": "object", "properties": {"a": {}}, "x-guidance": {"lenient": true}}', "g")
    assert '"additionalProperties": false' in read and '"lenient": false' in read and '"lenient": true' not in read


pieces = st.sampled_from(
    ['"', "/", "\\", "&", "~", "a", "\n", "#", "//", "<", ">", "%json", "{", "}", "start: ", " ", "|"]
)


@given(text=st.lists(pieces, max_size=14).map("".join))
def test_no_grammar_that_compiles_holds_an_operator_that_was_overlooked(text: str) -> None:
    """What is outside of texts for us is so for llguidance: what it takes, without `&` and `~`, stays what it was."""
    try:
        read = read_lark(text, "g")
    except InvalidRequest:
        return
    if not LLMatcher.validate_grammar(read):
        plain = read.replace("&", "").replace("~", "")
        assert not LLMatcher.validate_grammar(plain)
