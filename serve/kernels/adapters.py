"""Low-rank deltas on top of a product: the form that `adapters.c` reads them in, and the same in torch.

With A and B of an adapter (LoRA, arXiv 2106.09685) a product y = W x becomes y + weight * B (A x). DoRA (arXiv
2402.09353) multiplies row i of the product itself with 1 + gain[i] as well. Both halves are kept in float16, moved by
powers of two to where float16 is precise.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK_ROWS = 16
_ROWS = 4
_MOST_PARTS = 3
# The largest number of a tensor is moved to just below this power of two; float16 ends at 2 ** 16.
_TOP_EXPONENT = 14
_EXPONENT_LIMIT = 126  # of what float32 can be multiplied with
_POINTER, _LONG, _FLOAT = ctypes.c_void_p, ctypes.c_long, ctypes.c_float


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """The delta of some rows of a matrix, from `first_row` on.

    a [rank, columns] and b [rows, rank] are float32, with any scaling in b; `gain` is [rows] for DoRA.
    """

    first_row: int
    a: Tensor
    b: Tensor
    gain: Tensor | None = None


class DeltaPart(ctypes.Structure):
    """Blocks of outputs that the same hidden values change."""

    _fields_ = (
        *((name, _LONG) for name in ("first_block", "end_block", "first", "rank", "offset")),
        ("scale", _FLOAT),
    )


class Delta(ctypes.Structure):
    """What an adapter does to one matrix; all zero where it does nothing. Whoever makes it keeps the tensors alive."""

    _fields_ = (
        *((name, _POINTER) for name in ("a", "b", "gain")),
        *((name, _LONG) for name in ("rank", "stride", "parts")),
        ("part", DeltaPart * _MOST_PARTS),
    )


class Adapters(ctypes.Structure):
    """Which adapters change which tokens of a step, and memory for their hidden values."""

    _fields_ = (
        ("groups", _LONG),
        *((name, _POINTER) for name in ("slots", "begins", "tokens", "weights", "table", "hidden")),
        ("width", _LONG),
    )


@dataclass(frozen=True, slots=True, eq=False)
class PackedDelta:
    """What an adapter does to one matrix [rows, columns].

    `a` is float16 [rank / 4, columns / 16, 4, 16], both rounded up and filled with zero, `b` float16 in one row as
    adapters.h says, `gain` float32 [rows rounded up to 16] or None.
    """

    a: Tensor
    b: Tensor
    gain: Tensor | None
    parts: tuple[DeltaPart, ...]
    rows: int
    columns: int

    @property
    def rank(self) -> int:
        """Hidden values of all parts together."""
        return sum(part.rank for part in self.parts)

    @property
    def width(self) -> int:
        """Hidden values that are computed: `rank` rounded up."""
        return self.a.shape[0] * _ROWS

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.a, self.b) if self.gain is None else (self.a, self.b, self.gain)

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)

    def moved(self, move: Callable[[Tensor], Tensor]) -> PackedDelta:
        """The same delta with its tensors where `move` puts them."""
        gain = None if self.gain is None else move(self.gain)
        return replace(self, a=move(self.a), b=move(self.b), gain=gain)

    def structure(self) -> Delta:
        """What the C side reads; valid as long as this object lives."""
        return Delta(
            a=self.a.data_ptr(),
            b=self.b.data_ptr(),
            gain=None if self.gain is None else self.gain.data_ptr(),
            rank=self.rank,
            stride=self.a.shape[1] * BLOCK_ROWS,
            parts=len(self.parts),
            part=(DeltaPart * _MOST_PARTS)(*self.parts),
        )

    def dense(self) -> tuple[Tensor, Tensor]:
        """A [rank, columns] and B [rows, rank] in float32, as the packed numbers say."""
        b = torch.zeros(-(-self.rows // BLOCK_ROWS) * BLOCK_ROWS, self.rank)
        for part in self.parts:
            blocks = part.end_block - part.first_block
            packed = self.b[part.offset : part.offset + blocks * part.rank * BLOCK_ROWS].view(
                blocks, part.rank, BLOCK_ROWS
            )
            rows = slice(part.first_block * BLOCK_ROWS, part.end_block * BLOCK_ROWS)
            unpacked = packed.transpose(1, 2).reshape(blocks * BLOCK_ROWS, part.rank).float()
            b[rows, part.first : part.first + part.rank] = unpacked * part.scale
        a = self.a.transpose(1, 2).reshape(-1, self.a.shape[1] * BLOCK_ROWS)
        return a[: self.rank, : self.columns].float(), b[: self.rows]


def pack_delta(rows: int, columns: int, pieces: Sequence[LowRank]) -> PackedDelta:
    """The deltas of a matrix [rows, columns], whose pieces do not overlap. Raises ValueError for more than three."""
    if not 1 <= len(pieces) <= _MOST_PARTS:
        raise ValueError(f"a matrix has {len(pieces)} parts with deltas; 1 to {_MOST_PARTS} can be")
    gain = _gain(rows, pieces)
    if any(piece.first_row % BLOCK_ROWS for piece in pieces):
        pieces = [_merged(rows, pieces)]
    rank = sum(len(piece.a) for piece in pieces)
    a = torch.zeros(-(-rank // _ROWS) * _ROWS, -(-columns // BLOCK_ROWS) * BLOCK_ROWS, dtype=torch.float16)
    packed: list[Tensor] = []
    parts: list[DeltaPart] = []
    first = offset = 0
    for piece in pieces:
        moved_a, exponent_a = _moved(piece.a)
        moved_b, exponent_b = _moved(piece.b)
        a[first : first + len(piece.a), :columns] = moved_a
        padded = F.pad(moved_b, (0, 0, 0, -len(moved_b) % BLOCK_ROWS)).view(-1, BLOCK_ROWS, len(piece.a))
        packed.append(padded.transpose(1, 2).reshape(-1))
        first_block = piece.first_row // BLOCK_ROWS
        parts.append(
            DeltaPart(
                first_block, first_block + len(padded), first, len(piece.a), offset, 2.0 ** -(exponent_a + exponent_b)
            )
        )
        first, offset = first + len(piece.a), offset + packed[-1].numel()
    a = a.view(-1, _ROWS, a.shape[1] // BLOCK_ROWS, BLOCK_ROWS).transpose(1, 2).contiguous()
    return PackedDelta(a, torch.cat(packed), gain, tuple(parts), rows, columns)


def _moved(tensor: Tensor) -> tuple[Tensor, int]:
    """The tensor times two to the exponent, in float16, and the exponent."""
    top = float(tensor.abs().max()) if tensor.numel() else 0.0
    exponent = max(-_EXPONENT_LIMIT, min(_TOP_EXPONENT - math.frexp(top)[1], _EXPONENT_LIMIT))
    return (tensor * 2.0**exponent).half(), exponent


def _merged(rows: int, pieces: Sequence[LowRank]) -> LowRank:
    """One piece for all rows, where pieces do not begin at a block's first row. What is added is zero."""
    b = torch.zeros(rows, sum(len(piece.a) for piece in pieces))
    first = 0
    for piece in pieces:
        b[piece.first_row : piece.first_row + len(piece.b), first : first + len(piece.a)] = piece.b
        first += len(piece.a)
    return LowRank(0, torch.cat([piece.a for piece in pieces]), b)


def _gain(rows: int, pieces: Sequence[LowRank]) -> Tensor | None:
    if all(piece.gain is None for piece in pieces):
        return None
    gain = torch.zeros(-(-rows // BLOCK_ROWS) * BLOCK_ROWS)
    for piece in pieces:
        if piece.gain is not None:
            gain[piece.first_row : piece.first_row + len(piece.gain)] = piece.gain
    return gain
