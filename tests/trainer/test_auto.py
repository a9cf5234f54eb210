"""What a recipe leaves open follows from the data; what it says stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.trainer.auto import DataSize, settled
from tunechat.trainer.recipe import Recipe, auto_keys
from tunechat.trainer.recipe_file import make_recipe


@given(
    rows=st.integers(1, 10**7),
    mean=st.integers(1, 4000),
    parameters=st.sampled_from([0, 10**8, 10**10]),
    values=st.fixed_dictionaries(
        {},
        optional={
            "epochs": st.floats(0.1, 9),
            "lr": st.just(3e-5),
            "batch_tokens": st.integers(1, 9999),
            "rank": st.just(4),
        },
    ),
)
def test_any_size_of_data_has_a_recipe(rows: int, mean: int, parameters: int, values: dict[str, float]) -> None:
    recipe = make_recipe(values)
    made = settled(recipe, DataSize(rows, rows * mean, parameters))
    assert {key: getattr(made, key) for key in values} == values
    assert auto_keys() <= made.chosen
    assert settled(made, DataSize(1, 1)) == made
    assert made.alpha == 2 * made.rank
    assert made.batch_tokens * made.accumulation <= max(2 * 32768, made.batch_tokens)


def test_few_samples_get_many_small_steps() -> None:
    made = settled(Recipe(), DataSize(rows=20, tokens=1062, parameters=135_000_000))
    assert (made.epochs, made.batch_tokens, made.accumulation) == (8, 256, 1)
    assert (made.validation_split, made.lr) == (0, pytest.approx(5e-4))


def test_many_samples_get_large_steps() -> None:
    made = settled(Recipe(), DataSize(rows=200_000, tokens=50_000_000, parameters=7 * 10**9))
    assert (made.epochs, made.batch_tokens, made.lr) == (1, 2048, pytest.approx(2e-4))
    assert 8 <= made.accumulation <= 16
    assert made.validation_split * 200_000 == pytest.approx(512)


def test_files_for_validation_leave_the_data_whole() -> None:
    assert settled(make_recipe({"validation": "held.jsonl"}), DataSize(5000, 10**6)).validation_split == 0
    assert settled(Recipe(), DataSize(5000, 10**6)).validation_split == pytest.approx(0.1)
