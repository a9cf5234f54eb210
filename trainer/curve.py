"""The learning curve: a CSV file with a line for each step, which a training that goes on takes up where it stood."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..serve.contract.jobs import TrainingStep

CURVE = "curve.csv"
COLUMNS = ("step", "epoch", "train_loss", "valid_loss", "lr", "gradient_norm", "tokens", "seconds", "memory")
_HEAD = ",".join(COLUMNS).encode() + b"\n"


class Point(NamedTuple):
    """A step as people plot it; None where nothing was measured. `epoch` is how often the data was gone through."""

    step: int
    epoch: float
    train_loss: float
    valid_loss: float | None
    lr: float


class Curve:
    """Appends to the file, whose lines are whole after each call. Raises OSError when the disk is full."""

    def __init__(self, path: Path, step: int) -> None:
        """Goes on behind `step`: lines of later steps are taken out, for they will be made again."""
        self.path = path
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+b", buffering=0)
        # Where the last line begins, and what it says.
        self._start, self._last = 0, b""
        self._cut(step)

    def add(self, done: TrainingStep) -> None:
        """The line of a step, not measured yet."""
        cells = (
            done.step,
            done.epoch,
            done.loss,
            None,
            done.rate,
            done.gradient_norm,
            done.tokens,
            done.seconds,
            done.memory,
        )
        self._put(self._start + len(self._last), b",".join(map(_shown, cells)) + b"\n")

    def measured(self, loss: float) -> None:
        """Puts the validation loss into the last line."""
        cells = self._last.rstrip(b"\n").split(b",")
        cells[COLUMNS.index("valid_loss")] = _shown(loss)
        self._put(self._start, b",".join(cells) + b"\n")

    def sync(self) -> None:
        """Waits until all lines are on disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _put(self, start: int, line: bytes) -> None:
        self._file.seek(start)
        view = memoryview(line)
        while view:
            view = view[self._file.write(view) or 0 :]
        self._start, self._last = start, line

    def _cut(self, step: int) -> None:
        with self.path.open("rb") as lines:
            end = len(_HEAD) if lines.readline() == _HEAD else 0
            for line in lines if end else ():
                number = line.split(b",", 1)[0]
                if not (line.endswith(b"\n") and number.isdigit() and int(number) <= step):
                    break
                self._start, self._last, end = end, line, end + len(line)
        self._file.truncate(end)
        if not end:
            self._put(0, _HEAD)
        elif not self._last:
            self._start, self._last = 0, _HEAD


def read_curve(path: Path) -> Iterator[Point]:
    """The points of a curve, in order."""
    with path.open(encoding="ascii", newline="") as lines:
        for row in csv.DictReader(lines):
            measured = row["valid_loss"]
            yield Point(
                int(row["step"]),
                float(row["epoch"]),
                float(row["train_loss"]),
                float(measured) if measured else None,
                float(row["lr"]),
            )


def thinned(points: Iterable[Point], most: int) -> list[Point]:
    """At most about `most` points: neighbours become one, with their mean losses."""
    listed = list(points)
    width = -(-len(listed) // most) if listed else 1
    return [_mean(listed[at : at + width]) for at in range(0, len(listed), width)]


def _mean(points: list[Point]) -> Point:
    last, measured = points[-1], [point.valid_loss for point in points if point.valid_loss is not None]
    return last._replace(
        train_loss=sum(point.train_loss for point in points) / len(points),
        valid_loss=sum(measured) / len(measured) if measured else None,
    )


def _shown(value: float | None) -> bytes:
    if value is None:
        return b""
    return str(value).encode() if isinstance(value, int) else f"{value:.8g}".encode()
