"""Jobs as their owners see them: legal moves only, seen by nobody else, bounded, and there after a kill."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tunechat.serve.contract.errors import Conflict, InvalidRequest, NotFound, Overloaded
from tunechat.serve.contract.jobs import TrainingEnded
from tunechat.serve.jobs.database import Database
from tunechat.serve.jobs.job import FINAL, TRANSITIONS, JobError, NewJob, Status
from tunechat.serve.jobs.queue import JobQueue
from tunechat.serve.jobs.store import JobStore


def new(tenant: str = "t", **fields: Any) -> NewJob:
    return NewJob(tenant=tenant, model="base", recipe={"rank": 8}, **fields)


def test_a_job_is_read_as_it_was_made(base: Database) -> None:
    store = JobStore(base, clock=lambda: 12.5)
    made = store.create(new(suffix="mine", request={"seed": 3}))
    assert store.read("t", made.id) == made
    assert (made.status, made.created, made.recipe, made.request) == ("queued", 12.5, {"rank": 8}, {"seed": 3})
    assert (made.suffix, made.attempt, made.error, made.fine_tuned_model) == ("mine", 0, None, None)


def test_others_see_and_change_nothing(store: JobStore) -> None:
    id_ = store.create(new("mine")).id
    views: list[Callable[[str, str], object]] = [
        *(store.read, store.events, store.latest_events, store.checkpoints, store.cancel, store.pause, store.resume),
        lambda tenant, id_: store.page(tenant, after=id_),
    ]
    for view in views:
        with pytest.raises(NotFound) as foreign:
            view("theirs", id_)
        with pytest.raises(NotFound) as missing:
            view("theirs", "ftjob-0")
        assert foreign.value.message.replace(id_, "ftjob-0") == missing.value.message
    assert store.page("theirs") == []
    assert store.read("mine", id_).status is Status.QUEUED


def test_pages_follow_one_another_whatever_the_clock_says(base: Database) -> None:
    times = iter(range(1000, 0, -1))
    store = JobStore(base, clock=lambda: next(times))
    ids = [store.create(new()).id for _ in range(5)]
    first = store.page("t", limit=2)
    second = store.page("t", limit=10, after=first[-1].id)
    assert [job.id for job in (*first, *second)] == ids[::-1]


def test_events_are_paged_from_either_end(store: JobStore) -> None:
    id_ = store.create(new()).id
    for _ in range(3):
        store.pause("t", id_)
        store.resume("t", id_)
    texts = [event.message for event in store.events("t", id_)]
    assert texts[1:] == ["The job was paused", "The job was resumed"] * 3
    assert [event.number for event in store.events("t", id_, after=2, limit=2)] == [3, 4]
    assert [event.number for event in store.latest_events("t", id_, before=5, limit=2)] == [4, 3]


def test_a_tenant_has_a_bounded_number_of_jobs_and_others_still_have_theirs(base: Database) -> None:
    store = JobStore(base, most_open=2, most=3)
    first = store.create(new())
    store.create(new())
    with pytest.raises(Overloaded) as caught:
        store.create(new())
    assert caught.value.retry_after
    store.create(new("other"))
    for _ in range(3):
        store.cancel("t", store.page("t")[0].id)
        store.create(new())
    assert len(store.page("t")) == 3
    assert first.id in {job.id for job in store.page("t")}, "a job that is not done is never forgotten"


def test_what_is_too_long_is_refused(store: JobStore) -> None:
    with pytest.raises(InvalidRequest, match="recipe is longer"):
        store.create(NewJob(tenant="t", model="base", recipe={"x": "y" * 300_000}))
    assert store.page("t") == []


def test_a_job_needs_files_that_are_there(store: JobStore) -> None:
    with pytest.raises(NotFound) as caught:
        store.create(new(training_file="file-1"))
    assert caught.value.param == "training_file"


def test_a_check_of_files_ends_in_the_queue_or_says_what_is_wrong(store: JobStore, queue: JobQueue) -> None:
    good, bad, gone = (store.create(new(validate=True)).id for _ in range(3))
    assert queue.claim() is None
    store.cancel("t", gone)
    error = JobError(code="invalid_data", message="a.jsonl:3: content is missing", param="messages")
    store.validated(good)
    store.validated(bad, error)
    store.validated(gone)
    assert [store.read("t", id_).status for id_ in (good, bad, gone)] == ["queued", "failed", "cancelled"]
    assert store.read("t", bad).error == error
    with pytest.raises(Conflict):
        store.pause("t", bad)


def test_nothing_can_be_cancelled_while_it_is_published(store: JobStore, queue: JobQueue) -> None:
    id_ = store.create(new()).id
    queue.claim()
    assert queue.publishing(id_, 1, TrainingEnded(step=1, best_step=1))
    assert store.read("t", id_).publishing
    with pytest.raises(Conflict, match="published"):
        store.cancel("t", id_)
    assert queue.succeed(id_, 1, "ft:base")
    with pytest.raises(Conflict, match="is succeeded"):
        store.cancel("t", id_)


class Moves(RuleBasedStateMachine):
    """Any order of what clients and workers do. The model is the set of statuses that each job may be in next."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.open()
        self.seen: dict[str, Status] = {}
        self.finished: dict[str, float | None] = {}

    def open(self) -> None:
        self.base = Database(Path(self.folder.name) / "jobs.db")
        self.store = JobStore(self.base, most_open=6)
        self.queue = JobQueue(self.base)

    @rule(validate=st.booleans())
    def create(self, validate: bool) -> None:
        if sum(status not in FINAL for status in self.seen.values()) == 6:
            with pytest.raises(Overloaded):
                self.store.create(new())
        else:
            job = self.store.create(new(validate=validate))
            self.seen[job.id] = job.status
            self.finished[job.id] = None

    @precondition(lambda self: self.seen)
    @rule(data=st.data(), change=st.sampled_from(["cancel", "pause", "resume"]))
    def change(self, data: st.DataObject, change: str) -> None:
        id_ = data.draw(st.sampled_from(list(self.seen)))
        before = self.store.read("t", id_)
        try:
            after = getattr(self.store, change)("t", id_)
        except Conflict:
            assert (
                before.status in FINAL or before.publishing or (change, before.status) == ("pause", "validating_files")
            )
            assert self.store.read("t", id_) == before
        else:
            wanted = {"cancel": {"cancelled"}, "pause": {"paused", "running"}, "resume": {*Status} - FINAL - {"paused"}}
            assert after.status in wanted[change]
            if after.status is Status.RUNNING:
                assert after.stopping == (change == "pause" and not after.publishing)
            assert getattr(self.store, change)("t", id_) == after, "doing it twice is doing it once"

    @precondition(lambda self: self.seen)
    @rule(data=st.data(), is_good=st.booleans())
    def validated(self, data: st.DataObject, is_good: bool) -> None:
        id_ = data.draw(st.sampled_from(list(self.seen)))
        self.store.validated(id_, None if is_good else JobError(code="invalid_data", message="no"))

    @rule()
    def claim(self) -> None:
        waiting = [id_ for id_, status in self.seen.items() if status is Status.QUEUED]
        claimed = self.queue.claim()
        assert (claimed.job.id if claimed else None) == (waiting[0] if waiting else None), "first come, first served"

    @precondition(lambda self: self.seen)
    @rule(
        data=st.data(),
        end=st.sampled_from(["publishing", "succeed", "fail", "paused", "again"]),
        late=st.integers(0, 1),
    )
    def end(self, data: st.DataObject, end: str, late: int) -> None:
        id_ = data.draw(st.sampled_from(list(self.seen)))
        job = self.store.read("t", id_)
        attempt = job.attempt - late
        done: object = {
            "publishing": lambda: self.queue.publishing(id_, attempt, TrainingEnded(step=1, best_step=1)),
            "succeed": lambda: self.queue.succeed(id_, attempt, "m"),
            "fail": lambda: self.queue.fail(id_, attempt, JobError(code="c", message="m")),
            "paused": lambda: self.queue.stopped(id_, attempt, again=False),
            "again": lambda: self.queue.stopped(id_, attempt, again=True),
        }[end]()
        assert bool(done) == (job.status is Status.RUNNING and not late)
        if not done:
            assert self.store.read("t", id_) == job

    @rule()
    def die(self) -> None:
        self.base.close()
        self.open()
        self.queue.recover()
        assert not any(job.status is Status.RUNNING for job in self.store.page("t", limit=100))

    @invariant()
    def moves_are_legal(self) -> None:
        for job in self.store.page("t", limit=100):
            before = self.seen[job.id]
            # Recovery may go on to nothing else, so one rule makes at most one move.
            assert job.status is before or job.status in TRANSITIONS[before], f"{before} became {job.status}"
            if before in FINAL:
                assert job.finished == self.finished[job.id]
            assert (job.finished is not None) == (job.status in FINAL)
            assert (job.error is not None) == (job.status is Status.FAILED)
            assert (job.fine_tuned_model is not None) == (job.status is Status.SUCCEEDED)
            assert not job.stopping or job.status is Status.RUNNING
            self.seen[job.id], self.finished[job.id] = job.status, job.finished

    def teardown(self) -> None:
        if hasattr(self, "base"):
            assert self.base.row("PRAGMA integrity_check")[0] == "ok"
            self.base.close()
            self.folder.cleanup()


TestMoves = Moves.TestCase
TestMoves.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


WRITER = """
import sys
from pathlib import Path
from tunechat.serve.jobs.database import Database
from tunechat.serve.jobs.job import NewJob
from tunechat.serve.jobs.store import JobStore
store = JobStore(Database(Path(sys.argv[1])), most_open=100_000)
while True:
    print(store.create(NewJob(tenant="t", model="m", recipe={})).id, flush=True)
"""


def test_what_was_accepted_is_there_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        accepted = [writer.stdout.readline().strip() for _ in range(30)]
        writer.kill()
        accepted += [line.strip() for line in writer.stdout if line.endswith("\n")]
    base = Database(path)
    assert base.row("PRAGMA integrity_check")[0] == "ok"
    store = JobStore(base)
    for id_ in accepted:
        assert store.read("t", id_).status is Status.QUEUED
    # The one that was being written at the kill is there whole, or not at all.
    assert base.row("SELECT COUNT(*) FROM jobs")[0] - len(accepted) in (0, 1)
    assert base.row("SELECT COUNT(*) FROM jobs WHERE last_event != 1")[0] == 0
    assert base.row("SELECT COUNT(*) FROM events")[0] == base.row("SELECT COUNT(*) FROM jobs")[0]
    base.close()
