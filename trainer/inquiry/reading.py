"""What a question's data is, and the model that it is read for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from ...serve.contract.base import BaseManifest
from ...serve.contract.errors import ConfigError, ModelError
from ...serve.contract.inquiry import AskCheck, AskPreview
from ...serve.text.dialects import choose_dialect
from ...serve.text.model_text import ModelText
from ..data.files.reading import is_readable, suffix_of
from ..data.files.sources import Source, read_sources
from ..data.formats.choice import format_named
from ..data.mask import AnswerMask
from ..data.samples import Reading
from ..recipe import Recipe
from ..recipe_file import make_recipe

_TEXT = "text"


@dataclass(frozen=True, slots=True)
class Material:
    """The recipe, its files, and how they are read. `mask` makes rows of samples; None without an entry."""

    recipe: Recipe
    data: list[Source]
    validation: list[Source]
    reading: Reading
    mask: AnswerMask | None
    manifest: BaseManifest | None

    @property
    def max_length(self) -> int:
        """How many tokens a row may have."""
        most = self.recipe.max_length
        return most if self.manifest is None else min(most, self.manifest.context_length)


@contextlib.contextmanager
def opened(question: AskCheck | AskPreview) -> Iterator[Material]:
    """What the question is about. With a text, the current folder is one that holds it, so that errors name no path.

    Raises ConfigError for a recipe that is wrong, InvalidData where there is no file, ModelError for a broken entry.
    """
    recipe = make_recipe(question.recipe)
    reading = Reading(recipe.format, recipe.question, recipe.answer, recipe.sheet)
    if recipe.format is not None:
        format_named(recipe.format)
    manifest = manifest_of(question.entry) if question.entry else None
    mask = _mask(recipe, Path(question.entry)) if question.entry else None
    material = Material(recipe, [], read_sources(recipe.validation), reading, mask, manifest)
    if question.text is None:
        yield replace(material, data=read_sources(recipe.data))
        return
    with TemporaryDirectory() as folder, contextlib.chdir(folder):
        path = Path(f"{_TEXT}{_suffix(question.text, question.text_name, reading)}")
        path.write_text(question.text, encoding="utf-8", newline="")
        yield replace(material, data=[Source(path)])


def manifest_of(entry: str) -> BaseManifest:
    """What the prepared base in `entry` says of itself. Raises ModelError."""
    try:
        return msgspec.json.decode((Path(entry) / "manifest.json").read_bytes(), type=BaseManifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise ModelError("the prepared model has no manifest that can be read; prepare it again") from error


def _mask(recipe: Recipe, entry: Path) -> AnswerMask:
    text = ModelText.load(entry)
    extra = {} if recipe.thinking is None else {"enable_thinking": recipe.thinking}
    return AnswerMask(text, choose_dialect(text), recipe.last_turn_only, extra)


def _suffix(text: str, name: str, reading: Reading) -> str:
    """The ending of the file that `text` is read as: that of its name, or what the text looks like."""
    if name:
        suffix = suffix_of(Path(name))
        if not is_readable(Path(f"{_TEXT}{suffix}")) or suffix in (".xlsx", ".parquet"):
            raise ConfigError(
                "The name of a text must end in .jsonl, .json, .csv, .tsv, .txt or .md.", param="text_name"
            )
        return suffix
    if text.lstrip("\ufeff \t\r\n")[:1] in ("{", "["):
        return ".jsonl"
    is_table = reading.question is not None or reading.answer is not None or reading.format not in (None, "text")
    return ".csv" if is_table else ".txt"
