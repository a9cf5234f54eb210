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
from typing import Protocol

import msgspec

from ..adapters.durable import locked_if_free, replace_synced
from ..contract.errors import TunechatError, Unavailable
from ..contract.jobs import DONE, ORDER, PAUSED, TrainingEnded, TrainingEvent, TrainingOrder
from .background import aside
from .files import PURPOSES, FileStore
from .job import Job, JobError
from .process import TrainerProcess
from .queue import Claimed, JobQueue
from .run import Run

logger = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "tunechat.trainer")
LOG = "log"
RESULT = "step_metrics.csv"
_POLL_SECONDS = 1.0
_BLOCK = 1 << 20

# Stores what a training made and gives the model's name, None when requests cannot ask for it. It may be called again
# for the same job after a death, and must give the same version then. Raises TunechatError when it cannot.
Publish = Callable[[Job, TrainingEnded], Awaitable[str | None]]


class Follower(Protocol):
    """Whoever wants to know how jobs go. Nothing here may raise."""

    def heard(self, job: Job, event: TrainingEvent) -> None:
        """Takes an event of a running job that was written down. Returns at once: the trainer waits."""

    def left(self, job: Job) -> None:
        """Takes that this attempt at the job is over, whichever way."""

    async def forgotten(self, id_: str) -> None:
        """Takes that nobody knows the job any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """Where and how jobs run. `folder` has one folder for each job, `entry` is the prepared base that is served.

    `command` is started with the job's folder as its last argument. `threads` is how many cores training may use, 0
    for all. Jobs of another base than `model` wait; None takes all. `busy` is the file of BusyFile. A process that was
    asked to stop has `grace` seconds, and one that says nothing for `silence` is ended.
    """

    folder: Path
    entry: Path
    command: Sequence[str] = COMMAND
    threads: int = 0
    model: str | None = None
    busy: Path | None = None
    at_once: int = 1
    grace: float = 8.0
    silence: float = 3600.0
    most_log: int = 8 << 20


class Supervisor:
    """Runs the jobs of `queue`; nothing else changes a job that runs, except to cancel or pause it."""

    def __init__(
        self,
        queue: JobQueue,
        files: FileStore,
        place: Workplace,
        publish: Publish,
        follower: Follower | None = None,
    ) -> None:
        self._queue = queue
        self._files = files
        self._place = place
        self._publish = publish
        self._follower = follower
        self._running: dict[str, asyncio.Task[None]] = {}
        self._processes: dict[str, TrainerProcess] = {}
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
    def processes(self) -> dict[str, int]:
        """The trainers that run now: the process id of each job's guard, under which all others of it are."""
        return {id_: process.pid for id_, process in self._processes.items()}

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
                    await aside(self._files.sweep)
                    await self._sweep()
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
            claimed = await aside(self._queue.claim, tuple(self._running), self._place.model)
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

    async def _sweep(self) -> None:
        """Removes the folders of jobs that nobody knows any more."""

        def remove() -> list[str]:
            known = self._queue.known()
            folders = [one for one in self._place.folder.glob("ftjob-*") if one.name not in known]
            for folder in folders:
                if not folder.is_symlink():
                    shutil.rmtree(folder, ignore_errors=True)
            return [folder.name for folder in folders]

        for id_ in await aside(remove):
            if self._follower is not None:
                await self._follower.forgotten(id_)

    async def _run(self, claimed: Claimed) -> None:
        """Brings a job to wherever it goes from running, whatever happens."""
        job = claimed.job
        try:
            ended = claimed.ended or await self._train(job)
            if ended is not None:
                await self._finish(job, ended)
        except TunechatError as error:
            if self._is_stopping:
                # What is learned is on disk, and the next server goes on with it.
                logger.warning("job %s was cut off by the end of the server: %s", job.id, error)
                return
            await self._fail(job, JobError(code=error.code, message=error.message, param=error.param))
        except Exception:
            logger.exception("job %s failed by a defect of the server", job.id)
            await self._fail(job, JobError(code="internal_error", message="the server failed; its log says how"))
        finally:
            if self._follower is not None:
                self._follower.left(job)
        await self._tidy()

    async def _tidy(self) -> None:
        """Sweeps after a job: one that is made may have taken the place of an old one."""
        try:
            await self._sweep()
        except (TunechatError, OSError) as error:
            logger.error("folders of forgotten jobs cannot be removed now: %s", error)

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
            await self._keep_curve(job, ended)
            model = await self._publish(job, ended)
            await aside(self._queue.succeed, job.id, job.attempt, model)

    async def _keep_curve(self, job: Job, ended: TrainingEnded) -> None:
        """Stores what was measured at every step as a file of the job's owner, once."""
        if not ended.curve or job.result_file is not None:
            return
        try:
            stored = await self._files.add(job.tenant, RESULT, PURPOSES[1], _blocks(Path(ended.curve)))
            await aside(self._queue.keep_result, job.id, job.attempt, stored.id)
        except (TunechatError, OSError) as error:
            logger.warning("the result file of job %s cannot be stored: %s", job.id, error)
            text = "The file of results could not be stored"
            await aside(self._queue.note, job.id, text, level="warn", only=job.attempt)

    async def _train(self, job: Job) -> TrainingEnded | None:
        """What the trainer learned; None when it did not come to its end, and the queue knows why."""
        folder = self._place.folder / job.id
        try:
            names = await aside(self._prepare, job, folder)
            process = await TrainerProcess.start(
                (*self._place.command, str(folder)), folder / LOG, most_log=self._place.most_log
            )
        except OSError as error:
            raise Unavailable(
                f"the training cannot be started: {error.strerror or error}", code="trainer_failed"
            ) from error
        self._processes[job.id] = process
        run = Run(self._queue, job, folder, partial(self._heard, job), names)
        watching = asyncio.create_task(self._watch(job, process))
        try:
            await run.listen(process, self._place.silence)
            status = await process.ended(self._place.silence if run.error is None else 0)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await process.ended(0)
            del self._processes[job.id]
        return await self._conclude(job, process, run, status)

    async def _conclude(self, job: Job, process: TrainerProcess, run: Run, status: int) -> TrainingEnded | None:
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
            error = process.reason(status)
            await self._fail(job, msgspec.structs.replace(error, message=run.placeless(error.message)))
        return None

    def _heard(self, job: Job, event: TrainingEvent) -> None:
        if self._follower is not None:
            self._follower.heard(job, event)

    def _prepare(self, job: Job, folder: Path) -> dict[str, str]:
        """Writes the order; gives the files of the job by their paths, as their owner calls them."""
        recipe, names = dict(job.recipe), {}
        for key, file in (("data", job.training_file), ("validation", job.validation_file)):
            if file is not None:
                stored = self._files.read(job.tenant, file)
                recipe[key] = [str(stored.path.resolve())]
                names[recipe[key][0]] = stored.name
        order = TrainingOrder(
            job=job.id,
            recipe=recipe,
            entry=str(self._place.entry),
            threads=self._place.threads,
            busy="" if self._place.busy is None else str(self._place.busy.resolve()),
        )
        folder.mkdir(parents=True, exist_ok=True)
        replace_synced(folder / ORDER, msgspec.json.encode(order))
        return names

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


async def _blocks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while block := await asyncio.to_thread(file.read, _BLOCK):
            yield block
