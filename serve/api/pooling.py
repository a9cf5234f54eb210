"""The prompts of one request on their way through the engine, each to the mean of its hidden states."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from ..contract.errors import EngineFailed, TunechatError
from ..contract.messages import AdapterUse
from ..contract.sampling import SamplingParams
from .errors import GenerationTimeout
from .events import Usage
from .generation import closing
from .ports import Engine

# Enough to fill the engine's steps; the rest of a long list waits here, and not in the queue that all share.
_AT_ONCE = 16
_PARAMS = SamplingParams(max_tokens=0, temperature=0.0, pooled=True)


class Pooling:
    """Computes the embeddings of `prompts`, some at a time. Cancelling `run` aborts what is under way.

    `fail` ends it from outside: draining, stopping, running out of time.
    """

    def __init__(
        self,
        engine: Engine,
        prompts: Sequence[list[int]],
        *,
        request_id: str,
        salt: str,
        timeout: float,
        adapters: tuple[AdapterUse, ...] = (),
    ) -> None:
        self.usage = Usage(prompt_tokens=sum(map(len, prompts)))
        self.started = False
        self._engine = engine
        self._prompts = prompts
        self._request_id = request_id
        self._salt = salt
        self._timeout = timeout
        self._adapters = adapters
        self._means: dict[int, bytes] = {}
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, error: Exception) -> None:
        """Ends it with `error`, now."""
        if not self._failure.done():
            self._failure.set_exception(error)

    async def run(self) -> list[bytes]:
        """The mean of each prompt, float32 little-endian, in order. Raises what the engine refuses one of them for."""
        todo = iter(enumerate(self._prompts))
        working = [asyncio.create_task(self._work(todo)) for _ in range(min(_AT_ONCE, len(self._prompts)))]
        all_work = asyncio.gather(*working)
        late = GenerationTimeout(f"The embeddings took longer than {self._timeout:g} seconds.")
        timer = asyncio.get_running_loop().call_later(self._timeout, self.fail, late)
        try:
            ends: list[asyncio.Future[Any]] = [all_work, self._failure]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._failure.done():
                self._failure.result()
            all_work.result()
        finally:
            timer.cancel()
            self._failure.cancel()
            for task in working:
                task.cancel()
            await asyncio.gather(*working, all_work, return_exceptions=True)
        return [self._means[index] for index in range(len(self._prompts))]

    async def _work(self, todo: Iterator[tuple[int, list[int]]]) -> None:
        for index, prompt in todo:
            self._means[index] = await self._mean(index, prompt)

    async def _mean(self, index: int, prompt: list[int]) -> bytes:
        outputs = self._engine.generate(
            prompt, _PARAMS, sequence=f"{self._request_id}-{index}", salt=self._salt, adapters=self._adapters
        )
        mean: bytes | None = None
        async with closing(outputs):
            async for output in outputs:
                if output.error is not None:
                    raise TunechatError.from_record(output.error)
                self.started = True
                mean = output.embedding
        if mean is None:
            raise EngineFailed("The engine ended this request without a result.")
        return mean
