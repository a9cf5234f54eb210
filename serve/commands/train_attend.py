"""Watches a training until it ends, or until whoever watches has seen enough."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from enum import StrEnum
from types import FrameType

from ..contract.errors import Conflict
from .jobs_access import Jobs
from .jobs_server import JsonObject
from .train_follow import Follower, View

Shown = Callable[[], AbstractContextManager[View]]


class Choice(StrEnum):
    """What becomes of a job when Ctrl-C is pressed; each by its first letter."""

    LEAVE = "leave"
    PAUSE = "pause"
    CANCEL = "cancel"
    GO_ON = "go on"


Ask = Callable[[bool], Choice]


class Terminated(KeyboardInterrupt):
    """SIGTERM, or the end of the terminal: nobody is there to be asked."""


def attend(
    follower: Follower, jobs: Jobs, id_: str, shown: Shown, *, is_private: bool, ask: Ask
) -> tuple[JsonObject, bool]:
    """The job when it has ended, is paused or is left alone, and whether it was interrupted.

    `ask` says what to do at an interrupt. A second one leaves: a private server ends soon after and its next start goes
    on with the job.
    """
    interrupted = False
    while True:
        try:
            with shown() as view:
                return follower.follow(view), interrupted
        except KeyboardInterrupt as interrupt:
            if interrupted:
                return jobs.show(id_), True
            is_alone = isinstance(interrupt, Terminated)
        choice = harmless(is_private) if is_alone else ask(is_private)
        if choice is Choice.LEAVE:
            return jobs.show(id_), True
        if choice is not Choice.GO_ON:
            interrupted = True
            # One that has ended meanwhile, or whose files are being checked, is not changed.
            with suppress(Conflict):
                jobs.act(id_, choice.value)
                continue
            return jobs.show(id_), True


def harmless(is_private: bool) -> Choice:
    """What loses nothing: a private server ends with its command, so its job has to be paused."""
    return Choice.PAUSE if is_private else Choice.LEAVE


def ask_terminal(is_private: bool) -> Choice:
    """What whoever sits at the terminal says; without one, or after another Ctrl-C, the harmless one."""
    choices = (harmless(is_private), Choice.CANCEL, Choice.GO_ON)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return choices[0]
    what = "[P]ause the training" if is_private else "[L]eave the training to the server"
    while True:
        print(f"\n{what}, [c]ancel it, or [g]o on? ", end="", file=sys.stderr, flush=True)
        try:
            line = sys.stdin.readline()
        except KeyboardInterrupt:
            print(file=sys.stderr)
            return choices[0]
        answer = line.strip().lower()
        for choice in choices:
            if not answer or choice.value.startswith(answer):
                return choice


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """SIGTERM and the end of the terminal come as Terminated inside, so that a private server ends in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Terminated

    kept = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
