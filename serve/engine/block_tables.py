"""Which blocks each running sequence holds, kept in the form the device wants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray


class BlockTables:
    """One row a running sequence, preallocated: int32 [rows, width], -1 past the blocks of a row."""

    def __init__(self, rows: int, width: int) -> None:
        self._table: NDArray[np.int32] = np.full((rows, width), -1, dtype=np.int32)
        self._counts = [0] * rows
        self._unused = list(range(rows - 1, -1, -1))

    def open(self) -> int:
        """An empty row. Raises IndexError when all are in use."""
        return self._unused.pop()

    def close(self, row: int) -> list[int]:
        """Empty a row and give it back; returns the blocks that were in it, in the order of the text."""
        blocks = self.blocks(row)
        self._table[row, : len(blocks)] = -1
        self._counts[row] = 0
        self._unused.append(row)
        return blocks

    def count(self, row: int) -> int:
        return self._counts[row]

    def blocks(self, row: int) -> list[int]:
        blocks: list[int] = self._table[row, : self._counts[row]].tolist()
        return blocks

    def block(self, row: int, index: int) -> int:
        return int(self._table[row, index])

    def append(self, row: int, blocks: Sequence[int]) -> None:
        start = self._counts[row]
        self._table[row, start : start + len(blocks)] = blocks
        self._counts[row] = start + len(blocks)

    def replace(self, row: int, index: int, block: int) -> None:
        self._table[row, index] = block

    def held(self) -> Iterator[int]:
        """Every hold of every row."""
        for row, count in enumerate(self._counts):
            if count:
                yield from self.blocks(row)

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """The rows named, as wide as the longest of them: int32 [len(rows), B]."""
        width = max((self._counts[row] for row in rows.tolist()), default=0)
        table: NDArray[np.int32] = self._table[rows, :width]
        return table

    def slots(self, rows: NDArray[np.int64], positions: NDArray[np.int32], block_size: int) -> NDArray[np.int64]:
        """Where in the pool each (row, position) lies: int64, block * block_size + offset."""
        index, offset = np.divmod(positions, block_size)
        slots: NDArray[np.int64] = self._table[rows, index].astype(np.int64) * block_size + offset
        return slots
