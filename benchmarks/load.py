"""Concurrent streams through the official client, and the times at which their tokens came."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from openai import AsyncOpenAI
from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class Stream:
    """One answer: when it was asked for and when each piece of it came, in seconds of one clock."""

    asked: float
    arrivals: tuple[float, ...]
    text: str

    @property
    def first(self) -> float:
        """Seconds to the first piece."""
        return self.arrivals[0] - self.asked

    @property
    def gaps(self) -> list[float]:
        """Seconds between pieces."""
        return [b - a for a, b in zip(self.arrivals, self.arrivals[1:], strict=False)]


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run of concurrent streams came to; times in milliseconds."""

    tokens_per_second: float
    first_p50: float
    first_p99: float
    gap_p50: float
    gap_p99: float


async def run_streams(url: str, model: str, prompts: list[str], tokens: int, concurrent: int) -> list[Stream]:
    """All prompts, `concurrent` at a time, greedy, `tokens` each at most."""
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", timeout=600, max_retries=0) as client:
        places = asyncio.Semaphore(concurrent)

        async def one(prompt: str) -> Stream:
            async with places:
                return await _stream(client, model, prompt, tokens)

        return await asyncio.gather(*(one(prompt) for prompt in prompts))


async def _stream(client: AsyncOpenAI, model: str, prompt: str, tokens: int) -> Stream:
    asked = time.perf_counter()
    arrivals, pieces = [], []
    stream = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": prompt}],
        temperature=0,
        max_tokens=tokens,
        stream=True,
    )
    async for chunk in stream:
        text = chunk.choices[0].delta.content if chunk.choices else None
        if text:
            arrivals.append(time.perf_counter())
            pieces.append(text)
    return Stream(asked, tuple(arrivals), "".join(pieces))


def figures(streams: list[Stream], tokenizer: Tokenizer) -> Figures:
    """Totals over all streams of one run. Tokens are counted in the text: servers cut their chunks differently."""
    start = min(s.asked for s in streams)
    end = max(s.arrivals[-1] for s in streams)
    firsts = [s.first for s in streams]
    gaps = [gap for s in streams for gap in s.gaps]
    return Figures(
        tokens_per_second=sum(len(tokenizer.encode(s.text).ids) for s in streams) / (end - start),
        first_p50=1000 * percentile(firsts, 50),
        first_p99=1000 * percentile(firsts, 99),
        gap_p50=1000 * percentile(gaps, 50),
        gap_p99=1000 * percentile(gaps, 99),
    )


def percentile(values: list[float], percent: float) -> float:
    """The value that `percent` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
