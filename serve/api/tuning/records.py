"""Jobs, events and checkpoints as OpenAI's objects. What OpenAI does not have is in `progress` and `recipe`."""

from __future__ import annotations

from typing import Any

from ...contract.errors import InvalidRequest
from ...jobs.job import FINAL, Job, JobCheckpoint, JobEvent, Status
from .naming import adapter_name, checkpoint_id

_ORGANIZATION = "tunechat"
# Of a checkpoint's metrics, those that OpenAI has a place for.
_METRICS = ("step", "train_loss", "train_mean_token_accuracy", "valid_loss", "valid_mean_token_accuracy")


def job_record(job: Job) -> dict[str, Any]:
    """A `fine_tuning.job`."""
    numbers = hyperparameters(job)
    progress = job.progress
    return {
        "object": "fine_tuning.job",
        "id": job.id,
        "model": job.model,
        "status": str(job.status),
        "created_at": int(job.created),
        "finished_at": None if job.finished is None else int(job.finished),
        "estimated_finish": _estimated_finish(job),
        "fine_tuned_model": job.fine_tuned_model,
        "organization_id": _ORGANIZATION,
        "training_file": job.training_file or "",
        "validation_file": job.validation_file,
        "result_files": [] if job.result_file is None or job.status not in FINAL else [job.result_file],
        "trained_tokens": progress.trained_tokens if job.status in FINAL and job.started is not None else None,
        "error": None
        if job.error is None
        else {"code": job.error.code, "message": job.error.message, "param": job.error.param},
        "hyperparameters": numbers,
        "method": {"type": "supervised", "supervised": {"hyperparameters": numbers}},
        "seed": (job.settled or job.recipe).get("seed", 0),
        "integrations": [],
        "metadata": job.request.get("metadata"),
        "user_provided_suffix": job.suffix,
        "progress": {
            "step": progress.step,
            "steps": progress.steps,
            "epoch": progress.epoch,
            "loss": progress.loss,
            "valid_loss": progress.measured,
            "trained_tokens": progress.trained_tokens,
            "memory_bytes": progress.memory,
            "is_stopping": job.stopping,
            "is_publishing": job.publishing,
        },
        "metrics": job.metrics,
        "recipe": {**(job.settled or job.recipe), "name": adapter_name(job)},
    }


def hyperparameters(job: Job) -> dict[str, Any]:
    """What was asked for, and what the trainer has chosen since where that was "auto"."""
    asked = dict.fromkeys(("n_epochs", "batch_size", "learning_rate_multiplier"), "auto")
    asked |= job.request.get("hyperparameters", {})
    settled, progress = job.settled, job.progress
    if settled is not None:
        known: dict[str, Any] = {
            "n_epochs": _short(settled.get("epochs", "auto")),
            "learning_rate_multiplier": settled.get("lr_scale", 1.0),
        }
        if progress.rows and progress.steps:
            # Steps are filled by tokens where nothing else is asked for; this many rows they have on average.
            known["batch_size"] = max(1, round(progress.rows * settled.get("epochs", 1) / progress.steps))
        asked |= {key: value for key, value in known.items() if asked[key] == "auto"}
    return asked


def event_record(job: str, event: JobEvent) -> dict[str, Any]:
    """A `fine_tuning.job.event`."""
    return {
        "object": "fine_tuning.job.event",
        "id": _inner_id("ftevent", job, event.number),
        "created_at": int(event.created),
        "level": event.level,
        "message": event.message,
        "type": "metrics" if event.data else "message",
        "data": event.data or None,
    }


def checkpoint_record(job: Job, checkpoint: JobCheckpoint) -> dict[str, Any]:
    """A `fine_tuning.job.checkpoint`."""
    return {
        "object": "fine_tuning.job.checkpoint",
        "id": _inner_id("ftckpt", job.id, checkpoint.step),
        "created_at": int(checkpoint.created),
        "fine_tuning_job_id": job.id,
        "fine_tuned_model_checkpoint": checkpoint_id(job, checkpoint.step),
        "step_number": checkpoint.step,
        "metrics": {key: checkpoint.metrics[key] for key in _METRICS if key in checkpoint.metrics},
    }


def number_of(kind: str, job: str, id_: str) -> int:
    """The number that `event_record` or `checkpoint_record` have put into an id. Raises InvalidRequest."""
    number = id_.removeprefix(_inner_id(kind, job, ""))
    if number == id_ or not (number.isascii() and number.isdigit()) or len(number) > 12:
        raise InvalidRequest("There is no item of this id in the list.", param="after", code="invalid_value")
    return int(number)


def _inner_id(kind: str, job: str, number: int | str) -> str:
    return f"{kind}-{job.removeprefix('ftjob-')}-{number}"


def _estimated_finish(job: Job) -> int | None:
    progress = job.progress
    if job.status is not Status.RUNNING or progress.seconds is None:
        return None
    return int(progress.told + progress.seconds)


def _short(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value
