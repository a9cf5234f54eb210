"""The news of one sequence on its way to whoever consumes it."""

from __future__ import annotations

import asyncio

from ..contract.errors import TunechatError
from ..contract.messages import SequenceOutput, TokenLogprob


class OutputStream:
    """Outputs of one sequence, one consumer. What a slow consumer has not taken yet is merged into one output, so no
    more is ever kept than the sequence itself."""

    def __init__(self) -> None:
        self._latest: SequenceOutput | None = None
        self._tokens: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self._prompt_logprobs: list[TokenLogprob | None] | None = None
        self._error: TunechatError | None = None
        self._is_over = False
        self._news = asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Whether the last output or an error has come in."""
        return self._is_over

    def push(self, output: SequenceOutput) -> None:
        """Add news; ignored after the end."""
        if self._is_over:
            return
        if output.error is not None:
            self.fail(TunechatError.from_record(output.error))
            return
        self._latest = output
        self._tokens.extend(output.tokens)
        self._logprobs.extend(output.logprobs or ())
        self._prompt_logprobs = output.prompt_logprobs or self._prompt_logprobs
        self._is_over = output.finish is not None
        self._news.set()

    def fail(self, error: TunechatError) -> None:
        """End the stream with an error; ignored after the end."""
        if not self._is_over:
            self._is_over = True
            self._error = error
            self._news.set()

    async def take(self) -> SequenceOutput:
        """All news since the last call, waiting for some. Raises the error once what came before it was taken."""
        await self._news.wait()
        latest, tokens, logprobs, prompt_logprobs = self._latest, self._tokens, self._logprobs, self._prompt_logprobs
        if latest is None:
            raise self._error or RuntimeError("take() was called after the last output")
        self._latest, self._tokens, self._logprobs, self._prompt_logprobs = None, [], [], None
        if self._error is None:
            self._news.clear()
        return SequenceOutput(
            sequence=latest.sequence,
            tokens=tokens,
            logprobs=None if latest.logprobs is None else logprobs,
            prompt_logprobs=prompt_logprobs,
            finish=latest.finish,
            stop_token=latest.stop_token,
            prompt_tokens=latest.prompt_tokens,
            cached_tokens=latest.cached_tokens,
            embedding=latest.embedding,
        )
