"""Letting requests go first: between micro-steps, training waits while the server answers."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

# How long is waited at most, in times of the micro-step before.
PATIENCE = {"background": 10.0, "balanced": 1.0, "training": 0.0}
NICENESS = {"background": 19, "balanced": 10, "training": 0}
# Between two looks: short beside a micro-step and beside an answer, long beside the look itself.
_LOOK_SECONDS = 0.005


class Yielding:
    """Asked between micro-steps: waits while requests are being answered, then says whether to stop.

    `busy` is the file whose first byte the server keeps: not zero while it answers. It is read, not mapped, since a
    mapped file that is cut short kills its readers. Without one, or when it cannot be read, nothing is waited for.
    However long the server is busy, the wait is at most `PATIENCE` times as long as what was computed since the last
    one, so training always goes on.
    """

    def __init__(self, busy: Path | None, priority: str, is_asked: Callable[[], bool]) -> None:
        self._patience = PATIENCE[priority]
        self._is_asked = is_asked
        self._file = _opened(busy) if busy is not None and self._patience else None
        self._began: float | None = None
        self.waited = 0.0

    def __call__(self) -> bool:
        """Whether training was asked to stop, which also ends the wait."""
        now = time.monotonic()
        if self._began is not None and self._file is not None:
            end = now + self._patience * (now - self._began)
            while not self._is_asked() and self._is_busy() and time.monotonic() < end:
                time.sleep(_LOOK_SECONDS)
        self._began = time.monotonic()
        self.waited += self._began - now
        return self._is_asked()

    def _is_busy(self) -> bool:
        if self._file is None:
            return False
        try:
            return os.pread(self._file, 1, 0) not in (b"", b"\0")
        except OSError:
            return False


def threads_for(priority: str, given: int, cores: int) -> int:
    """How many threads compute: all that may be used (`given`, 0 for all cores), half of them in the background."""
    allowed = min(given, cores) if given else cores
    return max(1, allowed // 2) if priority == "background" else allowed


def _opened(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        sys.stderr.write(f"{path} cannot be opened, so nothing is waited for: {error}\n")
        return None
