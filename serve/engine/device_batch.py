"""A batch as tensors on the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .batch import Batch


@dataclass(frozen=True, slots=True)
class DeviceBatch:
    """The fields of `Batch` as tensors, which share its memory on the CPU; and a sequence's longest run of tokens."""

    tokens: Tensor
    positions: Tensor
    sequences: Tensor
    slots: Tensor
    block_tables: Tensor
    logit_rows: Tensor
    longest_run: int

    @staticmethod
    def of(batch: Batch, device: torch.device) -> DeviceBatch:
        """The batch, moved to `device`."""
        return DeviceBatch(
            torch.from_numpy(batch.tokens).long().to(device),
            torch.from_numpy(batch.positions).to(device),
            torch.from_numpy(batch.sequences).to(device),
            torch.from_numpy(batch.slots).to(device),
            torch.from_numpy(batch.block_tables).contiguous().to(device),
            torch.from_numpy(batch.logit_rows).to(device),
            int(np.bincount(batch.sequences).max()),
        )
