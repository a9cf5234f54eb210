"""What a training does, step by step, on a tiny model in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunechat.serve.adapters.adapter import read_adapter
from tunechat.serve.adapters.digest import digest_of
from tunechat.serve.adapters.origin import check_origin, read_origin
from tunechat.serve.base.entry import BaseEntry
from tunechat.serve.contract.errors import ConfigError
from tunechat.serve.contract.jobs import (
    TrainingEnded,
    TrainingEstimated,
    TrainingMeasured,
    TrainingSaved,
    TrainingStarted,
    TrainingStep,
)
from tunechat.trainer.loop import Diverged

from .runs import losses, run_here

Entries = Callable[..., BaseEntry]


@pytest.fixture
def recipe(data_file: Path) -> dict[str, Any]:
    return {
        "data": str(data_file),
        "rank": 4,
        "batch_tokens": 1000,
        "lr": 0.01,
        "steps": 4,
        "targets": "q_proj, v_proj",
    }


@pytest.mark.parametrize(
    ("quant", "told"),
    [("int4", {}), ("nf4", {"rslora": True}), ("int4", {"method": "dora"}), ("none", {"method": "lora"})],
)
def test_it_learns_and_gives_an_adapter_that_is_served(
    tiny_entry: Entries, tmp_path: Path, recipe: dict[str, Any], quant: str, told: dict[str, Any]
) -> None:
    entry = tiny_entry("llama", quant)
    recipe = recipe | told
    done, events = run_here(entry, tmp_path, recipe | {"steps": 12, "lr": 0.05, "save_steps": 100})
    assert done
    assert isinstance(events[0], TrainingStarted)
    assert (events[0].rows, events[0].steps) == (8, 12)
    assert isinstance(events[1], TrainingEstimated)
    found = losses(events)
    assert found[12] < 0.8 * found[1]
    end = events[-1]
    assert isinstance(end, TrainingEnded)
    folder = Path(end.adapter)
    adapter = read_adapter(folder, entry.manifest.linears)
    assert adapter.targets == ("q_proj", "v_proj")
    assert adapter.warnings == ()
    assert (adapter.settings.dora, adapter.settings.rslora) == (told.get("method") == "dora", "rslora" in told)
    origin = read_origin(folder, digest_of(adapter), adapter.settings.base)
    assert check_origin(origin, entry.manifest) == ()
    assert origin.dialect == "generic"


def test_several_batches_make_the_step_of_one(tiny_entry: Entries, tmp_path: Path, recipe: dict[str, Any]) -> None:
    """However few tokens a batch teaches, each of them counts as much as any other."""
    entry = tiny_entry("llama")
    one = losses(run_here(entry, tmp_path / "one", recipe)[1])
    several = losses(
        run_here(entry, tmp_path / "several", recipe | {"batch_tokens": 1, "packing": "single", "accumulation": 8})[1]
    )
    assert several == pytest.approx(one, rel=1e-4)


def test_the_best_measurement_is_kept_and_ends_what_gets_worse(
    tiny_entry: Entries, tmp_path: Path, recipe: dict[str, Any], data_file: Path
) -> None:
    other = tmp_path / "other.txt"
    other.write_text("~" * 200, encoding="utf-8")
    told = {"validation": str(other), "eval_steps": 1, "patience": 2, "keep_checkpoints": 1, "schedule": "constant"}
    done, events = run_here(
        tiny_entry("llama"), tmp_path / "job", recipe | told | {"steps": 30, "lr": 0.05, "warmup": 0}
    )
    measured = [event.loss for event in events if isinstance(event, TrainingMeasured)]
    end = events[-1]
    assert done
    assert isinstance(end, TrainingEnded)
    assert end.best_step == 1 + measured.index(min(measured))
    assert end.step == len(measured) == end.best_step + 2 < 30
    assert Path(end.adapter).is_dir()
    assert end.metrics["validation_loss"] == min(measured)


def test_numbers_that_are_none_end_it_with_the_reason(
    tiny_entry: Entries, tmp_path: Path, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunechat.trainer.model.TrainedModel.learn", lambda model, row, scale: float("nan"))
    with pytest.raises(Diverged, match="step 1 the loss was no number") as error:
        run_here(tiny_entry("llama"), tmp_path, recipe)
    assert error.value.param == "lr"


def test_stopping_within_a_step_forgets_that_step_only(
    tiny_entry: Entries, tmp_path: Path, recipe: dict[str, Any]
) -> None:
    asked: list[None] = []

    def should_stop() -> bool:
        asked.append(None)
        return len(asked) == 4

    told = recipe | {"batch_tokens": 1, "packing": "single", "accumulation": 2, "dropout": 0.5, "save_steps": 100}
    whole = losses(run_here(tiny_entry("llama"), tmp_path / "whole", told)[1])
    done, events = run_here(tiny_entry("llama"), tmp_path / "job", told, should_stop=should_stop)
    assert not done
    assert [event.step for event in events if isinstance(event, TrainingSaved)] == [1]
    done, rest = run_here(tiny_entry("llama"), tmp_path / "job", told)
    assert done
    assert losses(events) | losses(rest) == whole


def test_other_data_does_not_go_on_from_a_checkpoint(
    tiny_entry: Entries, tmp_path: Path, recipe: dict[str, Any]
) -> None:
    run_here(tiny_entry("llama"), tmp_path / "job", recipe | {"steps": 1})
    other = tmp_path / "other.jsonl"
    other.write_text('{"prompt": "a", "completion": "b"}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="other data or another base"):
        run_here(tiny_entry("llama"), tmp_path / "job", recipe | {"data": str(other)})


def test_each_step_says_what_it_took(tiny_entry: Entries, tmp_path: Path, recipe: dict[str, Any]) -> None:
    _, events = run_here(tiny_entry("llama"), tmp_path, recipe)
    steps = [event for event in events if isinstance(event, TrainingStep)]
    assert [step.epoch for step in steps] == [1, 2, 3, 4]
    assert all(step.tokens > step.trained_tokens > 0 for step in steps)
    assert all(step.memory > 1 << 20 and step.seconds > 0 and step.gradient_norm > 0 for step in steps)
