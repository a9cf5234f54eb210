"""What is seen of a training."""

from __future__ import annotations

import io
import re
import sys

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from tunechat.serve.commands.jobs_course import Course
from tunechat.serve.commands.jobs_view import curve_lines, event_line, format_seconds, stamped_line
from tunechat.serve.commands.train_end import success_lines
from tunechat.serve.commands.train_view import BarView, PlainView, shown
from tunechat.serve.contract.errors import Unavailable

from .tuning_server import ID, MODEL, a_training, message, metrics, step


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_lines_above_a_bar() -> None:
    file = Terminal()
    console = Console(file=file, force_terminal=True, width=120, highlight=False)
    course = Course()
    with Progress(TextColumn("{task.description}|{task.fields[figures]}"), console=console, transient=True) as bar:
        view = BarView(course, console, bar)
        for event in a_training():
            view.event(event)
        assert bar.tasks[0].completed == 4 and bar.tasks[0].total == 4 and bar.tasks[0].description == "step 4/4"
        assert bar.tasks[0].fields["figures"].startswith("0 s left  loss 1.0000  validation 2.5000")
        view.lost(Unavailable("gone"))
        assert "waiting" in bar.tasks[0].fields["figures"]
        view.event(message("the disk is full", "error"))
        bar.update(bar.tasks[0].id, figures="")
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue()).splitlines()
    assert "Step 2: validation loss=2.5000" in lines and "The job has successfully completed" in lines
    assert not any("training loss=" in line or "disk" in line for line in lines)


def test_what_a_terminal_is_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    with shown(Course()) as view:
        assert isinstance(view, PlainView)
    monkeypatch.setattr(sys, "stdout", Terminal())
    with shown(Course()) as view:
        assert isinstance(view, BarView)


def test_a_long_training_has_two_hundred_lines(capsys: pytest.CaptureFixture[str]) -> None:
    view = PlainView(Course())
    view.event(metrics("Training 8 rows in 1010 steps", recipe={}))
    for number in range(1, 1011):
        view.event(step(number, 1.0))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 202 and lines[-1].startswith("step 1010/1010")


def test_a_curve_needs_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    course = Course()
    for event in a_training():
        course.take(event)
    assert list(curve_lines(course)) == []
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert list(curve_lines(course))[1] == "training loss (×: validation loss) by step"
    job = {"id": ID, "fine_tuned_model": MODEL, "user_provided_suffix": None}
    lines = list(success_lines(job, course, url="http://h:1", is_private=False, prompt="It's\x1b[2J me"))
    assert lines[-2:] == [
        f"{MODEL} is ready",
        f"chat with it:   tunechat run --model {MODEL} --url http://h:1 'It'\"'\"'s [2J me'",
    ]
    assert "┤" in lines[2]


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0 s"), (59.4, "59 s"), (59.6, "1:00 min"), (3599, "59:59 min"), (7625, "2:07 h")]
)
def test_durations(seconds: float, told: str) -> None:
    assert format_seconds(seconds) == told


def test_events_are_lines_that_steer_nothing() -> None:
    assert event_line(message("a\nb\x07c", "warn")) == "warning: a b c"
    assert event_line({"message": None, "data": [1]}) == "None"
    assert len(event_line(metrics("Step 1", step=1, answer="x" * 5000))) < 2100
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  done", stamped_line({**message("done"), "created_at": 1.0}))
