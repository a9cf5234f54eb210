"""Works the queue off: one trainer's process a job, watched, stopped when asked, and its end told in words.

The queue is the truth. Whoever changes a job there, another process included, is heard within a second, or at once
after `wake`. Only one supervisor of a home works at a time: it holds a lock that dies with its process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from ..adapters.durable import locked_if_free, replace_synced
from ..contract.errors import TunechatError, Unavailable
from ..contract.jobs import (
    DONE,
    ORDER,
    PAUSED,
    TrainingEnded,
    TrainingEvent,
    TrainingFailed,
    TrainingOrder,
    TrainingSaved,
)
from .background import aside
from .files import FileStore
from .job import Job, JobError
from .process import BadOutput, TrainerProcess
from .queue import Claimed, JobQueue

logger = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "tunechat.trainer")
LOG = "log"
_POLL_SECONDS = 1.0

# Stores what a training made and gives the model's name. It may be called again for the same job after a death, and
# must give the same version then. Raises TunechatError when it cannot.
Publish = Callable[[Job, TrainingEnded], Awaitable[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """Where and how jobs run. `folder` has one folder for each job, `entry` is the prepared base that is served.

    `command` is started with the job's folder as its last argument. `threads` is how many cores training may use, 0
    for all. A process that was asked to stop has `grace` seconds, and one that says nothing for `silence` is ended.
    """

    folder: Path
    entry: Path
    command: Sequence[str] = COMMAND
    threads: int = 0
    at_once: int = 1
    grace: float = 8.0
    silence: float = 3600.0
    most_log: int = 8 << 20


class Supervisor:
    """Runs the jobs of `queue`; nothing else changes a job that runs, except to cancel or pause it."""

    def __init__(self, queue: JobQueue, files: FileStore, place: Workplace, publish: Publish) -> None:
        self._queue = queue
        self._files = files
        self._place = place
        self._publish = publish
        self._running: dict[str, asyncio.Task[None]] = {}
        self._woken = asyncio.Event()
        self._changed = asyncio.Event()
        self._is_stopping = False

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Jobs run inside. On exit the running ones write a checkpoint, stop, and wait in the queue to go on."""
        working = asyncio.create_task(self._work())
        try:
            yield
        finally:
            self._is_stopping = True
            self.wake()
            await working

    def wake(self) -> None:
        """Looks at the queue now: a job was made or changed."""
        self._woken.set()
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def processes(self) -> int:
        """How many jobs run now."""
        return len(self._running)

    async def _work(self) -> None:
        while not self._is_stopping:
            try:
                with locked_if_free(self._place.folder / ".lock") as is_free:
                    if is_free:
                        await self._work_alone()
            except OSError as error:
                logger.error("fine-tuning jobs cannot be run now: %s", error)
            await self._wait()

    async def _work_alone(self) -> None:
        is_recovered = False
        while not self._is_stopping:
            try:
                if not is_recovered:
                    await aside(self._queue.recover)
                    await aside(self._sweep)
                    is_recovered = True
                await self._fill()
            except (TunechatError, OSError) as error:
                # A full disk or a locked database ends; the queue waits for that.
                logger.error("the queue of fine-tuning jobs cannot be worked off now: %s", error)
            await self._wait()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _fill(self) -> None:
        """Starts jobs while there is room for them."""
        while len(self._running) < self._place.at_once:
            claimed = await aside(self._queue.claim, tuple(self._running))
            if claimed is None:
                return
            task = asyncio.create_task(self._run(claimed))
            self._running[claimed.job.id] = task
            task.add_done_callback(partial(self._done, claimed.job.id))

    def _done(self, id_: str, _: asyncio.Task[None]) -> None:
        self._running.pop(id_, None)
        self.wake()

    async def _wait(self) -> None:
        if self._is_stopping:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), _POLL_SECONDS)
        self._woken.clear()

    def _sweep(self) -> None:
        """Removes the folders of jobs that nobody knows any more, and files of dead uploads."""
        known = self._queue.known()
        for folder in self._place.folder.glob("ftjob-*"):
            if folder.name not in known and not folder.is_symlink():
                shutil.rmtree(folder, ignore_errors=True)
        self._files.sweep()

    async def _run(self, claimed: Claimed) -> None:
        """Brings a job to wherever it goes from running, whatever happens."""
        job = claimed.job
        try:
            ended = claimed.ended or await self._train(job)
            if ended is not None:
                await self._finish(job, ended)
        except TunechatError as error:
            await self._fail(job, JobError(code=error.code, message=error.message, param=error.param))
        except Exception:
            logger.exception("job %s failed by a defect of the server", job.id)
            await self._fail(job, JobError(code="internal_error", message="the server failed; its log says how"))

    async def _fail(self, job: Job, error: JobError) -> None:
        """Says it until it is written: a disk that is full must not leave the job running for ever."""
        while True:
            try:
                await aside(self._queue.fail, job.id, job.attempt, error)
                return
            except TunechatError as problem:
                logger.error("job %s failed (%s), which cannot be written down: %s", job.id, error.message, problem)
                if self._is_stopping:
                    return
                await asyncio.sleep(_POLL_SECONDS)

    async def _finish(self, job: Job, ended: TrainingEnded) -> None:
        if await aside(self._queue.publishing, job.id, job.attempt, ended):
            model = await self._publish(job, ended)
            await aside(self._queue.succeed, job.id, job.attempt, model)

    async def _train(self, job: Job) -> TrainingEnded | None:
        """What the trainer learned; None when it did not come to its end, and the queue knows why."""
        folder = self._place.folder / job.id
        try:
            await aside(self._prepare, job, folder)
            process = await TrainerProcess.start(
                (*self._place.command, str(folder)), folder / LOG, most_log=self._place.most_log
            )
        except OSError as error:
            raise Unavailable(
                f"the training cannot be started: {error.strerror or error}", code="trainer_failed"
            ) from error
        run = _Run(self._queue, job, folder)
        watching = asyncio.create_task(self._watch(job, process))
        try:
            await run.listen(process, self._place.silence)
            status = await process.ended(self._place.silence if run.error is None else 0)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await process.ended(0)
        return await self._conclude(job, process, run, status)

    async def _conclude(self, job: Job, process: TrainerProcess, run: _Run, status: int) -> TrainingEnded | None:
        if run.error is not None:
            await self._fail(job, run.error)
        elif status == DONE and run.end is not None:
            return run.end
        elif status == DONE:
            await self._fail(
                job, JobError(code="trainer_failed", message="the training ended and did not say what it learned")
            )
        elif status == PAUSED or process.was_asked:
            # One that was stopped from outside, by nobody here, is paused, so that it does not start again and again.
            await aside(self._queue.stopped, job.id, job.attempt, again=process.was_asked)
        else:
            await self._fail(job, process.reason(status))
        return None

    def _prepare(self, job: Job, folder: Path) -> None:
        recipe = dict(job.recipe)
        for key, file in (("data", job.training_file), ("validation", job.validation_file)):
            if file is not None:
                recipe[key] = [str(self._files.read(job.tenant, file).path.resolve())]
        order = TrainingOrder(job=job.id, recipe=recipe, entry=str(self._place.entry), threads=self._place.threads)
        folder.mkdir(parents=True, exist_ok=True)
        replace_synced(folder / ORDER, msgspec.json.encode(order))

    async def _watch(self, job: Job, process: TrainerProcess) -> None:
        """Ends the process when the job is cancelled, paused, or the server stops; kills it after the grace."""
        while True:
            changed = self._changed
            try:
                now = await aside(self._queue.state, job.id, job.attempt)
            except TunechatError as error:
                logger.error("job %s cannot be looked up now: %s", job.id, error)
            else:
                if now is None or now.stopping or self._is_stopping:
                    break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), _POLL_SECONDS)
        process.ask_to_stop()
        await asyncio.sleep(self._place.grace)
        process.kill()


