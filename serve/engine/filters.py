"""Which tokens may still be drawn, and the draw; one row at a time, so that rows cannot influence each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]

# Below this only the largest logit has any weight; smaller still would be zero in float32.
_COLDEST = 1e-6


def weights_of(logits: NDArray[np.float32], temperature: float) -> Weights:
    """exp((logit - largest) / temperature): unnormalised probabilities whose largest is exactly 1. float32 [vocab]."""
    weights: Weights = logits - logits.max()
    weights /= np.float32(max(temperature, _COLDEST))
    np.exp(weights, out=weights)
    return weights


def keep_top_k(weights: Weights, k: int) -> None:
    """Sets to zero what is smaller than the k-th largest weight. Ties with it stay, so order does not matter."""
    if 0 < k < len(weights):
        weights[weights < np.partition(weights, len(weights) - k)[-k]] = 0.0


def keep_top_p(weights: Weights, p: float) -> None:
    """Sets to zero what is smaller than the smallest member of the nucleus (arXiv 1904.09751); ties with it stay.

    Tokens lighter than (1 - p) / vocab of the mass weigh less than 1 - p together, so the nucleus lies among the others
    and only these are sorted.
    """
    if p >= 1.0:
        return
    total = weights.sum(dtype=np.float64)
    heavy = weights[weights >= (1.0 - p) * total / len(weights)]
    heavy[::-1].sort()
    mass = np.cumsum(heavy, dtype=np.float64)
    last = min(int(np.searchsorted(mass, p * total, side="left")), len(heavy) - 1)
    weights[weights < heavy[last]] = 0.0


def keep_min_p(weights: Weights, min_p: float) -> None:
    """Sets to zero what weighs less than `min_p` of the largest weight (arXiv 2407.01082)."""
    if min_p > 0.0:
        weights[weights < np.float32(min_p) * weights.max()] = 0.0


def draw(weights: Weights, uniform: float) -> int:
    """The token at the point `uniform`, in [0, 1), of the cumulated weights in the order of ids."""
    ids = np.flatnonzero(weights)
    mass = np.cumsum(weights[ids], dtype=np.float64)
    at = int(np.searchsorted(mass, uniform * mass[-1], side="right"))
    return int(ids[min(at, len(ids) - 1)])
