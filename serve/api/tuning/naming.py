"""What the models of a job are called, and whose they are."""

from __future__ import annotations

from collections.abc import Collection

from ...jobs.job import Job

_PREFIX = "ftjob-"
_DIGITS = 8
_LONGEST_STEM = 45


def short_id(job_id: str) -> str:
    """The part of a job's id that stands in the names of its models."""
    return job_id.removeprefix(_PREFIX)[:_DIGITS]


def adapter_name(job: Job) -> str:
    """The name under which the job's adapter is stored."""
    return job.suffix or f"tuned-{short_id(job.id)}"


def model_id(job: Job) -> str:
    """OpenAI's name of the model: `ft:BASE:SUFFIX:ID8`."""
    return f"ft:{job.model}:{job.suffix or ''}:{short_id(job.id)}"


def checkpoint_mark(job_id: str) -> str:
    """How the name ends under which the job's checkpoints are stored."""
    return f".ckpt-{short_id(job_id)}"


def checkpoint_name(job: Job) -> str:
    """The name whose versions are the job's checkpoints."""
    return adapter_name(job)[:_LONGEST_STEM] + checkpoint_mark(job.id)


def checkpoint_label(step: int) -> str:
    """The label of the version that is the checkpoint of `step`."""
    return f"step-{step}"


def checkpoint_id(job: Job, step: int) -> str:
    """By which requests ask for the checkpoint of `step`."""
    return f"{model_id(job)}:ckpt-{checkpoint_label(step)}"


def owner_of(tenant: str, admins: Collection[str]) -> str:
    """Who may use what `tenant` makes: "" is everybody, for what an admin makes and where there are no keys."""
    return "" if tenant in admins else tenant
