"""A prepared model's weights under the names of the transformers class, dequantised."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

from torch import Tensor

from .class_weights import FUSED
from .entry import BaseEntry
from .weights import DenseWeight, Weight


class ServedTensors:
    """The tensors of `entry` by their names in a transformers state dict, fused ones in their parts.

    Matrices that were quantised are float32, others have the type that they are kept in. A tied head is not listed.
    """

    def __init__(self, entry: BaseEntry) -> None:
        self.config: dict[str, Any] = entry.config
        self._entry = entry
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._makers: dict[str, Callable[[], Tensor]] = {}
        for name in entry.names():
            if entry.has(f"{name}.quants") or entry.has(f"{name}.weight"):
                self._list_matrix(name)
            else:
                self._list_other(name)

    @property
    def names(self) -> Collection[str]:
        return self._makers.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def tensor(self, name: str) -> Tensor:
        return self._makers[name]()

    def _list_matrix(self, name: str) -> None:
        weight = self._entry.weight(name)
        for part, start, stop in self._parts(name, weight.rows):
            self._shapes[f"{part}.weight"] = (stop - start, weight.columns)
            self._makers[f"{part}.weight"] = partial(_rows, weight, start, stop)

    def _list_other(self, name: str) -> None:
        tensor = self._entry.tensor(name)
        stem, _, kind = name.rpartition(".")
        if kind != "bias":
            self._shapes[name], self._makers[name] = tuple(tensor.shape), partial(self._entry.tensor, name)
            return
        for part, start, stop in self._parts(stem, tensor.shape[0]):
            self._shapes[f"{part}.bias"] = (stop - start,)
            self._makers[f"{part}.bias"] = partial(_slice, tensor, start, stop)

    def _parts(self, name: str, rows: int) -> Iterator[tuple[str, int, int]]:
        """The modules that `name` holds, each with its first row and the one after its last."""
        manifest = self._entry.manifest
        stem, _, kind = name.rpartition(".")
        if manifest.layout != "compact" or kind not in FUSED:
            yield name, 0, rows
            return
        start = 0
        for part in FUSED[kind]:
            count = manifest.linears[f"{stem}.{part}"][0]
            yield f"{stem}.{part}", start, start + count
            start += count


def _slice(tensor: Tensor, start: int, stop: int) -> Tensor:
    return tensor[start:stop]


def _rows(weight: Weight, start: int, stop: int) -> Tensor:
    """Rows start to stop, dequantised. Only those are made where the packed form can be cut there."""
    if isinstance(weight, DenseWeight):
        return weight.tensor[start:stop]
    try:
        return weight.row_slice(start, stop).dequantize()
    except ValueError:
        return weight.dequantize()[start:stop]
