"""Jobs run by real processes: learned, stopped, ended by whatever goes wrong, and never left over."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tunechat.serve.contract.errors import InvalidAdapter
from tunechat.serve.contract.jobs import TrainingEnded, TrainingOrder
from tunechat.serve.jobs.database import Database
from tunechat.serve.jobs.files import FileStore
from tunechat.serve.jobs.job import FINAL, Job, NewJob, Status
from tunechat.serve.jobs.queue import JobQueue
from tunechat.serve.jobs.store import JobStore
from tunechat.serve.jobs.supervisor import Publish, Supervisor, Workplace

HERE = Path(__file__).parent
TRAINEE = (sys.executable, "-I", "-S", str(HERE / "trainee.py"))


async def publish(job: Job, ended: TrainingEnded) -> str:
    return f"ft:{job.model}:{Path(ended.adapter).name}"


@dataclass
class Works:
    """A home with its queue, and jobs in it."""

    home: Path
    store: JobStore
    queue: JobQueue
    files: FileStore

    def submit(self, do: str, **recipe: Any) -> str:
        return self.store.create(NewJob(tenant="t", model="base", recipe={"do": do, **recipe})).id

    def read(self, id_: str) -> Job:
        return self.store.read("t", id_)

    @contextlib.asynccontextmanager
    async def running(self, publish: Publish = publish, **place: Any) -> AsyncIterator[Supervisor]:
        told = {"folder": self.home / "jobs", "entry": self.home / "entry", "command": TRAINEE, **place}
        supervisor = Supervisor(self.queue, self.files, Workplace(**told), publish)
        async with supervisor.lifespan():
            yield supervisor

    async def until(self, id_: str, is_so: Callable[[Job], bool], within: float = 8.0) -> Job:
        end = time.monotonic() + within
        while not is_so(job := self.read(id_)):
            assert time.monotonic() < end, f"still {job}"
            await asyncio.sleep(0.01)
        return job

    async def done(self, id_: str) -> Job:
        return await self.until(id_, lambda job: job.status in FINAL)

    def steps(self, id_: str) -> list[int]:
        path = self.home / "jobs" / id_ / "steps"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    async def pids(self, id_: str) -> list[int]:
        path = self.home / "jobs" / id_ / "pids"
        await self.until(id_, lambda _: path.exists())
        return [int(pid) for pid in path.read_text().split()]


@pytest.fixture
def works(tmp_path: Path, store: JobStore, queue: JobQueue, files: FileStore) -> Works:
    return Works(tmp_path, store, queue, files)


def lives(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return False


def serving(home: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(HERE / "server.py"), str(home)])


async def all_die(pids: list[int], within: float = 5.0) -> None:
    end = time.monotonic() + within
    while any(map(lives, pids)):
        assert time.monotonic() < end, f"{[pid for pid in pids if lives(pid)]} still run"
        await asyncio.sleep(0.02)


async def test_a_job_learns_and_is_published(works: Works) -> None:
    async def content() -> AsyncIterator[bytes]:
        yield b"{}"

    file = await works.files.add("t", "a.jsonl", "fine-tune", content())
    new = NewJob(tenant="t", model="base", recipe={"do": "learn", "steps": 3}, training_file=file.id)
    id_ = works.store.create(new).id
    async with works.running(threads=2):
        job = await works.done(id_)
    assert (job.status, job.fine_tuned_model, job.error) == ("succeeded", "ft:base:step-3", None)
    assert job.metrics == {"valid_loss": 0.25}
    assert (job.progress.step, job.progress.steps, job.progress.trained_tokens) == (3, 3, 30)
    assert job.progress.seconds == 0
    assert [(point.step, Path(point.adapter).name) for point in works.store.checkpoints("t", id_)] == [
        (3, "step-3"),
        (2, "step-2"),
        (1, "step-1"),
    ]
    assert works.store.checkpoints("t", id_)[0].metrics == {
        "step": 3,
        "trained_tokens": 30,
        "train_loss": 1 / 3,
        "valid_loss": 0.25,
    }
    events = works.store.events("t", id_, limit=100)
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    assert [event.data["train_loss"] for event in events if "train_loss" in event.data] == [1, 1 / 2, 1 / 3]
    order = msgspec.json.decode((works.home / "jobs" / id_ / "order.json").read_bytes(), type=TrainingOrder)
    assert order.recipe == {"do": "learn", "steps": 3, "data": [str(file.path)]}
    assert (order.job, order.threads, order.entry) == (id_, 2, str(works.home / "entry"))


@pytest.mark.parametrize(
    ("do", "recipe", "code", "words"),
    [
        ("exit", {}, "trainer_failed", ["exit status 3", "ValueError: the wrong shape"]),
        ("signal", {"signal": signal.SIGSEGV}, "trainer_failed", ["SIGSEGV"]),
        ("signal", {"signal": signal.SIGKILL}, "trainer_failed", ["SIGKILL", "memory"]),
        ("memory", {}, "out_of_memory", ["memory was used up", "batch_tokens"]),
        ("say", {"text": "hello\n"}, "trainer_failed", ["no event", "hello"]),
        ("say", {"text": '{"type": "step", "step": 1}\n'}, "trainer_failed", ["no event", "epoch"]),
        ("line", {}, "trainer_failed", ["a line of more than"]),
        ("fail", {}, "diverged", ["the loss is not a number"]),
        ("nothing", {}, "trainer_failed", ["did not say what it learned"]),
        ("elsewhere", {}, "trainer_failed", ["not the job's"]),
    ],
)
async def test_a_job_that_goes_wrong_says_why(
    works: Works, do: str, recipe: dict[str, Any], code: str, words: list[str]
) -> None:
    id_ = works.submit(do, **recipe)
    async with works.running():
        job = await works.done(id_)
    assert job.status is Status.FAILED
    assert job.error is not None
    assert job.error.code == code
    assert [word for word in words if word not in job.error.message] == []
    assert job.error.param == ("lr" if do == "fail" else None)
    assert works.store.latest_events("t", id_)[0].message == job.error.message


async def test_a_command_that_cannot_be_started_is_told(works: Works) -> None:
    id_ = works.submit("learn")
    async with works.running(command=("/no/such/trainer",)):
        job = await works.done(id_)
    assert job.error is not None
    assert "/no/such/trainer cannot be started: No such file or directory" in job.error.message


async def test_a_silent_process_is_ended(works: Works) -> None:
    id_ = works.submit("say", text="")
    async with works.running(silence=0.3):
        job = await works.done(id_)
    assert job.error is not None
    assert "said nothing" in job.error.message


async def test_a_flood_is_capped_and_its_end_is_kept(works: Works) -> None:
    id_ = works.submit("flood")
    async with works.running(most_log=100_000):
        job = await works.done(id_)
    folder = works.home / "jobs" / id_
    assert sum(path.stat().st_size for path in folder.glob("log*")) <= 100_000
    assert (folder / "log").read_text().endswith("the last words\n")
    assert job.error is not None
    assert job.error.message.endswith("the last words")


async def test_nothing_that_a_process_started_is_left(works: Works) -> None:
    id_ = works.submit("orphans")
    async with works.running():
        job = await works.done(id_)
        assert not any(map(lives, await works.pids(id_)))
    assert job.error is not None
    assert "exit status 4" in job.error.message


@pytest.mark.parametrize("change", ["cancel", "pause"])
async def test_a_stubborn_process_is_killed_after_the_grace(works: Works, change: str) -> None:
    id_ = works.submit("stubborn")
    async with works.running(grace=0.2) as supervisor:
        pids = await works.pids(id_)
        getattr(works.store, change)("t", id_)
        supervisor.wake()
        await all_die(pids)
        await works.until(id_, lambda job: job.status == ("cancelled" if change == "cancel" else "paused"))


async def test_a_paused_job_goes_on_where_it_was(works: Works) -> None:
    id_ = works.submit("learn", steps=30, pace=0.01)
    async with works.running() as supervisor:
        await works.until(id_, lambda job: job.progress.step >= 3)
        assert works.store.pause("t", id_).stopping
        supervisor.wake()
        job = await works.until(id_, lambda job: job.status is Status.PAUSED)
        assert job.progress.step < 30
        works.store.resume("t", id_)
        supervisor.wake()
        job = await works.done(id_)
    assert job.status is Status.SUCCEEDED
    assert job.attempt == 2
    assert works.steps(id_) == list(range(1, 31))


async def test_a_cancelled_job_publishes_nothing_and_the_next_one_runs(works: Works) -> None:
    published: list[str] = []

    async def note(job: Job, ended: TrainingEnded) -> str:
        published.append(job.id)
        return "m"

    first, second = works.submit("learn", steps=1000, pace=0.01), works.submit("learn", steps=1)
    async with works.running(note) as supervisor:
        await works.until(first, lambda job: job.progress.step >= 1)
        assert works.read(second).status is Status.QUEUED
        assert list(supervisor.processes) == [first]
        assert works.store.cancel("t", first).status is Status.CANCELLED
        supervisor.wake()
        assert (await works.done(second)).status is Status.SUCCEEDED
    assert works.read(first).status is Status.CANCELLED
    assert published == [second]


async def test_a_change_by_another_process_is_heard(works: Works) -> None:
    id_ = works.submit("learn", steps=1000, pace=0.01)
    async with works.running():
        await works.until(id_, lambda job: job.progress.step >= 1)
        other = Database(works.home / "jobs.db")
        JobStore(other).pause("t", id_)
        other.close()
        await works.until(id_, lambda job: job.status is Status.PAUSED)


async def test_a_process_that_stops_by_itself_is_not_started_for_ever(works: Works) -> None:
    id_ = works.submit("paused")
    async with works.running():
        job = await works.until(id_, lambda job: job.status is Status.PAUSED)
    assert job.attempt == 1


async def test_a_publication_that_fails_fails_the_job(works: Works) -> None:
    async def refuse(job: Job, ended: TrainingEnded) -> str:
        raise InvalidAdapter("a tensor holds NaN")

    id_ = works.submit("learn", steps=1)
    async with works.running(refuse):
        job = await works.done(id_)
    assert job.error is not None
    assert (job.error.code, job.error.message) == ("invalid_adapter", "a tensor holds NaN")


async def test_a_server_that_stops_leaves_the_job_waiting_and_the_next_goes_on(works: Works) -> None:
    id_ = works.submit("learn", steps=20, pace=0.01)
    async with works.running():
        await works.until(id_, lambda job: job.progress.step >= 3)
    assert works.read(id_).status is Status.QUEUED
    async with works.running():
        assert (await works.done(id_)).status is Status.SUCCEEDED
    assert works.steps(id_) == list(range(1, 21))


async def test_only_one_of_two_supervisors_works(works: Works) -> None:
    ids = [works.submit("learn", steps=3) for _ in range(3)]
    async with works.running(), works.running():
        for id_ in ids:
            assert (await works.done(id_)).attempt == 1
            assert works.steps(id_) == [1, 2, 3]


async def test_a_server_that_is_killed_takes_all_along_and_the_next_goes_on(works: Works) -> None:
    id_ = works.submit("learn", steps=60, pace=0.02, also=True)
    with serving(works.home) as server:
        try:
            await works.until(id_, lambda job: job.progress.step >= 3)
            pids = await works.pids(id_)
            assert all(map(lives, pids))
        finally:
            server.kill()
    await all_die(pids)
    assert works.read(id_).status is Status.RUNNING
    async with works.running():
        job = await works.done(id_)
    assert (job.status, job.attempt) == (Status.SUCCEEDED, 2)
    # The step at which it was killed may have been done twice; none is left out.
    steps = works.steps(id_)
    assert sorted(set(steps)) == list(range(1, 61))
    assert len(steps) <= 61


async def test_what_was_learned_before_the_server_died_is_published_without_learning_again(works: Works) -> None:
    id_ = works.submit("exit")
    claimed = works.queue.claim()
    assert claimed is not None
    works.queue.publishing(id_, 1, TrainingEnded(step=2, best_step=1, adapter="/x/step-1"))
    async with works.running():
        job = await works.done(id_)
    assert (job.status, job.fine_tuned_model) == (Status.SUCCEEDED, "ft:base:step-1")


async def test_folders_of_forgotten_jobs_are_removed(works: Works) -> None:
    lost = works.home / "jobs" / "ftjob-1"
    lost.mkdir(parents=True)
    id_ = works.submit("learn", steps=1)
    async with works.running():
        await works.done(id_)
    assert not lost.exists()
    assert (works.home / "jobs" / id_).exists()
