"""What is known of a job, and which status may follow which."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec

from ..contract.errors import Conflict


class Status(StrEnum):
    """Where a job is in its life, in the words of OpenAI's fine-tuning API."""

    VALIDATING = "validating_files"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})
OPEN = tuple(status for status in Status if status not in FINAL)

# A running job is queued again when its server stops. All others move forward, and nothing leaves a final status.
TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.VALIDATING: frozenset({Status.QUEUED, Status.FAILED, Status.CANCELLED}),
    Status.QUEUED: frozenset({Status.RUNNING, Status.PAUSED, Status.FAILED, Status.CANCELLED}),
    Status.RUNNING: frozenset({Status.QUEUED, Status.PAUSED, *FINAL}),
    Status.PAUSED: frozenset({Status.QUEUED, Status.CANCELLED}),
    **{status: frozenset() for status in FINAL},
}


def check_move(job: str, before: Status, after: Status) -> None:
    """Raises Conflict when a job that is `before` cannot become `after`."""
    if after not in TRANSITIONS[before]:
        raise Conflict(f"job {job} is {before}; it cannot become {after}", code="illegal_transition")


class JobError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job failed, in words for its user. `param` is the key of the recipe, or the place in the data."""

    code: str
    message: str
    param: str | None = None


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a job is: `step` of `steps` is done, with `trained_tokens` so far, over and over `rows` of the data.

    `loss` is that of the latest step, `measured` the latest on what is never learned from, after `measured_at` steps.
    `seconds` is the time that the rest takes by the latest measurement, told at `told`, in seconds since 1970.
    """

    step: int = 0
    steps: int = 0
    rows: int = 0
    epoch: float = 0.0
    loss: float | None = None
    measured: float | None = None
    measured_at: int = -1
    trained_tokens: int = 0
    memory: int = 0
    seconds: float | None = None
    told: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to be made. `recipe` holds the recipe's keys without the data, which are the files named by their ids.

    `request` is what the client asked for, as it is shown to it again. `suffix` is part of the model's name. A job
    whose files nobody has looked at begins as `validating_files` when `validate` is set.
    """

    tenant: str
    model: str
    recipe: dict[str, Any]
    training_file: str | None = None
    validation_file: str | None = None
    suffix: str | None = None
    request: dict[str, Any] = field(default_factory=dict)
    validate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as it is stored. Times are in seconds since 1970.

    `attempt` counts how often it was started. `stopping` says that a running one was asked to pause. `publishing` says
    that all is learned and the adapter is being stored. `metrics` are those of the best checkpoint. `settled` is the
    whole recipe without the data, once the trainer has chosen what `recipe` leaves to it.
    """

    id: str
    tenant: str
    status: Status
    created: float
    model: str
    recipe: dict[str, Any]
    request: dict[str, Any]
    suffix: str | None = None
    training_file: str | None = None
    validation_file: str | None = None
    result_file: str | None = None
    attempt: int = 0
    stopping: bool = False
    publishing: bool = False
    started: float | None = None
    finished: float | None = None
    progress: Progress = field(default_factory=Progress)
    metrics: dict[str, float] = field(default_factory=dict)
    error: JobError | None = None
    fine_tuned_model: str | None = None
    settled: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One thing that happened. `number` counts a job's events from 1 and is never given again.

    `level` is "info", "warn" or "error", `data` the numbers of a metric, empty for a message.
    """

    number: int
    created: float
    level: str
    message: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class JobCheckpoint:
    """A checkpoint on disk. `adapter` is a PEFT folder, "" after a full training; both lie in the job's folder."""

    step: int
    created: float
    folder: str
    adapter: str
    metrics: dict[str, float]
