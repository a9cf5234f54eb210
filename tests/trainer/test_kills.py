"""Killed wherever it stands, inside its saves too, a training goes on to what it would have learned anyway."""

from __future__ import annotations

import contextlib
import csv
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tunechat.serve.adapters.durable import TEMPORARY
from tunechat.serve.base.entry import BaseEntry
from tunechat.serve.contract.jobs import DONE, ORDER, TrainingEnded, TrainingEvent, TrainingOrder

from .runs import events_in, losses

# Learning, measuring and saving take about as long as one another.
RECIPE = {
    "rank": 4,
    "targets": "q_proj, v_proj",
    "dropout": 0.2,
    "batch_tokens": 64,
    "accumulation": 2,
    "steps": 24,
    "save_steps": 2,
    "eval_steps": 3,
    "patience": 0,
    "keep_checkpoints": 1,
    "lr": 0.01,
    "priority": "training",
}
SAVING = f"{TEMPORARY}checkpoint-"


class Forker:
    """Starts trainers that need not load anything."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forking.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def start(self, folder: Path) -> int:
        """The process id of a trainer of the order in `folder`."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{folder}\n")
        self._process.stdin.flush()
        return self._number()

    def ended(self) -> int:
        """Waits for the trainer; its exit code."""
        return self._number()

    def close(self) -> None:
        self._process.communicate(timeout=30)

    def _number(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    made = Forker()
    yield made
    made.close()


def order(entry: BaseEntry, folder: Path, data: Path) -> Path:
    folder.mkdir()
    recipe: dict[str, Any] = {"data": str(data), "validation": str(data), **RECIPE}
    content = TrainingOrder(job="ftjob-1", recipe=recipe, entry=str(entry.folder), threads=1)
    (folder / ORDER).write_bytes(msgspec.json.encode(content))
    return folder


def said(folder: Path) -> list[TrainingEvent]:
    """All that was said, but for a line that a kill cut off."""
    lines = (folder / "events").read_bytes().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"}\n") and line.startswith(b"{")]
    return events_in(b"".join(whole))


def wait_until(is_so: Callable[[], bool], pid: int) -> None:
    """Looks as often as it can, until it is so or the process has ended."""
    end = time.monotonic() + 60
    while not is_so() and time.monotonic() < end:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return


def is_saving(folder: Path) -> bool:
    return any(name.startswith(SAVING) for name in os.listdir(folder))


def count(folder: Path) -> int:
    path = folder / "events"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_somewhere(forker: Forker, folder: Path, chance: random.Random) -> str:
    """Starts a trainer and kills it at a moment of a step, of a measurement or of a save; where that was."""
    before, pid = count(folder), forker.start(folder)
    where = chance.choice(("saving", "saving", "anywhere"))
    if where == "saving":
        wait_until(lambda: is_saving(folder), pid)
        time.sleep(chance.uniform(0, 0.01))
    else:
        events = before + chance.randint(1, 6)
        wait_until(lambda: count(folder) >= events, pid)
        time.sleep(chance.uniform(0, 0.1))
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    if forker.ended() != -signal.SIGKILL:
        return "after its end"
    # What it was writing stays behind.
    return "in a save" if is_saving(folder) else "elsewhere"


@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=[pytest.mark.acceptance, pytest.mark.timeout(600)])])
def test_whatever_moment_it_is_killed_at_it_learns_the_same(
    tiny_entry: Callable[..., BaseEntry], tmp_path: Path, data_file: Path, forker: Forker, kills: int
) -> None:
    entry, chance = tiny_entry("llama"), random.Random(kills)
    whole = order(entry, tmp_path / "whole", data_file)
    forker.start(whole)
    assert forker.ended() == DONE
    expected, moments = losses(said(whole)), []
    assert sorted(expected) == list(range(1, 25))
    while len(moments) < kills:
        # As many orders as it takes: one that is killed late has little left to be killed in.
        folder = order(entry, tmp_path / f"killed-{len(moments)}", data_file)
        for _ in range(min(4, kills - len(moments))):
            moments.append(kill_somewhere(forker, folder, chance))
        forker.start(folder)
        assert forker.ended() == DONE, moments
        check_same(folder, whole)
    assert moments.count("in a save") >= kills // 5, moments
    assert moments.count("after its end") <= kills // 4, moments


def check_same(folder: Path, whole: Path) -> None:
    """All losses of all attempts, the curve, and the bytes that were published."""
    found, expected = said(folder), said(whole)
    for event in found:
        if event_losses := losses([event]):
            assert losses(expected).items() >= event_losses.items()
    assert losses(found) == losses(expected)
    assert not [path.name for path in folder.iterdir() if path.name.startswith(TEMPORARY)]
    ends = [said(place)[-1] for place in (folder, whole)]
    adapters = []
    for end in ends:
        assert isinstance(end, TrainingEnded)
        adapters.append(Path(end.adapter, "adapter_model.safetensors").read_bytes())
    assert adapters[0] == adapters[1]
    assert curve(folder) == curve(whole)


def curve(folder: Path) -> list[list[str]]:
    """What the curve says of learning, without times and memory."""
    with (folder / "curve.csv").open() as file:
        return [[row[name] for name in ("step", "train_loss", "valid_loss", "lr")] for row in csv.DictReader(file)]
