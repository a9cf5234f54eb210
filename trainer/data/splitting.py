"""Samples parted into those that are learned and those that measure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from .sample import PlainText, Sample


def split(samples: Iterable[Sample], part: float, seed: int = 0) -> tuple[list[Sample], list[Sample]]:
    """Samples to learn from, and about `part` of them to measure on, both in their order.

    Samples that say the same are all on one side, so that nothing is measured that was learned. Which side follows from
    the seed and the samples themselves, whatever their order. Both sides get one where there are two different ones and
    `part` is above 0.
    """
    listed = list(samples)
    keys = [_key(sample, seed) for sample in listed]
    counts: dict[bytes, int] = {}
    for key in keys:
        counts[key] = counts.get(key, 0) + 1
    wanted = max(1, round(part * len(listed))) if part > 0 else 0
    held: set[bytes] = set()
    taken = 0
    for key in sorted(counts)[: len(counts) - 1]:
        if taken >= wanted:
            break
        held.add(key)
        taken += counts[key]
    learned = [sample for sample, key in zip(listed, keys, strict=True) if key not in held]
    return learned, [sample for sample, key in zip(listed, keys, strict=True) if key in held]


def _key(sample: Sample, seed: int) -> bytes:
    said = sample.text if isinstance(sample, PlainText) else [list(sample.messages), list(sample.tools)]
    text = json.dumps(said, sort_keys=True, default=str)
    return hashlib.blake2b(f"{seed}\0{text}".encode(), digest_size=16).digest()
