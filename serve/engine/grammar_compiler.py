"""Compiles grammars on a thread of its own, within bounds, so that no grammar holds up a step."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING

from ..adapters.background import yield_to_requests
from ..contract.errors import ErrorRecord
from .constraint import Constraint
from .grammar_trial import GrammarTrial
from .parser_limits import parser_limits
from .rotation import Rotation

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

logger = logging.getLogger(__name__)

_LONGEST_EXCERPT = 300

_WHY_REFUSED = {
    "costly": "it takes too long to compile; make it simpler",
    "unreadable": "it cannot be read; write its alternatives in another way",
}
_UNAVAILABLE = ErrorRecord(
    code="grammar_unavailable",
    message="this model's tokenizer does not work with grammars; the server's log says why",
    http_status=500,
)
_BROKEN = ErrorRecord(
    code="grammar_failed",
    message="the grammar of this request could not be followed; the server's log says why",
    http_status=500,
)


@dataclass(slots=True, eq=False)
class CompiledGrammar:
    """A grammar that sequences follow with copies of `matcher`.

    The copies share the automaton that masks are computed with, and it grows as texts need new states. `copies` counts
    them; `is_worn` says that one of them met a limit, so that no more should be made.
    """

    text: str
    matcher: LLMatcher
    eos_token_ids: frozenset[int]
    copies: int = 0
    is_worn: bool = False


@dataclass(frozen=True, slots=True)
class GrammarCompiled:
    """What came of one text: a grammar, or why it cannot be used; neither when nobody wanted it any more. `seconds` is
    how long that took."""

    text: str
    compiled: CompiledGrammar | None = None
    error: ErrorRecord | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Order:
    text: str
    tenant: str
    is_wanted: Callable[[], bool]


class GrammarCompiler:
    """One thread that compiles one text after another, handing each GrammarCompiled to `done`; and that renews the
    matchers of constraints, handing them to `renewed`.

    `make_tokenizer` is called on this thread, for the first text or when told to `warm`. The thread starts then too.
    What `trial` finds too costly is refused, so a text takes at most twice its budget of processor time. Tenants come
    in turn, each with one text: whoever sends many costly ones waits for them alone.
    """

    def __init__(
        self,
        make_tokenizer: Callable[[], LLTokenizer],
        done: Callable[[GrammarCompiled], None],
        renewed: Callable[[Constraint], None],
        trial: GrammarTrial | None = None,
    ) -> None:
        self._make_tokenizer = make_tokenizer
        self._trial = trial
        self._done = done
        self._renewed = renewed
        self._orders: SimpleQueue[_Order | Constraint | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._tokenizer: LLTokenizer | None = None
        self._limits: LLParserLimits | None = None

    def warm(self) -> None:
        """Read the tokenizer now, if that was not done."""
        if self._thread is None:
            self._put(None)

    def compile(self, text: str, is_wanted: Callable[[], bool], tenant: str = "") -> None:
        """Compile this text when its tenant's turn comes, unless nobody wants it then. Returns at once."""
        self._put(_Order(text, tenant, is_wanted))

    def renew(self, constraint: Constraint) -> None:
        """Give a constraint a matcher that shares nothing, at the place in its text where it is. Returns at once."""
        self._put(constraint)

    def _put(self, order: _Order | Constraint | None) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="grammar compiler", daemon=True)
            self._thread.start()
        self._orders.put(order)

    def _work(self) -> None:
        yield_to_requests()
        for order in self._in_turn():
            try:
                self._follow(order)
            except BaseException:
                # A panic in llguidance arrives as an exception that is no Exception. It must cost one request.
                logger.exception("a grammar could not be compiled")
                if isinstance(order, Constraint):
                    order.publish(error=_BROKEN)
                elif order is not None:
                    self._done(GrammarCompiled(order.text, error=_BROKEN))

    def _in_turn(self) -> Iterator[_Order | Constraint | None]:
        """What was ordered: running sequences first, then the tenants in turn."""
        waiting: Rotation[_Order] = Rotation()
        while True:
            while not waiting or not self._orders.empty():
                order = self._orders.get()
                if isinstance(order, _Order):
                    waiting.put(order.tenant, order)
                else:
                    yield order
            yield waiting.take()

    def _follow(self, order: _Order | Constraint | None) -> None:
        if isinstance(order, Constraint):
            if not order.is_closed:
                self._renew(order)
        elif order is None:
            self._prepare()
        elif not order.is_wanted():
            self._done(GrammarCompiled(order.text))
        elif not self._prepare():
            self._done(GrammarCompiled(order.text, error=_UNAVAILABLE))
        else:
            started = time.monotonic()
            compiled, error = self._compile(order.text)
            self._done(GrammarCompiled(order.text, compiled, error, seconds=time.monotonic() - started))

    def _prepare(self) -> bool:
        """Read the tokenizer and set the limits; False if that cannot be done."""
        if self._tokenizer is None:
            try:
                self._tokenizer, self._limits = self._make_tokenizer(), parser_limits()
            except Exception:
                logger.exception("the tokenizer does not work with grammars")
                return False
            if self._trial is not None:
                self._trial.start()
        return True

    def _compile(self, text: str) -> tuple[CompiledGrammar | None, ErrorRecord | None]:
        verdict = "good" if self._trial is None else self._trial.judge(text)
        if verdict != "good":
            return None, _BROKEN if verdict == "broken" else _refusal(_WHY_REFUSED[verdict])
        matcher = self._matcher(text)
        if not matcher.is_error():
            # Some grammars compile and fail at their first step: rules that only call each other, for one.
            first = matcher.deep_copy()
            mask = first.compute_bitmask()
            if first.is_error():
                matcher = first
            elif not any(mask):
                return None, _refusal("it allows no text at all")
        if matcher.is_error():
            return None, _refusal(matcher.get_error())
        eos = frozenset() if self._tokenizer is None else frozenset(self._tokenizer.eos_tokens)
        return CompiledGrammar(text, matcher, eos), None

    def _renew(self, constraint: Constraint) -> None:
        matcher = self._matcher(constraint.text)
        constraint.matcher, constraint.is_private = matcher, True
        # One that fails here fails for good, and says so when its mask is computed.
        constraint.consumed = matcher.try_consume_tokens(constraint.tokens)
        self._renewed(constraint)

    def _matcher(self, text: str) -> LLMatcher:
        from llguidance import LLMatcher

        if self._tokenizer is None:
            raise RuntimeError("grammars are compiled after the tokenizer was read")
        return LLMatcher(self._tokenizer, text, log_level=0, limits=self._limits)


def _refusal(reason: str) -> ErrorRecord:
    return ErrorRecord(
        code="invalid_grammar", message=f"the grammar of this request cannot be used: {brief(reason)}", http_status=400
    )


def brief(reason: str) -> str:
    """An explanation of llguidance's without the dump that follows it, and not too long for a message."""
    text = " ".join(reason.partition("\n<")[0].split())
    return text if len(text) <= _LONGEST_EXCERPT else f"{text[:_LONGEST_EXCERPT]}..."
