"""The ready-made recipes are right, and cover what people train."""

from __future__ import annotations

import pytest

from tunechat.serve.contract.errors import NotFound
from tunechat.trainer.auto import DataSize, settled
from tunechat.trainer.catalogue import ReadyMade, find_ready_made, ready_made
from tunechat.trainer.recipe import Recipe
from tunechat.trainer.recipe_file import parse_recipe
from tunechat.trainer.reference import keys, reference


@pytest.mark.parametrize("recipe", ready_made(), ids=lambda recipe: recipe.name)
def test_is_a_recipe(recipe: ReadyMade) -> None:
    made = parse_recipe(recipe.text, origin=recipe.name)
    assert made.data
    assert settled(made, DataSize(1000, 200_000)).data == made.data
    assert recipe.text.startswith("# ") and recipe.about.endswith(".")


def test_every_method_has_one() -> None:
    made = [parse_recipe(recipe.text) for recipe in ready_made()]
    assert {recipe.method for recipe in made} == {"qlora", "lora", "dora", "full"}
    assert {recipe.distributed for recipe in made} == {"none", "ddp", "zero2", "zero3"}


def test_finds_by_name() -> None:
    assert find_ready_made("identity").name == "identity"
    with pytest.raises(NotFound, match=r"did you mean identity\?"):
        find_ready_made("identiti")
    with pytest.raises(NotFound, match="These are: "):
        find_ready_made("../../etc/passwd")


def test_every_key_is_described() -> None:
    assert [key for key, values, _, meaning in keys() if not (values and meaning.endswith("."))] == []
    assert [key for key, *_ in keys()] == list(Recipe.model_fields)
    assert "| `rank` | whole number, 1 to 1,024 | `16` |" in reference()
    assert "| `lr` | number, above 0 to 1 | `auto` |" in reference()
