"""What one step computes, and the arrays that tell the device so."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Sequences
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .batch import AdapterGroups, Batch
from .block_tables import BlockTables
from .sequence import Sequence


@dataclass(frozen=True, slots=True)
class Work:
    """The next `count` tokens of a sequence that are not computed yet."""

    sequence: Sequence
    start: int
    count: int

    @property
    def end(self) -> int:
        return self.start + self.count

    @property
    def samples(self) -> bool:
        """Whether the next token can be chosen after this."""
        return self.end == self.sequence.length and not self.sequence.is_complete

    @property
    def prompt_rows(self) -> range:
        """Positions whose logits are wanted for the log-probabilities of the prompt token after each."""
        done = self.sequence.prompt_logprobs
        if done is None:
            return range(0)
        return range(max(self.start, len(done) - 1), min(self.end, self.sequence.prompt_length - 1))

    @property
    def hidden_rows(self) -> int:
        """How many of its tokens' hidden states are wanted: all or none."""
        return self.count if self.sequence.params.pooled else 0


Plan = tuple[Work, ...]


def assemble(plan: Plan, tables: BlockTables, block_size: int, slot_of: Mapping[str, int]) -> Batch:
    """The packed row of a plan's tokens. Logits are wanted, work by work, for its `prompt_rows`, then for its last
    token if it `samples`; hidden states for its `hidden_rows`. `slot_of` gives the slot of every adapter that the plan
    uses."""
    works = len(plan)
    counts = np.fromiter((work.count for work in plan), np.int32, works)
    starts = np.fromiter((work.start for work in plan), np.int32, works)
    rows = np.fromiter((work.sequence.row for work in plan), np.int64, works)
    ends = np.cumsum(counts, dtype=np.int32)
    size = int(ends[-1]) if works else 0
    sequences = np.repeat(np.arange(works, dtype=np.int32), counts)
    positions = np.arange(size, dtype=np.int32) - np.repeat(ends - counts - starts, counts)
    offsets = (ends - counts).tolist()
    return Batch(
        tokens=_tokens(plan, size),
        positions=positions,
        sequences=sequences,
        slots=tables.slots(rows[sequences], positions, block_size),
        block_tables=tables.gather(rows),
        logit_rows=np.array(_logit_rows(plan, offsets), dtype=np.int64),
        adapters=_adapter_groups(plan, offsets, slot_of),
        hidden_rows=_hidden_rows(plan, offsets),
    )


def _tokens(plan: Plan, size: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    if size == len(plan):
        return np.fromiter((work.sequence.tokens[work.start] for work in plan), np.int32, size)
    return np.concatenate([work.sequence.tokens[work.start : work.end] for work in plan])


def _logit_rows(plan: Plan, offsets: Sequences[int]) -> list[int]:
    wanted: list[int] = []
    for work, offset in zip(plan, offsets, strict=True):
        wanted.extend(offset + position - work.start for position in work.prompt_rows)
        if work.samples:
            wanted.append(offset + work.count - 1)
    return wanted


def _hidden_rows(plan: Plan, offsets: Sequences[int]) -> NDArray[np.int64]:
    rows = [np.arange(at, at + work.hidden_rows) for work, at in zip(plan, offsets, strict=True) if work.hidden_rows]
    return np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)


def _adapter_groups(plan: Plan, offsets: Sequences[int], slot_of: Mapping[str, int]) -> AdapterGroups | None:
    """One group an adapter, by ascending digest: the order in which the deltas of a composition are added."""
    users: dict[str, list[tuple[int, int, float]]] = {}
    for work, offset in zip(plan, offsets, strict=True):
        for use in work.sequence.namespace.adapters:
            users.setdefault(use.digest, []).append((offset, work.count, use.weight))
    if not users:
        return None
    digests = sorted(users)
    spans = [span for digest in digests for span in users[digest]]
    starts = np.array([start for start, _, _ in spans], dtype=np.int32)
    counts = np.array([count for _, count, _ in spans], dtype=np.int32)
    ends = np.cumsum(counts, dtype=np.int32)
    groups = np.cumsum([len(users[digest]) for digest in digests])
    return AdapterGroups(
        slots=np.array([slot_of[digest] for digest in digests], dtype=np.int32),
        begins=np.concatenate(([0], ends[groups - 1]), dtype=np.int32),
        tokens=np.arange(ends[-1], dtype=np.int32) + np.repeat(starts - (ends - counts), counts),
        weights=np.repeat(np.array([weight for _, _, weight in spans], dtype=np.float32), counts),
    )
