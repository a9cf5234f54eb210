"""Turns read back: what was written comes out, however it is cut, and whatever else comes is not lost."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tunechat.serve.text.dialects import Call, CallStart, TextDelta, Thinking, ToolChoice, TurnParser
from tunechat.serve.text.dialects.form import Form

from .families import NAMES, TOOLS, calls, cut, dialect_of, is_free, json_text, read, summary, words

places = st.lists(st.integers(0, 10_000), max_size=12)
H = '<tool_call>\n{"name": "a", "arguments": {"x": 1}}\n</tool_call>'


def parsed(text: str, name: str = "hermes", **options: object) -> tuple[str, str, list[tuple[str, object, bool]]]:
    return summary(read(dialect_of(name).parser(**options), list(text)))  # type: ignore[arg-type]


def shown(made: list[Call]) -> list[tuple[str, object, bool]]:
    return [(call.name, call.value(), True) for call in made]


@pytest.mark.parametrize("vouched", [False, True])
@pytest.mark.parametrize("name", NAMES)
@given(text=words, made=st.lists(calls, max_size=3), cuts=places)
@settings(max_examples=25)
def test_a_turn_comes_back_as_it_was_written(
    name: str, vouched: bool, text: str, made: list[Call], cuts: list[int]
) -> None:
    dialect = dialect_of(name)
    assume(is_free(dialect, text))
    events = read(dialect.parser(vouched=vouched), cut(dialect.render(text, made), cuts))
    assert summary(events) == ("", text, shown(made))


@pytest.mark.parametrize("thinking", ["may", "open"])
@pytest.mark.parametrize("name", NAMES)
@given(thought=words, text=words, made=st.lists(calls, max_size=2), cuts=places)
@settings(max_examples=20)
def test_reasoning_comes_back_too(
    name: str, thinking: Thinking, thought: str, text: str, made: list[Call], cuts: list[int]
) -> None:
    dialect = dialect_of(name, thinks=True)
    assume(thought and thought == thought.strip() and "</think>" not in thought and not thought.startswith("<think>"))
    assume(is_free(dialect, text))
    turn = str(dialect.render(text, made, reasoning=thought))
    if thinking == "open":
        turn = turn.removeprefix("<think>")
    events = read(dialect.parser(thinking=thinking), cut(turn, cuts))
    assert summary(events) == (thought, text, shown(made))


@pytest.mark.parametrize("vouched", [False, True])
@pytest.mark.parametrize("name", NAMES)
@given(text=words, made=st.lists(calls, max_size=2), more=words, cuts=places)
@settings(max_examples=25)
def test_the_cuts_do_not_matter(
    name: str, vouched: bool, text: str, made: list[Call], more: str, cuts: list[int]
) -> None:
    """Any text, whether it makes sense or not."""
    dialect = dialect_of(name, thinks=True)
    turn = text + str(dialect.render("", made)) + more
    for thinking in ("no", "may", "open"):
        whole = summary(read(dialect.parser(vouched=vouched, thinking=thinking), [turn]))
        assert summary(read(dialect.parser(vouched=vouched, thinking=thinking), cut(turn, cuts))) == whole


@pytest.mark.parametrize("name", NAMES)
@given(turn=words)
@settings(max_examples=25)
def test_without_calls_nothing_is_lost(name: str, turn: str) -> None:
    reasoning, text, made = summary(read(dialect_of(name).parser(), list(turn)))
    if not made:
        assert reasoning + text == turn


@pytest.mark.parametrize("name", NAMES)
@given(turn=words)
@settings(max_examples=25)
def test_where_nothing_may_be_called_all_is_text(name: str, turn: str) -> None:
    dialect = dialect_of(name)
    for parser in (dialect.parser(()), dialect.parser(TOOLS, ToolChoice("none"))):
        assert read(parser, [turn]) == ([TextDelta(turn)] if turn else [])


@pytest.mark.parametrize(
    ("turn", "text", "made"),
    [
        (f"Hi.\n{H}\nBye.", "Hi.Bye.", 1),
        (f"{H}{H}", "", 2),
        (f"  {H}\n\n", "", 1),
        (H.removesuffix("</tool_call>"), "", 1),
        ('<tool_call>[{"name":"a"}, {"name":"b","parameters":{}}]</tool_call>', "", 2),
        ('<tool_call>{"arguments":{"y":[]},"name":"a"}</tool_call>', "", 1),
        ('<tool_call>{"id":"7","type":"function","name":"a","arguments":{}}</tool_call>', "", 1),
        ("a <tool_call> b", "a <tool_call> b", 0),
        (f"<tool_call>{H}", "<tool_call>", 1),
        ("</tool_call>", "</tool_call>", 0),
        ('<tool_call>{"name": "a", "arguments": {"x": 01}}</tool_call>',) * 2 + (0,),
        ('<tool_call>{"name": "a", "arguments": [1]}</tool_call>',) * 2 + (0,),
        ('<tool_call>{"name": "a", "arguments": "{}"}</tool_call>',) * 2 + (0,),
        ('<tool_call>{"name": "a", "name": "b", "arguments": {}}</tool_call>',) * 2 + (0,),
        ('<tool_call>{"name": "a", "arguments": {}, "parameters": {}}</tool_call>',) * 2 + (0,),
        ('<tool_call>{"name": "", "arguments": {}}</tool_call>',) * 2 + (0,),
        ('<tool_call>{"name": 7, "arguments": {}}</tool_call>',) * 2 + (0,),
        ('<tool_call>{"arguments": {}}</tool_call>',) * 2 + (0,),
        ('<tool_call>{"name": "a", "arguments": {"x": NaN}}</tool_call>',) * 2 + (0,),
        ("<tool_call>{'name': 'a'}</tool_call>",) * 2 + (0,),
        ("<tool_call>{}</tool_call>",) * 2 + (0,),
        ('<tool_call>{"name": "a", "arguments": {"x": __import__("os")}}</tool_call>',) * 2 + (0,),
    ],
)
def test_calls_and_what_only_looks_like_one(turn: str, text: str, made: int) -> None:
    _, found, found_calls = parsed(turn)
    assert (found, len(found_calls)) == (text, made)
    assert all(complete for _, _, complete in found_calls)


def test_the_arguments_come_as_they_were_written() -> None:
    written = '{"a":1,  "b": "\\u00e9\\ud83d", "b": 1e999,"c":-0.0}'
    parser = dialect_of("hermes").parser()
    events = parser.push(f'<tool_call>{{"name": "x", "arguments": {written}}}')
    assert [event.fragment for event in events if hasattr(event, "fragment")] == [written]


def test_a_grammar_lets_arguments_pass_as_they_come() -> None:
    parser = dialect_of("hermes").parser(vouched=True)
    assert parser.push('<tool_call>\n{"name": "a", "arguments": {"te')[:1] == [CallStart(0, "a")]
    held = dialect_of("hermes").parser()
    assert held.push('<tool_call>\n{"name": "a", "arguments": {"te') == []


def test_a_call_of_another_tool_is_text() -> None:
    turn = '<tool_call>{"name": "rm", "arguments": {}}</tool_call>'
    assert parsed(turn, tools=TOOLS) == ("", turn, [])
    named = parsed(
        '<tool_call>{"name": "now", "arguments": {}}</tool_call>', tools=TOOLS, choice=ToolChoice.named("add")
    )
    assert named[2] == []


@given(size=st.integers(0, 70))
def test_a_turn_cut_off_shows_no_markup_where_a_grammar_held_it(size: int) -> None:
    cut_off = f"{H}"[:size]
    _, text, made = parsed(cut_off, vouched=True)
    assert "<tool_call>" not in text and "name" not in text
    assert len(made) == (size > H.index("{", 20))
    unvouched = parsed(cut_off)
    assert unvouched[1] == ("" if unvouched[2] else cut_off)


def test_families_have_forms_of_their_own() -> None:
    call = '{"name": "a", "parameters": {}}'
    assert len(parsed(f"<|python_tag|>{call}; {call}", "llama3")[2]) == 2
    assert len(parsed(f"\n{call}", "llama3")[2]) == 1
    assert parsed(f"Look: {call}", "llama3") == ("", f"Look: {call}", [])
    assert parsed('{"answer": 1}', "llama3") == ("", '{"answer": 1}', [])
    assert len(parsed(f"[TOOL_CALLS][{call},{call}]", "mistral")[2]) == 2
    assert len(parsed(f"[TOOL_CALLS]{call}", "mistral")[2]) == 1
    assert parsed('[TOOL_CALLS]a[CALL_ID]x7[ARGS] {"k":1}[TOOL_CALLS]b[ARGS]{}', "mistral11")[1:] == (
        "",
        [("a", {"k": 1}, True), ("b", {}, True)],
    )
    for wrong in ("[TOOL_CALLS]a{}", "[TOOL_CALLS][ARGS]{}", "[TOOL_CALLS]a[ARGS][]", "[TOOL_CALLS]" + "a" * 900):
        assert parsed(wrong, "mistral11") == ("", wrong, [])
    assert len(parsed(f"So.<|action_start|><|plugin|>\n{call}<|action_end|>", "internlm2")[2]) == 1
    assert len(parsed(f"functools[{call}]", "phi4-mini")[2]) == 1
    assert parsed("import functools", "phi4-mini") == ("", "import functools", [])
    assert parsed(f"Sure\n```tool_code\n{call}\n```", "gemma")[1:] == ("Sure", [("a", {}, True)])
    assert parsed(f"{call}\n```python\n```", "gemma")[1:] == ("```python\n```", [("a", {}, True)])
    assert parsed("```tool_code\nprint(1)\n```", "gemma")[1] == "```tool_code\nprint(1)\n```"


HOSTILE = {
    "openers": "<tool_call>",
    "half openers": "<tool_cal",
    "braces": "<tool_call>{",
    "brackets": '<tool_call>{"name":"a","arguments":{"x":' + "[",
    "open strings": '<tool_call>{"name":"',
    "escapes": '<tool_call>{"name":"a","arguments":{"x":"' + "\\\\",
    "digits": '<tool_call>{"name":"a","arguments":{"x":1',
    "blanks": " \n",
    "keys": '{"a":',
    "closers": "</tool_call>",
    "thoughts": "<think></think>",
    "surrogates": "\ud800",
    "commas": '<tool_call>[{"name":"a"},',
}


def seconds(parser: TurnParser, text: str, step: int) -> float:
    start = time.process_time()
    for place in range(0, len(text), step):
        parser.push(text[place : place + step])
    parser.finish()
    return time.process_time() - start


@pytest.mark.parametrize("step", [3, 1 << 20])
@pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE)
def test_the_work_is_linear(piece: str, step: int) -> None:
    """Six times the text takes about six times as long, not thirty-six."""

    def best(size: int) -> float:
        text = piece * (size // len(piece))
        dialect = dialect_of("hermes", thinks=True)
        return min(seconds(dialect.parser(thinking="may"), text, step) for _ in range(2))

    small, large = best(15_000), best(90_000)
    assert large < 15 * small + 0.02


def test_a_megabyte_inside_arguments_comes_through() -> None:
    value = "x" * (1 << 20)
    turn = f'<tool_call>{{"name": "a", "arguments": {{"x": "{value}"}}}}</tool_call>'
    assert parsed(turn[:100])[2] == []
    events = read(dialect_of("hermes").parser(), [turn])
    assert summary(events)[2] == [("a", {"x": value}, True)]


def test_deep_nesting_is_text() -> None:
    turn = '<tool_call>{"name": "a", "arguments": {"x": ' + "[" * 5000 + "]" * 5000 + "}}</tool_call>"
    assert parsed(turn) == ("", turn, [])


def test_finishing_twice_gives_nothing_more() -> None:
    parser = dialect_of("hermes").parser()
    assert parser.push("a ") and parser.finish() and not parser.finish()


@given(text=json_text)
def test_text_comes_at_once_but_for_what_may_be_markup(text: str) -> None:
    parser = TurnParser(Form(("<tool_call>",)), names=None)
    passed = "".join(event.text for event in parser.push(text + ".") if isinstance(event, TextDelta))
    if "<tool_call>" not in text:
        assert passed == text + "."


def test_arguments_are_json_in_every_fragmentation() -> None:
    turn = str(dialect_of("hermes").render("", [Call.of("a", {"k": ["v", {"w": "é"}]})]))
    for size in (1, 2, 7):
        events = read(
            dialect_of("hermes").parser(vouched=True), [turn[i : i + size] for i in range(0, len(turn), size)]
        )
        fragments = "".join(event.fragment for event in events if hasattr(event, "fragment"))
        assert json.loads(fragments) == {"k": ["v", {"w": "é"}]}


@pytest.mark.parametrize("size", range(1, len("<tool_call>\n{")))
def test_the_beginning_of_an_opener_is_no_text_where_only_calls_can_stand(size: int) -> None:
    """As when the length limit cuts a turn off."""
    opener = "<tool_call>\n{"[:size]
    required = dialect_of("hermes").parser(vouched=True, choice=ToolChoice("required"))
    assert summary(read(required, list(opener))) == ("", "", [])
    turn = f"{H}\n{opener}"
    for choice in ("auto", "required"):
        parser = dialect_of("hermes").parser(vouched=True, choice=ToolChoice(choice))
        assert summary(read(parser, list(turn))) == ("", "", [("a", {"x": 1}, True)])
    if size <= len("<tool_call>"):
        assert summary(read(dialect_of("hermes").parser(vouched=True), list(opener))) == (
            "",
            "" if size == len("<tool_call>") else opener,
            [],
        )
