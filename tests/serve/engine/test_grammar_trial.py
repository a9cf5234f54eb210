"""Grammars that cost too much end in the child, and only there."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher

from tunechat.serve.contract.errors import InvalidRequest
from tunechat.serve.engine.constraint import Constraint
from tunechat.serve.engine.grammar_compiler import GrammarCompiled, GrammarCompiler
from tunechat.serve.engine.grammar_tokenizer import grammar_tokenizer
from tunechat.serve.engine.grammar_trial import GrammarTrial
from tunechat.serve.text.grammars import read_structured_outputs

EOS = (2, 0)
VOCAB = 49152


def schema(value: object) -> str:
    return LLMatcher.grammar_from_json_schema(json.dumps(value))


def form(count: int, **of: object) -> dict[str, object]:
    names = [f"property number {at}" for at in range(count)]
    return {"type": "object", "properties": dict.fromkeys(names, of), "additionalProperties": False}


COSTLY = {
    "intersection": "start: A\nA: " + " & ".join(f"/(.*[a-{chr(98 + at)}].{{{10 + at}}}c.*)/" for at in range(20)),
    "product of primes": "start: A\nA: " + " & ".join(f"/([a-z]{{{prime}}})*/" for prime in (101, 103, 107, 109)),
    "forced text": "start: r\nr: q{1000}\nq: A{1000}\nA: /" + "a{1000}" * 40 + "/",
    "multiples": schema({"anyOf": [{"type": "integer", "multipleOf": 9973 - at} for at in range(100)]}),
    "optional properties": schema(form(4_900, type="string")),
}
FINE = {
    "1 kB": schema(form(20, type="string", maxLength=40)),
    "20 kB": schema(form(400, type="string")),
    "64 kB": schema({**form(1_300, type="integer"), "required": [f"property number {at}" for at in range(1_300)]}),
    "choices": schema({"enum": [f"choice number {at}" for at in range(4_000)]}),
    "repetitions": "start: /[^x]{1,2000}/",
    "wrong": "start: /(?:/",
    "nothing": "start: a\na: b\nb: a",
}


@pytest.fixture(scope="module")
def trial(default_entry: Path) -> Iterator[GrammarTrial]:
    made = GrammarTrial(default_entry, VOCAB, EOS)
    yield made
    made.close()


@pytest.mark.parametrize("name", FINE)
def test_real_grammars_are_good(trial: GrammarTrial, name: str) -> None:
    assert trial.judge(FINE[name]) == "good"


@pytest.mark.parametrize("name", COSTLY)
def test_hostile_ones_are_ended(trial: GrammarTrial, name: str) -> None:
    assert trial.judge(COSTLY[name]) == "costly"
    assert trial.judge("start: /a/") == "good"


atoms = st.sampled_from(["a", "[a-z]", ".", r"\w", r"\p{L}", "é", r"\d{3}", "x|y"])
expressions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2,40}", "{300}", "{7,}"])).map(
            lambda two: f"({two[0]}){two[1]}"
        ),
        st.lists(inner, min_size=2, max_size=4).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda several: "(" + "|".join(several) + ")"),
    ),
    max_leaves=8,
)


@settings(max_examples=40)
@given(expression=expressions)
def test_any_expression_is_taken_or_ended(trial: GrammarTrial, expression: str) -> None:
    """What the gateway takes never breaks the child, and is good: its bounds are tighter than the budget."""
    try:
        structure = read_structured_outputs({"regex": expression}, "s")
    except InvalidRequest:
        assert trial.judge(f"start: /{expression}/") in ("good", "costly", "unreadable")
    else:
        assert structure is not None
        assert trial.judge(structure.to_grammar()) == "good"


def test_a_panic_is_an_answer(trial: GrammarTrial) -> None:
    """A union of letters over which llguidance 1.9 panics; a later one may take it."""
    assert trial.judge(r"start: /((é|\p{L})|(a|\w))/") in ("good", "unreadable")


def test_a_child_that_dies_is_replaced(default_entry: Path) -> None:
    trial = GrammarTrial(default_entry, VOCAB, EOS)
    assert trial.judge("start: /a/") == "good"
    assert trial._child is not None
    os.kill(trial._child.pid, signal.SIGKILL)
    trial._child.wait()
    assert trial.judge("start: /a/") == "good"
    trial.close()


def test_a_child_that_cannot_start_says_so(tmp_path: Path) -> None:
    assert GrammarTrial(tmp_path, VOCAB, EOS).judge("start: /a/") == "broken"


def test_costly_ones_are_refused_and_tenants_come_in_turn(default_entry: Path, trial: GrammarTrial) -> None:
    done: SimpleQueue[GrammarCompiled] = SimpleQueue()
    may_begin = threading.Event()

    def make_tokenizer():  # type: ignore[no-untyped-def]
        assert may_begin.wait(20)
        return grammar_tokenizer(default_entry, VOCAB, EOS)

    def renewed(constraint: Constraint) -> None:
        raise AssertionError(constraint)

    compiler = GrammarCompiler(make_tokenizer, done=done.put, renewed=renewed, trial=trial)
    compiler.warm()
    hostile = COSTLY["intersection"]
    for at in range(3):
        compiler.compile(f"{hostile}\n// {at}", lambda: True, "mallory")
    compiler.compile("start: /a/", lambda: True, "alice")
    may_begin.set()
    first, second, *others = [done.get(timeout=30) for _ in range(4)]
    assert first.error is not None
    assert (first.error.code, first.error.http_status) == ("invalid_grammar", 400)
    assert "too long" in first.error.message
    assert second.compiled is not None and second.text == "start: /a/" and second.seconds > 0
    assert all(other.error is not None for other in others)
