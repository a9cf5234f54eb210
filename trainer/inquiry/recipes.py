"""Recipes with every key, and the ready-made ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...serve.contract.inquiry import CompleteRecipe, ReadyMadeRecipe, ReadyMadeRecipes, RecipeKey
from ..catalogue import ready_made
from ..recipe import Recipe, auto_keys
from ..recipe_file import make_recipe, parse_recipe
from ..reference import keys
from .reading import manifest_of
from .support import check_trainable


def complete(values: Mapping[str, Any], entry: str = "") -> CompleteRecipe:
    """The recipe of these values. Raises ConfigError for what is wrong, or cannot be trained on the base in `entry`."""
    recipe = make_recipe(values)
    if entry:
        check_trainable(recipe, manifest_of(entry))
    return CompleteRecipe(recipe=_values(recipe), open=_open(recipe))


def all_ready_made() -> ReadyMadeRecipes:
    """The ready-made recipes by name, and all keys in order."""
    found = []
    for one in ready_made():
        text = one.text
        recipe = parse_recipe(text, origin=one.name)
        found.append(
            ReadyMadeRecipe(name=one.name, about=one.about, text=text, recipe=_values(recipe), open=_open(recipe))
        )
    columns = ("key", "values", "default", "meaning")
    return ReadyMadeRecipes(
        recipes=tuple(found), keys=tuple(RecipeKey(**dict(zip(columns, row, strict=True))) for row in keys())
    )


def _open(recipe: Recipe) -> tuple[str, ...]:
    return tuple(sorted(auto_keys() - recipe.chosen))


def _values(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json") | dict.fromkeys(_open(recipe), "auto")
