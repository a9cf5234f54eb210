"""Who computes what in the next step, and what has come of it."""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass

from ..contract.errors import ErrorRecord
from ..contract.messages import SequenceOutput, Submit, TokenLogprob
from .admission import check_request
from .block_pool import BlockPool, IntegrityError
from .block_tables import BlockTables
from .plan import Plan, Work
from .prefix import BlockKey, Epochs
from .residency import Residency
from .sampler import Sampled
from .sequence import Sequence
from .waiting import WaitingQueue

# Logits of a prompt row are as wide as the vocabulary: this many rows of them at once stay below 40 MB for most models.
_PROMPT_LOGPROB_ROWS = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one step and of one sequence, in tokens; `patience` is how often a sequence may be overtaken."""

    sequence_tokens: int
    vocab_size: int
    batch_tokens: int
    prefill_chunk: int
    running: int
    patience: int = 16
    lookahead: int = 8
    prefilling: int = 4


class Scheduler:
    """Continuous batching: every sequence that decodes gets its token in each step, prompts share what is left.

    A sequence is admitted when the pool has room for all of its prompt. When a running one finds no block for its next
    token, the youngest is put back and computed again later: the oldest is never put back, so the work always ends.

    A sequence that uses adapters runs with a slot for each. One whose adapters are not in memory, or find no slot,
    waits and holds up nobody; once it was overtaken too often by others with adapters, younger ones of them wait too.
    One whose grammar is not compiled yet waits as well, and one that runs and has no mask for its next token sits out
    the steps until it has.
    """

    def __init__(self, pool: BlockPool, limits: Limits, adapters: Residency) -> None:
        self.pool = pool
        self.adapters = adapters
        self.limits = limits
        width = -(-limits.sequence_tokens // pool.block_size)
        self.tables = BlockTables(limits.running, width)
        self.waiting = WaitingQueue(limits.patience)
        self.running: list[Sequence] = []
        self.preemptions = self.aborted = self.late_masks = 0
        self.prompt_tokens = self.cached_prompt_tokens = self.generated_tokens = 0
        self.max_running = limits.running
        self.max_prefill = limits.batch_tokens
        self._by_id: dict[str, Sequence] = {}
        self._epochs = Epochs()
        self.arrivals = 0

    @property
    def has_work(self) -> bool:
        return bool(self._by_id)

    def add(self, submit: Submit) -> Sequence:
        """Queue a sequence. Raises InvalidRequest, ContextLengthExceeded, ModelNotFound or AdapterCapacity for one that
        can never be served."""
        check_request(
            submit.prompt,
            submit.params,
            limit=self.limits.sequence_tokens,
            vocab_size=self.limits.vocab_size,
        )
        self.adapters.check(submit.adapters)
        if submit.sequence in self._by_id:
            raise IntegrityError(f"sequence {submit.sequence!r} was submitted twice")
        sequence = Sequence.of(submit, self.arrivals)
        self.arrivals += 1
        self._by_id[sequence.id] = sequence
        self._wait(sequence)
        self.waiting.add(sequence)
        return sequence

    def abort(self, identity: str) -> None:
        """Drop a sequence and all it holds; unknown ids are ignored."""
        sequence = self._by_id.get(identity)
        if sequence is not None:
            self.aborted += 1
            self._drop(sequence)

    def schedule(self) -> Plan:
        """The work of the next step. Changes nothing that a step which fails would have to undo."""
        self._make_room()
        decoding = [sequence for sequence in self.running if sequence.remaining == 1 and not sequence.is_held]
        budget = self.limits.batch_tokens - len(decoding)
        budget = min(budget, self.limits.prefill_chunk if decoding else budget, self.max_prefill)
        prefilling = [sequence for sequence in self.running if sequence.remaining > 1]
        self._admit(prefilling, budget)
        return (*(Work(sequence, sequence.computed, 1) for sequence in decoding), *_share_out(prefilling, budget))

    def end_by_grammar(self) -> list[SequenceOutput]:
        """End the running sequences to which their grammar allows no more tokens."""
        outputs = []
        for sequence in [sequence for sequence in self.running if sequence.grammar is not None]:
            grammar = sequence.grammar
            if grammar is None or not grammar.is_over:
                continue
            self._drop(sequence)
            finish = "stop" if grammar.error is None else None
            outputs.append(self._output(sequence, finish=finish, error=grammar.error))
        return outputs

    def commit(self, plan: Plan, results: list[Sampled]) -> list[SequenceOutput]:
        """Record what a step computed, free what has ended, and give the news."""
        outputs = []
        for work, result in zip(plan, results, strict=True):
            output = self._commit(work, result)
            if output is not None:
                outputs.append(output)
        return outputs

    def fail(self, sequence: Sequence, error: ErrorRecord) -> SequenceOutput:
        """End a sequence with an error."""
        self._drop(sequence)
        return self._output(sequence, error=error)

    def shrink(self, plan: Plan) -> bool:
        """Make the next steps smaller after `plan` was too large for memory; False if it is as small as can be."""
        tokens = sum(work.count for work in plan)
        if len(plan) <= 1 and tokens <= self.pool.block_size:
            return False
        self.max_prefill = max(self.pool.block_size, min(self.max_prefill, tokens) // 2)
        self.max_running = max(1, len(plan) // 2)
        while len(self.running) > self.max_running:
            self._preempt(self.running[-1])
        return True

    def relax(self) -> None:
        """Let steps grow again, by a factor of two, towards the limits."""
        self.max_prefill = min(2 * self.max_prefill, self.limits.batch_tokens)
        self.max_running = min(2 * self.max_running, self.limits.running)

    def check_integrity(self) -> None:
        """Raises IntegrityError unless every block and every sequence is accounted for."""
        self.pool.check_integrity(self.tables.held())
        if len(self.running) + len(self.waiting) != len(self._by_id):
            raise IntegrityError("a sequence neither runs nor waits")
        self.adapters.check_integrity(
            ((sequence.arrival, sequence.adapters) for sequence in self.running),
            ((sequence.arrival, sequence.adapters) for sequence in self.waiting),
        )
        if not self.has_work and self.pool.used:
            raise IntegrityError(f"{self.pool.used} blocks are held and no sequence is there")

    def _make_room(self) -> None:
        """Give each running sequence blocks for all of its tokens; put back the youngest when none is free."""
        for sequence in tuple(self.running):
            while sequence.row >= 0 and self.tables.count(sequence.row) * self.pool.block_size < sequence.length:
                while not self.pool.free and sequence.row >= 0:
                    self._preempt(self.running[-1])
                if sequence.row >= 0:
                    self.tables.append(sequence.row, [self.pool.acquire()])

    def _preempt(self, sequence: Sequence) -> None:
        self.preemptions += 1
        # Wanted before it is let go: an adapter that was removed meanwhile stays as long as somebody uses it.
        self._wait(sequence)
        self._release(sequence)
        self.waiting.put_back(sequence)

    def _wait(self, sequence: Sequence) -> None:
        self.adapters.want(sequence.adapters, sequence.arrival)
        sequence.enter(self._epochs.of(sequence.namespace.adapters))

    def _admit(self, prefilling: list[Sequence], budget: int) -> None:
        """Admit waiting sequences while this step has tokens to spare for them; adds them to `prefilling`."""
        if not self.waiting or not self.pool.free or len(self.running) >= self.max_running:
            return
        coming = {key for sequence in prefilling if (key := self._next_key(sequence)) is not None}
        most = self.max_running - len(self.running)
        looked = refusals = 0
        closed: float = math.inf
        for sequence in list(self.waiting.candidates()):
            if looked >= most + self.limits.lookahead:
                return
            busy = sum(other.remaining for other in prefilling)
            if len(self.running) >= self.max_running or (busy >= budget and len(prefilling) >= self.limits.prefilling):
                return
            if budget <= len(prefilling):
                return
            if not sequence.may_begin:
                continue
            if sequence.adapters:
                if sequence.arrival > closed:
                    continue
                lack = self.adapters.lacks(sequence.adapters)
                if lack == "room" and self.waiting.refuse(sequence, for_adapters=True):
                    # Older ones may still pass: what is left of them ends, and what they need may not be taken away.
                    closed = min(closed, sequence.arrival)
                if lack != "nothing":
                    continue
            looked += 1
            cached = self._find_cached(sequence)
            if self._is_coming(sequence, cached, coming):
                continue
            if not self._fits(sequence, cached):
                refusals += 1
                if self.waiting.refuse(sequence) or refusals >= self.limits.lookahead:
                    return
                continue
            self._start(sequence, cached)
            prefilling.append(sequence)
            key = self._next_key(sequence)
            if key is not None:
                coming.add(key)

    def _find_cached(self, sequence: Sequence) -> list[int]:
        """Cached blocks that it begins with; never all of it, for the last token's logits must be computed. None of it
        where all hidden states are wanted."""
        if not self.pool.is_caching or sequence.params.pooled:
            return []
        reusable = sequence.length - 1
        if sequence.prompt_logprobs is not None:
            reusable = min(reusable, len(sequence.prompt_logprobs) - 1)
        return self.pool.match(
            sequence.namespace,
            sequence.tokens[: sequence.length].data.cast("B"),
            reusable // self.pool.block_size,
        )

    def _is_coming(self, sequence: Sequence, cached: list[int], coming: set[BlockKey]) -> bool:
        """Whether a running sequence is about to compute the very block that this one would compute first."""
        if not coming or sequence.prompt_logprobs is not None or sequence.params.pooled:
            return False
        if (len(cached) + 1) * self.pool.block_size >= sequence.length:
            return False
        parent = self.pool.serial(cached[-1]) if cached else sequence.namespace
        return sequence.block_key(len(cached), parent, self.pool.block_size) in coming

    def _next_key(self, sequence: Sequence) -> BlockKey | None:
        """The key of the next block that a running sequence will register, if its tokens are known."""
        if not self.pool.is_caching or (sequence.registered + 1) * self.pool.block_size > sequence.length:
            return None
        return sequence.block_key(sequence.registered, sequence.parent, self.pool.block_size)

    def _fits(self, sequence: Sequence, cached: list[int]) -> bool:
        """Whether there is room for all of it, and for one more block for each that runs already."""
        taken = sum(self.pool.is_held(block) for block in cached)
        needed = -(-sequence.length // self.pool.block_size) - taken
        return needed + len(self.running) <= self.pool.free or (not self.running and needed <= self.pool.free)

    def _start(self, sequence: Sequence, cached: list[int]) -> None:
        self.waiting.admit(sequence)
        if not self.adapters.acquire(sequence.adapters, sequence.arrival):
            raise IntegrityError("a sequence was admitted without its adapters")
        insort(self.running, sequence, key=lambda other: other.arrival)
        sequence.row = self.tables.open()
        for block in cached:
            self.pool.share(block)
        fresh = -(-sequence.length // self.pool.block_size) - len(cached)
        self.tables.append(sequence.row, [*cached, *(self.pool.acquire() for _ in range(fresh))])
        sequence.computed = len(cached) * self.pool.block_size
        sequence.registered = len(cached)
        if cached:
            sequence.parent = self.pool.serial(cached[-1])
        if sequence.cached_tokens is None:
            sequence.cached_tokens = sequence.computed
            self.prompt_tokens += sequence.prompt_length
            self.cached_prompt_tokens += sequence.computed

    def _commit(self, work: Work, result: Sampled) -> SequenceOutput | None:
        sequence = work.sequence
        if result.error is not None:
            # Keys and values that are no numbers may be in the prefix cache by now: nobody may find them there.
            self._epochs.advance(sequence.namespace.adapters)
            for other in self.waiting:
                other.enter(self._epochs.of(other.namespace.adapters))
            return self.fail(sequence, result.error)
        # Without its logits the last token counts as not computed: it is, once more, in the next step.
        sequence.computed = work.end - result.is_late
        self._register(sequence)
        if result.hidden is not None:
            sequence.pool(result.hidden)
        if sequence.prompt_logprobs is not None:
            sequence.prompt_logprobs.extend(result.prompt_logprobs)
        if result.is_late and sequence.grammar is not None:
            sequence.grammar.is_late = True
            self.late_masks += 1
        if sequence.remaining:
            return None
        return self._append(sequence, result)

    def _append(self, sequence: Sequence, result: Sampled) -> SequenceOutput:
        """Take what was chosen, up to a token that ends the text or as far as it may go."""
        tokens: list[int] = []
        finish, stop_token = None, None
        for token in result.forced or (() if result.token is None else (result.token,)):
            if sequence.ends_with(token):
                finish, stop_token = "stop", token
                break
            sequence.append(token)
            tokens.append(token)
            if sequence.is_complete:
                break
        self.generated_tokens += len(tokens)
        if finish is None and sequence.is_complete:
            finish = "length"
        if finish is not None:
            self._drop(sequence)
        return self._output(sequence, tokens=tokens, logprob=result.logprob, finish=finish, stop_token=stop_token)

    def _output(
        self,
        sequence: Sequence,
        *,
        tokens: list[int] | None = None,
        logprob: TokenLogprob | None = None,
        finish: str | None = None,
        stop_token: int | None = None,
        error: ErrorRecord | None = None,
    ) -> SequenceOutput:
        wants_logprobs = sequence.params.logprobs is not None
        logprobs = [] if logprob is None or not tokens else [logprob]
        prompt_logprobs = None if sequence.has_reported or error is not None else sequence.prompt_logprobs
        sequence.has_reported = True
        return SequenceOutput(
            sequence=sequence.id,
            tokens=tokens or [],
            logprobs=logprobs if wants_logprobs else None,
            prompt_logprobs=prompt_logprobs,
            finish=finish,
            stop_token=stop_token,
            error=error,
            prompt_tokens=sequence.prompt_length,
            cached_tokens=sequence.cached_tokens or 0,
            embedding=None if finish is None else sequence.embedding,
        )

    def _register(self, sequence: Sequence) -> None:
        """Let its blocks that are full now be found by others."""
        if not self.pool.is_caching:
            return
        for index in range(sequence.registered, sequence.computed // self.pool.block_size):
            key = sequence.block_key(index, sequence.parent, self.pool.block_size)
            block = self.tables.block(sequence.row, index)
            known = self.pool.register(block, key)
            if known != block:
                self.tables.replace(sequence.row, index, known)
            sequence.parent = self.pool.serial(known)
            sequence.registered = index + 1

    def _release(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self.pool.release(self.tables.close(sequence.row))
        self.adapters.release(sequence.adapters, sequence.arrival)
        sequence.reset()

    def _drop(self, sequence: Sequence) -> None:
        del self._by_id[sequence.id]
        if sequence.grammar is not None:
            sequence.grammar.close()
        if sequence.row >= 0:
            self._release(sequence)
        else:
            self.adapters.forget(sequence.adapters, sequence.arrival)
            self.waiting.remove(sequence)


def _share_out(prefilling: list[Sequence], budget: int) -> list[Work]:
    """Tokens of prompts for this step, the oldest sequence first.

    Each but the last takes at most half of what is left, so that a short prompt does not wait for the whole of a long
    one; what nobody else needed goes to the oldest.
    """
    prefilling = sorted(prefilling, key=lambda sequence: sequence.arrival)
    chunks = [0] * len(prefilling)
    logprob_rows = _PROMPT_LOGPROB_ROWS
    for is_last_round in (False, True):
        for at, sequence in enumerate(prefilling):
            is_last = is_last_round or at == len(prefilling) - 1
            take = min(budget if is_last else -(-budget // 2), sequence.remaining - chunks[at])
            if sequence.wants_prompt_logprobs:
                take = min(take, logprob_rows)
                logprob_rows -= take
            chunks[at] += take
            budget -= take
    return [
        Work(sequence, sequence.computed, count)
        for sequence, count in zip(prefilling, chunks, strict=True)
        if count > 0
    ]
