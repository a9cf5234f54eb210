"""What was typed behind `tunechat train`: a recipe, KEY=VALUE, and files; and the whole recipe that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..contract.errors import ConfigError

if TYPE_CHECKING:
    from ...trainer.recipe import Recipe

_RECIPES = (".yml", ".yaml", ".toml")


@dataclass(frozen=True, slots=True)
class Words:
    """The words by what they are. `recipe` is None where none was named."""

    recipe: Path | None
    overrides: tuple[str, ...]
    files: tuple[str, ...]


def sort_words(words: Sequence[str]) -> Words:
    """Each word as a recipe by its ending, as KEY=VALUE, or as a file, folder or pattern with or without a weight.

    Raises ConfigError for two recipes.
    """
    recipes, overrides, files = list[Path](), list[str](), list[str]()
    for word in words:
        if Path(word).suffix.lower() in _RECIPES:
            recipes.append(Path(word))
        elif _is_override(word):
            overrides.append(word)
        else:
            files.append(word)
    if len(recipes) > 1:
        raise ConfigError(f"{recipes[0]} and {recipes[1]} are both recipes; give one")
    return Words(recipes[0] if recipes else None, tuple(overrides), tuple(files))


def whole_recipe(words: Words, ready_made: str | None, over: Mapping[str, Any]) -> Recipe:
    """The recipe: that of the words or the ready-made one, the KEY=VALUE over it, then `over`; None says nothing.

    Files among the words take the place of the recipe's data. Raises ConfigError for all that is wrong with it,
    NotFound for a ready-made recipe that there is not.
    """
    from ...trainer.catalogue import find_ready_made
    from ...trainer.recipe_file import make_recipe, parse_recipe, read_overrides, read_recipe

    flags = {key: value for key, value in over.items() if value is not None}
    given = read_overrides(words.overrides)
    if twice := [key for key in given if key in flags or (key == "data" and words.files)]:
        raise ConfigError(f"{twice[0]} is given twice; leave one out")
    if words.recipe is not None and ready_made is not None:
        raise ConfigError(f"{words.recipe} and --recipe {ready_made} are both recipes; give one")
    if words.recipe is not None:
        recipe = read_recipe(words.recipe, words.overrides)
    elif ready_made is not None:
        recipe = parse_recipe(find_ready_made(ready_made).text, words.overrides, origin=ready_made)
    else:
        recipe = parse_recipe("", words.overrides, origin="command line")
    values = {key: getattr(recipe, key) for key in recipe.chosen}
    if words.files:
        values["data"] = words.files
    recipe = make_recipe({**values, **flags}, origin="command line")
    if not recipe.data:
        raise ConfigError("there is nothing to learn from; name a file, as in `tunechat train data.jsonl`")
    return recipe


def _is_override(word: str) -> bool:
    """KEY=VALUE rather than PATH=WEIGHT: every key of a recipe is one, and so is what is a name and no path."""
    from ...trainer.recipe import Recipe

    key, equals, value = word.partition("=")
    if not equals or Path(word).exists():
        return False
    name = key.strip().replace("-", "_")
    if name in Recipe.model_fields:
        return True
    return name.isidentifier() and not (Path(key).exists() and _is_number(value))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
