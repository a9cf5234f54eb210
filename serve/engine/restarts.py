"""When to start a dead engine again, and when to give up."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Restarts:
    """Waits twice as long after each death, and gives up after `most` deaths with less than `calm` seconds between."""

    most: int = 5
    calm: float = 60.0
    first_delay: float = 0.25
    longest_delay: float = 15.0
    _deaths: list[float] = field(default_factory=list)

    def next_delay(self, now: float) -> float | None:
        """Seconds to wait after a death at `now`; None to give up."""
        if self._deaths and now - self._deaths[-1] > self.calm:
            self._deaths.clear()
        self._deaths.append(now)
        if len(self._deaths) >= self.most:
            return None
        return min(self.first_delay * 2.0 ** (len(self._deaths) - 1), self.longest_delay)
