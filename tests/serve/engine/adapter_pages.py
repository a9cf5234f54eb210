"""Drives a runner by hand, as `paging` does, with adapters: which sequence uses what is said once, for every batch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from tunechat.serve.adapters.staging import Intake
from tunechat.serve.adapters.store import AdapterStore
from tunechat.serve.engine.batch import AdapterGroups, Batch
from tunechat.serve.engine.runner import Runner
from tunechat.tests.serve.engine.paging import Pages, Placed

Uses = tuple[tuple[Path, float], ...]


class Installed:
    """PEFT folders stored as versions, read and installed into slots of a runner. Order is by digest, as it serves."""

    def __init__(self, runner: Runner, root: Path, folders: Sequence[Path], first_slot: int = 0) -> None:
        self.slots: dict[Path, int] = {}
        self.digests: dict[Path, str] = {}
        store = AdapterStore(root)
        for slot, folder in enumerate(folders, first_slot):
            version = store.publish(folder.name, folder, Intake(base=runner.entry.manifest))
            runner.install(slot, runner.read_adapter(version.ref, store.folder(version)))
            self.slots[folder], self.digests[folder] = slot, version.digest

    def groups(self, uses: Sequence[Uses], owners: np.ndarray[Any, Any]) -> AdapterGroups | None:
        """The groups of a batch whose token t belongs to sequence `owners[t]`, which uses `uses[owners[t]]`."""
        weights = [dict(use) for use in uses]
        used = sorted({folder for use in weights for folder in use}, key=self.digests.__getitem__)
        if not used:
            return None
        tokens = [[t for t, owner in enumerate(owners.tolist()) if folder in weights[owner]] for folder in used]
        return AdapterGroups(
            slots=np.array([self.slots[folder] for folder in used], dtype=np.int32),
            begins=np.cumsum([0, *map(len, tokens)], dtype=np.int32),
            tokens=np.array([t for group in tokens for t in group], dtype=np.int32),
            weights=np.array(
                [weights[owners[t]][folder] for folder, group in zip(used, tokens, strict=True) for t in group],
                dtype=np.float32,
            ),
        )


class AdapterPages(Pages):
    """Pages whose sequences use adapters."""

    def __init__(self, runner: Runner, installed: Installed, seed: int = 0) -> None:
        super().__init__(runner, seed)
        self._installed = installed
        self._uses: dict[int, Uses] = {}
        self._forward = runner.forward

    def place_for(self, uses: Uses, tokens: list[int], shares: Placed | None = None, shared_blocks: int = 0) -> Placed:
        placed = self.place(tokens, shares, shared_blocks)
        self._uses[id(placed)] = uses
        return placed

    def run(self, parts: list[tuple[Placed, int]]) -> None:
        uses = [self._uses[id(sequence)] for sequence, _ in parts]
        real = self.runner
        self.runner = _Adapted(real, self._installed, uses)  # type: ignore[assignment]
        try:
            super().run(parts)
        finally:
            self.runner = real

    def run_ragged(self, sequences: Sequence[Placed], chance: random.Random, most: int = 9) -> None:
        """All sequences to their ends: each batch has some of them, in any order, with chunks of any size."""
        while left := [sequence for sequence in sequences if sequence.computed < len(sequence.tokens)]:
            chosen = chance.sample(left, chance.randint(1, len(left)))
            self.run([(s, min(chance.randint(1, most), len(s.tokens) - s.computed)) for s in chosen])


class _Adapted:
    """A runner whose batches carry adapters."""

    def __init__(self, runner: Runner, installed: Installed, uses: Sequence[Uses]) -> None:
        self._runner, self._installed, self._uses = runner, installed, uses
        self.block_size = runner.block_size

    def forward(self, batch: Batch) -> Tensor:
        return self._runner.forward(replace(batch, adapters=self._installed.groups(self._uses, batch.sequences)))
