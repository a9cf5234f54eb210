"""Rows of the database as jobs, and the two writes that every change of a job is made of."""

from __future__ import annotations

from typing import Any

import msgspec

from ..contract.jobs import TrainingEnded
from .database import Database
from .job import FINAL, Job, JobError, Progress, Status, check_move

COLUMNS = (
    "number, id, tenant, status, created, model, recipe, request, suffix, training_file, validation_file, "
    "result_file, attempt, stopping, ended, started, finished, progress, error, fine_tuned_model, settled"
)
_LONGEST_MESSAGE = 4000


def job_of(row: Any) -> Job:
    """The job that a row of COLUMNS holds."""
    ended = ended_of(row)
    return Job(
        id=row[1],
        tenant=row[2],
        status=Status(row[3]),
        created=row[4],
        model=row[5],
        recipe=msgspec.json.decode(row[6]),
        request=msgspec.json.decode(row[7]),
        suffix=row[8],
        training_file=row[9],
        validation_file=row[10],
        result_file=row[11],
        attempt=row[12],
        stopping=bool(row[13]),
        publishing=ended is not None and row[3] == Status.RUNNING,
        started=row[15],
        finished=row[16],
        progress=msgspec.json.decode(row[17], type=Progress),
        metrics={} if ended is None else ended.metrics,
        error=None if row[18] is None else msgspec.json.decode(row[18], type=JobError),
        fine_tuned_model=row[19],
        settled=None if row[20] is None else msgspec.json.decode(row[20]),
    )


def ended_of(row: Any) -> TrainingEnded | None:
    """What the trainer said at its end, if it has."""
    return None if row[14] is None else msgspec.json.decode(row[14], type=TrainingEnded)


def move(base: Database, row: Any, after: Status, now: float, *, error: JobError | None = None) -> None:
    """Gives the job of `row` another status, inside a transaction. Raises Conflict when it may not have it."""
    check_move(row[1], Status(row[3]), after)
    base.execute(
        "UPDATE jobs SET status = ?, stopping = 0, finished = ?, error = ? WHERE number = ?",
        (after, now if after in FINAL else None, None if error is None else msgspec.json.encode(error), row[0]),
    )


def tell(
    base: Database, number: int, now: float, message: str, *, level: str = "info", data: dict[str, Any] | None = None
) -> None:
    """Adds an event to the job `number`, inside a transaction."""
    base.execute("UPDATE jobs SET last_event = last_event + 1 WHERE number = ?", (number,))
    base.execute(
        "INSERT INTO events SELECT number, last_event, ?, ?, ?, ? FROM jobs WHERE number = ?",
        (now, level, message[:_LONGEST_MESSAGE], msgspec.json.encode(data or {}), number),
    )
