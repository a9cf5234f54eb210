"""What a training will take, found out by computing parts of its longest batch; refused where it cannot fit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from .data.packing import join
from .data.row import Row
from .memory import Gauge, OutOfMemory, used_memory
from .model import TrainedModel
from .recipe import Recipe

# Parts of the longest batch that are computed before it, in tokens: the first, and how much larger the next is.
_FIRST = 128
_GROWTH = 4
_WARM = 32
# A part of the free memory that is left to others, who may want it meanwhile.
_SPARE = 1 / 16
# What a checkpoint takes: bytes a second, written and hashed, and what it takes at least.
_DISK_SPEED = 100e6
_SAVE_SECONDS = 0.05
_FLOAT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """All that is to be done: batches of learning, tokens that are measured, checkpoints; `optimizer` in bytes.

    `longest` are the rows of the largest batch, `mean` the tokens of the average one.
    """

    recipe: Recipe
    longest: Sequence[Row]
    mean: float
    batches: float
    measured_tokens: int
    saves: int
    optimizer: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """The most bytes that will be in use, as `used_memory` counts, seconds, and the base's loss a token."""

    memory: int
    seconds: float
    loss: float


def estimate(model: TrainedModel, work: Work, should_stop: Callable[[], bool]) -> Estimate | None:
    """Computes the longest batch, smaller parts of it before; None when asked to stop. Nothing is changed.

    Raises OutOfMemory as soon as what was computed shows
    that the whole will not fit, the optimizer's numbers included.
    """
    chance = torch.random.get_rng_state()
    row = join(work.longest)
    try:
        sizes = _sizes(len(row.tokens))
        # The first pass reads the base and starts threads, which is neither memory nor time of the others.
        model.measure(cut(row, _WARM))
        gauge = Gauge(model.device)
        began = time.monotonic()
        model.measure(cut(row, sizes[0]))
        measuring = (time.monotonic() - began) / sizes[0]
        points: list[tuple[int, int]] = []
        loss = seconds = 0.0
        for size in sizes:
            if should_stop():
                return None
            part = cut(row, size)
            began = time.monotonic()
            loss = model.learn(part, 1.0) / float(part.weights.sum())
            seconds = time.monotonic() - began
            for parameter in model.parameters.values():
                parameter.grad = None
            points.append((size, gauge.extra()))
            if gauge.works:
                _check(points, len(row.tokens), gauge.free, work)
        seconds *= work.batches * work.mean / len(row.tokens)
        seconds += measuring * work.measured_tokens
        seconds += work.saves * (_SAVE_SECONDS + (work.optimizer + _trained_bytes(model)) / _DISK_SPEED)
        return Estimate(used_memory(model.device) + work.optimizer, seconds, loss)
    finally:
        torch.random.set_rng_state(chance)


def cut(row: Row, count: int) -> Row:
    """The first `count` tokens of a row, of which at least the last one is learned."""
    if count >= len(row.tokens):
        return row
    lengths: list[int] = []
    for length in row.lengths:
        if (rest := count - sum(lengths)) <= 0:
            break
        lengths.append(min(length, rest))
    weights = row.weights[:count].copy()
    if not weights.any():
        weights[-1] = 1
    return Row(row.tokens[:count], weights, tuple(lengths))


def _sizes(tokens: int) -> list[int]:
    """The parts that are computed, in tokens, the whole last: none is so large that it costs much beside the whole."""
    sizes, size = [], _FIRST
    while size * (_GROWTH - 1) <= tokens:
        sizes.append(size)
        size *= _GROWTH
    return [*sizes, tokens]


def _check(points: Sequence[tuple[int, int]], tokens: int, free: int, work: Work) -> None:
    """Raises OutOfMemory when `tokens` will not fit, as far as `points` (tokens, bytes) tell."""
    size, most = points[-1]
    before, less = points[-2] if len(points) > 1 else (size, most)
    slope = max(0.0, (most - less) / (size - before)) if size > before else 0.0
    needed = most + slope * (tokens - size) + work.optimizer
    room = free * (1 - _SPARE)
    if needed <= room:
        return
    fitting = int(size + (room - work.optimizer - most) / slope) if slope else 0
    raise OutOfMemory(
        f"Training would need {_shown(needed)} of memory beside what is in use, and {_shown(free)} are free. "
        f"{_advice(work, fitting)}",
        param="batch_tokens",
    )


def _advice(work: Work, fitting: int) -> str:
    """What to change, the keys by name; `fitting` is how many tokens would fit at once."""
    recipe, longest = work.recipe, max(len(row.tokens) for row in work.longest)
    ways = []
    if not recipe.gradient_checkpointing:
        ways.append("switch gradient_checkpointing on")
    if longest <= fitting < recipe.batch_tokens:
        ways.append(f"take batch_tokens={_rounded(fitting)} instead of {recipe.batch_tokens}")
    else:
        ways.append(f"take smaller batch_tokens (now {recipe.batch_tokens})")
        ways.append(f"a smaller max_length, since one sample alone has {longest} tokens")
    ways.append(f"a lower rank (now {recipe.rank})")
    said = ", or ".join(ways)
    return f"{said[0].upper()}{said[1:]}."


def _rounded(tokens: int) -> int:
    """At most `tokens`, as a number that people would choose."""
    unit = 1 << max(0, tokens.bit_length() - 3)
    return tokens // unit * unit


def _trained_bytes(model: TrainedModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters.values()) * _FLOAT


def _shown(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