class _Run:
    """What one process has said so far. `error` is why it must end, or has said that it does."""

    def __init__(self, queue: JobQueue, job: Job, folder: Path) -> None:
        self._queue = queue
        self._job = job
        self._folder = folder.resolve()
        self.end: TrainingEnded | None = None
        self.error: JobError | None = None

    async def listen(self, process: TrainerProcess, silence: float) -> None:
        """Writes down what the process says, up to its end or its first error."""
        try:
            async for events in process.events(silence):
                checked = [self._checked(event) for event in events]
                await aside(self._queue.record, self._job.id, self._job.attempt, checked)
                for event in checked:
                    if isinstance(event, TrainingEnded):
                        self.end = event
                    elif isinstance(event, TrainingFailed):
                        self.error = JobError(code=event.code, message=event.message, param=event.param)
                if self.error is not None:
                    return
        except BadOutput as error:
            self.error = JobError(code="trainer_failed", message=str(error))

    def _checked(self, event: TrainingEvent) -> TrainingEvent:
        """`event` with full paths. Raises BadOutput for one outside of the job's folder."""
        match event:
            case TrainingSaved():
                return msgspec.structs.replace(
                    event, folder=self._inside(event.folder), adapter=self._inside(event.adapter)
                )
            case TrainingEnded():
                return msgspec.structs.replace(
                    event, adapter=self._inside(event.adapter), model=self._inside(event.model)
                )
        return event

    def _inside(self, place: str) -> str:
        if not place:
            return ""
        path = (self._folder / place).resolve()
        if not path.is_relative_to(self._folder):
            raise BadOutput("the training named a folder that is not the job's")
        return str(path)
