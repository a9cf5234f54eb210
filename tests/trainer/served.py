"""The loss that the engine's own forward has on what was learned, with an adapter or without."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from tunechat.serve.engine.options import EngineOptions
from tunechat.serve.engine.runner import build_runner
from tunechat.tests.serve.engine.adapter_pages import AdapterPages, Installed, Uses
from tunechat.trainer.data.row import Row


def served_losses(entry: Path, store: Path, rows: Sequence[Row], adapters: Sequence[Path]) -> list[float]:
    """The mean loss over all learned tokens of `rows`: the base's, then that of each adapter."""
    runner = build_runner(entry, EngineOptions(model="tiny", home="unused", device="cpu", cache_bytes=1 << 22))
    pages = AdapterPages(runner, Installed(runner, store, adapters))
    mixtures: list[Uses] = [(), *(((adapter, 1.0),) for adapter in adapters)]
    found = []
    for uses in mixtures:
        total = count = 0.0
        for row in rows:
            placed = pages.place_for(uses, row.tokens.tolist())
            pages.run([(placed, len(row.tokens))])
            at = torch.from_numpy(row.weights).nonzero().squeeze(1)
            logits = torch.stack(placed.logits)[at - 1].float()
            total += float(cross_entropy(logits, torch.from_numpy(row.tokens).long()[at], reduction="sum"))
            count += len(at)
        found.append(total / count)
    return found
