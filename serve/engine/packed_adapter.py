"""An adapter in host memory, in the form in which the forward uses it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..adapters.adapter import Adapter, LoraModule
from ..adapters.background import breathe
from ..kernels.adapters import Delta, LowRank, PackedDelta, pack_delta
from ..kernels.memory import Arena, aligned
from .sites import Site


@dataclass(frozen=True, slots=True, eq=False)
class PackedAdapter:
    """The deltas of all sites, None where there is none. `table` is what the C side reads, an entry a site."""

    deltas: tuple[PackedDelta | None, ...]
    table: ctypes.Array[Delta]

    @staticmethod
    def of(deltas: Sequence[PackedDelta | None]) -> PackedAdapter:
        """All deltas side by side in one stretch of memory, in the order in which they are read."""
        tensors = [tensor for delta in deltas if delta is not None for tensor in delta.tensors]
        arena = Arena(sum(aligned(tensor.nbytes) for tensor in tensors))
        kept = tuple(None if delta is None else _moved(delta, arena) for delta in deltas)
        structures = (Delta() if delta is None else delta.structure() for delta in kept)
        return PackedAdapter(kept, (Delta * len(kept))(*structures))

    @property
    def nbytes(self) -> int:
        return sum(delta.nbytes for delta in self.deltas if delta is not None)

    @property
    def width(self) -> int:
        """The most hidden values of any site."""
        return max(delta.width for delta in self.deltas if delta is not None)


def _moved(delta: PackedDelta, arena: Arena) -> PackedDelta:
    breathe()
    return delta.moved(arena.keep)


def pack_adapter(adapter: Adapter, sites: Sequence[Site], matrix_of: Callable[[str], Tensor]) -> PackedAdapter:
    """`adapter` for a forward with these sites. `matrix_of` gives the base's matrix of a site, float32 [rows, columns],
    which DoRA needs."""
    modules = {module.name: module for module in adapter.modules}
    return PackedAdapter.of([_delta(adapter, modules, site, matrix_of) for site in sites])


def _delta(
    adapter: Adapter, modules: dict[str, LoraModule], site: Site, matrix_of: Callable[[str], Tensor]
) -> PackedDelta | None:
    found = [(modules[name], row) for name, row in site.modules.items() if name in modules]
    if not found:
        return None
    breathe()
    matrix = matrix_of(site.name) if any(module.magnitude for module, _ in found) else None
    return pack_delta(site.rows, site.columns, [_piece(adapter, module, row, matrix) for module, row in found])


def _piece(adapter: Adapter, module: LoraModule, row: int, matrix: Tensor | None) -> LowRank:
    """DoRA's magnitude over the norm of the changed row is a factor of that row, whose excess over one is the gain."""
    a = torch.tensor(adapter.a(module))
    b = torch.tensor(adapter.b(module)) * module.scaling
    magnitude = adapter.magnitude(module)
    if magnitude is None or matrix is None:
        return LowRank(row, a, b)
    norm = torch.addmm(matrix[row : row + module.rows], b, a).norm(dim=1)
    factor = torch.tensor(magnitude) / norm
    return LowRank(row, a, b * factor.unsqueeze(1), factor - 1)
