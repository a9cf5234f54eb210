"""Drives a runner by hand: places sequences in scattered blocks and runs chosen chunks of them in one packed batch."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tunechat.serve.engine.batch import Batch
from tunechat.serve.engine.runner import Runner


@dataclass
class Placed:
    """A sequence of given tokens; the first `computed` of them have their keys and values in `blocks`."""

    tokens: list[int]
    blocks: list[int]
    computed: int = 0
    logits: list[Tensor] = field(default_factory=list)


class Pages:
    """Hands out blocks of a runner in an order that makes neighbours rare."""

    def __init__(self, runner: Runner, seed: int = 0) -> None:
        self.runner = runner
        self._free = np.random.default_rng(seed).permutation(runner.blocks).tolist()

    def place(self, tokens: list[int], shares: Placed | None = None, shared_blocks: int = 0) -> Placed:
        """A new sequence; its first `shared_blocks` blocks are those of `shares`, as after a prefix hit."""
        shared = shares.blocks[:shared_blocks] if shares is not None else []
        needed = -(-len(tokens) // self.runner.block_size) - len(shared)
        blocks = shared + [self._free.pop() for _ in range(needed)]
        return Placed(tokens, blocks, computed=len(shared) * self.runner.block_size)

    def run(self, parts: list[tuple[Placed, int]]) -> None:
        """Computes the next `count` tokens of each sequence in one batch and keeps their logits."""
        width = max(len(s.blocks) for s, _ in parts)
        tables = np.full((len(parts), width), -1, dtype=np.int32)
        tokens: list[int] = []
        positions: list[int] = []
        owners: list[int] = []
        for i, (sequence, count) in enumerate(parts):
            tables[i, : len(sequence.blocks)] = sequence.blocks
            span = range(sequence.computed, sequence.computed + count)
            tokens += [sequence.tokens[p] for p in span]
            positions += span
            owners += [i] * count
        place, owner, size = np.array(positions), np.array(owners), self.runner.block_size
        batch = Batch(
            tokens=np.array(tokens, dtype=np.int32),
            positions=place.astype(np.int32),
            sequences=owner.astype(np.int32),
            slots=tables[owner, place // size].astype(np.int64) * size + place % size,
            block_tables=tables,
            logit_rows=np.arange(len(tokens), dtype=np.int64),
        )
        logits = self.runner.forward(batch).clone()
        for (sequence, count), rows in zip(parts, torch.split(logits, [c for _, c in parts]), strict=True):
            sequence.computed += count
            sequence.logits.extend(rows)
