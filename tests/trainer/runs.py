"""Runs of the trainer on a tiny model, in this process or in one of its own."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

from tunechat.serve.base.entry import BaseEntry
from tunechat.serve.contract.jobs import ORDER, TrainingEvent, TrainingOrder, TrainingStep
from tunechat.trainer.computing import computing_of
from tunechat.trainer.events import Events
from tunechat.trainer.lessons import read_lessons
from tunechat.trainer.loop import Training
from tunechat.trainer.methods import make_model
from tunechat.trainer.process import train
from tunechat.trainer.recipe_file import make_recipe


def events_in(text: bytes) -> list[TrainingEvent]:
    return [msgspec.json.decode(line, type=TrainingEvent) for line in text.splitlines()]


def losses(events: Sequence[TrainingEvent]) -> dict[int, float]:
    """The loss of each step, by number; of a step that was made twice, the last."""
    return {event.step: event.loss for event in events if isinstance(event, TrainingStep)}


def run_here(
    entry: BaseEntry, folder: Path, recipe: dict[str, Any], *, should_stop: Callable[[], bool] = lambda: False
) -> tuple[bool, list[TrainingEvent]]:
    """Whether it came to its end, and what it said."""
    folder.mkdir(exist_ok=True)
    stream = io.BytesIO()
    lessons = read_lessons(make_recipe(recipe), entry.folder, entry.manifest)
    settled = lessons.recipe
    torch.manual_seed(settled.seed)
    model = make_model(settled, entry, computing_of(settled))
    done = Training(model, lessons, entry.manifest, folder, Events(stream), should_stop).run()
    return done, events_in(stream.getvalue())


def run_order(
    entry: BaseEntry, folder: Path, recipe: dict[str, Any], should_stop: Callable[[], bool] = lambda: False
) -> tuple[bool, list[TrainingEvent]]:
    """What the trainer's process would do with an order, in this one."""
    _order(entry, folder, recipe)
    stream = io.BytesIO()
    done = train(folder, Events(stream), should_stop)
    return done, events_in(stream.getvalue())


def start(entry: BaseEntry, folder: Path, recipe: dict[str, Any]) -> subprocess.Popen[bytes]:
    """`python -m tunechat.trainer` on an order in `folder`."""
    _order(entry, folder, recipe)
    return subprocess.Popen(
        [sys.executable, "-m", "tunechat.trainer", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def _order(entry: BaseEntry, folder: Path, recipe: dict[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    order = TrainingOrder(job="job", recipe=recipe, entry=str(entry.folder), threads=1)
    (folder / ORDER).write_bytes(msgspec.json.encode(order))


def read_event(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the trainer said nothing more"
    found: dict[str, Any] = json.loads(line)
    return found
