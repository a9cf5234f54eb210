"""Following a job through breaks of the connection and pauses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest

from tunechat.serve.commands.jobs_server import ServerJobs
from tunechat.serve.commands.server import Server
from tunechat.serve.commands.train_follow import PATIENCE_SECONDS, Follower
from tunechat.serve.contract.errors import NotFound, Unavailable

from .tuning_server import ID, TuningServer, message, step


class Seen:
    """A view that remembers; `stop` interrupts at an event."""

    def __init__(self, stop: int | None = None) -> None:
        self.ids: list[str] = []
        self.losses = 0
        self._stop = stop

    def event(self, event: Mapping[str, Any]) -> None:
        self.ids.append(str(event["id"]))
        if len(self.ids) == self._stop:
            raise KeyboardInterrupt

    def lost(self, error: Unavailable) -> None:
        self.losses += 1


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def tuning() -> TuningServer:
    return TuningServer()


@pytest.fixture
def jobs(tuning: TuningServer) -> Iterator[ServerJobs]:
    with Server("http://127.0.0.1:1", transport=httpx.MockTransport(tuning)) as server:
        yield ServerJobs(server)


def follower(jobs: ServerJobs, after: str | None = None) -> tuple[Follower, Clock]:
    clock = Clock()
    return Follower(jobs, ID, after=after, sleep=clock.sleep, clock=clock), clock


def all_ids(tuning: TuningServer) -> list[str]:
    return [record["id"] for record in tuning.records(len(tuning.events))]


def test_every_event_is_shown_once_through_breaks(jobs: ServerJobs, tuning: TuningServer) -> None:
    tuning.pieces = [3, 0, 0, 4]
    seen, (follow, clock) = Seen(), follower(jobs)
    assert follow.follow(seen)["status"] == "succeeded"
    assert seen.ids == all_ids(tuning) and seen.losses == 4 and len(clock.pauses) == 4
    assert clock.pauses[3] == clock.pauses[0] < clock.pauses[1] < clock.pauses[2], "what came through resets the pause"


def test_it_goes_on_where_it_was_interrupted(jobs: ServerJobs, tuning: TuningServer) -> None:
    seen, (follow, _) = Seen(stop=5), follower(jobs)
    with pytest.raises(KeyboardInterrupt):
        follow.follow(seen)
    follow.follow(seen)
    # The event at which the view was interrupted was perhaps not shown.
    assert seen.ids == [*all_ids(tuning)[:5], *all_ids(tuning)[4:]]


def test_an_ended_job_is_told_without_a_stream(jobs: ServerJobs, tuning: TuningServer) -> None:
    tuning.told = len(tuning.events)
    seen, (follow, _) = Seen(), follower(jobs, after="ftevent-10")
    assert follow.follow(seen)["status"] == "succeeded"
    assert seen.ids == all_ids(tuning)[10:]


def test_a_pause_ends_it_though_the_stream_stays_open(jobs: ServerJobs, tuning: TuningServer) -> None:
    tuning.events = [step(1, 2.0), message("The job was paused"), message("never read")]
    tuning.status = "paused"
    stream = tuning._stream

    def endless(after: str | None) -> Iterator[bytes]:
        events = stream(after)
        yield next(events) + next(events)
        paused = next(events)
        tuning.told = 3
        yield paused
        while True:
            yield b": ping\n\n"

    tuning._stream = endless  # type: ignore[method-assign]
    seen, (follow, _) = Seen(), follower(jobs)
    assert follow.follow(seen)["status"] == "paused"
    assert seen.ids == all_ids(tuning)


def test_a_server_that_stays_away_is_given_up(jobs: ServerJobs, tuning: TuningServer) -> None:
    tuning.pieces = [2, *([0] * 1000)]
    seen, (follow, clock) = Seen(), follower(jobs)
    with pytest.raises(Unavailable, match="did not finish"):
        follow.follow(seen)
    assert PATIENCE_SECONDS <= clock.now < PATIENCE_SECONDS + 10 and max(clock.pauses) == 5


def test_a_job_that_is_not_there_is_told(jobs: ServerJobs) -> None:
    with pytest.raises(NotFound):
        Follower(jobs, "ftjob-0").follow(Seen())
