"""`tunechat recipes`: list, show, copy, keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tunechat.trainer.recipe import Recipe
from tunechat.trainer.recipe_file import read_recipe

from .conftest import Done

Tunechat = Callable[..., Done]


def test_lists_what_there_is(tunechat: Tunechat) -> None:
    listed = json.loads(tunechat("recipes", "list", "--json").out)
    assert {"identity", "instruction-qlora", "small-gpu"} <= {recipe["name"] for recipe in listed}
    assert "small-gpu" in tunechat("recipes", "list").out


def test_shows_and_copies_the_same_text(tunechat: Tunechat, tmp_path: Path) -> None:
    target = tmp_path / "mine.yml"
    assert tunechat("recipes", "copy", "small-gpu", str(target)).code == 0
    assert target.read_text() == tunechat("recipes", "show", "small-gpu").out
    assert read_recipe(target).codec == "nf4"
    again = tunechat("recipes", "copy", "small-gpu", str(target))
    assert again.code == 1 and "--force" in again.err
    assert tunechat("recipes", "copy", "tools", str(target), "--force").code == 0
    assert read_recipe(target).name == "tools"


def test_shows_every_key_for_programs(tunechat: Tunechat) -> None:
    shown = json.loads(tunechat("recipes", "show", "identity", "--json").out)
    assert shown["recipe"].keys() == Recipe.model_fields.keys()
    assert "lr" in shown["chosen_by_the_data"] and "epochs" not in shown["chosen_by_the_data"]
    listed = json.loads(tunechat("recipes", "keys", "--json").out)
    assert [row["key"] for row in listed] == list(Recipe.model_fields)


def test_an_unknown_name_is_told(tunechat: Tunechat) -> None:
    done = tunechat("recipes", "show", "identiti")
    assert done.code == 1 and "did you mean identity?" in done.err
