"""Which tokens may still be drawn, and the draw; one row at a time, so that rows cannot influence each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]

# Below this only the largest logit has any weight; smaller still would be zero in float32.
_COLDEST = 1e-6
_STRETCH = 256


def weights_of(logits: NDArray[np.float32], temperature: float) -> Weights:
    """exp((logit - largest) / temperature): unnormalised probabilities whose largest is exactly 1. float32 [vocab]."""
    weights: Weights = logits - logits.max()
    weights /= np.float32(max(temperature, _COLDEST))
    np.exp(weights, out=weights)
    return weights


def top_k_ids(logits: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """The ids, ascending, of logits that are not smaller than the k-th largest; ties with it stay."""
    return np.flatnonzero(logits >= np.partition(logits, len(logits) - k)[-k])


def keep_top_p(weights: Weights, p: float) -> None:
    """Sets to zero what is smaller than the smallest member of the nucleus (arXiv 1904.09751); ties with it stay.

    Tokens lighter than (1 - p) / vocab of the mass weigh less than 1 - p together, so the nucleus lies among the others
    and only these are sorted.
    """
    if p >= 1.0:
        return
    total = weights.sum(dtype=np.float64)
    heavy = weights[weights >= min((1.0 - p) * total / len(weights), 1.0)]
    heavy[::-1].sort()
    mass = np.cumsum(heavy, dtype=np.float64)
    last = min(int(np.searchsorted(mass, p * total, side="left")), len(heavy) - 1)
    _drop_below(weights, heavy[last])


def keep_min_p(weights: Weights, min_p: float) -> None:
    """Sets to zero what weighs less than `min_p` of the largest weight (arXiv 2407.01082)."""
    if min_p > 0.0:
        _drop_below(weights, np.float32(min_p) * weights.max())


def draw(weights: Weights, uniform: float) -> int:
    """The index at the point `uniform`, in [0, 1), of the cumulated weights; never one without weight.

    First the stretch that holds the point, then the index in it: cumulating the whole vocabulary takes longer than
    everything else here.
    """
    whole = len(weights) // _STRETCH * _STRETCH
    sums = weights[:whole].reshape(-1, _STRETCH).sum(axis=1, dtype=np.float64)
    mass = np.cumsum(np.append(sums, weights[whole:].sum(dtype=np.float64)))
    point = uniform * mass[-1]
    stretch = min(int(np.searchsorted(mass, point, side="right")), int(np.searchsorted(mass, mass[-1], side="left")))
    first = stretch * _STRETCH
    part = np.cumsum(weights[first : first + _STRETCH], dtype=np.float64)
    if stretch:
        point -= mass[stretch - 1]
    # The two sums of one stretch may differ in their last bits; its last index with weight takes what is over.
    last = int(np.searchsorted(part, part[-1], side="left"))
    return first + min(int(np.searchsorted(part, point, side="right")), last)


def _drop_below(weights: Weights, threshold: np.float32) -> None:
    np.multiply(weights, weights >= threshold, out=weights)
