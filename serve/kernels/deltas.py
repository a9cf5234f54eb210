"""The adapters of one step at one matrix, as the products take them."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from .adapters import Adapters


class Deltas(Protocol):
    """What a product adds for the adapters of its tokens."""

    def add(self, x: Tensor, y: Tensor, bias: Tensor | None) -> Tensor:
        """y [m, rows], the product of x [m, columns] and `bias`, with the deltas added, in place where that can be."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class KernelDeltas:
    """Deltas that the C products add while they run. `kept` is the memory that `adapters` points into."""

    adapters: Adapters
    site: int
    kept: tuple[object, ...]

    @property
    def pointer(self) -> int:
        return ctypes.addressof(self.adapters)

    def add(self, x: Tensor, y: Tensor, bias: Tensor | None) -> Tensor:
        """Raises TypeError: whoever holds these must hand them to a C product."""
        raise TypeError("these deltas are added by the C products only")


@dataclass(frozen=True, slots=True, eq=False)
class StackedDelta:
    """One matrix's deltas of all slots: a [slots, rank, columns], b [slots, rows, rank], gain [slots, rows] or None.

    Slots without a delta hold zeros, and so do ranks beyond an adapter's own.
    """

    a: Tensor
    b: Tensor
    gain: Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class TorchDeltas:
    """Deltas that torch adds after a product, on any device.

    Round r adds the r-th delta of each token that has so many: `tokens` [n] int64, `slots` [n] int64 and `weights` [n]
    float32 a round. No token stands twice in a round, so the order in which its deltas are added is fixed.
    """

    rounds: tuple[tuple[Tensor, Tensor, Tensor], ...]
    stacks: Mapping[int, StackedDelta]
    site: int

    def add(self, x: Tensor, y: Tensor, bias: Tensor | None) -> Tensor:
        stack = self.stacks.get(self.site)
        if stack is None:
            return y
        base = y if bias is None else y - bias
        result = y.clone()
        for tokens, slots, weights in self.rounds:
            hidden = (stack.a[slots] * x[tokens].to(stack.a.dtype).unsqueeze(1)).sum(-1)
            delta = (stack.b[slots] * hidden.unsqueeze(1)).sum(-1).to(y.dtype)
            if stack.gain is not None:
                delta = delta + stack.gain[slots] * base[tokens]
            result[tokens] += weights.unsqueeze(1) * delta
        return result
