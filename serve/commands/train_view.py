"""What is seen of a training: lines and a bar in a terminal, lines in a file or a pipe, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..contract.errors import Unavailable
from .jobs_course import Course
from .jobs_view import event_line, format_seconds, is_score, stamped_line
from .output import format_bytes
from .train_follow import View

# Lines for steps where nobody watches: more would bury everything else.
_MOST_STEPS = 200


class JsonView:
    """Each event as a line of JSON on stdout."""

    def event(self, event: Mapping[str, Any]) -> None:
        print_line(event)

    def lost(self, error: Unavailable) -> None:
        _tell_lost(error)


class LogView:
    """Each event as a line with its time on stdout."""

    def event(self, event: Mapping[str, Any]) -> None:
        print(stamped_line(event), flush=True)

    def lost(self, error: Unavailable) -> None:
        _tell_lost(error)


class PlainView:
    """Lines on stdout: what happens, every measurement, and steps, though not every one of a long training."""

    def __init__(self, course: Course) -> None:
        self._course = course

    def event(self, event: Mapping[str, Any]) -> None:
        self._course.take(event)
        if is_told(event):
            print(event_line(event), flush=True)
        elif is_step(event) and self._is_due():
            print(f"step {self._course.step}/{self._course.steps or '?'}  {figures(self._course)}", flush=True)

    def lost(self, error: Unavailable) -> None:
        _tell_lost(error)

    def _is_due(self) -> bool:
        every = max(1, self._course.steps // _MOST_STEPS)
        return self._course.step % every == 0 or self._course.step == self._course.steps


class BarView:
    """The same above a bar, which takes the place of the lines for steps."""

    def __init__(self, course: Course, display: Any, bar: Any) -> None:
        self._course = course
        self._display = display
        self._bar = bar
        self._task = bar.add_task("waiting", total=None, figures="")
        self._draw()

    def event(self, event: Mapping[str, Any]) -> None:
        self._course.take(event)
        if is_told(event):
            self._say(event_line(event))
        self._draw()

    def _draw(self) -> None:
        course = self._course
        if course.steps:
            self._bar.update(
                self._task,
                description=f"step {course.step}/{course.steps}",
                total=course.steps,
                completed=course.step,
                figures=figures(course),
            )

    def lost(self, error: Unavailable) -> None:
        self._bar.update(self._task, figures="the server does not answer; waiting for it")

    def _say(self, line: str) -> None:
        from rich.text import Text

        self._display.print(Text(line))


@contextmanager
def shown(course: Course) -> Iterator[View]:
    """A view for whoever looks at stdout, which learns `course` on the way."""
    if not sys.stdout.isatty():
        yield PlainView(course)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    console = Console(highlight=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        # What matters most stands first, and the rest is cut off where the terminal is narrow.
        TextColumn("{task.fields[figures]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
    )
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        yield BarView(course, console, bar)


def figures(course: Course) -> str:
    """How the training stands, in one line; what is not known is left out."""
    parts = (
        course.remaining is not None and f"{format_seconds(course.remaining)} left",
        course.loss is not None and f"loss {course.loss:.4f}",
        course.measured is not None and f"validation {course.measured:.4f}",
        course.tokens_per_second is not None and f"{course.tokens_per_second:.0f} tokens/s",
        course.rate is not None and f"lr {course.rate:.1e}",
        course.memory > 0 and format_bytes(course.memory),
    )
    return "  ".join(part for part in parts if part)


def is_step(event: Mapping[str, Any]) -> bool:
    """Whether an event is that of a step and nothing else."""
    data = event.get("data")
    return isinstance(data, Mapping) and "train_loss" in data and not is_score(data)


def is_told(event: Mapping[str, Any]) -> bool:
    """Whether an event gets a line: steps are figures, and an error is the end, which the command tells itself."""
    return not is_step(event) and event.get("level") != "error"


def print_line(value: Any) -> None:
    """`value` on stdout, as one line of JSON."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def _tell_lost(error: Unavailable) -> None:
    print(f"{error.message}; waiting for it", file=sys.stderr, flush=True)
