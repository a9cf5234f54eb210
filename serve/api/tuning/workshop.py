"""The fine-tuning jobs of one server: kept from its start, run from the moment that its base is known."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.requests import Request

from ...contract.errors import Forbidden, Unavailable, Unsupported
from ...jobs.background import aside
from ...jobs.busy import BusyFile
from ...jobs.inquiry import Inquiries
from ...jobs.job import Job, Status
from ...jobs.queue import JobQueue
from ...jobs.store import JobStore
from ...jobs.supervisor import COMMAND, Supervisor, Workplace
from ...jobs.validation import Validator
from ..auth import tenant_of
from ..files.shelf import Shelf
from ..gateway import Gateway
from .answers import Answers
from .following import Following
from .trainers import TrainerCollector

log = logging.getLogger(__name__)

_FOLDER = "jobs"
_BUSY = ".busy"
_COUNT_SECONDS = 2.0


class Workshop:
    """Opens with its lifespan, which must be inside the shelf's. `inquiries` asks about recipes and data.

    `command` is how a trainer is started. `counts` and `running` are the jobs as they were a moment ago.
    """

    def __init__(self, gateway: Gateway, shelf: Shelf, inquiries: Inquiries, command: Sequence[str] = COMMAND) -> None:
        settings = gateway.settings
        self._gateway = gateway
        self._shelf = shelf
        self._command = command
        gateway.metrics.watch(TrainerCollector(self))
        self._admins = frozenset({"", *map(tenant_of, settings.admin_keys)})
        self.inquiries = inquiries
        self._jobs: JobStore | None = None
        self._queue: JobQueue | None = None
        self._supervisor: Supervisor | None = None
        self._validator: Validator | None = None
        self._changed = asyncio.Event()
        self._stopped = asyncio.Event()
        self.counts: Mapping[Status, int] = {}
        self.running: Mapping[str, Job] = {}

    @property
    def jobs(self) -> JobStore:
        """Raises Unsupported when this server runs no jobs, and Unavailable when it cannot."""
        if self._gateway.settings.job_store is None or self._gateway.settings.adapter_store is None:
            raise Unsupported("This server runs no fine-tuning jobs.")
        if self._jobs is None:
            raise Unavailable("Jobs can be neither stored nor read now; see the server's log.", code="store_failed")
        return self._jobs

    @property
    def processes(self) -> dict[str, int]:
        """The process of each running job, under which all its others are."""
        return {} if self._supervisor is None else self._supervisor.processes

    def check_may_train(self, tenant: str) -> None:
        """Raises Forbidden for who makes a model that all would see, and may not change what all see."""
        settings = self._gateway.settings
        if tenant:
            return
        if settings.admin_keys:
            raise Forbidden("Fine-tuning needs a key here: what it makes without one is everybody's.")
        if settings.is_public and settings.is_open:
            raise Forbidden("Nobody may train on a public server without keys.")

    def nudge(self) -> None:
        """Says that something about a job has changed: its followers look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    def changed(self) -> asyncio.Event:
        """An event that is set at the next change."""
        return self._changed

    def wake(self) -> None:
        """The same, to those who check and run jobs too: one was made, cancelled, paused or resumed."""
        if self._validator is not None:
            self._validator.wake()
        if self._supervisor is not None:
            self._supervisor.wake()
        self.nudge()

    async def stopped(self) -> None:
        """Returns when no job runs any more, and none will: the server leaves."""
        await self._stopped.wait()

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Jobs run inside. On exit the running ones write a checkpoint, and wait for the next server to go on."""
        base = self._shelf.base
        if base is None or self._gateway.settings.adapter_store is None:
            yield
            return
        self._jobs, self._queue = JobStore(base), JobQueue(base)
        closing = asyncio.Event()
        self._stopped.clear()
        tasks = [asyncio.create_task(self._work(self._queue, closing)), asyncio.create_task(self._count(self._queue))]
        try:
            yield
        finally:
            closing.set()
            await asyncio.gather(tasks[0], return_exceptions=True)
            tasks[1].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, queue: JobQueue, closing: asyncio.Event) -> None:
        """Runs jobs until the server leaves."""
        drain = self._gateway.drain
        ends = [asyncio.create_task(one.wait()) for one in (closing, drain.began)]
        try:
            settled = asyncio.create_task(self._gateway.settled.wait())
            await asyncio.wait([*ends, settled], return_when=asyncio.FIRST_COMPLETED)
            settled.cancel()
            if self._gateway.failure is not None or any(end.done() for end in ends):
                return
            async with self._validating(self.jobs, queue), self._supervising(queue):
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        except Exception:
            log.exception("no fine-tuning job can be run")
        finally:
            for end in ends:
                end.cancel()
            self._stopped.set()

    @contextlib.asynccontextmanager
    async def _validating(self, jobs: JobStore, queue: JobQueue) -> AsyncIterator[None]:
        entry = Path(self._gateway.info.entry)
        model = self._gateway.settings.model
        validator = Validator(jobs, queue, self._shelf.files, self.inquiries.ask, entry, self.wake, model)
        async with validator.lifespan():
            self._validator = validator
            yield
        self._validator = None

    @contextlib.asynccontextmanager
    async def _supervising(self, queue: JobQueue) -> AsyncIterator[None]:
        gateway, settings, root = self._gateway, self._gateway.settings, self._shelf.root
        busy = await asyncio.to_thread(BusyFile, root / _FOLDER / _BUSY)
        gateway.drain.tell_busy = busy.set
        busy.set(gateway.drain.is_generating)
        place = Workplace(
            folder=root / _FOLDER,
            entry=Path(gateway.info.entry),
            command=self._command,
            threads=settings.train_threads,
            model=settings.model,
            busy=busy.path,
        )
        answers = Answers(gateway, self._note, told=self._told)
        following = Following(gateway, queue, answers, self.nudge, self._admins)
        supervisor = Supervisor(queue, self._shelf.files, place, following.publish, following)
        try:
            async with supervisor.lifespan():
                self._supervisor = supervisor
                yield
        finally:
            self._supervisor = None
            await answers.close()
            gateway.drain.tell_busy = None
            busy.close()

    async def _count(self, queue: JobQueue) -> None:
        """Keeps what /metrics tells: nobody who scrapes waits for the disk."""
        while True:
            changed = self._changed
            try:
                self.counts = await aside(queue.counts)
                self.running = await aside(queue.running)
            except Unavailable as error:
                log.error("jobs cannot be counted now: %s", error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), _COUNT_SECONDS)
            # A trainer of quick steps says much.
            await asyncio.sleep(_COUNT_SECONDS / 10)

    async def _note(self, job: Job, message: str, data: dict[str, Any]) -> None:
        if self._queue is not None:
            await aside(self._queue.note, job.id, message, data=data, only=job.attempt)
            self.nudge()

    async def _told(self, job: Job) -> list[dict[str, Any]]:
        return [] if self._queue is None else await aside(self._queue.told, job.id, "at")


def workshop_of(request: Request) -> Workshop:
    """The workshop of the application that `request` came to."""
    workshop: Workshop = request.app.state.workshop
    return workshop
