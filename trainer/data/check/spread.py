"""How numbers of samples are spread: the least, the middle, the most, and a histogram."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Spread:
    """`bins` has the upper ends of the histogram's bins, powers of two, and how many numbers are in each."""

    count: int
    total: int
    least: int
    median: int
    p95: int
    most: int
    bins: tuple[tuple[int, int], ...]

    @staticmethod
    def of(numbers: array[int]) -> Spread:
        """The spread of non-negative numbers (array type "Q")."""
        if not numbers:
            return Spread(0, 0, 0, 0, 0, 0, ())
        values = np.sort(np.frombuffer(numbers, dtype=np.uint64))
        tops = [1 << power for power in range(64) if (1 << power) <= max(2 * int(values[-1]), 1)]
        ends = [int(np.searchsorted(values, top, side="right")) for top in tops]
        counts = np.diff([0, *ends])
        bins = [(top, int(count)) for top, count in zip(tops, counts, strict=True)]
        while bins and not bins[0][1]:
            bins.pop(0)
        while bins and not bins[-1][1]:
            bins.pop()
        middle, high = (int(values[min(int(len(values) * share), len(values) - 1)]) for share in (0.5, 0.95))
        return Spread(len(values), int(values.sum()), int(values[0]), middle, high, int(values[-1]), tuple(bins))

    def as_json(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "total": self.total,
            "min": self.least,
            "median": self.median,
            "p95": self.p95,
            "max": self.most,
            "histogram": [{"up_to": top, "count": count} for top, count in self.bins],
        }
