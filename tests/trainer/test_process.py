"""The process as the server starts it: what it says, how it stops, and that nothing is lost when it is killed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunechat.serve.base.entry import BaseEntry
from tunechat.serve.contract.jobs import FAILED, PAUSED, TrainingEnded, TrainingStarted

from .runs import events_in, losses, read_event, run_here, start

Entries = Callable[..., BaseEntry]


@pytest.fixture
def recipe(data_file: Path) -> dict[str, Any]:
    return {
        "data": str(data_file),
        "validation": str(data_file),
        "patience": 0,
        "rank": 4,
        "dropout": 0.2,
        "batch_tokens": 100,
        "accumulation": 2,
        "steps": 12,
        "save_steps": 2,
        "eval_steps": 4,
        "lr": 0.01,
        "priority": "training",
    }


def test_a_killed_training_goes_on_with_the_same_losses(
    tiny_entry: Entries, tmp_path: Path, recipe: dict[str, Any]
) -> None:
    entry = tiny_entry("llama")
    done, whole = run_here(entry, tmp_path / "whole", recipe)
    assert done
    expected = losses(whole)
    assert sorted(expected) == list(range(1, 13))
    folder = tmp_path / "killed"
    # Killed inside step 4, before its checkpoint, and started again.
    process = start(entry, folder, recipe)
    seen = {}
    while len(seen) < 3:
        event = read_event(process)
        if event["type"] == "step":
            seen[event["step"]] = event["loss"]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert seen == {step: expected[step] for step in seen}
    # Asked to stop: a checkpoint is written wherever it stands.
    process = start(entry, folder, recipe)
    started = read_event(process)
    assert started["type"] == "started"
    assert 2 <= started["resumed_at"] < 12
    while (event := read_event(process))["type"] != "step":
        continue
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=60)
    resumed = {event["step"]: event["loss"]} | losses(events_in(rest))
    assert resumed == {step: expected[step] for step in resumed}
    assert process.returncode == PAUSED
    done, last = run_here(entry, folder, recipe)
    assert done
    assert isinstance(last[0], TrainingStarted)
    assert last[0].resumed_at == max(resumed)
    rest_of_it = losses(last)
    assert rest_of_it == {step: expected[step] for step in range(max(resumed) + 1, 13)}
    ends = [events[-1] for events in (whole, last)]
    assert all(isinstance(end, TrainingEnded) for end in ends)
    weights = [Path(end.adapter, "adapter_model.safetensors").read_bytes() for end in ends]  # type: ignore[union-attr]
    assert weights[0] == weights[1]


def test_what_fails_is_said_by_name(tiny_entry: Entries, tmp_path: Path, recipe: dict[str, Any]) -> None:
    process = start(tiny_entry("llama"), tmp_path / "job", {**recipe, "optimizer": "adamw_8bit", "validation": ()})
    out, _ = process.communicate(timeout=60)
    assert process.returncode == FAILED
    (event,) = events_in(out)
    assert (event.code, event.param) == ("config_error", "optimizer")  # type: ignore[union-attr]
