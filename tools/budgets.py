"""How much an answer may spend on tools: rounds, calls, seconds and bytes of output."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from .errors import BudgetSpent


@dataclass(frozen=True, slots=True)
class Budget:
    """The limits of one answer, and of one call within it (`call_seconds`, `call_bytes`)."""

    rounds: int = 8
    calls: int = 32
    seconds: float = 120.0
    output_bytes: int = 256 << 10
    call_seconds: float = 30.0
    call_bytes: int = 32 << 10


@dataclass(slots=True)
class Spending:
    """What one answer has spent so far. A round is one turn of the model that calls tools."""

    budget: Budget = field(default_factory=Budget)
    clock: Callable[[], float] = time.monotonic
    rounds: int = 0
    calls: int = 0
    output_bytes: int = 0
    _running: int = field(default=0, init=False)
    _since: float = field(default=0.0, init=False)
    _earlier: float = field(default=0.0, init=False)

    @property
    def seconds(self) -> float:
        """How long any call has run so far. What the model takes, and a person who is asked, does not count."""
        return self._earlier + (self.clock() - self._since if self._running else 0.0)

    @property
    def limit(self) -> str | None:
        """Which limit leaves room for no further round of calls, by its name in the budget; None while all do."""
        reached = {
            "rounds": self.rounds >= self.budget.rounds,
            "calls": self.calls >= self.budget.calls,
            "seconds": self.seconds >= self.budget.seconds,
            "output_bytes": self.output_bytes >= self.budget.output_bytes,
        }
        return next((name for name, is_reached in reached.items() if is_reached), None)

    def begin_round(self) -> None:
        """Counts a round. Raises BudgetSpent when that is one too many."""
        if self.rounds >= self.budget.rounds:
            raise BudgetSpent(f"all {self.budget.rounds} rounds of tool calls are used; answer without tools")
        self.rounds += 1

    def begin_call(self) -> float:
        """Counts a call and gives the seconds it may take; `end_call` ends it. Raises BudgetSpent."""
        if self.calls >= self.budget.calls:
            raise BudgetSpent(f"all {self.budget.calls} tool calls are used; answer without tools")
        left = self.budget.seconds - self.seconds
        if left <= 0:
            raise BudgetSpent(f"the {self.budget.seconds:g} seconds for tools are used; answer without tools")
        if self.output_bytes >= self.budget.output_bytes:
            raise BudgetSpent(f"the {self.budget.output_bytes} bytes for tool output are used; answer without tools")
        self.calls += 1
        if not self._running:
            self._since = self.clock()
        self._running += 1
        return min(left, self.budget.call_seconds)

    def end_call(self) -> None:
        """Ends what `begin_call` began."""
        self._running -= 1
        if not self._running:
            self._earlier += self.clock() - self._since

    def take_output(self, text: str) -> tuple[str, bool]:
        """`text` cut to what is left for one call and in all, and whether it was cut. The cut is told in the text."""
        room = max(0, min(self.budget.call_bytes, self.budget.output_bytes - self.output_bytes))
        data = text.encode("utf-8", "replace")
        self.output_bytes += min(len(data), room)
        if len(data) <= room:
            return data.decode("utf-8"), False
        kept = data[:room].decode("utf-8", "ignore")
        return f"{kept}\n[cut: {len(data)} bytes, of which the first {room} are shown]", True

    def as_json(self) -> dict[str, Any]:
        """For `usage`: what was spent and what the limits were."""
        spent = {"rounds": self.rounds, "calls": self.calls, "output_bytes": self.output_bytes}
        return {**spent, "seconds": round(self.seconds, 3), "budget": asdict(self.budget)}
