"""How fast requests end, to tell those who are turned away when to come back."""

from __future__ import annotations

import math
from collections import deque


class Pace:
    """Watches the last few completions."""

    def __init__(self, window: int = 32) -> None:
        self._ended: deque[float] = deque(maxlen=window)

    def note_end(self, now: float) -> None:
        self._ended.append(now)

    def seconds_until(self, completions: int, longest: int = 60) -> int:
        """About how long it takes until so many more requests have ended: whole seconds, 1 to `longest`."""
        if len(self._ended) < 2:
            return 1
        each = (self._ended[-1] - self._ended[0]) / (len(self._ended) - 1)
        return max(1, min(longest, math.ceil(each * completions)))
