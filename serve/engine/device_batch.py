"""A batch as tensors on the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .batch import Batch
from .slots import AdapterSlots, DeltasAt


@dataclass(frozen=True, slots=True)
class DeviceBatch:
    """The fields of `Batch` as tensors, which share its memory on the CPU; and a sequence's longest run of tokens.

    `deltas` gives what adapters add at a site, to all tokens; `head_deltas` to `logit_rows` alone. None is no adapter.
    """

    tokens: Tensor
    positions: Tensor
    sequences: Tensor
    slots: Tensor
    block_tables: Tensor
    logit_rows: Tensor
    hidden_rows: Tensor
    longest_run: int
    deltas: DeltasAt | None = None
    head_deltas: DeltasAt | None = None

    @staticmethod
    def of(batch: Batch, device: torch.device, adapters: AdapterSlots | None = None) -> DeviceBatch:
        """The batch, moved to `device`; its adapters are in the slots of `adapters`."""
        deltas = head_deltas = None
        if batch.adapters is not None and adapters is not None:
            deltas = adapters.deltas(batch.adapters)
            head_groups = batch.adapters.among(batch.logit_rows, batch.size)
            head_deltas = None if head_groups is None else adapters.deltas(head_groups)
        return DeviceBatch(
            torch.from_numpy(batch.tokens).long().to(device),
            torch.from_numpy(batch.positions).to(device),
            torch.from_numpy(batch.sequences).to(device),
            torch.from_numpy(batch.slots).to(device),
            torch.from_numpy(batch.block_tables).contiguous().to(device),
            torch.from_numpy(batch.logit_rows).to(device),
            torch.from_numpy(batch.hidden_rows).to(device),
            int(np.bincount(batch.sequences).max()),
            deltas,
            head_deltas,
        )
