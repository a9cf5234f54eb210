from __future__ import annotations

import threading

import pytest
from llguidance import LLParserLimits

from tunechat.serve.contract.sampling import SamplingParams
from tunechat.serve.engine import grammar_compiler
from tunechat.serve.engine.constraint import Constraint
from tunechat.serve.engine.mask_thread import MaskThread
from tunechat.tests.serve.engine.harness import Harness, greedy
from tunechat.tests.serve.engine.toy import VOCAB, ToyRunner, alone

# Each place in a text is another state of this automaton.
WEARING = "start: /([a-f]*a[a-f]{9}b)*/"


@pytest.fixture
def few_states(monkeypatch: pytest.MonkeyPatch) -> list[Constraint]:
    """Grammars with room for few states; gives the constraints that had to be renewed."""
    limits = LLParserLimits(max_lexer_states=100, verbose_errors=False)
    monkeypatch.setattr(grammar_compiler, "parser_limits", lambda: limits)
    renewed: list[Constraint] = []
    renew = grammar_compiler.GrammarCompiler.renew

    def note(self: grammar_compiler.GrammarCompiler, constraint: Constraint) -> None:
        renewed.append(constraint)
        renew(self, constraint)

    monkeypatch.setattr(grammar_compiler.GrammarCompiler, "renew", note)
    return renewed


def ask(harness: Harness, at: int, tokens: int) -> None:
    harness.submit(str(at), [at], SamplingParams(max_tokens=tokens, seed=at, grammar=WEARING))


def test_what_one_text_wears_out_does_not_end_another(few_states: list[Constraint]) -> None:
    """Copies of a grammar share an automaton that may only grow so far."""
    lone = Harness()
    ask(lone, 7, 12)
    lone.drain()
    assert lone.finish("7") == "length"
    assert not few_states
    harness = Harness()
    for at in range(6):
        ask(harness, at, 200)
    ask(harness, 7, 12)
    harness.drain()
    assert few_states
    assert harness.result("7") == lone.result("7")
    for at in range(6):
        # What each of these could write alone is the same as here, or ended by the same limit.
        assert harness.finish(str(at)) or harness.error(str(at)).code == "grammar_too_complex"


def test_a_worn_grammar_is_compiled_anew(few_states: list[Constraint]) -> None:
    harness = Harness()
    for at in range(4):
        ask(harness, at, 200)
        harness.drain()
    before = harness.engine._grammars.compiled
    assert before > 1
    ask(harness, 7, 12)
    harness.drain()
    assert harness.finish("7") == "length"


def test_a_panic_costs_one_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Panic(BaseException):
        pass

    harness = Harness()
    compute = MaskThread._compute

    def panic(self: MaskThread, constraint: Constraint) -> None:
        if constraint.text.endswith("ad/") and constraint.tokens:
            raise Panic
        compute(self, constraint)

    monkeypatch.setattr(MaskThread, "_compute", panic)
    harness.submit("bad", [1], greedy(9, grammar="start: /[bc]ad/"))
    harness.submit("good", [1], greedy(9, grammar="start: /cab/"))
    harness.submit("free", [1], greedy(9))
    harness.drain()
    assert (harness.error("bad").code, harness.error("bad").http_status) == ("grammar_failed", 500)
    assert harness.finish("good") == "stop"
    assert harness.result("free") == alone([1], greedy(9))


def test_quick_masks_come_before_slow_ones_and_nobody_closed_gets_any() -> None:
    order: list[str] = []
    first, done = threading.Event(), threading.Event()

    class Noting(MaskThread):
        def _compute(self, constraint: Constraint) -> None:
            if constraint.text == "first":
                assert first.wait(20)
            order.append(constraint.text)
            if len(order) == 4:
                done.set()

    masks = Noting(VOCAB, renew=lambda constraint: None)
    made = {name: Constraint(name, (), masks.order) for name in ("first", "slow", "closed", "quick", "new")}
    made["slow"].cost, made["quick"].cost, made["new"].cost = 0.3, 1e-5, 0.0
    made["closed"].close()
    for constraint in made.values():
        masks.order(constraint)
    first.set()
    assert done.wait(20)
    assert order == ["first", "new", "quick", "slow"]


def test_tokens_without_a_choice_come_together_and_are_what_they_were() -> None:
    grammar = "start: /[ab]{3}(ccc|dddd)(efefefefef){9}[ab]{2}/"
    one_by_one, together = Harness(), Harness()
    one_by_one.submit("a", [1, 2], greedy(200, grammar=grammar, logprobs=0))
    together.submit("a", [1, 2], greedy(200, grammar=grammar))
    together.submit("b", [1, 2], greedy(50, grammar=grammar))
    one_by_one.drain()
    together.drain()
    assert together.result("a") == one_by_one.result("a")
    assert together.result("b") == (one_by_one.text("a")[:50], "length")
    assert together.runner.steps < one_by_one.runner.steps / 4
    assert len(one_by_one.outputs["a"]) > 90


def test_forced_tokens_find_blocks_in_a_full_pool() -> None:
    grammar = "start: /([ab](cd){15}){5}/"
    lone = Harness()
    for at in range(4):
        lone.submit(str(at), [at], greedy(170, grammar=grammar))
        lone.drain()
    harness = Harness(ToyRunner(blocks=45))
    for at in range(4):
        harness.submit(str(at), [at], greedy(170, grammar=grammar))
    harness.drain()
    assert harness.scheduler.preemptions > 0
    assert lone.finish("0") == "stop"
    for at in range(4):
        assert harness.result(str(at)) == lone.result(str(at))
