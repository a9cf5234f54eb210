"""The places on the device where adapters are while batches use them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..kernels.adapters import Adapters
from ..kernels.deltas import Deltas, KernelDeltas, StackedDelta, TorchDeltas
from ..kernels.library import library
from .batch import AdapterGroups
from .packed_adapter import PackedAdapter
from .sites import Site

DeltasAt = Callable[[int], Deltas]
# A round's tokens each meet their own copy of the stacked matrices.
_TOKENS_OF_A_ROUND = 64


class AdapterSlots(Protocol):
    """`count` places. Installing is for between two steps."""

    count: int

    def install(self, slot: int, adapter: PackedAdapter) -> None: ...

    def uninstall(self, slot: int) -> None: ...

    def deltas(self, groups: AdapterGroups) -> DeltasAt:
        """The deltas of a step by site. Their memory is for one site at a time."""
        ...


def make_slots(sites: Sequence[Site], count: int, device: torch.device) -> AdapterSlots:
    """The slots that suit the products of `device`."""
    if device.type == "cpu" and library() is not None:
        return KernelSlots(count)
    return TorchSlots(sites, count, device)


class KernelSlots:
    """Slots of the C products: a table of where each adapter lies in host memory, so installing copies nothing."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._adapters: list[PackedAdapter | None] = [None] * count
        self._table = (ctypes.c_void_p * count)()

    def install(self, slot: int, adapter: PackedAdapter) -> None:
        self._adapters[slot] = adapter
        self._table[slot] = ctypes.addressof(adapter.table)

    def uninstall(self, slot: int) -> None:
        self._adapters[slot] = self._table[slot] = None

    def deltas(self, groups: AdapterGroups) -> DeltasAt:
        used = [self._adapters[slot] for slot in groups.slots.tolist()]
        width = max(_there(adapter).width for adapter in used)
        hidden = torch.empty(len(groups.tokens), width)
        adapters = Adapters(
            groups=len(used), slots=groups.slots.ctypes.data, begins=groups.begins.ctypes.data,
            tokens=groups.tokens.ctypes.data, weights=groups.weights.ctypes.data,
            table=ctypes.addressof(self._table), hidden=hidden.data_ptr(), width=width,
        )  # fmt: skip
        kept = (groups, hidden, self._table, *used)
        return lambda site: KernelDeltas(adapters, site, kept)


class TorchSlots:
    """Slots as stacked matrices on any device. A stack is made when the first adapter acts on its site, and again when
    one of a higher rank comes."""

    def __init__(self, sites: Sequence[Site], count: int, device: torch.device) -> None:
        self.count = count
        self._sites = sites
        self._device = device
        self._dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        self._stacks: dict[int, StackedDelta] = {}

    def install(self, slot: int, adapter: PackedAdapter) -> None:
        self.uninstall(slot)
        for at, delta in enumerate(adapter.deltas):
            if delta is None:
                continue
            stack = self._stacks[at] = self._stack(at, delta.rank, delta.gain is not None)
            a, b = delta.dense()
            stack.a[slot, : delta.rank] = a.to(stack.a)
            stack.b[slot, :, : delta.rank] = b.to(stack.b)
            if stack.gain is not None and delta.gain is not None:
                stack.gain[slot] = delta.gain[: delta.rows].to(stack.gain)

    def uninstall(self, slot: int) -> None:
        for stack in self._stacks.values():
            for tensor in (stack.a, stack.b, stack.gain):
                if tensor is not None:
                    tensor[slot].zero_()

    def deltas(self, groups: AdapterGroups) -> DeltasAt:
        rounds = tuple(self._rounds(groups))
        return lambda site: TorchDeltas(rounds, self._stacks, site)

    def _rounds(self, groups: AdapterGroups) -> list[tuple[Tensor, Tensor, Tensor]]:
        slots = np.repeat(groups.slots, np.diff(groups.begins)).astype(np.int64)
        turns = _turns(groups.tokens)
        rounds = []
        for turn in range(int(turns.max()) + 1):
            chosen = np.flatnonzero(turns == turn)
            for part in np.array_split(chosen, -(-len(chosen) // _TOKENS_OF_A_ROUND)):
                arrays = (groups.tokens[part].astype(np.int64), slots[part], groups.weights[part])
                tokens, where, weights = (torch.from_numpy(array).to(self._device) for array in arrays)
                rounds.append((tokens, where, weights))
        return rounds

    def _stack(self, at: int, rank: int, has_gain: bool) -> StackedDelta:
        """The stack of a site, with room for the rank and, where it is wanted, a gain."""
        site, old = self._sites[at], self._stacks.get(at)
        if old is not None and old.a.shape[1] >= rank and (old.gain is not None or not has_gain):
            return old
        rank = max(rank, 0 if old is None else old.a.shape[1])
        a = torch.zeros(self.count, rank, site.columns, dtype=self._dtype, device=self._device)
        b = torch.zeros(self.count, site.rows, rank, dtype=self._dtype, device=self._device)
        gain = torch.zeros(self.count, site.rows, device=self._device) if has_gain else None
        if old is not None:
            a[:, : old.a.shape[1]] = old.a
            b[:, :, : old.b.shape[2]] = old.b
            if old.gain is not None:
                gain = old.gain
        return StackedDelta(a, b, gain)


def _turns(tokens: NDArray[np.int32]) -> NDArray[np.int64]:
    """How many entries for the same token stand before each."""
    seen: dict[int, int] = {}
    turns = np.empty(len(tokens), dtype=np.int64)
    for at, token in enumerate(tokens.tolist()):
        turns[at] = seen[token] = seen.get(token, -1) + 1
    return turns


def _there(adapter: PackedAdapter | None) -> PackedAdapter:
    if adapter is None:
        raise ValueError("a batch uses a slot that holds no adapter")
    return adapter
