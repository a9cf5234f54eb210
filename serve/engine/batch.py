"""One step's work for the device: the tokens of all scheduled sequences packed into one row."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class AdapterGroups:
    """Which adapters change which tokens of a batch.

    Group g is the adapter in slot `slots[g]`, on the tokens `tokens[begins[g]:begins[g + 1]]`, in ascending order, each
    delta multiplied with its entry of `weights`. A token's deltas are added in the order of the groups, so that order
    must come from the adapters and never from the slots they happen to be in. slots int32 [G], begins int32 [G + 1],
    tokens int32 [U], weights float32 [U].
    """

    slots: NDArray[np.int32]
    begins: NDArray[np.int32]
    tokens: NDArray[np.int32]
    weights: NDArray[np.float32]

    def among(self, rows: NDArray[np.int64], size: int) -> AdapterGroups | None:
        """The groups for those of the batch's `size` tokens that `rows` names, numbered as they stand there; None when
        no adapter changes any of them."""
        places = np.full(size, -1, dtype=np.int32)
        places[rows] = np.arange(len(rows), dtype=np.int32)
        tokens = places[self.tokens]
        kept = tokens >= 0
        if not kept.any():
            return None
        counts = np.concatenate([[0], np.cumsum(kept, dtype=np.int32)]).astype(np.int32)
        return AdapterGroups(self.slots, counts[self.begins], tokens[kept], self.weights[kept])


@dataclass(frozen=True, slots=True)
class Batch:
    """T tokens of S sequences, the tokens of a sequence side by side, in order.

    `tokens`, `positions` and `sequences` (which row of `block_tables` a token belongs to) are int32 [T]; `slots` int64
    [T] is where a token's key and value go (block * block_size + offset); `block_tables` int32 [S, B], -1 past a
    sequence's last block; `logit_rows` int64 [L] are the tokens whose logits are wanted, and `hidden_rows` int64 [H]
    those whose last hidden states are; `adapters` is None when the whole batch is for the base.
    """

    tokens: NDArray[np.int32]
    positions: NDArray[np.int32]
    sequences: NDArray[np.int32]
    slots: NDArray[np.int64]
    block_tables: NDArray[np.int32]
    logit_rows: NDArray[np.int64]
    adapters: AdapterGroups | None = None
    hidden_rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @property
    def size(self) -> int:
        return len(self.tokens)
