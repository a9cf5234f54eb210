"""What the server does about the events of a job: its checkpoints and its model become ones that requests can ask for.

Events are taken at once and worked off in the background, in order; the trainer waits for nothing of it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from ...adapters.tuned_names import checkpoints_name, step_label
from ...contract.adapters import AdapterManifest
from ...contract.errors import Conflict, NameTaken, TunechatError
from ...contract.jobs import TrainingEnded, TrainingEvent, TrainingSaved, TrainingStarted
from ...jobs.background import aside
from ...jobs.job import Job
from ...jobs.queue import JobQueue
from ..errors import public_record
from ..gateway import Gateway
from .naming import adapter_name, checkpoint_id, model_id, owner_of

log = logging.getLogger(__name__)

MOST_CHECKPOINTS = 10
# How long another change of the adapter's name is waited for, and how long checkpoints that are still being stored.
_PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 0.5
# A folder of the job's for checkpoints that have yet to be stored.
_HELD = "held"


class Asking(Protocol):
    """Whoever asks models questions while they learn. All return soon, except `ended`."""

    async def started(self, job: Job, event: TrainingStarted) -> None: ...

    async def saved(self, job: Job, event: TrainingSaved, model: str) -> None: ...

    async def ended(self, job: Job, event: TrainingEnded, model: str) -> None: ...

    def forget(self, job: str) -> None: ...


@dataclass(slots=True)
class _Backlog:
    """The events of one job that have to be worked off, and the task that does."""

    events: asyncio.Queue[TrainingStarted | TrainingSaved] = field(default_factory=asyncio.Queue)
    worker: asyncio.Task[None] | None = None


class Following:
    """Follows the jobs of one supervisor. `nudge` is called whenever something about a job has changed."""

    def __init__(
        self,
        gateway: Gateway,
        queue: JobQueue,
        asking: Asking | None,
        nudge: Callable[[], None],
        admins: Collection[str],
    ) -> None:
        self._gateway = gateway
        self._queue = queue
        self._asking = asking
        self._nudge = nudge
        self._admins = admins
        self._backlogs: dict[str, _Backlog] = {}

    def heard(self, job: Job, event: TrainingEvent) -> None:
        """Takes an event; the work that it makes is done later."""
        self._nudge()
        if isinstance(event, TrainingStarted | TrainingSaved):
            if isinstance(event, TrainingSaved) and event.adapter:
                event = msgspec.structs.replace(event, adapter=str(_held(job, event)))
            backlog = self._backlogs.setdefault(job.id, _Backlog())
            backlog.events.put_nowait(event)
            if backlog.worker is None:
                backlog.worker = asyncio.create_task(self._work(job, backlog), name=f"events of {job.id}")

    def left(self, job: Job) -> None:
        """Drops what is left to do for a job that does not run any more."""
        backlog = self._backlogs.pop(job.id, None)
        if backlog is not None and backlog.worker is not None:
            backlog.worker.cancel()
        if self._asking is not None:
            self._asking.forget(job.id)
        self._nudge()

    async def forgotten(self, id_: str) -> None:
        """Removes the checkpoints of a job that nobody knows any more; its model stays."""
        mark = checkpoints_name("", id_)
        try:
            stored = await asyncio.to_thread(self._gateway.adapters.store.all)
            for name in [one.name for one in stored if one.name.endswith(mark)]:
                await self._gateway.adapters.remove(name)
        except (TunechatError, OSError) as error:
            log.warning("checkpoints of job %s cannot be removed: %s", id_, error)

    async def publish(self, job: Job, ended: TrainingEnded) -> str | None:
        """Stores the adapter, makes its name mean it, and gives the model's id; None after a full training.

        The same job again is the same version. Raises TunechatError.
        """
        await self._catch_up(job)
        if not ended.adapter:
            await self._note(
                job, f"The model is in jobs/{job.id}/{Path(ended.model).name}, in the server's home folder"
            )
            return None
        name, owner = adapter_name(job), owner_of(job.tenant, self._admins)
        publish = self._gateway.adapters.publish
        await _in_turn(lambda: publish(name, Path(ended.adapter), activate=True, owner=owner, label=job.id))
        model = model_id(job)
        if self._asking is not None:
            await self._asking.ended(job, ended, model)
        return model

    async def _catch_up(self, job: Job) -> None:
        """Waits until the checkpoints are stored, for a while."""
        backlog = self._backlogs.get(job.id)
        if backlog is not None:
            try:
                await asyncio.wait_for(backlog.events.join(), _PATIENCE_SECONDS)
            except TimeoutError:
                log.warning("the checkpoints of job %s are not all stored at its end", job.id)

    async def _work(self, job: Job, backlog: _Backlog) -> None:
        while True:
            event = await backlog.events.get()
            try:
                await self._answer(job, event)
            except TunechatError as error:
                log.warning("job %s: nothing was done about %s: %s", job.id, type(event).__name__, error)
            except Exception:
                log.exception("an event of job %s could not be worked off", job.id)
            finally:
                backlog.events.task_done()

    async def _answer(self, job: Job, event: TrainingStarted | TrainingSaved) -> None:
        if isinstance(event, TrainingSaved):
            model = await self._keep(job, event)
            if self._asking is not None:
                await self._asking.saved(job, event, model)
        elif self._asking is not None:
            await self._asking.started(job, event)

    async def _keep(self, job: Job, event: TrainingSaved) -> str:
        """Lets requests ask for the checkpoint, and gives its name; "" when they cannot, which is told."""
        if not event.adapter:
            return ""
        try:
            await _in_turn(
                lambda: self._gateway.adapters.add_checkpoint(
                    checkpoints_name(adapter_name(job), job.id),
                    Path(event.adapter),
                    owner=owner_of(job.tenant, self._admins),
                    label=step_label(event.step),
                    keep=MOST_CHECKPOINTS,
                )
            )
        except (TunechatError, OSError) as error:
            said = public_record(error).message if isinstance(error, TunechatError) else "its files cannot be read"
            log.warning("checkpoint %d of job %s cannot be stored: %s", event.step, job.id, error)
            await self._note(job, f"The checkpoint of step {event.step} cannot be asked for: {said}", level="warn")
            return ""
        finally:
            await asyncio.to_thread(_let_go, Path(event.adapter))
        return checkpoint_id(job, event.step)

    async def _note(self, job: Job, message: str, *, level: str = "info", data: dict[str, Any] | None = None) -> None:
        await aside(self._queue.note, job.id, message, level=level, data=data, only=job.attempt)
        self._nudge()


def _held(job: Job, event: TrainingSaved) -> Path:
    """Links to the checkpoint's files: a trainer that saves faster than this server stores removes its old ones.

    Where none can be made, the checkpoint itself.
    """
    adapter = Path(event.adapter)
    home = next((folder for folder in adapter.parents if folder.name == job.id), adapter.parent)
    held = home / _HELD / f"step-{event.step}"
    try:
        shutil.rmtree(held, ignore_errors=True)
        held.mkdir(parents=True)
        for file in adapter.iterdir():
            os.link(file, held / file.name)
    except OSError as error:
        log.warning("checkpoint %d of job %s cannot be held: %s", event.step, job.id, error)
        shutil.rmtree(held, ignore_errors=True)
        return adapter
    return held


def _let_go(adapter: Path) -> None:
    if adapter.parent.name == _HELD:
        shutil.rmtree(adapter, ignore_errors=True)


async def _in_turn(change: Callable[[], Awaitable[AdapterManifest]]) -> AdapterManifest:
    """What `change` gives, after other changes of the name. Raises what it raises, Conflict after a while."""
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return await change()
        except Conflict as error:
            if isinstance(error, NameTaken) or time.monotonic() > end:
                raise
        await asyncio.sleep(_PAUSE_SECONDS)
