"""Jobs as their worker sees them: run once, heard only while they run, and started again after a death."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

from tunechat.serve.contract.jobs import (
    TrainingEnded,
    TrainingEstimated,
    TrainingFailed,
    TrainingMeasured,
    TrainingSaved,
    TrainingStarted,
    TrainingStep,
)
from tunechat.serve.jobs.database import Database
from tunechat.serve.jobs.job import NewJob, Progress, Status
from tunechat.serve.jobs.queue import JobQueue
from tunechat.serve.jobs.store import JobStore

NEW = NewJob(tenant="t", model="base", recipe={})


def step(number: int, loss: float = 1.0) -> TrainingStep:
    return TrainingStep(
        step=number,
        epoch=0.5,
        loss=loss,
        rate=0.1,
        gradient_norm=1.0,
        trained_tokens=7,
        tokens=9,
        seconds=2.0,
        memory=100,
    )


def test_progress_follows_what_is_said(base: Database, store: JobStore) -> None:
    queue = JobQueue(base, clock=lambda: 50.0)
    id_ = store.create(NEW).id
    queue.claim()
    said = [
        TrainingStarted(recipe={"rank": 16}, rows=4, trained_tokens=70, steps=10),
        TrainingEstimated(memory=100, seconds=20),
        step(1, 3.0),
        TrainingSaved(step=1, folder="/j/step-1", adapter="/j/step-1/adapter"),
        TrainingMeasured(step=1, loss=2.5),
        step(2, 2.0),
        TrainingSaved(step=2, folder="/j/step-2"),
    ]
    assert queue.record(id_, 1, said)
    assert store.read("t", id_).progress == Progress(
        step=2,
        steps=10,
        rows=4,
        epoch=0.5,
        loss=2.0,
        measured=2.5,
        measured_at=1,
        trained_tokens=14,
        memory=100,
        seconds=16,
        told=50.0,
    )
    points = store.checkpoints("t", id_)
    assert [(point.step, point.adapter, point.metrics) for point in points] == [
        (2, "", {"step": 2, "trained_tokens": 14, "train_loss": 2.0}),
        (1, "/j/step-1/adapter", {"step": 1, "trained_tokens": 7, "train_loss": 3.0, "valid_loss": 2.5}),
    ]
    assert store.events("t", id_)[2].data == {"recipe": {"rank": 16}}
    queue.record(id_, 1, [TrainingStarted(recipe={}, rows=4, trained_tokens=70, steps=10, resumed_at=1), step(2)])
    assert store.read("t", id_).progress.trained_tokens == 14, "what is learned again counts once"


def test_nothing_is_heard_from_an_earlier_attempt_or_after_the_end(store: JobStore, queue: JobQueue) -> None:
    id_ = store.create(NEW).id
    queue.claim()
    queue.recover()
    claimed = queue.claim()
    assert claimed is not None
    assert claimed.job.attempt == 2
    assert not queue.record(id_, 1, [step(1)])
    assert queue.state(id_, 1) is None
    assert queue.record(id_, 2, [step(1)])
    store.cancel("t", id_)
    before = store.events("t", id_)
    assert not queue.record(id_, 2, [step(2), TrainingFailed(code="c", message="m")])
    assert not queue.publishing(id_, 2, TrainingEnded(step=2, best_step=2))
    assert store.events("t", id_) == before


def test_the_latest_events_are_kept(base: Database, store: JobStore) -> None:
    queue = JobQueue(base, most_events=10)
    id_ = store.create(NEW).id
    queue.claim()
    for number in range(1, 40, 4):
        queue.record(id_, 1, [step(number + more) for more in range(4)])
    events = store.events("t", id_, limit=100)
    assert [event.data["step"] for event in events] == list(range(31, 41))
    assert [event.number for event in events] == list(range(33, 43))


def test_a_job_that_kills_its_server_is_given_up_unless_it_comes_on(base: Database, store: JobStore) -> None:
    queue = JobQueue(base, most_losses=3)
    id_ = store.create(NEW).id
    for attempt in range(1, 7):
        assert queue.claim() is not None
        if attempt == 2:
            queue.record(id_, attempt, [TrainingSaved(step=1, folder="/j")])
        queue.recover()
        if store.read("t", id_).status is Status.FAILED:
            break
    job = store.read("t", id_)
    assert job.attempt == 4
    assert job.error is not None
    assert job.error.code == "server_stopped"


def test_a_job_that_was_to_pause_when_the_server_died_is_paused(store: JobStore, queue: JobQueue) -> None:
    id_ = store.create(NEW).id
    queue.claim()
    store.pause("t", id_)
    queue.recover()
    assert store.read("t", id_).status is Status.PAUSED


def test_a_busy_job_is_passed_over(store: JobStore, queue: JobQueue) -> None:
    first, second = store.create(NEW).id, store.create(NEW).id
    claimed = queue.claim({first})
    assert claimed is not None
    assert claimed.job.id == second
    assert queue.claim({first}) is None


def claim_all(path: Path, results: multiprocessing.SimpleQueue[list[str]]) -> None:
    base = Database(path)
    queue = JobQueue(base)
    mine = []
    while (claimed := queue.claim()) is not None:
        mine.append(claimed.job.id)
    results.put(mine)


def test_two_processes_never_claim_the_same_job(tmp_path: Path, store: JobStore) -> None:
    ids = [store.create(NEW).id for _ in range(40)]
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.SimpleQueue[list[str]] = context.SimpleQueue()
    workers = [context.Process(target=claim_all, args=(tmp_path / "jobs.db", results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    claimed = [id_ for _ in workers for id_ in results.get()]
    for worker in workers:
        worker.join()
    assert sorted(claimed) == sorted(ids)
    assert all(store.read("t", id_).attempt == 1 for id_ in ids)


def test_jobs_of_another_base_wait(store: JobStore, queue: JobQueue) -> None:
    other = store.create(NewJob(tenant="t", model="other", recipe={})).id
    mine = store.create(NEW).id
    claimed = queue.claim(model="base")
    assert claimed is not None
    assert claimed.job.id == mine
    assert queue.claim(model="base") is None
    assert store.read("t", other).status is Status.QUEUED
    assert queue.counts()[Status.QUEUED] == 1
    assert list(queue.running()) == [mine]


def test_notes_are_added_and_found_again(store: JobStore, queue: JobQueue) -> None:
    id_ = store.create(NEW).id
    assert queue.note(id_, "asked", data={"at": "start", "step": 0})
    assert queue.note(id_, "other", data={"step": 1})
    assert not queue.note(id_, "late", only=7)
    assert not queue.note("ftjob-0", "nobody's")
    assert queue.told(id_, "at") == [{"at": "start", "step": 0}]
    assert [event.message for event in store.latest_events("t", id_, limit=2)] == ["other", "asked"]


def test_where_data_lies_is_not_kept(store: JobStore, queue: JobQueue) -> None:
    id_ = store.create(NEW).id
    queue.claim()
    recipe = {"rank": 4, "data": ["/secret/a"], "validation": ["/secret/b"]}
    queue.record(id_, 1, [TrainingStarted(recipe=recipe, rows=1, trained_tokens=1, steps=1)])
    assert store.read("t", id_).settled == {"rank": 4}
    assert "/secret" not in str(store.events("t", id_))
