"""Sequences with grammars in the whole loop. A toy model's texts are random: what is right in them the grammar did."""

from __future__ import annotations

import json
import re
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import validate
from llguidance import LLMatcher, LLTokenizer

from tunechat.serve.contract.errors import InvalidRequest
from tunechat.serve.contract.sampling import SamplingParams
from tunechat.serve.engine.admission import MAX_GRAMMAR_CHARACTERS, check_grammar
from tunechat.serve.engine.grammar_flow import MAX_KNOWN
from tunechat.tests.serve.engine.harness import Harness, greedy
from tunechat.tests.serve.engine.toy import EOS, TOKEN_TEXTS, ToyRunner, alone, toy_text

SCHEMA = {
    "type": "object",
    "properties": {
        "a": {"type": "integer", "minimum": 0, "maximum": 99},
        "b": {"enum": ["cab", "bed"]},
        "c": {"type": "array", "items": {"enum": [True, None]}, "maxItems": 3},
    },
    "required": ["a", "b", "c"],
    "additionalProperties": False,
}
HOSTILE = {
    "repeats": "start: /(a{1000}){1000}/",
    "states": "start: /(.*a.{200}b)*/",
    "intersection": "start: A\nA: " + " & ".join(f"/(.*[a-{chr(98 + at)}].{{{10 + at}}}c.*)/" for at in range(20)),
    "ambiguous": 'start: a\na: a a | a a a | "a" | "b" | a "c" a',
    "loop": "start: a\na: b\nb: a",
    "parentheses": "start: " + "(" * 5000 + '"a"' + ")" * 5000,
    "unclosed": "start: /(?:/",
    "endless text": "start: /" + "a|" * 200_000 + "b/",
}


def schema_grammar(schema: object) -> str:
    return LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides={"whitespace_flexible": False})


def says(harness: Harness, name: str) -> str:
    return toy_text(harness.text(name))


