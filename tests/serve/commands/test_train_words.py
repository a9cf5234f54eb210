"""What may be typed behind `tunechat train`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunechat.serve.commands.train_words import Words, sort_words, whole_recipe
from tunechat.serve.contract.errors import ConfigError, NotFound


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_words_are_told_apart(folder: Path) -> None:
    (folder / "faq").mkdir()
    (folder / "data").mkdir()
    (folder / "odd=name.jsonl").touch()
    words = ["my.yml", "lr=1e-4", "batch-rows=2", "a.jsonl", "a.jsonl=3", "sub/b=2", "faq=0.5", "odd=name.jsonl"]
    found = sort_words([*words, "data=x.jsonl", "./data=2", "epoch=5", "*.csv=2"])
    assert found == Words(
        Path("my.yml"),
        ("lr=1e-4", "batch-rows=2", "data=x.jsonl", "epoch=5"),
        ("a.jsonl", "a.jsonl=3", "sub/b=2", "faq=0.5", "odd=name.jsonl", "./data=2", "*.csv=2"),
    )
    with pytest.raises(ConfigError, match=r"a\.yml and b\.toml are both recipes"):
        sort_words(["a.yml", "b.toml"])


def test_words_and_flags_go_over_the_recipe(folder: Path) -> None:
    (folder / "my.yml").write_text("name: one\ndata: old.jsonl\nepochs: 3\nrank: 8\n")
    words = sort_words(["my.yml", "epochs=5", "new.jsonl", "more.jsonl=2"])
    recipe = whole_recipe(words, None, {"name": "two", "validation": ["v.jsonl"], "model": None})
    assert recipe.data == ("new.jsonl", "more.jsonl=2") and recipe.validation == ("v.jsonl",)
    assert (recipe.name, recipe.epochs, recipe.rank) == ("two", 5, 8)
    assert recipe.chosen == {"name", "data", "epochs", "rank", "validation"}
    assert whole_recipe(sort_words(["my.yml"]), None, {}).data == ("old.jsonl",)


def test_ready_made_recipes_are_taken_by_name() -> None:
    recipe = whole_recipe(sort_words(["x.jsonl", "epochs=2"]), "identity", {})
    assert recipe.data == ("x.jsonl",) and recipe.epochs == 2 and recipe.prompts
    with pytest.raises(NotFound, match="did you mean identity"):
        whole_recipe(sort_words(["x.jsonl"]), "identiy", {})


@pytest.mark.parametrize(
    ("words", "flags", "told"),
    [
        (["x.jsonl", "epoch=5"], {}, "did you mean epochs"),
        (["x.jsonl", "learning_rate=1"], {}, "did you mean lr"),
        (["x.jsonl", "lr=2"], {}, "lr: should be less than or equal to 1"),
        (["x.jsonl", "name=a"], {"name": "b"}, "name is given twice"),
        (["x.jsonl", "data=y.jsonl"], {}, "data is given twice"),
        (["x.jsonl"], {"name": "../x"}, "name: String should match"),
        (["x.jsonl", "validation_split=0.1"], {"validation": ["v.jsonl"]}, "exclude each other"),
        (["lr=1e-4"], {}, "nothing to learn from"),
        ([], {}, "nothing to learn from"),
        (["no-such.yml"], {}, "cannot be read"),
    ],
)
def test_what_is_wrong_is_told_with_the_mend(words: list[str], flags: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        whole_recipe(sort_words(words), None, flags)


def test_two_recipes_are_one_too_many(folder: Path) -> None:
    (folder / "my.yml").write_text("epochs: 3\n")
    with pytest.raises(ConfigError, match="both recipes"):
        whole_recipe(sort_words(["my.yml", "x.jsonl"]), "identity", {})
