"""Grammars of turns: they take what the dialect writes, and give nothing that it cannot read."""

from __future__ import annotations

import json

import jsonschema
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer

from tunechat.serve.contract.errors import InvalidRequest
from tunechat.serve.text.dialects import Call, Thinking, Tool, ToolChoice
from tunechat.serve.text.dialects.turn_grammar import most_calls
from tunechat.serve.text.grammars import Structure, read_response_format, read_structured_outputs

from .families import (
    NAMES,
    SCHEMAS,
    TOOLS,
    accepts,
    byte_tokenizer,
    dialect_of,
    is_free,
    read,
    special_of,
    spelled,
    summary,
    tool_calls,
    walk,
    words,
)

REQUIRED = ToolChoice("required")
THINKING: tuple[Thinking, ...] = ("no", "may", "open")
FINDER = Tool("find", parameters={"type": "object", "properties": {"text": {"type": "string", "minLength": 1}}})


def before(thinking: Thinking) -> str:
    """A reasoning block that mentions what calls are made of."""
    thought = 'I could <tool_call> or {"name": or functools[ it.\n</think>\n\n'
    return {"no": "", "may": f"<think>\n{thought}", "open": f"\n{thought}"}[thinking]


@pytest.mark.parametrize("special", [True, False], ids=["special", "spelled"])
@pytest.mark.parametrize("name", NAMES)
@given(text=words, made=st.lists(tool_calls, min_size=1, max_size=3), thinking=st.sampled_from(THINKING))
@settings(max_examples=12)
def test_it_takes_what_the_dialect_writes(
    name: str, special: bool, text: str, made: list[Call], thinking: Thinking
) -> None:
    dialect = dialect_of(name, thinks=True, special=special)
    known = special_of(name) if special else {}
    calls = str(dialect.render("", made))
    assume(not any(token in call.arguments for token in known for call in made))
    automatic = dialect.grammar(TOOLS, thinking=thinking)
    assert accepts(automatic, before(thinking) + calls, known)
    assert accepts(dialect.grammar(TOOLS, REQUIRED, thinking=thinking), before(thinking) + calls, known)
    assume(is_free(dialect, text))
    assert accepts(automatic, before(thinking) + str(dialect.render(text, made)), known)
    assert accepts(automatic, before(thinking) + text, known)


@pytest.mark.parametrize("name", NAMES)
@given(made=st.lists(tool_calls, min_size=1, max_size=2))
@settings(max_examples=8)
def test_it_takes_it_in_the_tokens_of_the_default_model(
    default_tokenizer: LLTokenizer, name: str, made: list[Call]
) -> None:
    tokenizer = default_tokenizer
    dialect = dialect_of(name, special=False)
    turn = str(dialect.render("", made))
    # Its vocabulary lacks some bytes.
    assume(tokenizer.decode_bytes(tokenizer.tokenize_str(turn)) == turn.encode())
    for choice in (ToolChoice(), REQUIRED):
        assert accepts(dialect.grammar(TOOLS, choice), turn, {}, tokenizer)


@pytest.mark.parametrize("parallel", [True, False], ids=["parallel", "single"])
@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 1 << 30), thinking=st.sampled_from(THINKING))
@settings(max_examples=6)
def test_whatever_it_gives_are_calls_that_match_their_schemas(
    name: str, parallel: bool, seed: int, thinking: Thinking
) -> None:
    dialect = dialect_of(name, thinks=True)
    text = walk(dialect.grammar(TOOLS, REQUIRED, parallel=parallel, thinking=thinking), seed)
    assume(text is not None and "\ufffd" not in text)
    events = read(dialect.parser(TOOLS, REQUIRED, vouched=True, thinking=thinking), [str(text)])
    _, content, calls = summary(events)
    assert content == "" and 1 <= len(calls) <= (most_calls(dialect.form) if parallel else 1)
    for called, arguments, complete in calls:
        assert complete
        jsonschema.validate(arguments, SCHEMAS[called])


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 1 << 30), thinking=st.sampled_from(THINKING))
@settings(max_examples=6)
def test_a_turn_that_may_call_has_no_markup_in_its_text(name: str, seed: int, thinking: Thinking) -> None:
    dialect = dialect_of(name, thinks=True)
    text = walk(dialect.grammar(TOOLS, thinking=thinking), seed)
    assume(text is not None)
    _, content, calls = summary(read(dialect.parser(TOOLS, vouched=True, thinking=thinking), [str(text)]))
    assert not any(marker in content for marker in (*dialect.form.openers, *dialect.special))
    for called, arguments, complete in calls:
        assert complete
        jsonschema.validate(arguments, SCHEMAS[called])


