"""Jobs as their worker sees them: claimed one by one, told about, ended; each is run by one worker at a time.

Every write names the attempt that it belongs to. What comes from an earlier attempt, or after the job was cancelled, is
refused, so whatever a late process still says changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ..contract.jobs import (
    TrainingEnded,
    TrainingEstimated,
    TrainingEvent,
    TrainingFailed,
    TrainingMeasured,
    TrainingSaved,
    TrainingStarted,
    TrainingStep,
)
from .database import Database
from .job import Job, JobError, Progress, Status
from .rows import COLUMNS, ended_of, job_of, move, tell

_LOST = JobError(
    code="server_stopped",
    message="the server stopped while this job ran, again and again, before a new checkpoint was written",
)

# Keys of a recipe that say where things lie on this machine, which is nobody's business.
_PLACES = frozenset({"data", "validation"})


@dataclass(frozen=True, slots=True)
class Claimed:
    """A job to work on now. `ended` is what its trainer said when it had learned all, before the server stopped."""

    job: Job
    ended: TrainingEnded | None


class JobQueue:
    """The queue in a database. `most_events` of each job are kept, the latest.

    A job that was running at the death of its server is started again, at most `most_losses` times without a new
    checkpoint in between. All methods raise StoreFull and Unavailable when the database fails.
    """

    def __init__(
        self,
        base: Database,
        *,
        most_events: int = 20_000,
        most_losses: int = 5,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._base = base
        self._most_events = most_events
        self._most_losses = most_losses
        self._clock = clock

    def recover(self) -> None:
        """Puts the jobs that were running back into the queue. To be called by the only worker, before it starts."""
        now = self._clock()
        with self._base.writing():
            for row in self._base.rows(f"SELECT {COLUMNS}, losses FROM jobs WHERE status = 'running'"):  # noqa: S608
                job, losses = job_of(row), row[-1] + 1
                self._base.execute("UPDATE jobs SET losses = ? WHERE number = ?", (losses, row[0]))
                if losses >= self._most_losses:
                    move(self._base, row, Status.FAILED, now, error=_LOST)
                    tell(self._base, row[0], now, _LOST.message, level="error")
                elif job.stopping:
                    move(self._base, row, Status.PAUSED, now)
                    tell(self._base, row[0], now, "The server stopped; the job is paused, as was asked")
                else:
                    move(self._base, row, Status.QUEUED, now)
                    tell(self._base, row[0], now, "The server stopped; the job waits to go on", level="warn")

    def claim(self, busy: Collection[str] = (), model: str | None = None) -> Claimed | None:
        """The job that has waited longest, running from now on, except those in `busy`; None when none waits.

        With a `model`, one that was made for this base: others wait until theirs is served again.
        """
        now = self._clock()
        with self._base.writing():
            rows = self._base.rows(
                f"SELECT {COLUMNS} FROM jobs WHERE status = 'queued' AND model = COALESCE(?, model) "  # noqa: S608
                "ORDER BY number LIMIT ?",
                (model, len(busy) + 1),
            )
            row = next((row for row in rows if row[1] not in busy), None)
            if row is None:
                return None
            move(self._base, row, Status.RUNNING, now)
            self._base.execute(
                "UPDATE jobs SET attempt = attempt + 1, started = COALESCE(started, ?) WHERE number = ?",
                (now, row[0]),
            )
            tell(self._base, row[0], now, "Fine-tuning job started" if row[12] == 0 else "Fine-tuning job goes on")
            row = self._base.row(f"SELECT {COLUMNS} FROM jobs WHERE number = ?", (row[0],))  # noqa: S608
        return Claimed(job_of(row), ended_of(row))

    def state(self, id_: str, attempt: int) -> Job | None:
        """The job, while it is this attempt that runs it; None otherwise."""
        row = self._running(id_, attempt)
        return None if row is None else job_of(row)

    def note(
        self,
        id_: str,
        message: str,
        *,
        level: str = "info",
        data: dict[str, Any] | None = None,
        only: int | None = None,
    ) -> bool:
        """Adds an event to a job, whatever its status; False when there is no such job, or it is not attempt `only`."""
        with self._base.writing():
            row = self._base.row("SELECT number, attempt FROM jobs WHERE id = ?", (id_,))
            if row is None or only not in (None, row[1]):
                return False
            tell(self._base, row[0], self._clock(), message, level=level, data=data)
            self._trim(row[0])
        return True

    def told(self, id_: str, key: str) -> list[dict[str, Any]]:
        """The data of those of a job's events that has `key`, the oldest first."""
        rows = self._base.rows(
            "SELECT data FROM events WHERE job = (SELECT number FROM jobs WHERE id = ?) "
            "AND json_type(CAST(data AS TEXT), '$.' || ?) IS NOT NULL ORDER BY number",
            (id_, key),
        )
        return [msgspec.json.decode(row[0]) for row in rows]

    def counts(self) -> dict[Status, int]:
        """How many jobs there are of each status."""
        found = dict(self._base.rows("SELECT status, COUNT(*) FROM jobs GROUP BY status"))
        return {status: found.get(status, 0) for status in Status}

    def running(self) -> dict[str, Job]:
        """The jobs that run, by id."""
        rows = self._base.rows(f"SELECT {COLUMNS} FROM jobs WHERE status = 'running' ORDER BY number")  # noqa: S608
        return {row[1]: job_of(row) for row in rows}

    def known(self) -> set[str]:
        """The ids of all jobs."""
        return {row[0] for row in self._base.rows("SELECT id FROM jobs")}

    def unchecked(self, model: str | None = None, most: int = 100) -> list[Job]:
        """The jobs whose files are to be checked, those that have waited longest first; at most `most`.

        With a `model`, those that were made for this base.
        """
        rows = self._base.rows(
            f"SELECT {COLUMNS} FROM jobs WHERE status = 'validating_files' "  # noqa: S608
            "AND model = COALESCE(?, model) ORDER BY number LIMIT ?",
            (model, most),
        )
        return [job_of(row) for row in rows]

    def record(self, id_: str, attempt: int, events: Sequence[TrainingEvent]) -> bool:
        """Writes down what the trainer says, all in one transaction; False when this attempt does not run the job."""
        now = self._clock()
        with self._base.writing():
            row = self._running(id_, attempt)
            if row is None:
                return False
            progress = job_of(row).progress
            for event in events:
                changes = self._record(row[0], event, progress, now)
                progress = msgspec.structs.replace(progress, **changes)
            self._base.execute("UPDATE jobs SET progress = ? WHERE number = ?", (msgspec.json.encode(progress), row[0]))
            self._trim(row[0])
        return True

    def keep_result(self, id_: str, attempt: int, result_file: str) -> bool:
        """Names the file that holds what was measured at every step."""
        with self._base.writing():
            row = self._running(id_, attempt)
            if row is not None:
                self._base.execute("UPDATE jobs SET result_file = ? WHERE number = ?", (result_file, row[0]))
        return row is not None

    def publishing(self, id_: str, attempt: int, ended: TrainingEnded) -> bool:
        """Says that all is learned; the job cannot be cancelled any more. False when it was before."""
        with self._base.writing():
            row = self._running(id_, attempt)
            if row is None:
                return False
            self._base.execute(
                "UPDATE jobs SET ended = ?, stopping = 0 WHERE number = ?", (msgspec.json.encode(ended), row[0])
            )
            tell(self._base, row[0], self._clock(), f"Step {ended.best_step} was the best; publishing it")
        return True

    def succeed(self, id_: str, attempt: int, model: str | None) -> bool:
        """Ends the job with the model's name, None when it made none that requests can ask for."""
        with self._base.writing():
            row = self._running(id_, attempt)
            if row is None:
                return False
            now = self._clock()
            move(self._base, row, Status.SUCCEEDED, now)
            self._base.execute("UPDATE jobs SET fine_tuned_model = ? WHERE number = ?", (model, row[0]))
            if model is not None:
                tell(self._base, row[0], now, f"New fine-tuned model created: {model}")
            tell(self._base, row[0], now, "The job has successfully completed")
        return True

    def fail(self, id_: str, attempt: int, error: JobError) -> bool:
        """Ends the job with the reason."""
        with self._base.writing():
            row = self._running(id_, attempt)
            if row is None:
                return False
            now = self._clock()
            move(self._base, row, Status.FAILED, now, error=error)
            tell(self._base, row[0], now, error.message, level="error", data={"code": error.code})
        return True

    def stopped(self, id_: str, attempt: int, *, again: bool) -> Job | None:
        """Says that the process has stopped before the end: the job is paused, or waits to go on with `again`.

        One that was asked to pause is paused in any case.
        """
        with self._base.writing():
            row = self._running(id_, attempt)
            if row is None:
                return None
            waits = again and not row[13]
            move(self._base, row, Status.QUEUED if waits else Status.PAUSED, self._clock())
            tell(self._base, row[0], self._clock(), "The job waits to go on" if waits else "The job was paused")
            return job_of(self._base.row(f"SELECT {COLUMNS} FROM jobs WHERE id = ?", (id_,)))  # noqa: S608

    def _trim(self, number: int) -> None:
        """Forgets the oldest events of a job that has too many."""
        self._base.execute(
            "DELETE FROM events WHERE job = ?1 AND number <= (SELECT last_event FROM jobs WHERE number = ?1) - ?2",
            (number, self._most_events),
        )

    def _running(self, id_: str, attempt: int) -> Any:
        return self._base.row(
            f"SELECT {COLUMNS} FROM jobs WHERE id = ? AND attempt = ? AND status = 'running'",  # noqa: S608
            (id_, attempt),
        )

    def _record(self, number: int, event: TrainingEvent, progress: Progress, now: float) -> dict[str, Any]:
        """Adds what `event` says to the job's events and checkpoints; gives what changes of its progress."""
        match event:
            case TrainingStarted():
                text = f"Training {event.rows} rows in {event.steps} steps"
                if event.resumed_at:
                    text += f", from step {event.resumed_at} on"
                recipe = {key: value for key, value in event.recipe.items() if key not in _PLACES}
                tell(self._base, number, now, text, data={"recipe": recipe})
                self._base.execute(
                    "UPDATE jobs SET settled = ? WHERE number = ?", (msgspec.json.encode(recipe), number)
                )
                # Steps after the checkpoint are learned again.
                point = self._base.row(
                    "SELECT metrics FROM checkpoints WHERE job = ? AND step = ?", (number, event.resumed_at)
                )
                tokens = 0 if point is None else int(msgspec.json.decode(point[0]).get("trained_tokens", 0))
                return {
                    "steps": event.steps,
                    "rows": event.rows,
                    "step": event.resumed_at,
                    "trained_tokens": tokens,
                }
            case TrainingEstimated():
                text = f"It will take about {event.seconds:.0f} s and {event.memory / 2**20:.0f} MiB"
                tell(self._base, number, now, text, data={"seconds": event.seconds, "memory": event.memory})
                return {"seconds": event.seconds, "told": now}
            case TrainingStep():
                data = {"step": event.step, "train_loss": event.loss} | msgspec.to_builtins(event)
                data.pop("type")
                tell(self._base, number, now, f"Step {event.step}: training loss={event.loss:.4f}", data=data)
                return {
                    "step": event.step,
                    "epoch": event.epoch,
                    "loss": event.loss,
                    "trained_tokens": progress.trained_tokens + event.trained_tokens,
                    "memory": event.memory,
                    "seconds": None if progress.seconds is None else max(0.0, progress.seconds - event.seconds),
                    "told": now,
                }
            case TrainingMeasured():
                text = f"Step {event.step}: validation loss={event.loss:.4f}"
                tell(self._base, number, now, text, data={"step": event.step, "valid_loss": event.loss})
                self._base.execute(
                    "UPDATE checkpoints SET metrics = json_set(metrics, '$.valid_loss', ?) WHERE job = ? AND step = ?",
                    (event.loss, number, event.step),
                )
                return {"measured": event.loss, "measured_at": event.step}
            case TrainingSaved():
                self._checkpoint(number, event, progress, now)
                text = f"Checkpoint created at step {event.step}"
                tell(self._base, number, now, text, data={"step": event.step})
            case TrainingEnded():
                tell(self._base, number, now, f"All is learned after step {event.step}", data=event.metrics)
            case TrainingFailed():
                pass  # `fail` tells it, when the process has ended
        return {}

    def _checkpoint(self, number: int, event: TrainingSaved, progress: Progress, now: float) -> None:
        metrics: dict[str, float] = {"step": event.step, "trained_tokens": progress.trained_tokens}
        if progress.step == event.step and progress.loss is not None:
            metrics["train_loss"] = progress.loss
        if progress.measured_at == event.step and progress.measured is not None:
            metrics["valid_loss"] = progress.measured
        self._base.execute(
            "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?, ?, ?)",
            (number, event.step, now, event.folder, event.adapter, msgspec.json.encode(metrics).decode()),
        )
        self._base.execute("UPDATE jobs SET losses = 0 WHERE number = ?", (number,))
