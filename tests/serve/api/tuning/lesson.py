"""A job, what its trainer says, and where the notes about it are put up."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tunechat.serve.api.tuning.quiet import Pace
from tunechat.serve.contract.jobs import TrainingEnded, TrainingSaved, TrainingStarted
from tunechat.serve.jobs.job import Job, Status
from tunechat.tests.serve.api.harness import MODEL

JOB = Job(
    id="ftjob-0123456789abcdef",
    tenant="ann",
    status=Status.RUNNING,
    created=0.0,
    model=MODEL,
    recipe={"prompts": ["Who?", "Why?"]},
    request={},
)
# Tokens are bytes here, and tools take many.
ROOM = {"context": 1 << 14, "blocks": 4096, "chunk": 64}
PACE = Pace(quiet=0.02, patience=0.1, longest=5.0, look=0.005)

Notes = list[tuple[str, dict[str, Any]]]


class Wall:
    """Where notes are put up."""

    def __init__(self) -> None:
        self.notes: Notes = []
        self.came = asyncio.Condition()

    async def note(self, job: Job, message: str, data: dict[str, Any]) -> None:
        assert job.id == JOB.id
        self.notes.append((message, data))
        async with self.came:
            self.came.notify_all()

    async def until(self, count: int) -> Notes:
        async with self.came:
            await self.came.wait_for(lambda: len(self.notes) >= count)
        return self.notes

    @property
    def messages(self) -> list[str]:
        return [message for message, _ in self.notes]


def begun(resumed_at: int = 0, probes: Path | str = "", **recipe: Any) -> TrainingStarted:
    recipe = {"prompts": ("Who?", "Why?"), "answer_tokens": 8, "thinking": None} | recipe
    return TrainingStarted(recipe=recipe, rows=4, trained_tokens=9, steps=30, resumed_at=resumed_at, probes=str(probes))


def saved(step: int) -> TrainingSaved:
    return TrainingSaved(step=step, folder="c", adapter="a")


END = TrainingEnded(step=30, best_step=20, adapter="a")
