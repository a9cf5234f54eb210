"""What ends a training, and what does not: losses and gradients as they come."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.base.entry import BaseEntry
from tunechat.serve.contract.jobs import TrainingSaved
from tunechat.trainer.data.row import Row
from tunechat.trainer.divergence import Diverged, Health, Watch
from tunechat.trainer.model import TrainedModel

from .runs import losses, run_here

WATCH = Watch(steps=200, vocabulary=49152)


def judged(losses: Iterable[float], norms: Iterable[float] | None = None, watch: Watch = WATCH) -> Health:
    listed = list(losses)
    health = Health(loss=3.0, count=1)
    for step, (loss, norm) in enumerate(zip(listed, norms or [1.0] * len(listed), strict=True), 1):
        health = watch.after(health, step, loss, norm, 1e-3)
    return health


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_what_is_no_number_ends_it_at_once(loss: float, norm: float) -> None:
    with pytest.raises(Diverged, match=r"At step 3 the (loss|gradient) was no number any more") as error:
        judged([1.0, 1.0, loss], [1.0, 1.0, norm])
    assert (error.value.code, error.value.param) == ("training_diverged", "lr")


def test_a_loss_that_grew_and_stays_ends_it() -> None:
    with pytest.raises(
        Diverged, match=r"Since step 4 the loss has grown .* it was 2.62 in the beginning and 12 at step 13"
    ):
        judged([3.0, 2.5, 2.0, *[12.0] * 10])


def test_a_short_training_is_ended_sooner() -> None:
    with pytest.raises(Diverged, match="Since step 2"):
        judged([3.0, 30.0, 30.0], watch=Watch(steps=8, vocabulary=49152))


def test_gradients_that_grew_and_stay_end_it() -> None:
    with pytest.raises(Diverged, match="Since step 2 the gradients have grown"):
        judged([3.0] * 11, [2.0, *[5000.0] * 10])


def test_what_comes_down_again_is_no_divergence() -> None:
    assert judged([3.0, *[12.0] * 9, 2.0, *[12.0] * 9, 2.0]).high == 0


@given(st.lists(st.floats(0, 3.0), min_size=1, max_size=100), st.floats(1e-9, 900))
def test_a_low_loss_never_ends_it(found: list[float], norm: float) -> None:
    """However small the first ones were by luck: samples of few tokens may be known by heart."""
    assert judged(found, [norm] * len(found)).high == 0


def test_noise_of_single_samples_never_ends_it() -> None:
    chance = random.Random(0)
    for _ in range(50):
        judged([chance.expovariate(1 / 3.0) for _ in range(200)], [chance.lognormvariate(0, 1.5) for _ in range(200)])


Entries = Callable[..., BaseEntry]


def told(data_file: Path, **more: Any) -> dict[str, Any]:
    return {"data": str(data_file), "rank": 4, "batch_tokens": 1, "packing": "single", "accumulation": 1, **more}


def test_what_diverges_publishes_nothing(
    tiny_entry: Entries, tmp_path: Path, data_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told_to, learn = iter(range(100)), TrainedModel.learn

    def worse(model: TrainedModel, row: Row, scale: float) -> float:
        return learn(model, row, scale) + 2.0 * next(told_to) * float(row.weights.sum())

    monkeypatch.setattr(TrainedModel, "learn", worse)
    with pytest.raises(Diverged, match="the loss has grown"):
        run_here(tiny_entry("llama"), tmp_path, told(data_file, steps=16, save_steps=1000))
    assert not list(tmp_path.glob("checkpoint-*"))


@pytest.mark.parametrize("lr", [1e-3, 0.03])
def test_a_small_noisy_training_comes_to_its_end(
    tiny_entry: Entries, tmp_path: Path, data_file: Path, lr: float
) -> None:
    """A sample a step, with a rate as people take it and one far above."""
    done, events = run_here(tiny_entry("llama"), tmp_path, told(data_file, lr=lr, steps=60))
    found = losses(events)
    assert done
    assert sorted(found) == list(range(1, 61))
    assert [event.step for event in events if isinstance(event, TrainingSaved)][-1] == 60