class Gated(ToyRunner):
    """Its tokenizer comes when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.may_come = threading.Event()

    def grammar_tokenizer(self) -> LLTokenizer:
        assert self.may_come.wait(20)
        return super().grammar_tokenizer()


def test_texts_are_sentences_of_their_grammars_and_end_with_stop() -> None:
    harness = Harness()
    for at in range(4):
        harness.submit(f"greedy {at}", [at, 1], greedy(200, grammar=schema_grammar(SCHEMA)))
        harness.submit(f"drawn {at}", [at], SamplingParams(max_tokens=200, seed=at, grammar=schema_grammar(SCHEMA)))
        harness.submit(f"regex {at}", [at], greedy(200, grammar=f"start: /[abc]{{{at + 2}}}-[0-9]+/"))
        harness.submit(f"free {at}", [at], greedy(20))
    harness.drain()
    for at in range(4):
        for how in ("greedy", "drawn"):
            validate(json.loads(says(harness, f"{how} {at}")), SCHEMA)
            assert harness.finish(f"{how} {at}") == "stop"
        assert re.fullmatch(rf"[abc]{{{at + 2}}}-[0-9]+", says(harness, f"regex {at}"))
        assert harness.result(f"free {at}") == alone([at], greedy(20))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperature": 0.0},
        {"top_k": 2},
        {"top_p": 0.3},
        {"min_p": 0.5},
        {"min_tokens": 150},
        {"presence_penalty": 2.0, "frequency_penalty": 2.0, "repetition_penalty": 3.0},
        {"logit_bias": {EOS: 100.0, 9: 100.0}},
        {"logit_bias": {0: -100.0}},
        {"stop_token_ids": (EOS,)},
        {"logprobs": 3},
        {"prompt_logprobs": 1},
    ],
)
def test_every_other_parameter_acts_within_the_grammar(changes: dict[str, object]) -> None:
    harness = Harness()
    params = SamplingParams(max_tokens=200, seed=5, grammar=schema_grammar(SCHEMA), **changes)  # type: ignore[arg-type]
    harness.submit("a", [1, 2, 3], params)
    harness.drain()
    validate(json.loads(says(harness, "a")), SCHEMA)
    assert harness.finish("a") == "stop"
    if params.logprobs:
        entries = [entry for output in harness.outputs["a"] for entry in output.logprobs or []]
        assert [entry.token for entry in entries] == harness.text("a")
        assert all(len(entry.top) == 3 and entry.top[0][1] > -20 for entry in entries)


def test_a_text_is_the_same_alone_in_company_and_after_it_was_put_back() -> None:
    def ask(harness: Harness, at: int) -> None:
        grammar = schema_grammar(SCHEMA) if at % 2 else "start: /[a-f ]{30,60}/"
        harness.submit(str(at), [at % 3, 1, 2], SamplingParams(max_tokens=70, seed=at, grammar=grammar))

    expected = []
    for at in range(12):
        harness = Harness()
        ask(harness, at)
        harness.drain()
        expected.append(harness.result(str(at)))
    harness = Harness(ToyRunner(blocks=24))
    for at in range(12):
        ask(harness, at)
    harness.drain()
    assert harness.scheduler.preemptions > 0
    assert [harness.result(str(at)) for at in range(12)] == expected


def test_max_tokens_ends_a_sentence_before_its_end() -> None:
    harness = Harness()
    harness.submit("a", [1], greedy(7, grammar="start: /[ab]{20}/"))
    harness.drain()
    assert (len(harness.text("a")), harness.finish("a")) == (7, "length")


def test_a_stop_token_ends_only_where_the_sentence_may_end() -> None:
    stop = TOKEN_TEXTS.index("x")
    harness = Harness()
    params = greedy(50, grammar="start: /[ab]{5,9}/", stop_token_ids=(stop,), logit_bias={stop: 100.0})
    harness.submit("a", [1], params)
    harness.drain()
    assert (len(harness.text("a")), harness.finish("a")) == (5, "stop")
    assert harness.outputs["a"][-1].stop_token == stop


def test_the_end_waits_for_min_tokens_where_the_grammar_lets_it() -> None:
    harness = Harness()
    params = {"logit_bias": {EOS: 100.0}, "min_tokens": 9}
    harness.submit("long", [1], greedy(50, grammar="start: /[ab]+/", **params))
    harness.submit("short", [1], greedy(50, grammar="start: /[ab]{3}/", **params))
    harness.drain()
    assert (len(harness.text("long")), harness.finish("long")) == (9, "stop")
    assert (len(harness.text("short")), harness.finish("short")) == (3, "stop")


def test_a_sequence_waits_for_its_grammar_and_holds_up_nobody() -> None:
    runner = Gated()
    harness = Harness(runner, max_running=1)
    harness.submit("waits", [1], greedy(50, grammar="start: /[ab]{3}/"))
    for at in range(20):
        harness.submit(str(at), [at], greedy(5))
        harness.drain_until(str(at), 5)
    assert not harness.outputs["waits"]
    harness.submit("leaves", [1], greedy(50, grammar="start: /[ab]{4}/"))
    harness.abort("leaves")
    runner.may_come.set()
    harness.drain()
    assert re.fullmatch("[ab]{3}", says(harness, "waits"))
    harness.submit("comes", [1], greedy(50, grammar="start: /[ab]{4}/"))
    harness.drain()
    assert re.fullmatch("[ab]{4}", says(harness, "comes"))


@pytest.mark.parametrize("grammar", ["start: /(?:/", "nonsense", "{}", '{"grammars": 3}', "start: a\na: b\nb: a"])
def test_a_wrong_grammar_fails_its_own_sequence_each_time(grammar: str) -> None:
    harness = Harness()
    for attempt in ("first", "again"):
        harness.submit(attempt, [1], greedy(9, grammar=grammar))
        harness.submit(f"{attempt} beside", [1], greedy(9))
        harness.drain()
        error = harness.error(attempt)
        assert (error.code, error.http_status) == ("invalid_grammar", 400)
        assert len(error.message) < 500
        assert harness.result(f"{attempt} beside") == alone([1], greedy(9))
    assert harness.engine.stats.grammars_refused == 2


def test_a_tokenizer_that_cannot_be_read_fails_those_that_need_it() -> None:
    class Broken(ToyRunner):
        def grammar_tokenizer(self) -> LLTokenizer:
            raise ValueError("evil tokenizer")

    harness = Harness(Broken())
    harness.submit("a", [1], greedy(9, grammar="start: /a/"))
    harness.submit("b", [1], greedy(9))
    harness.drain()
    assert (harness.error("a").code, harness.error("a").http_status) == ("grammar_unavailable", 500)
    assert harness.result("b") == alone([1], greedy(9))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_grammar_ends_and_others_go_on_meanwhile(name: str) -> None:
    harness = Harness()
    for at in range(2):
        harness.submit(f"hostile {at}", [at], SamplingParams(max_tokens=40, seed=at, grammar=HOSTILE[name]))
    harness.submit("good", [2], greedy(60, grammar="start: /[ab]{60}/"))
    harness.submit("free", [1], greedy(60))
    # Nobody waits for the hostile ones: the free text is done after as many steps as it has tokens, and one for the
    # prompt that came in the same step as others.
    steps = 0
    while not harness.finish("free"):
        harness.step()
        steps += 1
    assert steps <= 62
    assert harness.result("free") == alone([1], greedy(60))
    harness.drain()
    assert re.fullmatch("[ab]{60}", says(harness, "good"))
    for at in range(2):
        last = harness.outputs[f"hostile {at}"][-1]
        assert last.finish or (last.error is not None and last.error.http_status == 400)


def test_only_so_many_grammars_are_remembered() -> None:
    harness = Harness()
    for at in range(3 * MAX_KNOWN):
        harness.submit(str(at), [1], greedy(9, grammar=f"start: /a{{{at % 200 + 1}}}/"))
        harness.drain()
    flow = harness.engine._grammars
    assert len(flow._known) == MAX_KNOWN
    assert not flow.is_compiling
    assert flow._known_bytes == sum(map(len, flow._known))
    assert flow.compiled == 3 * MAX_KNOWN
    assert harness.engine.stats.grammar_compile_seconds > 0
    harness.submit("again", [1], greedy(9, grammar=f"start: /a{{{(3 * MAX_KNOWN - 1) % 200 + 1}}}/"))
    harness.drain()
    stats = harness.engine.stats
    assert (stats.grammars_compiled, stats.grammars_reused, stats.grammars_refused) == (3 * MAX_KNOWN, 1, 0)


def test_those_that_run_with_a_grammar_are_counted() -> None:
    harness = Harness()
    harness.submit("free", [1], greedy(40))
    harness.submit("held", [1], greedy(40, grammar="start: /[ab]+/"))
    harness.drain_until("held", 3)
    assert (harness.engine.stats.running, harness.engine.stats.running_grammars) == (2, 1)
    harness.drain()
    assert harness.engine.stats.running_grammars == 0


def test_a_grammar_that_is_too_long_is_refused_before_it_travels() -> None:
    check_grammar("a" * MAX_GRAMMAR_CHARACTERS)
    with pytest.raises(InvalidRequest, match="at most"):
        check_grammar("a" * (MAX_GRAMMAR_CHARACTERS + 1))


SCALARS = st.sampled_from(
    [
        {"type": "boolean"},
        {"type": "null"},
        {"type": "integer", "minimum": -9, "maximum": 99},
        {"const": "cab"},
        {"enum": ["a", 1, None]},
        {"type": "string", "maxLength": 3},
        {"type": "string", "pattern": "^[a-c]{1,3}$"},
    ]
)
SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        inner.map(lambda items: {"type": "array", "items": items, "minItems": 1, "maxItems": 2}),
        st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options}),
        st.dictionaries(st.sampled_from("abcdef"), inner, max_size=3).map(
            lambda properties: {
                "type": "object",
                "properties": properties,
                "required": sorted(properties)[:2],
                "additionalProperties": False,
            }
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=60)
@given(schemas=st.lists(SCHEMAS, min_size=1, max_size=4), seed=st.integers(0, 2**32 - 1))
def test_answers_to_random_schemas_parse_and_validate(schemas: list[object], seed: int) -> None:
    harness = Harness()
    for at, schema in enumerate(schemas):
        params = SamplingParams(max_tokens=200, temperature=at % 2, seed=seed + at, grammar=schema_grammar(schema))
        harness.submit(str(at), [at, 1], params)
    harness.drain()
    for at, schema in enumerate(schemas):
        assert harness.finish(str(at)) == "stop"
        validate(json.loads(says(harness, str(at))), schema)
