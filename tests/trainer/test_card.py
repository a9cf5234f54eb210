"""The card says how an adapter was made, so that it can be made again."""

from __future__ import annotations

from pathlib import Path

import yaml

from tunechat.trainer.auto import DataSize, settled
from tunechat.trainer.card import CardFacts, model_card, recipe_yaml
from tunechat.trainer.recipe_file import make_recipe, parse_recipe

GIVEN = {"name": "support", "data": ["faq.jsonl=2"], "lr_scale": 0.5, "prompts": ["Wer bist du? ✓", "a: b"]}


def test_the_recipe_makes_the_same_training() -> None:
    recipe = settled(make_recipe(GIVEN), DataSize(100, 9_000))
    assert parse_recipe(recipe_yaml(recipe)) == recipe


def test_the_folders_of_the_machine_are_not_told(tmp_path: Path) -> None:
    recipe = make_recipe(GIVEN | {"data": [str(tmp_path / "mine.jsonl") + "=3"], "validation": str(tmp_path / "b.csv")})
    text = recipe_yaml(recipe)
    assert str(tmp_path) not in text
    assert parse_recipe(text).data == ("mine.jsonl=3",)


def test_it_has_what_hubs_and_people_read() -> None:
    recipe = settled(make_recipe(GIVEN), DataSize(100, 9_000))
    card = model_card(
        CardFacts(
            recipe=recipe, base="tiny", data="ab" * 32, rows=90, held=10, step=7, steps=9, trained_tokens=1234,
            metrics={"best_validation_loss": 0.5},
        )
    )  # fmt: skip
    _, head, body = card.split("---\n", 2)
    assert yaml.safe_load(head)["base_model"] == "tiny"
    for said in ("# support", "7 of 9", "1,234", "ab" * 32, "| best validation loss | 0.5 |", "lr_scale: 0.5"):
        assert said in body
