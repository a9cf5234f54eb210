"""Recipes that are completed, refused and ready-made."""

from __future__ import annotations

from typing import Any

import pytest

from tunechat.serve.contract.errors import ConfigError
from tunechat.trainer.inquiry.recipes import all_ready_made, complete
from tunechat.trainer.recipe import Recipe, auto_keys
from tunechat.trainer.recipe_file import make_recipe


def test_a_complete_recipe_has_every_key_and_means_the_same_again() -> None:
    found = complete({"rank": 8, "epochs": "auto", "lr": 1e-3})
    assert found.recipe.keys() == Recipe.model_fields.keys()
    assert set(found.open) == auto_keys() - {"lr"}
    assert {key for key, value in found.recipe.items() if value == "auto"} >= set(found.open)
    again = make_recipe(found.recipe)
    assert auto_keys() - again.chosen == set(found.open)
    assert (again.rank, again.lr) == (8, 1e-3)


@pytest.mark.parametrize(
    ("values", "param", "words"),
    [
        ({"learning_rate": 1e-4}, "learning_rate", "did you mean lr?"),
        ({"epochs": 10**9}, "epochs", "less than or equal"),
        ({"rank": 10**6}, "rank", "less than or equal"),
        ({"batch_tokens": 0}, "batch_tokens", "greater than or equal"),
        ({"lr": "nan"}, "lr", "finite"),
        ({"lr": True}, "lr", "truth value"),
        ({"k" * 10_000: 1}, "k" * 80, "no key"),
    ],
)
def test_what_is_wrong_names_its_key(values: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        complete(values)
    assert caught.value.param == param and words in caught.value.message
    assert len(caught.value.message) < 500


def test_what_cannot_be_trained_on_this_base_is_refused_before_there_is_data(entry: str) -> None:
    assert complete({}, entry).recipe["method"] == "qlora"
    with pytest.raises(ConfigError):
        complete({"method": "lora", "distributed": "zero3", "processes": 2}, entry)


def test_the_ready_made_ones_come_with_all_keys() -> None:
    found = all_ready_made()
    assert "instruction-qlora" in {recipe.name for recipe in found.recipes}
    for recipe in found.recipes:
        assert recipe.about and recipe.text.startswith(f"# {recipe.about}")
        assert make_recipe(recipe.recipe) == make_recipe(recipe.recipe | dict.fromkeys(recipe.open, "auto"))
    assert [key.key for key in found.keys] == list(Recipe.model_fields)
    assert all(key.meaning for key in found.keys)
