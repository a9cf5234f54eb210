"""Which grammars are compiled, and which sequences wait for one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..contract.errors import ErrorRecord, TunechatError
from ..contract.messages import SequenceOutput
from .constraint import Constraint
from .grammar_compiler import CompiledGrammar, GrammarCompiled, GrammarCompiler
from .grammar_trial import GrammarTrial
from .mask_thread import MaskThread
from .scheduler import Scheduler
from .sequence import Sequence

if TYPE_CHECKING:
    from llguidance import LLTokenizer

# Grammars and refusals that are remembered: so many at most, and so many bytes of their texts.
MAX_KNOWN = 32
MAX_KNOWN_BYTES = 4 << 20


class GrammarFlow:
    """Gives each sequence with a grammar its constraint. A grammar is compiled once and remembered, and so is why one
    was refused, until others have been used more recently."""

    def __init__(
        self,
        make_tokenizer: Callable[[], LLTokenizer],
        vocab_size: int,
        scheduler: Scheduler,
        *,
        done: Callable[[GrammarCompiled], None],
        report: Callable[[list[SequenceOutput]], None],
        trial: GrammarTrial | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._report = report
        self._masks = MaskThread(vocab_size, renew=self._renew)
        self._compiler = GrammarCompiler(make_tokenizer, done=done, renewed=self._masks.order, trial=trial)
        self._known: OrderedDict[str, CompiledGrammar | ErrorRecord] = OrderedDict()
        self._known_bytes = 0
        self._waiting: dict[str, list[Sequence]] = {}
        self.compiled = self.refused = self.reused = 0
        self.compile_seconds = 0.0

    @property
    def is_compiling(self) -> bool:
        """Whether a GrammarCompiled is on its way."""
        return bool(self._waiting)

    def warm(self) -> None:
        """Read the tokenizer now: it holds up every step, so a time without any is best."""
        self._compiler.warm()

    def check(self, text: str) -> None:
        """Raises why a grammar was refused, if it was and that is remembered."""
        known = self._known.get(text)
        if isinstance(known, ErrorRecord):
            self._known.move_to_end(text)
            self.refused += 1
            raise TunechatError.from_record(known)

    def open(self, sequence: Sequence) -> None:
        """Give a sequence that waits the constraint of its parameters, as soon as its grammar is compiled."""
        params = sequence.params
        # Log-probabilities are wanted for every token, and forced ones are never looked up in any logits.
        may_force = params.logprobs is None
        sequence.grammar = Constraint(params.grammar, params.stop_token_ids, self._masks.order, may_force=may_force)
        known = self._known.get(params.grammar)
        if isinstance(known, CompiledGrammar) and not known.is_worn:
            self._known.move_to_end(params.grammar)
            self.reused += 1
            sequence.grammar.begin(known)
            return
        waiting = self._waiting.setdefault(params.grammar, [])
        waiting.append(sequence)
        if len(waiting) == 1:
            self._order(params.grammar)

    def take(self, result: GrammarCompiled) -> None:
        """Let those begin who waited for a grammar, or fail them."""
        waiting = [sequence for sequence in self._waiting.get(result.text, ()) if not _is_closed(sequence)]
        if result.compiled is None and result.error is None and waiting:
            # Somebody came for it just after it was found that nobody wanted it.
            self._waiting[result.text] = waiting
            self._order(result.text)
            return
        self._waiting.pop(result.text, None)
        self.compile_seconds += result.seconds
        self.refused += len(waiting) if result.error is not None else 0
        if result.compiled is not None:
            self.compiled += 1
            self._remember(result.text, result.compiled)
        elif result.error is not None and result.error.http_status < 500:
            self._remember(result.text, result.error)
        for sequence in waiting:
            if result.compiled is not None and sequence.grammar is not None:
                sequence.grammar.begin(result.compiled)
            elif result.error is not None:
                self._report([self._scheduler.fail(sequence, result.error)])

    def _order(self, text: str) -> None:
        waiting = self._waiting[text]
        tenant = waiting[0].namespace.salt
        self._compiler.compile(text, lambda: not all(_is_closed(sequence) for sequence in list(waiting)), tenant)

    def _renew(self, constraint: Constraint) -> None:
        self._compiler.renew(constraint)

    def _remember(self, text: str, known: CompiledGrammar | ErrorRecord) -> None:
        if text not in self._known:
            self._known_bytes += len(text)
        self._known[text] = known
        self._known.move_to_end(text)
        worn = [old for old, other in self._known.items() if isinstance(other, CompiledGrammar) and other.is_worn]
        for old in worn:
            self._forget(old)
        while len(self._known) > MAX_KNOWN or self._known_bytes > MAX_KNOWN_BYTES:
            self._forget(next(iter(self._known)))

    def _forget(self, text: str) -> None:
        del self._known[text]
        self._known_bytes -= len(text)


def _is_closed(sequence: Sequence) -> bool:
    return sequence.grammar is None or sequence.grammar.is_closed
