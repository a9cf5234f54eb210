"""Random numbers that depend on nothing but a seed and an index."""

from __future__ import annotations

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def uniform(seed: int, index: int) -> float:
    """Draw number `index` of the stream `seed`: in [0, 1), 53 bits.

    SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), entered at a point that is itself a mix of the seed, so that
    neighbouring seeds do not give shifted copies of one stream. Integer arithmetic only: the same on every machine.
    """
    start = _mix((seed + _GOLDEN) & _MASK)
    return (_mix((start + (index + 1) * _GOLDEN) & _MASK) >> 11) * 2.0**-53


def _mix(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
