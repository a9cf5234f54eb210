"""What is foretold before the first step, and what is refused then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunechat.serve.base.entry import BaseEntry
from tunechat.serve.contract.jobs import TrainingEstimated, TrainingStep
from tunechat.trainer import estimate as module
from tunechat.trainer.data.row import Row
from tunechat.trainer.estimate import cut
from tunechat.trainer.memory import OutOfMemory
from tunechat.trainer.model import TrainedModel

from .runs import run_here

Entries = Callable[..., BaseEntry]


class FakeGauge:
    """A machine with 1 GB free, on which each token that is computed at once takes 1 MB, and all of them 100 MB."""

    free = 1_000_000_000
    works = True
    tokens = 0

    def __init__(self, device: object) -> None:
        FakeGauge.tokens = 0

    def extra(self) -> int:
        return 100_000_000 + FakeGauge.tokens * 1_000_000


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all batches, in tokens, that are learned on the fake machine."""
    sizes: list[int] = []
    learn = TrainedModel.learn

    def noted(model: TrainedModel, row: Row, scale: float) -> float:
        sizes.append(len(row.tokens))
        FakeGauge.tokens = max(FakeGauge.tokens, len(row.tokens))
        return learn(model, row, scale)

    monkeypatch.setattr(TrainedModel, "learn", noted)
    monkeypatch.setattr(module, "Gauge", FakeGauge)
    return sizes


def recipe(path: Path, rows: int, **more: Any) -> dict[str, Any]:
    data = path / "data.csv"
    data.write_text("question,answer\n" + "".join(f"what is {n}?,it is number {n}\n" for n in range(rows)))
    return {"data": str(data), "rank": 2, "targets": "q_proj", "steps": 1, "validation_split": 0, **more}


def test_a_batch_that_will_not_fit_is_refused_before_it_is_tried(
    tiny_entry: Entries, tmp_path: Path, learned: list[int]
) -> None:
    told = recipe(tmp_path, 60, batch_tokens=4096)
    with pytest.raises(OutOfMemory) as error:
        run_here(tiny_entry("llama"), tmp_path / "job", told)
    assert max(learned) <= 512
    assert (error.value.code, error.value.param) == ("out_of_memory", "batch_tokens")
    # 1 GB less what is left to others, less 0.1 GB, is room for 837 tokens.
    assert "batch_tokens=768 instead of 4096" in error.value.message
    assert "1.0 GB are free" in error.value.message
    assert "rank" in error.value.message
    assert not list((tmp_path / "job").glob("checkpoint-*"))


def test_what_fits_is_foretold(tiny_entry: Entries, tmp_path: Path, learned: list[int]) -> None:
    done, events = run_here(tiny_entry("llama"), tmp_path / "job", recipe(tmp_path, 60, batch_tokens=800))
    (estimated,) = [event for event in events if isinstance(event, TrainingEstimated)]
    assert done
    assert estimated.memory > 1 << 20
    assert estimated.seconds > 0


def test_one_long_sample_is_told_to_be_shorter(tiny_entry: Entries, tmp_path: Path, learned: list[int]) -> None:
    told = recipe(tmp_path, 2, batch_tokens=64, max_length=512, gradient_checkpointing=False)
    Path(told["data"]).write_text(f"question,answer\nq,{'word ' * 90}\n")
    FakeGauge.free, before = 300_000_000, FakeGauge.free
    try:
        with pytest.raises(OutOfMemory, match=r"Switch gradient_checkpointing on.* a smaller max_length"):
            run_here(tiny_entry("llama"), tmp_path / "job", told)
    finally:
        FakeGauge.free = before


def test_nothing_is_changed_by_it(tiny_entry: Entries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = recipe(tmp_path, 30, batch_tokens=512, dropout=0.5, steps=3)
    _, events = run_here(tiny_entry("llama"), tmp_path / "a", told)
    monkeypatch.setattr("tunechat.trainer.loop.Training._estimated", lambda training, state: state)
    _, others = run_here(tiny_entry("llama"), tmp_path / "b", told)
    both = [[event.loss for event in some if isinstance(event, TrainingStep)] for some in (events, others)]
    assert both[0] == both[1]


def test_being_asked_to_stop_ends_it(tiny_entry: Entries, tmp_path: Path) -> None:
    done, events = run_here(tiny_entry("llama"), tmp_path / "job", recipe(tmp_path, 30), should_stop=lambda: True)
    assert not done
    assert not any(isinstance(event, TrainingEstimated) for event in events)


def test_a_part_of_a_row_has_whole_lengths_and_learns_something() -> None:
    row = Row(np.arange(10, dtype=np.int32), np.array([0] * 6 + [1] * 4, dtype=np.float32), (4, 3, 3))
    part = cut(row, 5)
    assert (part.tokens.tolist(), part.lengths) == ([0, 1, 2, 3, 4], (4, 1))
    assert part.weights.tolist() == [0, 0, 0, 0, 1]
    assert cut(row, 8).lengths == (4, 3, 1)
    assert cut(row, 10) is row
