"""What the models of a job are called, and whose they are."""

from __future__ import annotations

from collections.abc import Collection

from ...adapters.tuned_names import own_name, tuned_name
from ...jobs.job import Job


def adapter_name(job: Job) -> str:
    """The name under which the job's adapter is stored."""
    return job.suffix or own_name(job.id)


def model_id(job: Job) -> str:
    """OpenAI's name of the model."""
    return tuned_name(job.model, adapter_name(job), job.id)


def checkpoint_id(job: Job, step: int) -> str:
    """By which requests ask for the checkpoint of `step`."""
    return tuned_name(job.model, adapter_name(job), job.id, step)


def owner_of(tenant: str, admins: Collection[str]) -> str:
    """Who may use what `tenant` makes: "" is everybody, for what an admin makes and where there are no keys."""
    return "" if tenant in admins else tenant
