"""What a conversion reads: a checkpoint's matrices and vectors under their Hugging Face names."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from .quantize import Int4Rows, Int8Rows, int4_rows, int8_rows


class Rows(Protocol):
    """A matrix [rows, columns] that is read when asked, in the form that is asked for."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def dtype(self) -> torch.dtype:
        """The type of `dense()`: the source's own, float32 where the source is quantised."""
        ...

    def dense(self) -> Tensor: ...

    def int4(self) -> Int4Rows:
        """Without loss where the source holds such blocks already, rounded otherwise."""
        ...

    def int8(self) -> Int8Rows:
        """Without loss where the source holds such blocks already, rounded otherwise."""
        ...


class Checkpoint(Protocol):
    """A source model, opened. Its names are those of a transformers state dict: `model.layers.0.mlp.up_proj.weight`."""

    @property
    def config(self) -> dict[str, Any]: ...

    @property
    def names(self) -> Collection[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def matrix(self, name: str) -> Rows: ...

    def tensor(self, name: str) -> Tensor:
        """Any tensor in its own type and shape (float32 where the source is quantised)."""
        ...


class Stacked:
    """Several matrices of the same columns, one below the other."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self._parts = tuple(parts)
        columns = {part.shape[1] for part in parts}
        if len(columns) != 1:
            raise ValueError(f"cannot stack matrices of {sorted(columns)} columns")
        self._shape = (sum(part.shape[0] for part in parts), columns.pop())

    @property
    def shape(self) -> tuple[int, int]:
        return self._shape

    @property
    def dtype(self) -> torch.dtype:
        dtype = self._parts[0].dtype
        for part in self._parts[1:]:
            dtype = torch.promote_types(dtype, part.dtype)
        return dtype

    def dense(self) -> Tensor:
        return torch.cat([part.dense().to(self.dtype) for part in self._parts])

    def int4(self) -> Int4Rows:
        parts = [part.int4() for part in self._parts]
        return Int4Rows(
            torch.cat([part.q for part in parts]),
            torch.cat([part.scale for part in parts]),
            torch.cat([part.minimum for part in parts]),
        )

    def int8(self) -> Int8Rows:
        parts = [part.int8() for part in self._parts]
        return Int8Rows(torch.cat([part.q for part in parts]), torch.cat([part.scale for part in parts]))


class DenseRows:
    """A matrix that is kept dense where it comes from."""

    def __init__(self, checkpoint: Checkpoint, name: str, dtype: torch.dtype) -> None:
        self._checkpoint = checkpoint
        self._name = name
        rows, columns = checkpoint.shape(name)
        self.shape = (rows, columns)
        self.dtype = dtype

    def dense(self) -> Tensor:
        return self._checkpoint.tensor(self._name)

    def int4(self) -> Int4Rows:
        return int4_rows(self.dense())

    def int8(self) -> Int8Rows:
        return int8_rows(self.dense())