@pytest.mark.parametrize("thinking", THINKING)
@pytest.mark.parametrize("name", NAMES)
def test_a_call_once_begun_must_be_one(name: str, thinking: Thinking) -> None:
    dialect, special = dialect_of(name, thinks=True), special_of(name)
    automatic = dialect.grammar(TOOLS, thinking=thinking)
    wrong = (
        Call.of("remove", {}),
        Call.of("add", {"a": 1}),
        Call.of("add", {"a": 1.5, "b": 2}),
        Call.of("add", {"a": 1, "b": 2, "c": 3}),
        Call.of("find", {"text": "x", "kind": "cd"}),
        Call.of("now", {"zone": "utc"}),
    )
    for call in wrong:
        assert not accepts(automatic, before(thinking) + str(dialect.render("", [call])), special)
        assert not accepts(automatic, before(thinking) + str(dialect.render("Sure.", [call])), special)
    assert not accepts(automatic, before(thinking) + f"So {dialect.form.opener} is a marker.", special)


@pytest.mark.parametrize("thinking", THINKING)
@pytest.mark.parametrize("name", NAMES)
def test_choices(name: str, thinking: Thinking) -> None:
    dialect, special = dialect_of(name, thinks=True), special_of(name)

    def takes(choice: ToolChoice, turn: str, **options: bool) -> bool:
        return accepts(dialect.grammar(TOOLS, choice, thinking=thinking, **options), before(thinking) + turn, special)

    one = str(dialect.render("", [Call("now")]))
    two = str(dialect.render("", [Call("now"), Call.of("find", {"text": "x"})]))
    assert takes(REQUIRED, one) and takes(REQUIRED, two)
    assert not takes(REQUIRED, "Hello.") and not takes(REQUIRED, "")
    assert takes(ToolChoice.named("now"), one) and not takes(ToolChoice.named("add"), one)
    assert not takes(ToolChoice.named("now"), two)
    assert takes(ToolChoice("auto", frozenset({"now"})), one)
    assert not takes(ToolChoice("auto", frozenset({"add"})), one)
    for choice in (ToolChoice(), REQUIRED):
        assert takes(choice, one, parallel=False) and not takes(choice, two, parallel=False)
    assert not takes(REQUIRED, str(dialect.render("", [Call("now")] * (most_calls(dialect.form) + 1))))
    assert takes(REQUIRED, str(dialect.render("", [Call("now")] * most_calls(dialect.form))))
    if not dialect.form.bare:
        assert takes(ToolChoice("none"), "Hello.") and not takes(ToolChoice("none"), one)


@pytest.mark.parametrize("name", NAMES)
def test_reasoning_may_be_left_out_and_must_be_closed(name: str) -> None:
    dialect, special = dialect_of(name, thinks=True), special_of(name)
    one = str(dialect.render("", [Call("now")]))
    assert accepts(dialect.grammar(TOOLS, REQUIRED, thinking="may"), one, special)
    assert accepts(dialect.grammar(TOOLS, thinking="may"), "Hello.", special)
    assert not accepts(dialect.grammar(TOOLS, thinking="may"), "<think>Well", special)
    assert not accepts(dialect.grammar(TOOLS, REQUIRED, thinking="open"), one, special)


@pytest.mark.parametrize("thinking", THINKING)
@pytest.mark.parametrize("name", NAMES)
def test_structured_text_beside_calls(name: str, thinking: Thinking) -> None:
    dialect, special = dialect_of(name, thinks=True), special_of(name)
    asked = {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {"properties": {"name": {}}, "type": "object"}},
    }
    content = read_response_format(asked)
    assert content is not None
    alone = dialect.grammar(content=content, thinking=thinking)
    beside = dialect.grammar(TOOLS, content=content, thinking=thinking)
    for grammar in (alone, beside, dialect.grammar(TOOLS, ToolChoice("none"), content=content, thinking=thinking)):
        assert accepts(grammar, before(thinking) + '{"name": [1, 2]}', special)
        assert not accepts(grammar, before(thinking) + "Hello.", special)
    calls = str(dialect.render("", [Call("now")]))
    if dialect.form.bare:
        calls = f"{dialect.form.opener}{dialect.form.lead}{calls}{dialect.form.tail}{dialect.form.closer}"
    assert accepts(beside, before(thinking) + calls, special) and not accepts(alone, before(thinking) + calls, special)


def test_a_grammar_of_the_user_stands_beside_calls() -> None:
    dialect = dialect_of("hermes", thinks=True)
    content = Structure("@content", 'start: greeting+\ngreeting: "hi" | "yo"')
    grammar = dialect.grammar(TOOLS, content=content, thinking="may")
    for turn in ("hiyo", "<think>x</think>\n\nhi", str(dialect.render("", [Call("now")]))):
        assert accepts(grammar, turn, {})
    assert not accepts(grammar, "hey", {})


@pytest.mark.parametrize("name", NAMES)
def test_structured_text_begins_at_once(name: str) -> None:
    dialect, content = dialect_of(name, thinks=True), read_structured_outputs({"choice": ["yes", "no"]})
    for thinking in THINKING:
        grammar = dialect.grammar(content=content, thinking=thinking)
        assert accepts(grammar, before(thinking) + "yes", special_of(name))
        assert accepts(grammar, " yes", special_of(name)) is False
        assert not accepts(grammar, before(thinking) + "yes ", special_of(name))


