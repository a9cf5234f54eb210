from __future__ import annotations

import threading
from queue import SimpleQueue

from tunechat.serve.engine.constraint import Constraint
from tunechat.serve.engine.grammar_compiler import CompiledGrammar, GrammarCompiled, GrammarCompiler, brief
from tunechat.tests.serve.engine.toy import EOS, ToyRunner, toy_ids


class Compiling:
    """A compiler whose answers are awaited one by one."""

    def __init__(self) -> None:
        self.done: SimpleQueue[GrammarCompiled] = SimpleQueue()
        self.renewed: SimpleQueue[Constraint] = SimpleQueue()
        self.tokenizers = 0
        self.compiler = GrammarCompiler(self._tokenizer, done=self.done.put, renewed=self.renewed.put)

    def _tokenizer(self):  # type: ignore[no-untyped-def]
        self.tokenizers += 1
        return ToyRunner().grammar_tokenizer()

    def compile(self, text: str) -> GrammarCompiled:
        self.compiler.compile(text, lambda: True)
        return self.done.get(timeout=20)


def test_grammars_are_compiled_in_turn_with_one_tokenizer() -> None:
    compiling = Compiling()
    compiling.compiler.warm()
    for text in ("start: /a/", "start: /b/"):
        result = compiling.compile(text)
        assert (result.text, result.error) == (text, None)
        assert isinstance(result.compiled, CompiledGrammar)
        assert result.compiled.eos_token_ids == {EOS}
    assert compiling.tokenizers == 1


def test_what_nobody_wants_any_more_is_not_compiled() -> None:
    compiling = Compiling()
    wanted = threading.Event()
    compiling.compiler.compile("start: /a/", wanted.is_set)
    assert compiling.done.get(timeout=20) == GrammarCompiled("start: /a/")


def test_a_grammar_that_allows_nothing_is_refused() -> None:
    for text in ("start: a\na: b\nb: a", "start: /[ä-ü]/"):
        result = Compiling().compile(text)
        assert result.error is not None
        assert (result.error.code, result.error.http_status) == ("invalid_grammar", 400)


def test_a_renewed_matcher_stands_where_the_text_is() -> None:
    compiling = Compiling()
    constraint = Constraint("start: /abc[xy]/", (), lambda constraint: None)
    compiling.compile(constraint.text)
    constraint.tokens = toy_ids("abc")
    compiling.compiler.renew(constraint)
    assert compiling.renewed.get(timeout=20) is constraint
    assert (constraint.consumed, constraint.is_private) == (3, True)
    assert constraint.matcher is not None
    assert constraint.matcher.compute_bitmask().count(0) == len(constraint.matcher.compute_bitmask()) - 1


def test_explanations_are_short_and_without_dumps() -> None:
    assert brief("at 1(8): wrong\n  | here\n<state>\nsecret") == "at 1(8): wrong | here"
    assert len(brief("x" * 10_000)) < 400
