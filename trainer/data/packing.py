"""Which rows are computed together, and in which order: the same for the same seed and epoch, on every machine."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .row import Row

Grouping = Literal["pack", "group", "single"]

# Rows are sorted by length among this many batches' worth of them: enough for even lengths, and still a random order.
_POOL = 32


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where training stands: batch number `index` of an epoch, both from 0, is the next one."""

    epoch: int = 0
    index: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class BatchOrder:
    """Batches of rows (by number), epoch by epoch.

    `pack` joins rows of `lengths` into one as far as `batch_tokens` allow, by best fit decreasing. `group` puts rows of
    like lengths side by side; the longest of them, times their number, is at most `batch_tokens`. `single` takes one
    row a batch. A row longer than `batch_tokens` is a batch of its own. `batch_rows` is the most rows of a batch, 0 for
    any number.
    """

    lengths: Sequence[int]
    batch_tokens: int
    seed: int = 0
    grouping: Grouping = "pack"
    batch_rows: int = 0

    def batches(self, epoch: int) -> list[tuple[int, ...]]:
        """All batches of an epoch. Every row is in exactly one of them."""
        chance = random.Random(f"{self.seed}/{epoch}")  # noqa: S311
        rows = list(range(len(self.lengths)))
        chance.shuffle(rows)
        if self.grouping == "pack":
            made = pack([self.lengths[row] for row in rows], self.batch_tokens, most=self.batch_rows)
            batches = [tuple(rows[place] for place in places) for places in made]
        elif self.grouping == "group":
            batches = self._grouped(rows)
        else:
            batches = [(row,) for row in rows]
        chance.shuffle(batches)
        return batches

    def after(self, position: Position, *, epochs: int | None = None) -> Iterator[tuple[Position, tuple[int, ...]]]:
        """The batches from `position` on, each with the position behind it; `epochs` None: without end."""
        if not self.lengths:
            return
        for epoch in itertools.count(position.epoch) if epochs is None else range(position.epoch, epochs):
            batches = self.batches(epoch)
            start = position.index if epoch == position.epoch else 0
            for index in range(start, len(batches)):
                behind = Position(epoch, index + 1) if index + 1 < len(batches) else Position(epoch + 1, 0)
                yield behind, batches[index]

    def _grouped(self, rows: list[int]) -> list[tuple[int, ...]]:
        mean = max(1, sum(self.lengths) // max(1, len(rows)))
        pool = _POOL * max(1, self.batch_tokens // mean)
        batches = []
        for start in range(0, len(rows), pool):
            batch: list[int] = []
            for row in sorted(rows[start : start + pool], key=lambda row: -self.lengths[row]):
                # The first row of a batch is its longest.
                full = batch and self.lengths[batch[0]] * (len(batch) + 1) > self.batch_tokens
                if full or (self.batch_rows and len(batch) == self.batch_rows):
                    batches.append(tuple(batch))
                    batch = []
                batch.append(row)
            if batch:
                batches.append(tuple(batch))
        return batches


def pack(lengths: Sequence[int], capacity: int, *, most: int = 0) -> list[list[int]]:
    """Numbers of `lengths` in bins of `capacity`, `most` of them in each (0: any number), by best fit decreasing.

    Each length, the longest first, goes where the least room is left that is enough for it. What is longer than
    `capacity` has a bin of its own. Takes n log n steps.
    """
    bins: list[list[int]] = []
    by_room: dict[int, list[int]] = {}
    rooms = 0  # bit number r: a bin with room r is open
    for item in sorted(range(len(lengths)), key=lambda item: -lengths[item]):
        length = lengths[item]
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            number = by_room[room].pop()
            if not by_room[room]:
                rooms ^= 1 << room
            bins[number].append(item)
            room -= length
        else:
            number, room = len(bins), capacity - length
            bins.append([item])
        if room > 0 and not (most and len(bins[number]) >= most):
            by_room.setdefault(room, []).append(number)
            rooms |= 1 << room
    return bins


def join(rows: Sequence[Row]) -> Row:
    """The rows behind one another as one, each still a sample of its own by `lengths`."""
    return Row(
        np.concatenate([row.tokens for row in rows]),
        np.concatenate([row.weights for row in rows]),
        tuple(itertools.chain.from_iterable(row.lengths for row in rows)),
    )
