"""Jobs as their owners see and change them: made, listed, cancelled, paused, resumed. Nobody sees another's."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ..contract.errors import Conflict, InvalidRequest, NotFound, Overloaded
from .database import Database
from .job import FINAL, OPEN, Job, JobCheckpoint, JobError, JobEvent, NewJob, Progress, Status, check_move
from .rows import COLUMNS, job_of, move, tell

MOST_AT_ONCE = 100
_MOST_JSON = 256 * 1024
_METADATA = "SELECT 1 FROM json_each(CAST(request AS TEXT), '$.metadata')"
_OPEN = ", ".join(f"'{status}'" for status in OPEN)


class JobStore:
    """The jobs in a database. Each change is on disk when its method returns, and is made whole or not at all.

    A tenant may have `most_open` jobs that are not done. Of each tenant the latest `most` are kept. All methods raise
    StoreFull and Unavailable when the database fails.
    """

    def __init__(
        self, base: Database, *, most_open: int = 100, most: int = 1000, clock: Callable[[], float] = time.time
    ) -> None:
        self._base = base
        self._most_open = most_open
        self._most = max(most, most_open)
        self._clock = clock

    def create(self, new: NewJob) -> Job:
        """Makes a job, and holds its files.

        Raises NotFound for a file that the tenant does not have, InvalidRequest for one of another purpose and for a
        recipe that is too long, Overloaded when the tenant has too many jobs that are not done.
        """
        id_ = f"ftjob-{secrets.token_hex(12)}"
        recipe, request = _bounded(new.recipe, "recipe"), _bounded(new.request, "request")
        status = Status.VALIDATING if new.validate else Status.QUEUED
        now = self._clock()
        with self._base.writing():
            for param, file in (("training_file", new.training_file), ("validation_file", new.validation_file)):
                if file is not None:
                    self._check_file(new.tenant, file, param)
            self._make_room(new.tenant)
            self._base.execute(
                "INSERT INTO jobs (id, tenant, status, created, model, recipe, request, suffix, training_file, "
                "validation_file, progress) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(id_, new.tenant, status, now, new.model, recipe, request, new.suffix),
                    *(new.training_file, new.validation_file, msgspec.json.encode(Progress())),
                ),
            )
            row = self._row(new.tenant, id_)
            tell(self._base, row[0], now, f"Created fine-tuning job: {id_}")
            if new.validate:
                tell(self._base, row[0], now, "Validating training file")
            return self.read(new.tenant, id_)

    def read(self, tenant: str, id_: str) -> Job:
        """Raises NotFound, as all methods that name a job do."""
        return job_of(self._row(tenant, id_))

    def page(
        self, tenant: str, *, after: str | None = None, limit: int = 20, metadata: Mapping[str, str] | None = None
    ) -> list[Job]:
        """The tenant's jobs, the newest first: those that were made before the job `after`.

        With `metadata`, those whose request has these pairs; an empty one asks for jobs that have none.
        """
        before = 1 << 62 if after is None else self._row(tenant, after)[0]
        pairs = list((metadata or {}).items())
        condition = f"AND EXISTS ({_METADATA} WHERE key = ? AND value = ?) " * len(pairs)
        if metadata is not None and not pairs:
            condition = f"AND NOT EXISTS ({_METADATA}) "
        rows = self._base.rows(
            f"SELECT {COLUMNS} FROM jobs WHERE tenant = ? AND number < ? "  # noqa: S608
            f"{condition}ORDER BY number DESC LIMIT ?",
            (tenant, before, *(part for pair in pairs for part in pair), _limit(limit)),
        )
        return [job_of(row) for row in rows]

    def events(self, tenant: str, id_: str, *, after: int = 0, limit: int = 20) -> list[JobEvent]:
        """The job's events with numbers above `after`, the oldest first."""
        return self._events(tenant, id_, "number > ? ORDER BY number", after, limit)

    def latest_events(self, tenant: str, id_: str, *, before: int | None = None, limit: int = 20) -> list[JobEvent]:
        """The job's events with numbers below `before`, the newest first."""
        bound = 1 << 62 if before is None else before
        return self._events(tenant, id_, "number < ? ORDER BY number DESC", bound, limit)

    def checkpoints(self, tenant: str, id_: str, *, before: int | None = None, limit: int = 20) -> list[JobCheckpoint]:
        """The job's checkpoints of steps below `before`, the newest first."""
        rows = self._base.rows(
            "SELECT step, created, folder, adapter, metrics FROM checkpoints "
            "WHERE job = ? AND step < ? ORDER BY step DESC LIMIT ?",
            (self._row(tenant, id_)[0], 1 << 62 if before is None else before, _limit(limit)),
        )
        return [
            JobCheckpoint(step, created, folder, adapter, msgspec.json.decode(metrics))
            for step, created, folder, adapter, metrics in rows
        ]

    def cancel(self, tenant: str, id_: str) -> Job:
        """Ends the job for good; one that is cancelled already stays so. Nothing of it is published after.

        Raises Conflict when it has ended otherwise, or its adapter is being published.
        """
        with self._base.writing():
            job, row = self._both(tenant, id_)
            if job.publishing:
                raise Conflict(f"job {id_} has learned all and is being published; delete its model instead")
            if job.status is not Status.CANCELLED:
                move(self._base, row, Status.CANCELLED, self._clock())
                tell(self._base, row[0], self._clock(), "The job was cancelled")
            return self.read(tenant, id_)

    def pause(self, tenant: str, id_: str) -> Job:
        """Stops the job until it is resumed. A running one is `stopping` until its checkpoint is written.

        Raises Conflict when it has ended, its files are being checked, or its adapter is being published.
        """
        with self._base.writing():
            job, row = self._both(tenant, id_)
            if job.publishing:
                raise Conflict(f"job {id_} has learned all and is being published; there is nothing to pause")
            if job.status is Status.RUNNING:
                self._base.execute("UPDATE jobs SET stopping = 1 WHERE number = ?", (row[0],))
            elif job.status is not Status.PAUSED:
                move(self._base, row, Status.PAUSED, self._clock())
                tell(self._base, row[0], self._clock(), "The job was paused")
            return self.read(tenant, id_)

    def resume(self, tenant: str, id_: str) -> Job:
        """Puts the job back into the queue; one that waits or runs goes on. Raises Conflict when it has ended."""
        with self._base.writing():
            job, row = self._both(tenant, id_)
            if job.status is Status.RUNNING:
                self._base.execute("UPDATE jobs SET stopping = 0 WHERE number = ?", (row[0],))
            elif job.status is Status.PAUSED:
                move(self._base, row, Status.QUEUED, self._clock())
                tell(self._base, row[0], self._clock(), "The job was resumed")
            elif job.status in FINAL:
                check_move(id_, job.status, Status.QUEUED)
            return self.read(tenant, id_)

    def validated(self, id_: str, error: JobError | None = None, warnings: Sequence[str] = ()) -> None:
        """Says how the check of the job's files ended. Nothing changes when it was cancelled meanwhile."""
        with self._base.writing():
            row = self._base.row(f"SELECT {COLUMNS} FROM jobs WHERE id = ?", (id_,))  # noqa: S608
            if row is None or row[3] != Status.VALIDATING:
                return
            now = self._clock()
            for warning in warnings:
                tell(self._base, row[0], now, warning, level="warn")
            if error is None:
                move(self._base, row, Status.QUEUED, now)
                tell(self._base, row[0], now, "Files validated, moving job to queued state")
            else:
                move(self._base, row, Status.FAILED, now, error=error)
                tell(self._base, row[0], now, error.message, level="error")

    def _row(self, tenant: str, id_: str) -> Any:
        row = self._base.row(f"SELECT {COLUMNS} FROM jobs WHERE id = ? AND tenant = ?", (id_, tenant))  # noqa: S608
        if row is None:
            raise NotFound(f"there is no fine-tuning job {ascii(id_)[:80]}", param="fine_tuning_job_id")
        return row

    def _both(self, tenant: str, id_: str) -> tuple[Job, Any]:
        row = self._row(tenant, id_)
        return job_of(row), row

    def _events(self, tenant: str, id_: str, condition: str, bound: int, limit: int) -> list[JobEvent]:
        rows = self._base.rows(
            f"SELECT number, created, level, message, data FROM events WHERE job = ? AND {condition} LIMIT ?",  # noqa: S608
            (self._row(tenant, id_)[0], bound, _limit(limit)),
        )
        return [
            JobEvent(number, created, level, message, msgspec.json.decode(data))
            for number, created, level, message, data in rows
        ]

    def _check_file(self, tenant: str, file: str, param: str) -> None:
        row = self._base.row("SELECT purpose FROM files WHERE id = ? AND tenant = ?", (file, tenant))
        if row is None:
            raise NotFound(f"there is no file {ascii(file)[:80]}", param=param)
        if row[0] != "fine-tune":
            raise InvalidRequest(f"file {file} has the purpose {row[0]}; upload it with fine-tune", param=param)

    def _make_room(self, tenant: str) -> None:
        """Raises Overloaded; forgets the tenant's oldest jobs of those that are done."""
        waiting = f"SELECT COUNT(*) FROM jobs WHERE tenant = ? AND status IN ({_OPEN})"  # noqa: S608
        if self._base.row(waiting, (tenant,))[0] >= self._most_open:
            raise Overloaded(
                f"{self._most_open} jobs are not done yet; wait for one to end, or cancel one", retry_after=60
            )
        excess = self._base.row("SELECT COUNT(*) FROM jobs WHERE tenant = ?", (tenant,))[0] - self._most + 1
        self._base.execute(
            f"DELETE FROM jobs WHERE number IN (SELECT number FROM jobs WHERE status NOT IN ({_OPEN}) "  # noqa: S608
            "AND tenant = ? ORDER BY number LIMIT ?)",
            (tenant, max(0, excess)),
        )


def _limit(limit: int) -> int:
    return max(1, min(limit, MOST_AT_ONCE + 1))


def _bounded(value: dict[str, Any], param: str) -> bytes:
    encoded = msgspec.json.encode(value)
    if len(encoded) > _MOST_JSON:
        raise InvalidRequest(f"{param} is longer than {_MOST_JSON} bytes", param=param)
    return encoded
