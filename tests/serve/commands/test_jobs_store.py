"""Jobs of the home folder, while no server runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tunechat.serve.api.auth import tenant_of
from tunechat.serve.commands.jobs_store import StoredJobs
from tunechat.serve.contract.errors import Conflict, InvalidRequest, NotFound
from tunechat.serve.contract.jobs import TrainingEnded, TrainingMeasured, TrainingSaved, TrainingStarted, TrainingStep
from tunechat.serve.jobs.database import Database
from tunechat.serve.jobs.job import NewJob
from tunechat.serve.jobs.queue import JobQueue
from tunechat.serve.jobs.store import JobStore
from tunechat.serve.settings import load

from .conftest import Done

Tunechat = Callable[..., Done]


@pytest.fixture
def base(home: Path) -> Iterator[Database]:
    home.mkdir()
    database = Database(home / "jobs.db")
    yield database
    database.close()


def job_of(base: Database, *, tenant: str = "", suffix: str = "support") -> str:
    return JobStore(base, most_open=200).create(NewJob(tenant=tenant, model="tiny", recipe={}, suffix=suffix)).id


def train(base: Database, steps: int) -> None:
    """What a supervisor writes down of a job that learns all."""
    queue = JobQueue(base)
    claimed = queue.claim()
    assert claimed is not None
    job = claimed.job
    events = [TrainingStarted(recipe={}, rows=8, trained_tokens=80, steps=steps)]
    queue.record(job.id, job.attempt, events)
    for number in range(1, steps + 1):
        step = TrainingStep(
            step=number,
            epoch=1,
            loss=1 / number,
            rate=1e-4,
            gradient_norm=1,
            trained_tokens=10,
            tokens=10,
            seconds=1,
            memory=1,
        )
        queue.record(job.id, job.attempt, [step])
    saved = TrainingSaved(step=steps, folder="f", adapter="a")
    queue.record(job.id, job.attempt, [saved, TrainingMeasured(step=steps, loss=0.5)])
    queue.publishing(job.id, job.attempt, TrainingEnded(step=steps, best_step=steps, adapter="a"))
    queue.succeed(job.id, job.attempt, "ft:tiny:support:1")


def test_jobs_are_seen_as_a_server_shows_them(tunechat: Tunechat, base: Database) -> None:
    id_ = job_of(base)
    train(base, 4)
    done = tunechat("jobs", "list")
    assert done.code == 0 and id_ in done.out and "ft:tiny:support:1" in done.out
    shown = tunechat("jobs", "show").out
    assert "4 of 4" in shown and "0.5000" in shown and f"ft:tiny:support:{id_[6:14]}:ckpt-step-4" in shown
    assert tunechat("jobs", "logs", "-f").out.splitlines()[-1].endswith("The job has successfully completed")
    assert json.loads(tunechat("jobs", "show", "--json").out)["object"] == "fine_tuning.job"


def test_jobs_are_steered(tunechat: Tunechat, base: Database) -> None:
    id_ = job_of(base)
    assert tunechat("jobs", "pause", id_).out == f"{id_} is paused\n"
    assert f"`tunechat train --resume {id_}`" in tunechat("jobs", "resume", id_).out
    assert tunechat("jobs", "cancel", id_).out == f"{id_} is cancelled\n"
    assert tunechat("jobs", "resume", id_).code == 1


def test_pages_are_put_together(base: Database) -> None:
    ids = [job_of(base, suffix=f"s{number}") for number in range(105)][::-1]
    train(base, 150)
    jobs = StoredJobs(base, load().settings)
    assert [job["id"] for job in jobs.listing(1000)] == ids
    assert [job["id"] for job in jobs.listing(3)] == ids[:3]
    trained = ids[-1]
    events = jobs.events(trained, 1000)
    numbers = [int(event["id"].rpartition("-")[2]) for event in events]
    assert len(events) > 150 and numbers == list(range(1, len(events) + 1))
    assert jobs.events(trained, 120) == events[-120:]
    assert jobs.events(trained, 1000, until=events[9]["id"]) == events[10:]
    assert list(jobs.stream(trained, events[4]["id"])) == events[5:]


def test_each_key_has_its_own(base: Database) -> None:
    mine, other = job_of(base, tenant=tenant_of("first-key")), job_of(base, tenant=tenant_of("second-key"))
    jobs = StoredJobs(base, load({"api_keys": ["first-key"]}).settings)
    assert [job["id"] for job in jobs.listing(10)] == [mine]
    with pytest.raises(NotFound):
        jobs.show(other)
    with pytest.raises(InvalidRequest):
        jobs.act(mine, "delete")
    jobs.act(mine, "cancel")
    with pytest.raises(Conflict):
        jobs.act(mine, "resume")
