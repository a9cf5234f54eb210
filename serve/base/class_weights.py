"""A prepared model's weights under the names of the transformers class, as views of what is mapped."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..contract.errors import ModelError
from .entry import BaseEntry
from .weights import DenseWeight, Weight

FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


class ClassWeights:
    """The matrices and vectors of `entry` by the class's names, those that are kept fused in their parts."""

    def __init__(self, entry: BaseEntry) -> None:
        self._entry = entry
        self._parts: Mapping[str, tuple[str, int, int]] = dict(_fused_parts(entry))

    def has(self, name: str) -> bool:
        """Whether there is a matrix `name` ("model.layers.0.self_attn.q_proj")."""
        return name in self._parts or self._entry.has(name)

    def matrix(self, name: str) -> Weight:
        """The matrix `name`. Raises ModelError when there is none."""
        if name not in self._parts:
            return self._entry.weight(name)
        kept, start, stop = self._parts[name]
        weight = self._entry.weight(kept)
        try:
            return weight.row_slice(start, stop)
        except ValueError:
            # The packed form cannot be cut there.
            return DenseWeight(weight.dequantize()[start:stop].contiguous())

    def bias(self, name: str) -> Tensor:
        """The bias of the matrix `name`: float32. Raises ModelError when there is none."""
        if name not in self._parts:
            return self._entry.vector(f"{name}.bias")
        kept, start, stop = self._parts[name]
        return self._entry.vector(f"{kept}.bias")[start:stop]

    def tensor(self, name: str) -> Tensor:
        """Any other tensor by its whole name, as it is kept. Raises ModelError when there is none."""
        return self._entry.tensor(name)


def _fused_parts(entry: BaseEntry) -> list[tuple[str, tuple[str, int, int]]]:
    """For each linear inside a fused one: what holds it, its first row and the one after its last."""
    if entry.manifest.layout != "compact":
        return []
    linears = entry.manifest.linears
    parts = []
    for kept in entry.names():
        stem, _, kind = kept.rpartition(".")
        start = 0
        for name in (f"{stem}.{part}" for part in FUSED.get(kind, ())):
            if name not in linears:
                raise ModelError(f"prepared model {entry.folder.name} does not list {name}; prepare it again")
            stop = start + linears[name][0]
            parts.append((name, (kept, start, stop)))
            start = stop
    return parts
