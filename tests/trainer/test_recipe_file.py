"""Recipes as files: what is meant is understood, and what is wrong is told by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunechat.serve.contract.errors import ConfigError
from tunechat.trainer.recipe import Recipe
from tunechat.trainer.recipe_file import make_recipe, parse_recipe, read_overrides, read_recipe


def test_yaml_and_toml_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(
        "name: support\ndata: [a.jsonl, b.jsonl=2]\nlr: 1e-4\nepochs: 2\nprompts: 'Hi, you'\n"
    )
    (tmp_path / "a.toml").write_text(
        'name = "support"\ndata = ["a.jsonl", "b.jsonl=2"]\nlr = 1e-4\nepochs = 2\nprompts = ["Hi, you"]\n'
    )
    recipe = read_recipe(tmp_path / "a.yml")
    assert recipe == read_recipe(tmp_path / "a.toml")
    assert (recipe.data, recipe.lr, recipe.prompts) == (("a.jsonl", "b.jsonl=2"), 1e-4, ("Hi, you",))
    assert recipe.chosen == {"name", "data", "lr", "epochs", "prompts"}


def test_overrides_go_over_the_file() -> None:
    recipe = parse_recipe("lr: 1e-3\nrank: 8", ["lr=1e-4", "targets=q_proj, v_proj", "max-length=512", "rslora=true"])
    assert (recipe.lr, recipe.rank, recipe.max_length, recipe.rslora) == (1e-4, 8, 512, True)
    assert recipe.targets == ("q_proj", "v_proj")
    assert parse_recipe("rank: 8", ["rank=null"]).rank == Recipe().rank


def test_auto_is_left_to_the_data_where_it_can_be() -> None:
    recipe = make_recipe({"lr": "auto", "epochs": "auto", "codec": "auto"})
    assert recipe.chosen == {"codec"}
    with pytest.raises(ConfigError, match="rank: "):
        make_recipe({"rank": "auto"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 1}, "there is no key 'epoch'; did you mean epochs?"),
        ({"learning_rate": 1}, "'learning_rate'; did you mean lr?"),
        ({"cutoff-len": 1}, "'cutoff-len'; did you mean max_length?"),
        ({"xyzzy": 1}, "'xyzzy'; `tunechat recipes keys` lists all"),
        ({"rank": 0, "lr": 2}, "rank: should be greater than or equal to 1; lr: should be less than or equal to 1"),
        ({"lr": float("nan")}, "lr: "),
        ({"rank": True}, "rank: should be no truth value"),
        ({"rank": 1.5}, "rank: "),
        ({"name": "../x"}, "name: "),
        ({"method": "qlora", "codec": "none"}, "take method=lora"),
        ({"method": "lora", "codec": "nf4"}, "take method=qlora"),
        ({"distributed": "zero3", "processes": 2}, "cannot split 4-bit weights"),
        ({"method": "dora", "distributed": "zero2"}, "cannot split 4-bit weights"),
        ({"processes": 2}, "need distributed"),
        ({"validation": "a.jsonl", "validation_split": 0.1}, "exclude each other"),
    ],
)
def test_tells_what_is_wrong(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_recipe(values, origin="mine.yml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("mine.yml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: 1\nlr: 2", "the key 'lr' stands there twice"),
        ("lr: &a 1\nrank: *a", "aliases"),
        ("- 1", "must hold keys and values"),
        ("lr: [", "is not YAML"),
        ("lr: !!python/object/apply:os.getcwd []", "is not YAML"),
        ("[" * 5000, "is not YAML"),
    ],
)
def test_refuses_yaml_that_is_no_recipe(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_recipe(text)


@pytest.mark.parametrize("pairs", [["lr"], ["=1"], ["lr=1", "lr=2"], ["lr=["]])
def test_refuses_overrides_that_are_none(pairs: list[str]) -> None:
    with pytest.raises(ConfigError):
        read_overrides(pairs)


def test_refuses_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_recipe(tmp_path / "none.yml")
    (tmp_path / "large.yml").write_text("#" * (1 << 20) + "\n")
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        read_recipe(tmp_path / "large.yml")
    (tmp_path / "bad.toml").write_text("lr = ")
    with pytest.raises(ConfigError, match="is not TOML"):
        read_recipe(tmp_path / "bad.toml")


def test_a_recipe_survives_being_written_down() -> None:
    recipe = make_recipe({"data": ["a.jsonl"], "lr": 1e-4, "targets": "q_proj"})
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
