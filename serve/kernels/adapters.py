"""Low-rank deltas on top of a product: the form that `adapters.c` reads them in, and the same in torch.

With A and B of an adapter (LoRA, arXiv 2106.09685) a product y = W x becomes y + weight * B (A x). DoRA (arXiv
2402.09353) multiplies row i of the product itself with 1 + gain[i] as well. Both halves are kept in float16, moved by
powers of two to where float16 is precise.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

GROUP = 8
_MOST_PARTS = 3
# The largest number of a tensor is moved to just below this power of two; float16 ends at 2 ** 16.
_TOP_EXPONENT = 14
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
    """Groups of outputs that the same hidden values change."""

    _fields_ = (
        *((name, _LONG) for name in ("first_group", "end_group", "first", "rank", "offset")),
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

    `a` is float16 [rank, columns rounded up to 8], `b` float16 in one row as adapters.h says, `gain` float32 [rows
    rounded up to 8] or None.
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
        return self.a.shape[0]

    @property
    def nbytes(self) -> int:
        return self.a.nbytes + self.b.nbytes + (0 if self.gain is None else self.gain.nbytes)

    def structure(self) -> Delta:
        """What the C side reads; valid as long as this object lives."""
        return Delta(
            a=self.a.data_ptr(),
            b=self.b.data_ptr(),
            gain=None if self.gain is None else self.gain.data_ptr(),
            rank=self.rank,
            stride=self.a.shape[1],
            parts=len(self.parts),
            part=(DeltaPart * _MOST_PARTS)(*self.parts),
        )

    def dense(self) -> tuple[Tensor, Tensor]:
        """A [rank, columns] and B [rows, rank] in float32, as the packed numbers say."""
        b = torch.zeros(-(-self.rows // GROUP) * GROUP, self.rank)
        for part in self.parts:
            groups = part.end_group - part.first_group
            packed = self.b[part.offset : part.offset + groups * part.rank * GROUP].view(groups, part.rank, GROUP)
            rows = slice(part.first_group * GROUP, part.end_group * GROUP)
            unpacked = packed.transpose(1, 2).reshape(groups * GROUP, part.rank).float()
            b[rows, part.first : part.first + part.rank] = unpacked * part.scale
        return self.a[:, : self.columns].float(), b[: self.rows]


def pack_delta(rows: int, columns: int, pieces: Sequence[LowRank]) -> PackedDelta:
    """The deltas of a matrix [rows, columns], whose pieces do not overlap. Raises ValueError for more than three."""
    if not 1 <= len(pieces) <= _MOST_PARTS:
        raise ValueError(f"a matrix has {len(pieces)} parts with deltas; 1 to {_MOST_PARTS} can be")
    gain = _gain(rows, pieces)
    if any(piece.first_row % GROUP for piece in pieces):
        pieces = [_merged(rows, pieces)]
    a = torch.zeros(sum(len(piece.a) for piece in pieces), -(-columns // GROUP) * GROUP, dtype=torch.float16)
    packed: list[Tensor] = []
    parts: list[DeltaPart] = []
    first = offset = 0
    for piece in pieces:
        rank = len(piece.a)
        moved_a, exponent_a = _moved(piece.a)
        moved_b, exponent_b = _moved(piece.b)
        a[first : first + rank, :columns] = moved_a
        padded = F.pad(moved_b, (0, 0, 0, -len(moved_b) % GROUP)).view(-1, GROUP, rank)
        packed.append(padded.transpose(1, 2).reshape(-1))
        first_group = piece.first_row // GROUP
        parts.append(
            DeltaPart(first_group, first_group + len(padded), first, rank, offset, 2.0 ** -(exponent_a + exponent_b))
        )
        first, offset = first + rank, offset + packed[-1].numel()
    return PackedDelta(a, torch.cat(packed), gain, tuple(parts), rows, columns)


def _moved(tensor: Tensor) -> tuple[Tensor, int]:
    """The tensor times two to the exponent, in float16, and the exponent."""
    top = float(tensor.abs().max()) if tensor.numel() else 0.0
    exponent = _TOP_EXPONENT - int(torch.frexp(torch.tensor(top)).exponent) if top else 0
    return torch.ldexp(tensor, torch.tensor(exponent)).half(), exponent


def _merged(rows: int, pieces: Sequence[LowRank]) -> LowRank:
    """One piece for all rows, where pieces do not begin at a group's first row. What is added is zero."""
    b = torch.zeros(rows, sum(len(piece.a) for piece in pieces))
    first = 0
    for piece in pieces:
        b[piece.first_row : piece.first_row + len(piece.b), first : first + len(piece.a)] = piece.b
        first += len(piece.a)
    return LowRank(0, torch.cat([piece.a for piece in pieces]), b)


def _gain(rows: int, pieces: Sequence[LowRank]) -> Tensor | None:
    if all(piece.gain is None for piece in pieces):
        return None
    gain = torch.zeros(-(-rows // GROUP) * GROUP)
    for piece in pieces:
        if piece.gain is not None:
            gain[piece.first_row : piece.first_row + len(piece.gain)] = piece.gain
    return gain
