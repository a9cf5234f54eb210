"""The engine's one loop: schedule, run, commit."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Protocol

from ..contract.errors import ErrorRecord, TunechatError
from ..contract.messages import (
    Abort,
    AddAdapter,
    EngineStats,
    FromEngine,
    Heartbeat,
    LoadAdapter,
    PinAdapter,
    RemoveAdapter,
    SequenceOutput,
    Shutdown,
    StepOutputs,
    Submit,
    ToEngine,
)
from .adapter_flow import AdapterDevice, AdapterFlow
from .adapter_loader import AdapterRead
from .batch import Batch
from .block_pool import BlockPool, IntegrityError
from .grammar_compiler import GrammarCompiled
from .grammar_flow import GrammarFlow
from .grammar_trial import GrammarTrial
from .mask_thread import await_masks
from .memory import drop_caches, is_out_of_memory, resident_bytes
from .options import EngineOptions
from .plan import Plan, assemble
from .residency import Residency
from .sampler import Sampled, sample
from .scheduler import Limits, Scheduler

if TYPE_CHECKING:
    import torch
    from llguidance import LLTokenizer

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0
_MASK_SECONDS = 0.05
_STEPS_BEFORE_GROWTH = 64
_FAILURES_IN_A_ROW = 3
_PREFILL_CHUNK = {"cpu": 64, "cuda": 512}

_OUT_OF_MEMORY = ErrorRecord(
    code="out_of_memory",
    message="there was not enough memory for this request, even alone; send a shorter one or try again later",
    http_status=503,
    retry_after=10,
)


Inbox = SimpleQueue[ToEngine | AdapterRead | GrammarCompiled]


class Runner(AdapterDevice, Protocol):
    """The device side, as the loop sees it: `forward` gives float32 [L, vocab], valid until it is called again;
    `forward_pooled` also float32 [H, hidden_size]."""

    block_size: int
    blocks: int
    context_length: int
    max_batch_tokens: int

    @property
    def vocab_size(self) -> int: ...

    @property
    def hidden_size(self) -> int: ...

    def forward(self, batch: Batch) -> torch.Tensor: ...

    def forward_pooled(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]: ...

    def grammar_tokenizer(self) -> LLTokenizer: ...

    def grammar_trial(self) -> GrammarTrial | None: ...


def sequence_limit(runner: Runner) -> int:
    """The most tokens that one sequence can have: the context, if the whole pool holds as many."""
    return min(runner.context_length, runner.blocks * runner.block_size)


class Engine:
    """Takes messages from `inbox`, computes, and tells the news to `send`. One thread; nothing here is shared."""

    def __init__(
        self,
        runner: Runner,
        options: EngineOptions,
        *,
        inbox: Inbox,
        send: Callable[[FromEngine], None],
        device: str = "cpu",
    ) -> None:
        self._runner = runner
        self._inbox = inbox
        self._send = send
        self.adapters = Residency(runner.adapter_slots, runner.adapter_bytes)
        self.scheduler = Scheduler(
            BlockPool(runner.blocks, runner.block_size, caching=options.prefix_cache),
            Limits(
                sequence_tokens=sequence_limit(runner),
                vocab_size=runner.vocab_size,
                batch_tokens=runner.max_batch_tokens,
                prefill_chunk=options.prefill_chunk or _PREFILL_CHUNK.get(device, 256),
                running=min(options.max_running, runner.max_batch_tokens),
            ),
            self.adapters,
        )
        self._flow = AdapterFlow(runner, self.adapters, self.scheduler, done=inbox.put, send=send)
        self._grammars = GrammarFlow(
            runner.grammar_tokenizer,
            runner.vocab_size,
            self.scheduler,
            done=inbox.put,
            report=self._report,
            trial=runner.grammar_trial(),
        )
        self._steps = 0
        self._steps_since_shrink = 0
        self._failures = 0
        self._busy_seconds = 0.0
        self._last_heartbeat = 0.0
        self._stops = False

    def run(self) -> None:
        """Serve until told to shut down. Raises what a step raised: the engine is of no use after that."""
        was_idle = True
        while not self._stops:
            self.beat()
            if self.scheduler.has_work:
                if was_idle:
                    self._tell_stats()
                was_idle = False
                self.step()
                self.receive(0.0)
                continue
            if not was_idle:
                self.scheduler.check_integrity()
                self._tell_stats()
                was_idle = True
            if not self.receive(HEARTBEAT_SECONDS):
                # Nobody is there whom it could hold up.
                self._grammars.warm()

    def step(self) -> None:
        """Compute one batch and send what came of it."""
        started = time.monotonic()
        ended = self.scheduler.end_by_grammar()
        self._report(ended)
        plan = self.scheduler.schedule()
        if not plan:
            if self.scheduler.has_work or not ended:
                self._wait()
            return
        self._flow.install()
        results = self._run(plan)
        if results is not None:
            self._report(self.scheduler.commit(plan, results))
        self._steps += 1
        self._busy_seconds += time.monotonic() - started

    def _wait(self) -> None:
        """Nothing can be computed now: wait for what has to come first."""
        late = [sequence.grammar for sequence in self.scheduler.running if sequence.grammar is not None]
        late = [grammar for grammar in late if grammar.is_late]
        if late:
            late[0].wait(_MASK_SECONDS)
            return
        if not (self._flow.is_reading or self._grammars.is_compiling):
            raise IntegrityError("sequences are there, and none of them can run")
        # An adapter or a grammar is on its way, and comes as a message.
        self.receive(HEARTBEAT_SECONDS)

    def receive(self, wait: float) -> bool:
        """Act on all messages that are there, waiting up to `wait` seconds for the first; False if there was none."""
        received = False
        try:
            message = self._inbox.get(timeout=wait) if wait else self._inbox.get_nowait()
            received = True
            while True:
                self._handle(message)
                message = self._inbox.get_nowait()
        except Empty:
            self._flow.settle()
            self._flow.install()
        return received

    def beat(self) -> None:
        """Show the gateway that the loop turns, once a second."""
        if time.monotonic() - self._last_heartbeat >= HEARTBEAT_SECONDS:
            self._tell_stats()

    def _tell_stats(self) -> None:
        """Send a heartbeat now: when work begins and when it ends, so that the gauges never call a busy engine idle."""
        self._last_heartbeat = time.monotonic()
        self._send(Heartbeat(stats=self.stats))

    @property
    def stats(self) -> EngineStats:
        scheduler, pool = self.scheduler, self.scheduler.pool
        return EngineStats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            blocks_total=pool.blocks,
            blocks_used=pool.used,
            blocks_cached=pool.cached,
            steps=self._steps,
            prompt_tokens=scheduler.prompt_tokens,
            cached_prompt_tokens=scheduler.cached_prompt_tokens,
            generated_tokens=scheduler.generated_tokens,
            preemptions=scheduler.preemptions,
            aborted=scheduler.aborted,
            busy_seconds=self._busy_seconds,
            resident_bytes=resident_bytes(),
            adapters=self.adapters.stats(),
            adapter_moves=self.adapters.moves(),
            adapter_loads=self.adapters.loads,
            adapter_installs=self.adapters.installs,
            adapter_evictions=self.adapters.evictions,
            grammars_compiled=self._grammars.compiled,
            grammars_refused=self._grammars.refused,
            grammars_reused=self._grammars.reused,
            grammar_compile_seconds=self._grammars.compile_seconds,
            running_grammars=sum(sequence.grammar is not None for sequence in scheduler.running),
            late_masks=scheduler.late_masks,
        )

    def _handle(self, message: ToEngine | AdapterRead | GrammarCompiled) -> None:
        match message:
            case Submit():
                try:
                    self._add(message)
                except TunechatError as error:
                    self._report([SequenceOutput(sequence=message.sequence, error=error.record)])
            case Abort():
                self.scheduler.abort(message.sequence)
            case AddAdapter() | LoadAdapter() | PinAdapter() | RemoveAdapter():
                self._flow.handle(message)
            case AdapterRead():
                self._flow.take(message)
            case GrammarCompiled():
                self._grammars.take(message)
            case Shutdown():
                self._stops = True

    def _add(self, submit: Submit) -> None:
        self._grammars.check(submit.params.grammar)
        sequence = self.scheduler.add(submit)
        if submit.params.grammar:
            self._grammars.open(sequence)

    def _run(self, plan: Plan) -> list[Sampled] | None:
        """What the plan gave; None if memory did not suffice, and the next plan will be a smaller one."""
        try:
            started = time.monotonic()
            batch, hidden = self._assemble(plan), None
            if len(batch.hidden_rows):
                logits, hidden = self._runner.forward_pooled(batch)
            else:
                logits = self._runner.forward(batch)
            await_masks(plan, time.monotonic() - started)
            results = sample(plan, logits, hidden)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._make_smaller(plan, error)
            return None
        self._failures = 0
        self._steps_since_shrink += 1
        if self._steps_since_shrink % _STEPS_BEFORE_GROWTH == 0:
            self.scheduler.relax()
        return results

    def _assemble(self, plan: Plan) -> Batch:
        return assemble(plan, self.scheduler.tables, self._runner.block_size, self.adapters.slot_of)

    def _make_smaller(self, plan: Plan, error: Exception) -> None:
        """Halve the next steps; if this one could not be smaller, fail its request; if that recurs, give up."""
        drop_caches()
        self._steps_since_shrink = 0
        if self.scheduler.shrink(plan):
            logger.warning("out of memory in a step of %d sequences; trying smaller ones", len(plan))
            return
        self._failures += 1
        if self._failures >= _FAILURES_IN_A_ROW:
            raise error
        for work in plan:
            logger.warning("out of memory in a step with only one sequence; it fails")
            self._report([self.scheduler.fail(work.sequence, _OUT_OF_MEMORY)])

    def _report(self, outputs: list[SequenceOutput]) -> None:
        if outputs:
            self._send(StepOutputs(outputs=outputs))
