"""One adapter version as the engine knows it: where it is, and who uses it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..contract.adapters import AdapterRef
from .block_pool import IntegrityError


class HostAdapter(Protocol):
    """An adapter as it is kept in memory; what is in it only the device side knows."""

    @property
    def nbytes(self) -> int: ...


@dataclass(slots=True, eq=False)
class KnownAdapter:
    """One version. `running` and `waiting` are the arrivals of the sequences that use it, `asked` the turn of a
    LoadAdapter that has no answer yet. `nbytes` is what it took when it was last in memory, 0 if it never was."""

    ref: AdapterRef
    folder: Path
    host: HostAdapter | None = None
    slot: int | None = None
    nbytes: int = 0
    loads: int = 0
    evictions: int = 0
    is_pinned: bool = False
    is_removed: bool = False
    asked: int | None = None
    running: set[int] = field(default_factory=set)
    waiting: set[int] = field(default_factory=set)

    @property
    def is_used(self) -> bool:
        return bool(self.running or self.waiting)

    @property
    def age(self) -> float:
        """The arrival of the oldest sequence that waits and uses it; infinite when none does."""
        return min(self.waiting, default=math.inf)

    @property
    def turn(self) -> float:
        """Whose turn to be read is first: the smallest."""
        return self.age if self.asked is None else min(self.age, self.asked)

    @property
    def is_missing(self) -> bool:
        """Whether somebody wants it and it is not in memory."""
        return self.host is None and (bool(self.waiting) or self.asked is not None)

    def check_integrity(self) -> None:
        """Raises IntegrityError unless it says one thing."""
        digest = self.ref.digest
        if self.running and self.slot is None:
            raise IntegrityError(f"adapter {digest} runs without a slot")
        if self.slot is not None and self.host is None:
            raise IntegrityError(f"adapter {digest} is in a slot and not in memory")
        if self.is_removed and not self.is_used:
            raise IntegrityError(f"adapter {digest} was removed, is not used and is still there")
