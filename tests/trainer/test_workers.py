"""Several processes train as one does that takes their batches one after the other."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tunechat.serve.base.entry import BaseEntry
from tunechat.serve.contract.errors import ConfigError
from tunechat.serve.contract.jobs import PAUSED, TrainingEnded, TrainingSaved, TrainingStarted
from tunechat.trainer.launch import WorkerDied, launch
from tunechat.trainer.workers import LostWorker, Workers, join_workers

from .runs import events_in, losses, read_event, run_here, start

Entries = Callable[..., BaseEntry]


@pytest.fixture
def recipe(data_file: Path) -> dict[str, Any]:
    return {
        "data": str(data_file),
        "validation": str(data_file),
        "patience": 0,
        "rank": 4,
        "batch_tokens": 60,
        "steps": 4,
        "eval_steps": 2,
        "save_steps": 100,
        "lr": 0.01,
        "priority": "training",
    }


TOGETHER = {"distributed": "ddp", "processes": 2, "accumulation": 1}


def children(process: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def is_alive(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def until_step(process: subprocess.Popen[bytes]) -> tuple[dict[str, Any], list[int]]:
    """The first step's event, and the two processes that it comes from."""
    while (event := read_event(process))["type"] != "step":
        assert event["type"] in ("started", "estimated")
    workers = children(process.pid)
    assert len(workers) == 2
    return event, workers


@pytest.mark.timeout(240)
def test_two_learn_what_one_learns_from_twice_as_many_batches(
    tiny_entry: Entries, tmp_path: Path, recipe: dict[str, Any]
) -> None:
    entry = tiny_entry("llama")
    done, alone = run_here(entry, tmp_path / "alone", recipe | {"accumulation": 2})
    assert done
    expected = losses(alone)
    process = start(entry, tmp_path / "job", recipe | TOGETHER)
    event, workers = until_step(process)
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=90)
    assert process.returncode == PAUSED
    assert not any(is_alive(worker) for worker in workers)
    # One alone speaks and saves: each thing once.
    said = events_in(rest)
    saved = [event.step for event in said if isinstance(event, TrainingSaved)]
    assert len(saved) == len(set(saved))
    first = {event["step"]: event["loss"]} | losses(said)
    assert len(first) < 4
    # One alone goes on from where both stood, as if it had been there all the time.
    done, events = run_here(entry, tmp_path / "job", recipe | {"accumulation": 2})
    assert done
    assert isinstance(events[0], TrainingStarted)
    assert events[0].resumed_at == max(first)
    found = first | losses(events)
    assert found == pytest.approx(expected, rel=1e-5)
    end, expected_end = events[-1], alone[-1]
    assert isinstance(end, TrainingEnded)
    assert isinstance(expected_end, TrainingEnded)
    assert end.metrics["validation_loss"] == pytest.approx(expected_end.metrics["validation_loss"], rel=1e-4)
    assert end.metrics["trained_tokens"] == expected_end.metrics["trained_tokens"]


@pytest.mark.parametrize(("command", "code"), [("exit 0", 0), ("exit 75", 75), ("exit 1", 1)])
def test_all_end_as_the_first_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, code: int
) -> None:
    run_by_shell(monkeypatch, command)
    assert launch(tmp_path, 2, 2, lambda: False) == code


def test_one_that_is_killed_ends_all_and_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunechat.trainer.launch._GRACE", 0.2)
    run_by_shell(monkeypatch, "test $RANK = 0 && exec sleep 60; kill -9 $$")
    with pytest.raises(WorkerDied, match="Process 1 of the 2 that train together ended by signal 9"):
        launch(tmp_path, 2, 2, lambda: False)


def test_all_are_asked_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_by_shell(monkeypatch, "trap 'exit 75' TERM; touch $1/$RANK; while :; do sleep 0.05; done")
    assert launch(tmp_path, 3, 2, lambda: len(list(tmp_path.glob("[012]"))) == 3) == PAUSED


def run_by_shell(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """What `launch` starts, but for the program."""
    popen = subprocess.Popen

    def shell(arguments: list[str], **told: Any) -> subprocess.Popen[bytes]:
        return popen(["sh", "-c", command, "sh", arguments[-1]], **told)

    monkeypatch.setattr("tunechat.trainer.launch.subprocess.Popen", shell)


def test_one_alone_needs_no_others() -> None:
    alone = Workers()
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.ones(2)
    alone.sum_gradients([parameter])
    assert parameter.grad.tolist() == [1, 1]
    assert (alone.total(2.5), alone.any(True), alone.any(False)) == (2.5, True, False)
    assert alone.share([1, 2, 3]) == [1, 2, 3]
    state = torch.arange(4, dtype=torch.uint8)
    assert torch.equal(alone.own(alone.gather(state), 1), state)
    # What two had, taken up by three.
    kept = torch.stack([state, state + 1])
    assert [Workers(rank, 3).own(kept, 1)[0] for rank in range(3)] == [0, 1, 0]
    assert [list(Workers(rank, 2).share([1, 2, 3])) for rank in range(2)] == [[1, 3], [2]]


def test_gradients_are_summed_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunechat.trainer.workers._BUCKET", 5)
    sizes: list[int] = []

    def all_reduce(flat: torch.Tensor) -> None:
        sizes.append(flat.numel())
        flat *= 2

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in ((2, 2), (1,), (3, 3), (2,))]
    for number, parameter in enumerate(parameters[1:], 1):
        parameter.grad = torch.full_like(parameter, number)
    Workers(0, 2).sum_gradients(parameters)
    assert sizes == [5, 9, 2]
    for number, parameter in enumerate(parameters):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, torch.full_like(parameter, 2 * number))

    def gone(flat: torch.Tensor) -> None:
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(torch.distributed, "all_reduce", gone)
    with pytest.raises(LostWorker):
        Workers(0, 2).total(1)


def test_their_number_is_that_of_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert join_workers(tmp_path, 1) == Workers()
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="3 were started for a recipe of 2"):
        join_workers(tmp_path, 2)
