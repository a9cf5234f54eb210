"""What the trainer says to whoever started it: one event as JSON a line, on what was standard output."""

from __future__ import annotations

import os
import sys
from typing import BinaryIO

import msgspec

from ..serve.contract.jobs import TrainingEvent


class Events:
    """Writes events. When nobody reads them any more, `is_cut_off` is true from then on, and nothing is raised."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.is_cut_off = False

    @property
    def descriptor(self) -> int:
        """The file that is written to, for a process that speaks instead of this one."""
        return self._stream.fileno()

    def send(self, event: TrainingEvent) -> None:
        try:
            self._stream.write(msgspec.json.encode(event) + b"\n")
            self._stream.flush()
        except BrokenPipeError:
            self.is_cut_off = True


def take_stdout() -> Events:
    """Events on the standard output of this process. What others print from now on goes to standard error."""
    sys.stdout.flush()
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return Events(stream)


def silent_events() -> Events:
    """Events that nobody hears: of a process for which another one speaks."""
    return Events(os.fdopen(os.open(os.devnull, os.O_WRONLY), "wb"))
