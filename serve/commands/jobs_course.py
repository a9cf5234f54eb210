"""How a job goes, from what its events say."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Points = list[tuple[float, float]]

_STEPS = re.compile(r"\bin (\d+) steps\b")
# How much the latest step counts in means of speed: about the last ten matter.
_LATEST = 0.2


@dataclass(slots=True)
class Course:
    """What is known by now. Losses and steps are None and 0 until there are any; `training` and `validation` hold
    the loss at each step that had one; speeds are means of the latest steps."""

    step: int = 0
    steps: int = 0
    epoch: float = 0.0
    loss: float | None = None
    measured: float | None = None
    rate: float | None = None
    memory: int = 0
    tokens_per_second: float | None = None
    seconds_per_step: float | None = None
    training: Points = field(default_factory=list)
    validation: Points = field(default_factory=list)

    def take(self, event: Mapping[str, Any]) -> None:
        """Learns from an event of the API. What it does not know changes nothing."""
        data = event.get("data")
        data = data if isinstance(data, Mapping) else {}
        if steps := _number(data.get("steps")) or self._steps_told(str(event.get("message", ""))):
            self.steps = int(steps)
        step = _number(data.get("step"))
        if step is None:
            return
        if (loss := _number(data.get("train_loss"))) is not None:
            self._step(int(step), loss, data)
        if (measured := _number(data.get("valid_loss"))) is not None:
            self.measured = measured
            _put(self.validation, step, measured)

    @property
    def remaining(self) -> float | None:
        """Seconds that the rest of the steps takes; None while that is unknown."""
        if self.seconds_per_step is None or not self.steps:
            return None
        return max(self.steps - self.step, 0) * self.seconds_per_step

    def _steps_told(self, message: str) -> float | None:
        found = _STEPS.search(message) if message.startswith("Training ") else None
        return None if found is None else float(found[1])

    def _step(self, step: int, loss: float, data: Mapping[str, Any]) -> None:
        self.step, self.loss = step, loss
        _put(self.training, step, loss)
        self.epoch = _number(data.get("epoch")) or self.epoch
        self.rate = _number(data.get("rate"))
        self.memory = int(_number(data.get("memory")) or 0)
        seconds, tokens = _number(data.get("seconds")), _number(data.get("tokens"))
        if seconds:
            self.seconds_per_step = _mean(self.seconds_per_step, seconds)
            if tokens is not None:
                self.tokens_per_second = _mean(self.tokens_per_second, tokens / seconds)


def _put(points: Points, step: float, value: float) -> None:
    """Adds a point. A training that went on from a checkpoint tells steps again: those told before no longer count."""
    while points and points[-1][0] >= step:
        points.pop()
    points.append((step, value))


def _mean(before: float | None, now: float) -> float:
    return now if before is None else before + _LATEST * (now - before)


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) else None
