"""What one rendering of a template may cost."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")

MAX_STEPS = 300_000
MAX_SECONDS = 5.0


class TemplateLimit(Exception):
    """A template wanted more than it may have. The message is for the user."""


@dataclass(slots=True)
class Budget:
    """Steps (turns of loops, calls) and processor time of this thread, in seconds, that are left to a rendering.

    Steps make the limit the same on every machine; the processor time bounds steps that are dear.
    """

    steps: int = MAX_STEPS
    deadline: float = 0.0

    def spend(self, steps: int = 1) -> None:
        """Take steps from the budget. Raises TemplateLimit once it is spent."""
        self.steps -= steps
        if self.steps < 0:
            raise TemplateLimit(f"it takes more than {MAX_STEPS} steps")
        if time.thread_time() > self.deadline:
            raise TemplateLimit(f"it takes more than {MAX_SECONDS:g} seconds")


_current: ContextVar[Budget | None] = ContextVar("template_budget", default=None)


@contextmanager
def budgeted() -> Iterator[None]:
    """Run the body, which renders one template, on a fresh budget."""
    token = _current.set(Budget(deadline=time.thread_time() + MAX_SECONDS))
    try:
        yield
    finally:
        _current.reset(token)


def spend(steps: int = 1) -> None:
    """Take steps from the rendering under way; free while a template is only being compiled."""
    budget = _current.get()
    if budget is not None:
        budget.spend(steps)


def counted(items: Iterable[Item]) -> Iterator[Item]:
    """The items, each for one step."""
    for item in items:
        spend()
        yield item
