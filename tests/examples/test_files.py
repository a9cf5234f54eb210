"""The files of the examples: recipes that can be read, and data that is what it says."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import httpx
import pytest
from openpyxl import load_workbook

from tunechat.trainer.recipe_file import read_recipe

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def script() -> Callable[[str], ModuleType]:
    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(Path(name).stem, EXAMPLES / name)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.yml")), ids=lambda path: path.name)
def test_recipes_can_be_read_and_their_files_are_there(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.data
    for name in (*recipe.data, *recipe.validation):
        # What scripts make lies in a folder that is not kept.
        assert name.startswith("build/") or (path.parent / name).exists()
    assert not set(recipe.data) & set(recipe.validation)


def test_the_workbook_has_the_columns_of_its_kind(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    make = script("medqa/make.py")
    make.write(tmp_path / "questions.xlsx")
    header, *rows = load_workbook(tmp_path / "questions.xlsx")["QA"].iter_rows(values_only=True)
    assert header == ("Question", "Drug Type", "ANSWER")
    assert len({row[0] for row in rows}) == len(rows) == len(make.ROWS)
    assert all(isinstance(cell, str) and cell for row in rows for cell in row)


def test_perplexity_counts_each_token_once(script: Callable[[str], ModuleType]) -> None:
    perplexity = script("pretrain/perplexity.py")
    text = "one\ntwo two\n\nthree\n" * 9
    parts = list(perplexity.pieces(text, 20))
    assert "".join(parts) == text
    assert max(map(len, parts)) <= 20
    assert list(perplexity.pieces("a line that is longer than a piece\nb", 5)) == [
        "a line that is longer than a piece\n",
        "b",
    ]

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"choices": [{"logprobs": {"token_logprobs": [None, -1.0, -3.0]}}]})

    with httpx.Client(transport=httpx.MockTransport(answer), base_url="http://a") as client:
        assert perplexity.scored(client, "m", "text") == [-1.0, -3.0]
