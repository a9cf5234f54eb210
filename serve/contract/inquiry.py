"""What the server and a trainer's short-lived child tell one another about recipes and data.

The server starts `python -m tunechat.trainer.inquiry`. One question comes as JSON on standard input, one answer as JSON
goes to standard output, and the process ends.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .errors import ErrorRecord


class Question(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask"):
    """What all questions have. `recipe` holds keys of a recipe, with paths to data as the child can open them.

    `entry` is the folder of the prepared base that is served, "" where tokens need not be counted. `names` are what
    answers call files, by their paths in `recipe`. `text` stands for `data`: it is read as a file called `text_name`,
    whose ending says of which kind; "" where looking is enough.
    """

    recipe: dict[str, Any] = {}
    entry: str = ""
    names: dict[str, str] = {}
    text: str | None = None
    text_name: str = ""


class AskRecipe(Question, frozen=True, kw_only=True, tag="recipe"):
    """Is this a recipe, and what are its other keys? With an `entry`, also whether the trainer can do it there."""


class AskCheck(Question, frozen=True, kw_only=True, tag="check"):
    """What does the data hold, what is wrong with it, and would a training stop at it?

    `trains`: the recipe is that of a training, so what the trainer does not do is refused, and `max_length` counts even
    where it was not given.
    """

    trains: bool = False


class AskPreview(Question, frozen=True, kw_only=True, tag="preview"):
    """How does the model read samples, and what of them is learned? `limit` of them, after `skip`."""

    limit: int = 3
    skip: int = 0


class AskRecipes(Question, frozen=True, kw_only=True, tag="recipes"):
    """Which recipes are ready-made, and what keys may recipes have?"""


AnyQuestion = AskRecipe | AskCheck | AskPreview | AskRecipes


class CompleteRecipe(msgspec.Struct, frozen=True, kw_only=True, tag_field="answer", tag="recipe"):
    """Every key with its value, as it may be given again; "auto" for those in `open`, which the data will choose."""

    recipe: dict[str, Any]
    open: tuple[str, ...]


class Checked(msgspec.Struct, frozen=True, kw_only=True, tag_field="answer", tag="check"):
    """What a check found. `report` is what `tunechat data check --json` prints.

    `stops` is the first problem at which a training with this recipe would stop, in words that name file, line, field
    and how to mend it; `where` is "data" or "validation". `stopping` counts such problems.
    """

    report: dict[str, Any]
    stops: ErrorRecord | None = None
    where: str = "data"
    stopping: int = 0


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """Text of a row that is learned with `weight`, or not: `trained` says. `tokens` counts its tokens."""

    text: str
    trained: bool
    weight: float
    tokens: int


class PreviewRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row in pieces. `cut` says that there are more than are shown, `fits` that `max_length` holds it."""

    tokens: int
    trained_tokens: int
    pieces: tuple[Piece, ...]
    fits: bool = True
    cut: bool = False


class PreviewSample(msgspec.Struct, frozen=True, kw_only=True):
    """A sample, by its file and line. `rows` is empty where nothing is learned, `error` why it cannot be."""

    file: str
    line: int
    rows: tuple[PreviewRow, ...] = ()
    error: str | None = None


class Previewed(msgspec.Struct, frozen=True, kw_only=True, tag_field="answer", tag="preview"):
    """The samples. `more` says that the data has further ones, `format` how it was read."""

    samples: tuple[PreviewSample, ...]
    format: str | None
    more: bool


class ReadyMadeRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """A ready-made recipe: its file's `text`, and what that says as CompleteRecipe has it."""

    name: str
    about: str
    text: str
    recipe: dict[str, Any]
    open: tuple[str, ...]


class RecipeKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key of recipes: what it takes, its default, what it does, for people."""

    key: str
    values: str
    default: str
    meaning: str


class ReadyMadeRecipes(msgspec.Struct, frozen=True, kw_only=True, tag_field="answer", tag="recipes"):
    """All ready-made recipes, and every key that recipes may have."""

    recipes: tuple[ReadyMadeRecipe, ...]
    keys: tuple[RecipeKey, ...]


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag_field="answer", tag="refused"):
    """Why there is no answer. `param` of the error is the key of the recipe, or the place in the data."""

    error: ErrorRecord


AnyAnswer = CompleteRecipe | Checked | Previewed | ReadyMadeRecipes | Refused
