"""Which tokens a sequence has seen, and what that costs them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ..contract.sampling import SamplingParams


class TokenCounts:
    """The distinct tokens of a sequence and how often each was generated, kept up to date one token at a time."""

    def __init__(self, prompt: Iterable[int]) -> None:
        self._index = {token: at for at, token in enumerate(dict.fromkeys(prompt))}
        size = len(self._index)
        self._ids = np.zeros(max(64, 2 * size), dtype=np.int64)
        self._ids[:size] = list(self._index)
        self._generated = np.zeros(len(self._ids), dtype=np.float32)

    def add(self, token: int) -> None:
        """Count one generated token."""
        at = self._index.setdefault(token, len(self._index))
        if at == len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
            self._generated = np.concatenate([self._generated, np.zeros_like(self._generated)])
        self._ids[at] = token
        self._generated[at] += 1.0

    @property
    def ids(self) -> NDArray[np.int64]:
        """Distinct tokens of prompt and completion, int64 [N]."""
        return self._ids[: len(self._index)]

    @property
    def generated(self) -> NDArray[np.float32]:
        """How often each of `ids` was generated, float32 [N]; 0 for those of the prompt only."""
        return self._generated[: len(self._index)]


def uses_penalties(params: SamplingParams) -> bool:
    return params.repetition_penalty != 1.0 or params.presence_penalty != 0.0 or params.frequency_penalty != 0.0


def apply_penalties(row: NDArray[np.float32], counts: TokenCounts, params: SamplingParams) -> None:
    """Changes the logits `row`, float32 [vocab], in place.

    First CTRL's repetition penalty (arXiv 1909.05858) over prompt and completion, then OpenAI's over the completion:
    logit - count * frequency_penalty - (count > 0) * presence_penalty.
    """
    ids, generated = counts.ids, counts.generated
    seen = row[ids]
    if params.repetition_penalty != 1.0:
        penalty = np.float32(params.repetition_penalty)
        seen = np.where(seen > 0, seen / penalty, seen * penalty)
    seen -= generated * np.float32(params.frequency_penalty)
    seen -= (generated > 0) * np.float32(params.presence_penalty)
    row[ids] = seen
