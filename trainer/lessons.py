"""The rows that are learned and those that measure, from the files of a recipe, as the model of an entry reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..serve.contract.base import BaseManifest
from ..serve.contract.errors import InvalidSample
from ..serve.text.dialects import choose_dialect
from ..serve.text.model_text import ModelText
from .auto import DataSize, settled
from .data.files.sources import read_sources
from .data.mask import AnswerMask
from .data.row import Row
from .data.rows import RowSet, make_rows
from .data.sample import Sample
from .data.samples import Reading, weighted_samples
from .data.splitting import split
from .probes import probes_of
from .recipe import Recipe


@dataclass(frozen=True, slots=True)
class Lessons:
    """Rows to learn from, rows to measure on (often none), and the recipe with every key settled by their size.

    `fingerprint` names the rows: a checkpoint goes on with no others. `dialect` is how they write tool calls. `probes`
    are requests of what is held back, as `probes_of` gives them.
    """

    recipe: Recipe
    learned: Sequence[Row]
    held: Sequence[Row]
    fingerprint: str
    dialect: str
    probes: Sequence[str] = ()


def read_lessons(recipe: Recipe, entry: Path, manifest: BaseManifest) -> Lessons:
    """Raises InvalidData, InvalidSample or ConfigError for files or samples that cannot be learned from."""
    text = ModelText.load(entry)
    dialect = choose_dialect(text)
    extra = {} if recipe.thinking is None else {"enable_thinking": recipe.thinking}
    mask = AnswerMask(text, dialect, recipe.last_turn_only, extra)
    most = min(recipe.max_length, manifest.context_length)
    samples = _samples(recipe, recipe.data)
    if recipe.validation:
        learned, held = samples, _samples(recipe, recipe.validation)
    else:
        # How much is kept back depends on how many there are; all else on their tokens, too.
        part = settled(recipe, DataSize(len(samples), len(samples))).validation_split
        learned, held = split(samples, part, recipe.seed) if part else (samples, [])
        recipe = recipe.model_copy(update={"validation_split": part})
    rows = _rows(learned, mask, most, recipe, "data")
    measuring = _rows(held, mask, most, recipe, "validation") if held else RowSet(most)
    size = DataSize(len(rows.rows) + len(measuring.rows), rows.tokens + measuring.tokens, manifest.parameters)
    complete = settled(recipe, size)
    probes = probes_of(held, (row.place for row in measuring.too_long), recipe.seed)
    return Lessons(complete, rows.rows, measuring.rows, _fingerprint(rows.rows), dialect.name, probes)


def _samples(recipe: Recipe, names: Sequence[str]) -> list[Sample]:
    reading = Reading(recipe.format, recipe.question, recipe.answer, recipe.sheet)
    return list(weighted_samples(read_sources(names), reading, seed=recipe.seed))


def _rows(samples: Sequence[Sample], mask: AnswerMask, most: int, recipe: Recipe, key: str) -> RowSet:
    rows = make_rows(samples, mask, most)
    try:
        rows.check(drop_too_long=recipe.too_long == "drop")
    except InvalidSample as error:
        raise InvalidSample(error.message, param=error.param or key) from error
    return rows


def _fingerprint(rows: Sequence[Row]) -> str:
    found = hashlib.sha256()
    for row in rows:
        found.update(repr(row.lengths).encode())
        found.update(row.tokens.tobytes())
        found.update(row.weights.tobytes())
    return found.hexdigest()
