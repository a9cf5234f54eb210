"""How the learning rate goes, step by step: a function of the step alone, so that nothing of it has to be kept."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schedule:
    """Rises to `peak` in the part `warmup` of all `steps`, then falls to 0 as `kind` says ("constant": it stays)."""

    peak: float
    steps: int
    warmup: float = 0.0
    kind: str = "cosine"

    def rate(self, step: int) -> float:
        """The rate of step number `step`, from 0."""
        rising = min(round(self.warmup * self.steps), self.steps - 1)
        if step < rising:
            return self.peak * (step + 1) / rising
        if self.kind == "constant":
            return self.peak
        done = min(1.0, (step - rising) / max(1, self.steps - rising))
        return self.peak * (1 - done if self.kind == "linear" else (1 + math.cos(math.pi * done)) / 2)
