"""The one event stream behind every dialect: n choices for p prompts, run together, ended together."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..contract.errors import EngineFailed, TunechatError
from ..contract.messages import AdapterUse, SequenceOutput, TokenLogprob
from ..contract.sampling import SamplingParams
from ..text.stop import StopMatcher
from .assembly import SequenceText, scored_token
from .channel import Channel
from .errors import GenerationTimeout
from .events import Delta, Event, ScoredToken, Usage
from .ports import Detokenizer, Engine, Text

# Enough that a socket's hiccup does not stall the engine's reader, little enough that a frozen client costs nothing.
_UNREAD_EVENTS = 256
# What the engine says of a grammar that it cannot compile.
_BAD_GRAMMAR = "invalid_grammar"


@dataclass(frozen=True, slots=True)
class SequencePlan:
    """One choice to generate. `echo` is text that is shown before it.

    `continues` says that the text goes on from the prompt's own words, so that a leading space counts. Special tokens
    in `visible` are text in any case. `grammar_field` is the request's field to name where the grammar is refused.
    """

    index: int
    prompt: list[int]
    params: SamplingParams
    stops: tuple[str, ...] = ()
    include_stop: bool = False
    echo: str = ""
    first_of_prompt: bool = True
    skip_special: bool = True
    continues: bool = False
    visible: frozenset[int] = frozenset()
    grammar_field: str | None = None


class Observer(Protocol):
    """Who wants to know how fast tokens come."""

    def first_token(self, seconds: float) -> None: ...

    def next_tokens(self, seconds: float, count: int) -> None: ...


class Generation:
    """The running choices of one request. `start`, then `events` to the end, and `aclose` in every case.

    Closing aborts what still runs. `fail` ends the request from outside: draining, stopping, running out of time.
    """

    def __init__(
        self,
        engine: Engine,
        text: Text,
        plans: Sequence[SequencePlan],
        *,
        request_id: str,
        salt: str,
        timeout: float,
        observer: Observer,
        adapters: tuple[AdapterUse, ...] = (),
    ) -> None:
        self.usage = Usage(prompt_tokens=sum(len(plan.prompt) for plan in plans if plan.first_of_prompt))
        self.started = False
        self.time_to_first_token: float | None = None
        self._engine = engine
        self._text = text
        self._plans = plans
        self._request_id = request_id
        self._salt = salt
        self._adapters = adapters
        self._timeout = timeout
        self._observer = observer
        self._channel: Channel[Event] = Channel(_UNREAD_EVENTS)
        self._tasks: list[asyncio.Task[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._open = len(plans)
        self._began = time.monotonic()

    def start(self) -> None:
        """Submits every choice to the engine. Raises what the engine refuses at once."""
        outputs = [self._submit(plan) for plan in self._plans]
        self._tasks = [asyncio.create_task(self._run(*pair)) for pair in zip(self._plans, outputs, strict=True)]
        late = GenerationTimeout(f"The answer took longer than {self._timeout:g} seconds.")
        self._timer = asyncio.get_running_loop().call_later(self._timeout, self.fail, late)

    def _submit(self, plan: SequencePlan) -> AsyncIterator[SequenceOutput]:
        return self._engine.generate(
            plan.prompt,
            plan.params,
            sequence=f"{self._request_id}-{plan.index}",
            salt=self._salt,
            adapters=self._adapters,
        )

    async def wait_first(self, limit: float) -> None:
        """Returns with the first event or after `limit` seconds. Raises what the engine refused the request for."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._channel.wait(), limit)

    async def events(self) -> AsyncGenerator[Event]:
        """All events, in the order in which they came about."""
        while (event := await self._channel.get()) is not None:
            yield event

    def fail(self, error: Exception) -> None:
        """Ends the request with `error`, now."""
        self._channel.fail(error)

    async def aclose(self) -> None:
        """Aborts what still runs and waits until the engine's streams are closed. Safe to call twice."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, plan: SequencePlan, outputs: AsyncIterator[SequenceOutput]) -> None:
        try:
            async with closing(outputs):
                await self._pump(plan, outputs)
        except Exception as error:
            if isinstance(error, TunechatError) and error.code == _BAD_GRAMMAR:
                error.param = plan.grammar_field
            self._channel.close(error)
            return
        self._open -= 1
        if not self._open:
            self._channel.close()

    async def _pump(self, plan: SequencePlan, outputs: AsyncIterator[SequenceOutput]) -> None:
        sequence = SequenceText(
            plan.index,
            self._text.detokenizer(skip_special=plan.skip_special, continues=plan.continues, visible=plan.visible),
            stops=StopMatcher(plan.stops, include_stop=plan.include_stop) if plan.stops else None,
            min_tokens=plan.params.min_tokens,
            offset=len(plan.echo),
        )
        last_token: float | None = None
        is_first = True
        async for output in outputs:
            if is_first:
                is_first = False
                await self._begin(plan, output)
            if output.tokens:
                last_token = self._observe(last_token, len(output.tokens))
            before = sequence.tokens
            events = tuple(sequence.feed(output))
            self.usage.completion_tokens += sequence.tokens - before
            for event in events:
                await self._channel.put(event)
            if sequence.finished:
                return
        raise EngineFailed("The engine ended this request without a result.")

    async def _begin(self, plan: SequencePlan, output: SequenceOutput) -> None:
        self.started = True
        if plan.first_of_prompt:
            self.usage.cached_tokens += output.cached_tokens
        if plan.echo:
            detokenizer = self._text.detokenizer(skip_special=False)
            scored = await asyncio.to_thread(score_prompt, detokenizer, plan.prompt, output.prompt_logprobs)
            await self._channel.put(Delta(plan.index, plan.echo, scored))

    def _observe(self, last: float | None, count: int) -> float:
        now = time.monotonic()
        if last is not None:
            self._observer.next_tokens(now - last, count)
        elif self.time_to_first_token is None:
            self.time_to_first_token = now - self._began
            self._observer.first_token(self.time_to_first_token)
        return now


def score_prompt(
    detokenizer: Detokenizer, prompt: Sequence[int], scores: Sequence[TokenLogprob | None] | None
) -> tuple[ScoredToken, ...]:
    """The prompt's own tokens with their log-probabilities; nothing when none were asked for."""
    if scores is None:
        return ()
    scored: list[ScoredToken] = []
    offset = 0
    for token, score in zip(prompt, scores, strict=True):
        scored.append(ScoredToken(token, None, (), offset) if score is None else scored_token(score, offset))
        offset += len(detokenizer.push((token,)))
    return tuple(scored)


@contextlib.asynccontextmanager
async def closing(outputs: AsyncIterator[SequenceOutput]) -> AsyncIterator[None]:
    """Closes the engine's stream however the block is left: that is what aborts the sequence."""
    try:
        yield
    finally:
        close = getattr(outputs, "aclose", None)
        if close is not None:
            await close()
