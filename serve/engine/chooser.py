"""How one sequence picks its next token. Knows nothing of the other sequences in the batch."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..contract.sampling import SamplingParams
from .constraint import Mask
from .filters import draw, keep_min_p, keep_top_p, top_k_ids, weights_of
from .penalties import TokenCounts, apply_penalties, uses_penalties
from .uniform import uniform


class Chooser:
    """Turns logits into tokens by the sampling parameters of one sequence.

    Order: repetition, frequency and presence penalty, logit bias, ban on stop tokens before `min_tokens`, temperature,
    top-k, top-p, min-p, one draw. Each filter sees what the one before it left. The mask of a grammar comes after the
    bias, so that the filters see only what the grammar allows; and where it allows nothing but the end, `min_tokens`
    gives way. Draw number i is a function of the seed and i, so the text stays the same when a sequence is preempted
    and computed again.
    """

    def __init__(self, params: SamplingParams, prompt: list[int]) -> None:
        self._params = params
        self._counts = TokenCounts(prompt) if uses_penalties(params) else None
        self._bias_ids = np.fromiter(params.logit_bias, dtype=np.int64, count=len(params.logit_bias))
        self._bias = np.fromiter(params.logit_bias.values(), dtype=np.float32, count=len(params.logit_bias))
        self._stops = np.array(params.stop_token_ids, dtype=np.int64)
        self._adjusts = self._counts is not None or len(self._bias_ids) > 0

    def is_argmax(self, index: int) -> bool:
        """Whether token number `index` is simply the largest of the model's own logits."""
        return self._params.is_greedy and not self._adjusts and not self._bans_stops(index)

    def observe(self, token: int) -> None:
        """Tell of a token that was generated."""
        if self._counts is not None:
            self._counts.add(token)

    def choose(self, logits: NDArray[np.float32], index: int, mask: Mask | None = None) -> int:
        """Token number `index` of the completion from the model's logits, float32 [vocab], which stay as they are.

        Greedy takes the lowest id among equals. Raises FloatingPointError for logits without a finite maximum, also
        among those that `mask` leaves.
        """
        if mask is not None and self._params.is_greedy and not self._adjusts and index >= self._params.min_tokens:
            return _masked_argmax(logits, mask)
        if not np.isfinite(logits.max()):
            raise FloatingPointError("logits are not finite")
        row = self._adjusted(logits, index, mask)
        params = self._params
        if params.is_greedy:
            return int(row.argmax())
        ids = top_k_ids(row, params.top_k) if 0 < params.top_k < len(row) else None
        weights = weights_of(row if ids is None else row[ids], params.temperature)
        keep_top_p(weights, params.top_p)
        keep_min_p(weights, params.min_p)
        drawn = draw(weights, uniform(params.seed, index))
        return drawn if ids is None else int(ids[drawn])

    def _adjusted(self, logits: NDArray[np.float32], index: int, mask: Mask | None) -> NDArray[np.float32]:
        bans = self._bans_stops(index)
        if not self._adjusts and not bans and mask is None:
            return logits
        row = logits.copy()
        if self._counts is not None:
            apply_penalties(row, self._counts, self._params)
        row[self._bias_ids] += self._bias
        if mask is not None:
            _apply_mask(row, mask, bans_ends=index < self._params.min_tokens)
        elif bans:
            row[self._stops] = -np.inf
        return row

    def _bans_stops(self, index: int) -> bool:
        return index < self._params.min_tokens and len(self._stops) > 0


def _masked_argmax(logits: NDArray[np.float32], mask: Mask) -> int:
    row = logits + mask.bias
    best = int(row.argmax())
    if not math.isfinite(row[best]):
        raise FloatingPointError("no logit that the grammar allows is finite")
    return best


def _apply_mask(row: NDArray[np.float32], mask: Mask, *, bans_ends: bool) -> None:
    row += mask.bias
    if bans_ends:
        kept = row[mask.ends]
        row[mask.ends] = -np.inf
        if np.isneginf(row.max()):
            row[mask.ends] = kept
    if not np.isfinite(row.max()):
        raise FloatingPointError("no logit that the grammar allows is finite")
