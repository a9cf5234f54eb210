"""What a step of training reads: tokens, and which of them are learned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Row:
    """One or several samples in one row, one behind another.

    `tokens` int32 [n]. `weights` float32 [n]: what the loss of predicting token t counts, 0 where it is not learned;
    the first token of a sample is never predicted. `lengths` are the samples' lengths, in order; they sum to n.
    """

    tokens: NDArray[np.int32]
    weights: NDArray[np.float32]
    lengths: tuple[int, ...]

    @property
    def positions(self) -> NDArray[np.int32]:
        """Places within the samples, from 0: int32 [n]."""
        return np.concatenate([np.arange(length, dtype=np.int32) for length in self.lengths])

    @property
    def trained(self) -> int:
        """How many tokens are learned."""
        return int(np.count_nonzero(self.weights))
