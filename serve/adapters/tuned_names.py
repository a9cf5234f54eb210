"""Names of fine-tuned models, as OpenAI's API writes them, and what is stored of them under which name.

`ft:BASE:SUFFIX:ID8` is what job `ftjob-ID8...` made: the version of adapter SUFFIX that has the job's id as a label.
`ft:BASE:SUFFIX:ID8:ckpt-step-N` is the job's checkpoint of step N: the version with the label `step-N` of an adapter
that holds the checkpoints of this job alone. SUFFIX is empty for an adapter that has the job's own name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

JOB = "ftjob-"
_DIGITS = 8
# So that a name, the mark of checkpoints and the job's digits fit into the length that names may have.
_MOST = 45
_STEP = "step-"
_TUNED = re.compile(
    rf"ft:(?P<base>.+):(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{{0,63}}|):(?P<job>[0-9a-f]{{{_DIGITS}}})"
    r"(?::ckpt-step-(?P<step>0|[1-9][0-9]{0,8}))?",
    re.DOTALL,
)


def job_digits(job: str) -> str:
    """The part of a job's id that names carry: "01234567" of "ftjob-0123456789ab"."""
    return job.removeprefix(JOB)[:_DIGITS]


def own_name(job: str) -> str:
    """The adapter's name of a job that was given none: "tuned-01234567"."""
    return f"tuned-{job_digits(job)}"


def checkpoints_name(name: str, job: str) -> str:
    """The adapter that holds the checkpoints of the job that trains `name`: "support.ckpt-01234567"."""
    return f"{name[:_MOST]}.ckpt-{job_digits(job)}"


def step_label(step: int) -> str:
    """The label of the checkpoint of that step."""
    return f"{_STEP}{step}"


def tuned_name(base: str, name: str, job: str, step: int | None = None) -> str:
    """The fine-tuned model's name, or with `step` its checkpoint's. `name` is the adapter's, `job` the job's id."""
    return str(TunedName(base, name, job_digits(job), step))


def is_checkpoints(labels: Mapping[str, int]) -> bool:
    """Whether an adapter with these labels holds checkpoints of a job."""
    return any(label.startswith(_STEP) for label in labels)


@dataclass(frozen=True, slots=True)
class TunedName:
    """A parsed name: the model that was trained, the adapter, eight digits of the job, and the step of a checkpoint."""

    base: str
    name: str
    job: str
    step: int | None = None

    def __str__(self) -> str:
        suffix = "" if self.name == own_name(self.job) else self.name
        model = f"ft:{self.base}:{suffix}:{self.job}"
        return model if self.step is None else f"{model}:ckpt-{step_label(self.step)}"

    @property
    def adapter(self) -> str:
        """The name under which it is stored."""
        return self.name if self.step is None else checkpoints_name(self.name, self.job)

    def number(self, labels: Mapping[str, int]) -> int | None:
        """The version that it is, among the versions with these labels; None when there is none."""
        if self.step is not None:
            return labels.get(step_label(self.step))
        mark = f"{JOB}{self.job}"
        return max((number for label, number in labels.items() if label.startswith(mark)), default=None)


def parse_tuned(text: str) -> TunedName | None:
    """What a name means that one of the functions above wrote; None for any other text."""
    found = _TUNED.fullmatch(text)
    if found is None:
        return None
    base, name, job, step = found.group("base", "name", "job", "step")
    tuned = TunedName(base, name or own_name(job), job, None if step is None else int(step))
    return tuned if str(tuned) == text else None