@pytest.mark.parametrize("thinking", THINKING)
@pytest.mark.parametrize("name", NAMES)
def test_names_of_special_tokens_can_be_text(name: str, thinking: Thinking) -> None:
    """A schema that speaks of them gets their names spelled out, and never the tokens."""
    dialect, end = dialect_of(name, thinks=True), "<|end|>"
    tool = Tool("x", parameters={"type": "object", "properties": {end: {"const": f"a{end}"}}, "required": [end]})
    texts = [walk(dialect.grammar([tool], REQUIRED, parallel=False, thinking=thinking), seed) for seed in range(4)]
    for text in texts:
        if text is not None:
            events = read(dialect.parser([tool], REQUIRED, vouched=True, thinking=thinking), [text])
            assert summary(events)[2] == [("x", {end: f"a{end}"}, True)]
    content = read_structured_outputs({"choice": [f"a{end}b"]})
    assert walk(dialect.grammar(content=content), 1) == f"a{end}b"


def test_nothing_asked_is_nothing_held() -> None:
    dialect = dialect_of("hermes", thinks=True)
    assert dialect.grammar() == "" and dialect.grammar(thinking="may") == ""
    assert dialect_of("llama3").grammar(TOOLS, ToolChoice("none")) == ""


def test_a_schema_of_a_loose_tool_is_followed_as_far_as_it_can_be() -> None:
    dialect = dialect_of("hermes")
    loose = {"type": "object", "properties": {"a": {"type": "integer", "not": {"const": 3}}}, "required": ["a"]}
    grammar = dialect.grammar([Tool("x", parameters=loose)], REQUIRED)
    assert accepts(grammar, str(dialect.render("", [Call.of("x", {"a": 3})])), {})
    assert not accepts(grammar, str(dialect.render("", [Call.of("x", {"a": "3"})])), {})
    with pytest.raises(InvalidRequest) as caught:
        dialect.grammar([Tool("x", parameters=loose, strict=True, path="tools[0].function")])
    assert caught.value.param == "tools[0].function.parameters.properties.a.not"


def test_a_schema_that_no_grammar_can_hold_still_gives_objects() -> None:
    dialect = dialect_of("hermes")
    twisted = {"type": "object", "properties": {"a": {"$ref": "#", "required": ["b"]}}}
    grammar = dialect.grammar([Tool("x", parameters=twisted)], REQUIRED)
    assert accepts(grammar, str(dialect.render("", [Call.of("x", {"a": [1]})])), {})


def test_references_of_a_tool_are_its_own() -> None:
    dialect = dialect_of("hermes")
    tree = {"type": "object", "properties": {"left": {"$ref": "#"}, "leaf": {"$ref": "#/$defs/leaf"}}}
    tools = [
        Tool("x", parameters={**tree, "$defs": {"leaf": {"type": "integer"}}}, strict=True),
        Tool("y", parameters={**tree, "$defs": {"leaf": {"type": "string"}}}, strict=True),
    ]
    grammar = dialect.grammar(tools, REQUIRED)
    for name, right, wrong in (("x", 1, "a"), ("y", "a", 1)):
        assert accepts(grammar, str(dialect.render("", [Call.of(name, {"left": {"leaf": right}})])), {})
        assert not accepts(grammar, str(dialect.render("", [Call.of(name, {"left": {"leaf": wrong}})])), {})


def test_blanks_come_to_an_end() -> None:
    dialect = dialect_of("hermes")
    grammar = dialect.grammar([FINDER], REQUIRED)
    head = '<tool_call>\n{"name": "find", "arguments": '
    for written, right in (('{"text":"x"}', 1), ('{\n    "text": "x"\n}', 1), ('{  "text": "x"}', 0), ("{\n\n", 0)):
        turn = head + written + "}\n</tool_call>"
        assert accepts(grammar, turn, {}) == bool(right), written


def test_text_cannot_pass_for_a_special_token() -> None:
    """Spelled out, a marker is no marker to a model that has it as a token, nor may it stand in text."""
    dialect = dialect_of("mistral")
    turn = spelled("[TOOL_CALLS] is a marker.")
    taken = {}
    for choice in (ToolChoice(), REQUIRED):
        matcher = LLMatcher(byte_tokenizer(), dialect.grammar(TOOLS, choice), log_level=0)
        taken[choice.mode] = matcher.try_consume_tokens(turn)
    assert taken == {"required": 0, "auto": len("[TOOL_CALLS")}


def test_many_tools_make_one_grammar() -> None:
    dialect = dialect_of("generic")
    tools = [
        Tool(f"tool_{index}", parameters={"type": "object", "properties": {f"p{index}": {"type": "integer"}}})
        for index in range(128)
    ]
    grammar = dialect.grammar(tools, REQUIRED)
    assert accepts(grammar, str(dialect.render("", [Call.of("tool_77", {"p77": 1})])), {})
    assert not accepts(grammar, str(dialect.render("", [Call.of("tool_77", {"p76": 1})])), {})
    assert len(grammar) < 128 * 400 and json.dumps(grammar)
