"""The fine-tuning jobs of a running server, as `tunechat ps` shows them: process, memory, step."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from .output import format_bytes, print_table

_TRAINER = re.compile(r'tunechat_trainer_(\w+)\{job="([0-9a-f]+)",pid="([0-9]+)"\} ([0-9.e+]+)', re.ASCII)
_STATUS = re.compile(r'tunechat_jobs\{status="(\w+)"\} ([0-9.e+]+)', re.ASCII)
_NUMBERS = ("step", "steps", "resident_bytes", "own_bytes")


def jobs_of(text: str) -> dict[str, Any]:
    """What metrics in the Prometheus text format say of jobs: `counts` by status, and the `trainers` that run.

    `own_bytes` leave out the pages of the base, which the engine has mapped too.
    """
    trainers: dict[tuple[str, str], dict[str, Any]] = {}
    for line in text.splitlines():
        if found := _TRAINER.fullmatch(line):
            name, job, pid, value = found.groups()
            trainer = trainers.setdefault((job, pid), {"job": job, "pid": int(pid), **dict.fromkeys(_NUMBERS, 0)})
            trainer[name] = int(float(value))
    counts = {found[1]: int(float(found[2])) for line in text.splitlines() if (found := _STATUS.fullmatch(line))}
    return {"counts": {status: count for status, count in counts.items() if count}, "trainers": [*trainers.values()]}


def job_rows(jobs: dict[str, Any], engine_bytes: int) -> list[tuple[str, str]]:
    """Lines for the table of `ps`; none for a server that has no jobs."""
    if not jobs["counts"] and not jobs["trainers"]:
        return []
    rows = [("jobs", ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in jobs["counts"].items()))]
    if jobs["trainers"]:
        own = sum(trainer["own_bytes"] for trainer in jobs["trainers"])
        rows.append(("memory in all", f"{format_bytes(engine_bytes + own)}, the base counted once"))
    return rows


def print_trainers(trainers: Sequence[dict[str, Any]]) -> None:
    """A table of the trainers that run."""
    print_table(
        ("job", "pid", "step", "memory", "of its own"),
        [
            (
                one["job"],
                one["pid"],
                f"{one['step']} of {one['steps']}",
                format_bytes(one["resident_bytes"]),
                format_bytes(one["own_bytes"]),
            )
            for one in trainers
        ],
    )
