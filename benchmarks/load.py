"""Concurrent streams, and the times at which their tokens came.

The client is a bare socket: on a machine that serves and asks at once, what the client spends the server lacks, and a
convenient client spends several times what a server does on a token.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

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


async def run_streams(
    url: str, model: str | Sequence[str], prompts: list[str], tokens: int, concurrent: int
) -> list[Stream]:
    """All prompts, `concurrent` at a time, greedy, `tokens` each at most; of one model, or each of its own."""
    places = asyncio.Semaphore(concurrent)
    models = [model] * len(prompts) if isinstance(model, str) else model

    async def one(model: str, prompt: str) -> Stream:
        async with places:
            return await _stream(url, model, prompt, tokens)

    return await asyncio.gather(*(one(*pair) for pair in zip(models, prompts, strict=True)))


async def _stream(url: str, model: str, prompt: str, tokens: int) -> Stream:
    """One chat completion over a connection of its own. Raises RuntimeError for a reply that is no stream of text."""
    address = urlsplit(url)
    body = json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": tokens,
            "stream": True,
        }
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode()
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    asked = time.perf_counter()
    arrivals, pieces = [], []
    try:
        writer.write(head + body)
        status = await reader.readline()
        if b" 200 " not in status:
            raise RuntimeError(f"the server answered {status.decode().strip()}: {(await reader.read(2000)).decode()}")
        # Sizes of HTTP chunks and other lines between the events do not begin like an event.
        async for line in reader:
            if line.startswith(b"data: {"):
                choices = json.loads(line[6:])["choices"]
                text = choices[0]["delta"].get("content") if choices else None
                if text:
                    arrivals.append(time.perf_counter())
                    pieces.append(text)
    finally:
        writer.close()
    if not arrivals:
        raise RuntimeError("the server streamed no text")
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
