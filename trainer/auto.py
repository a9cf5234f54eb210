"""What a recipe leaves open, chosen by the size of the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .recipe import Recipe, auto_keys

# Rows of the data up to which so many epochs are made; what is larger is gone through once.
_EPOCHS = ((64, 8.0), (512, 5.0), (8_192, 3.0), (65_536, 2.0))
# And steps an epoch.
_STEPS = ((64, 8), (1_024, 32), (8_192, 128), (65_536, 512))
_MOST_STEPS = 2_048
_LARGEST_STEP = 32_768
_LARGEST_BATCH = 2_048
_SMALLEST_BATCH = 64
# A split of fewer samples measures nothing but luck.
_SPLITS_FROM = 64
_SPLIT = 0.1
_MOST_SPLIT = 512
_SMALL_MODEL = 1_000_000_000


@dataclass(frozen=True, slots=True)
class DataSize:
    """How much there is to learn from: rows, their tokens, and the parameters of the model (0: not known)."""

    rows: int
    tokens: int
    parameters: int = 0


def settled(recipe: Recipe, size: DataSize) -> Recipe:
    """The recipe with every key that it left to the data, as the data asks for. What was given stays."""
    split = 0.0 if recipe.validation else _split(size.rows)
    rows = max(1, round(size.rows * (1 - split)))
    tokens = max(1, round(size.tokens * (1 - split)))
    epochs = recipe.epochs if "epochs" in recipe.chosen else _by(rows, _EPOCHS, 1.0)
    step_tokens = min(_LARGEST_STEP, math.ceil(tokens / _by(rows, _STEPS, _MOST_STEPS)))
    batch_tokens = recipe.batch_tokens if "batch_tokens" in recipe.chosen else _batch(step_tokens, recipe.max_length)
    accumulation = recipe.accumulation if "accumulation" in recipe.chosen else max(1, round(step_tokens / batch_tokens))
    steps = recipe.steps or max(1, math.ceil(tokens * epochs / (batch_tokens * accumulation)))
    chosen: dict[str, Any] = {
        "validation_split": split,
        "alpha": 2.0 * recipe.rank,
        "epochs": epochs,
        "batch_tokens": batch_tokens,
        "accumulation": accumulation,
        "lr": _rate(recipe, size),
        # A tenth of few steps, and no more than a hundred of many.
        "warmup": round(min(0.1, 100 / steps), 4),
    }
    given = recipe.model_dump(exclude_unset=True)
    return Recipe.model_validate({**{key: chosen[key] for key in sorted(auto_keys())}, **given})


def _rate(recipe: Recipe, size: DataSize) -> float:
    """Adapters learn at ten times the rate of whole models, small models at some times that of large ones."""
    rate = 2e-5 if recipe.method == "full" else 2e-4
    return rate * 2.5 if 0 < size.parameters < _SMALL_MODEL else rate


def _batch(step_tokens: int, max_length: int) -> int:
    """As large as a step, in powers of two, but no larger than is fast and fits."""
    power = 1 << max(0, math.ceil(math.log2(step_tokens)))
    return int(min(max(power, _SMALLEST_BATCH), max(_LARGEST_BATCH, max_length)))


def _split(rows: int) -> float:
    if rows < _SPLITS_FROM:
        return 0.0
    return round(min(_SPLIT, _MOST_SPLIT / rows), 6)


def _by(rows: int, table: Sequence[tuple[int, float]], last: float) -> float:
    return next((value for limit, value in table if rows < limit), last)
