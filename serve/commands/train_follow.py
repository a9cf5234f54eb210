"""Follows a job to its end, or to its pause, through pauses of the connection."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ..contract.errors import Unavailable
from .jobs_access import Jobs
from .jobs_server import ENDED, JsonObject

# A server that restarts is back within this time, and goes on with its jobs.
PATIENCE_SECONDS = 120.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0
_MISSED = 20_000
_RESTING = {*ENDED, "paused"}


class View(Protocol):
    """Shows the events of a job as they come."""

    def event(self, event: Mapping[str, Any]) -> None: ...
    def lost(self, error: Unavailable) -> None: ...


class Follower:
    """The events of one job, each shown once, whatever interrupts them. `after` is the last one that was shown."""

    def __init__(
        self,
        jobs: Jobs,
        id_: str,
        *,
        after: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._jobs = jobs
        self._id = id_
        self._sleep = sleep
        self._clock = clock
        self.after = after

    def follow(self, view: View) -> JsonObject:
        """The job when it has ended or is paused; may be called again after an interrupt.

        Raises Unavailable when the server does not come back, and any error that it answers with.
        """
        since: float | None = None
        pause = _FIRST_PAUSE
        while True:
            before = self.after
            try:
                job = self._listen(view)
            except Unavailable as error:
                # What came through shows that it was back in between.
                if since is None or self.after != before:
                    since, pause = self._clock(), _FIRST_PAUSE
                if self._clock() - since > PATIENCE_SECONDS:
                    raise
                view.lost(error)
            else:
                if job is not None:
                    return job
                since, pause = None, _FIRST_PAUSE
            self._sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _listen(self, view: View) -> JsonObject | None:
        """Shows events until the stream ends; None when the job goes on nevertheless."""
        if (job := self._rested(view)) is not None:
            return job
        for event in self._jobs.stream(self._id, self.after):
            self._show(view, event)
            # The stream of a paused job stays open: its end is told by a message alone.
            if event.get("type") == "message" and (job := self._rested(view)) is not None:
                return job
        return self._rested(view)

    def _rested(self, view: View) -> JsonObject | None:
        """The job if it has ended or is paused, with what it said before; None otherwise."""
        job = self._jobs.show(self._id)
        if job.get("status") not in _RESTING:
            return None
        for event in self._jobs.events(self._id, _MISSED, until=self.after):
            self._show(view, event)
        return job

    def _show(self, view: View, event: JsonObject) -> None:
        view.event(event)
        self.after = str(event.get("id"))
