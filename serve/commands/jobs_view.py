"""Fine-tuning jobs as tables and their events as lines.

What data and models say is shown without characters that steer a terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from .curve import curve, is_drawable, smoothed
from .jobs_course import Course
from .output import format_bytes, print_table

JsonObject = dict[str, Any]

_DRAWN = 120
_LONGEST = 2000


def print_jobs(jobs: Sequence[JsonObject]) -> None:
    """The table of jobs, in their order."""
    columns = ("job", "status", "model", "name", "created", "finished", "tokens")
    print_table(columns, [_row(job) for job in jobs])


def print_job(job: JsonObject, checkpoints: Sequence[JsonObject], course: Course) -> None:
    """Everything about a job: facts, checkpoints, and its curve where there is a terminal to draw it in."""
    print_table(("", ""), [(name, value) for name, value in _facts(job, course) if value not in (None, "")])
    if checkpoints:
        print()
        columns = ("step", "model", "training loss", "validation loss", "created")
        print_table(columns, [_checkpoint(one) for one in checkpoints])
    for line in curve_lines(course):
        print(line)


def curve_lines(course: Course) -> Iterator[str]:
    """The learning curve, under its title, for the terminal. None where there are no losses, or no way to draw."""
    if len(course.training) > 1 and sys.stdout.isatty() and is_drawable(sys.stdout.encoding):
        yield ""
        yield "training loss" + (" (×: validation loss)" if course.validation else "") + " by step"
        yield from curve(smoothed(course.training, _DRAWN), course.validation)


def event_line(event: Mapping[str, Any]) -> str:
    """An event on one line; answers of models with their text."""
    data = event.get("data")
    data = data if isinstance(data, Mapping) else {}
    text = printable(str(event.get("message", "")))
    if isinstance(data.get("answer"), str):
        text += f": {printable(data['answer'])[:_LONGEST]}"
    elif is_score(data) and ":" not in text:
        text += ": " + ", ".join(f"{name} {_part(data.get(name))}" for name in _SCORES if data.get(name) is not None)
    level = str(event.get("level"))
    return f"{'warning' if level == 'warn' else level}: {text}" if level in ("warn", "error") else text


def stamped_line(event: Mapping[str, Any]) -> str:
    """The same, behind its time."""
    return f"{_time(event.get('created_at'))}  {event_line(event)}"


_SCORES = ("call_or_not", "name", "arguments", "valid_json", "invented")


def is_score(data: Mapping[str, Any]) -> bool:
    """Whether these are the figures of tool calls."""
    return "call_or_not" in data


def printable(text: str) -> str:
    """The text on one line, without characters that steer a terminal."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def format_seconds(seconds: float) -> str:
    """A duration as people say it: 42 s, 3:05 min, 2:07 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole // 60 % 60:02} h"


def _row(job: JsonObject) -> tuple[object, ...]:
    return (
        job.get("id", ""),
        status_of(job),
        job.get("model") or "",
        job.get("fine_tuned_model") or name_of(job) or "",
        _time(job.get("created_at")),
        _time(job.get("finished_at")),
        job.get("trained_tokens") or "",
    )


def status_of(job: Mapping[str, Any]) -> str:
    """The status, and why where it failed."""
    status, error = str(job.get("status")), job.get("error")
    if isinstance(error, Mapping) and error.get("message"):
        return f"{status}: {printable(str(error['message']))}"
    return status


def name_of(job: Mapping[str, Any]) -> str | None:
    """The adapter's name that the job was given; None where it was given none."""
    name = job.get("user_provided_suffix") or job.get("suffix")
    return name if isinstance(name, str) else None


def _facts(job: JsonObject, course: Course) -> Iterator[tuple[str, object]]:
    yield "job", job.get("id")
    yield "status", status_of(job)
    yield "base model", job.get("model")
    yield "name", name_of(job)
    yield "fine-tuned model", job.get("fine_tuned_model")
    yield "data", job.get("training_file")
    yield "validation", job.get("validation_file")
    yield "seed", job.get("seed")
    yield "created", _time(job.get("created_at"))
    yield "finished", _time(job.get("finished_at"))
    yield "should finish", _time(job.get("estimated_finish")) if not job.get("finished_at") else ""
    yield "step", f"{course.step} of {course.steps}" if course.step else ""
    yield "training loss", _loss(course.loss)
    yield "validation loss", _loss(course.measured)
    yield "trained tokens", job.get("trained_tokens")
    yield "memory", format_bytes(course.memory) if course.memory else ""
    yield "result files", ", ".join(map(str, job.get("result_files") or ()))


def _checkpoint(checkpoint: JsonObject) -> tuple[object, ...]:
    metrics = checkpoint.get("metrics")
    metrics = metrics if isinstance(metrics, Mapping) else {}
    return (
        checkpoint.get("step_number", ""),
        checkpoint.get("fine_tuned_model_checkpoint") or "",
        _loss(metrics.get("train_loss")),
        _loss(metrics.get("valid_loss")),
        _time(checkpoint.get("created_at")),
    )


def _loss(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else ""


def _part(value: Any) -> str:
    return f"{value:.0%}" if isinstance(value, int | float) else str(value)


def _time(value: Any) -> str:
    """A time of the API, in seconds since 1970, as this machine's clock shows it."""
    return f"{datetime.fromtimestamp(value):%Y-%m-%d %H:%M:%S}" if isinstance(value, int | float) else ""
