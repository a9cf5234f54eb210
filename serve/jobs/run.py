"""What one trainer's process says, written down: checked, told on, and without the places of this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from ..contract.jobs import TrainingEnded, TrainingEvent, TrainingFailed, TrainingSaved, TrainingStarted
from .background import aside
from .job import Job, JobError
from .process import BadOutput, TrainerProcess
from .queue import JobQueue


class Run:
    """What one process has said so far. `end` is what it learned, `error` why it must end, or has said that it does.

    `heard` is called with each event after it was written down. `names` says what the files of the job are called.
    """

    def __init__(
        self, queue: JobQueue, job: Job, folder: Path, heard: Callable[[TrainingEvent], None], names: Mapping[str, str]
    ) -> None:
        self._queue = queue
        self._job = job
        self._folder = folder.resolve()
        self._heard = heard
        self._names = {**names, f"{self._folder}/": "", str(self._folder): "the job's folder"}
        self.end: TrainingEnded | None = None
        self.error: JobError | None = None

    async def listen(self, process: TrainerProcess, silence: float) -> None:
        """Writes down what the process says, up to its end or its first error."""
        try:
            async for events in process.events(silence):
                checked = [self._checked(event) for event in events]
                is_ours = await aside(self._queue.record, self._job.id, self._job.attempt, checked)
                for event in checked:
                    if isinstance(event, TrainingEnded):
                        self.end = event
                    elif isinstance(event, TrainingFailed):
                        self.error = JobError(code=event.code, message=event.message, param=event.param)
                    if is_ours:
                        self._heard(event)
                if self.error is not None:
                    return
        except BadOutput as error:
            self.error = JobError(code="trainer_failed", message=str(error))

    def placeless(self, text: str) -> str:
        """`text` with the names that its owner knows, in place of paths."""
        for path, name in self._names.items():
            text = text.replace(path, name)
        return text

    def _checked(self, event: TrainingEvent) -> TrainingEvent:
        """`event` with full paths. Raises BadOutput for one outside of the job's folder."""
        match event:
            case TrainingStarted():
                return msgspec.structs.replace(event, probes=self._inside(event.probes))
            case TrainingSaved():
                return msgspec.structs.replace(
                    event, folder=self._inside(event.folder), adapter=self._inside(event.adapter)
                )
            case TrainingEnded():
                places = {key: self._inside(getattr(event, key)) for key in ("adapter", "model", "curve", "picture")}
                return msgspec.structs.replace(event, **places)
            case TrainingFailed():
                return msgspec.structs.replace(event, message=self.placeless(event.message))
        return event

    def _inside(self, place: str) -> str:
        if not place:
            return ""
        path = (self._folder / place).resolve()
        if not path.is_relative_to(self._folder):
            raise BadOutput("the training named a folder that is not the job's")
        return str(path)
