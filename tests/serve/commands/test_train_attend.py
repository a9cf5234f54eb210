"""What Ctrl-C does to a training that is watched."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import httpx
import pytest

from tunechat.serve.commands.jobs_server import ServerJobs
from tunechat.serve.commands.server import Server
from tunechat.serve.commands.train_attend import Choice, Terminated, ask_terminal, attend, signals_interrupt
from tunechat.serve.commands.train_follow import Follower, View

from .test_train_follow import Seen
from .tuning_server import ID, TuningServer


class Pressed(Seen):
    """A view in front of which Ctrl-C is pressed at each of these events."""

    def __init__(self, *at: int, kind: type[KeyboardInterrupt] = KeyboardInterrupt) -> None:
        super().__init__()
        self._at = list(at)
        self._kind = kind

    def event(self, event: Any) -> None:
        super().event(event)
        if len(self.ids) in self._at:
            self._at.remove(len(self.ids))
            raise self._kind


@pytest.fixture
def tuning() -> TuningServer:
    return TuningServer()


@pytest.fixture
def jobs(tuning: TuningServer) -> Iterator[ServerJobs]:
    with Server("http://127.0.0.1:1", transport=httpx.MockTransport(tuning)) as server:
        yield ServerJobs(server)


def attended(jobs: ServerJobs, view: View, *choices: Choice, is_private: bool = False) -> tuple[str, bool, int]:
    asked: list[bool] = []

    def ask(is_private: bool) -> Choice:
        asked.append(is_private)
        return choices[len(asked) - 1]

    def shown() -> AbstractContextManager[View]:
        return nullcontext(view)

    job, interrupted = attend(Follower(jobs, ID), jobs, ID, shown, is_private=is_private, ask=ask)
    assert asked == [is_private] * len(asked)
    return job["status"], interrupted, len(asked)


def test_nothing_is_asked_when_nobody_interrupts(jobs: ServerJobs, tuning: TuningServer) -> None:
    assert attended(jobs, Seen()) == ("succeeded", False, 0) and tuning.actions == []


def test_going_on_watches_to_the_end(jobs: ServerJobs, tuning: TuningServer) -> None:
    found = attended(jobs, Pressed(3, 6), Choice.GO_ON, Choice.GO_ON)
    assert found == ("succeeded", False, 2) and tuning.actions == []


def test_leaving_lets_the_job_run(jobs: ServerJobs, tuning: TuningServer) -> None:
    assert attended(jobs, Pressed(3), Choice.LEAVE) == ("running", True, 1) and tuning.actions == []


@pytest.mark.parametrize(("choice", "status"), [(Choice.CANCEL, "cancelled"), (Choice.PAUSE, "paused")])
def test_the_end_of_the_job_is_awaited(jobs: ServerJobs, tuning: TuningServer, choice: Choice, status: str) -> None:
    assert attended(jobs, Pressed(4), choice, is_private=True) == (status, True, 1)
    assert tuning.actions == [choice.value]


def test_a_second_interrupt_waits_for_nothing(jobs: ServerJobs, tuning: TuningServer) -> None:
    status, interrupted, asked = attended(jobs, Pressed(4, 5), Choice.PAUSE, is_private=True)
    assert (interrupted, asked) == (True, 1) and tuning.actions == ["pause"] and status == "running"


@pytest.mark.parametrize(("is_private", "actions"), [(True, ["pause"]), (False, [])])
def test_a_signal_asks_nobody(jobs: ServerJobs, tuning: TuningServer, is_private: bool, actions: list[str]) -> None:
    _, interrupted, asked = attended(jobs, Pressed(4, kind=Terminated), is_private=is_private)
    assert (interrupted, asked) == (True, 0) and tuning.actions == actions


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("typed", "is_private", "choice"),
    [
        ("\n", False, Choice.LEAVE),
        ("\n", True, Choice.PAUSE),
        ("L\n", False, Choice.LEAVE),
        ("l\nc\n", True, Choice.CANCEL),
        ("what?\ngo on\n", False, Choice.GO_ON),
        ("", True, Choice.PAUSE),
    ],
)
def test_the_terminal_is_asked(monkeypatch: pytest.MonkeyPatch, typed: str, is_private: bool, choice: Choice) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert ask_terminal(is_private) is choice
    prompt = cast(Terminal, sys.stderr).getvalue()
    assert ("[P]ause" in prompt) is is_private and "[c]ancel" in prompt and "[g]o on" in prompt


def test_without_a_terminal_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("c\n"))
    assert ask_terminal(False) is Choice.LEAVE and ask_terminal(True) is Choice.PAUSE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_come_as_interrupts_inside(number: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Terminated), signals_interrupt():
        os.kill(os.getpid(), number)
        signal.pause()
    assert signal.getsignal(number) is before
