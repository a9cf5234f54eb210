"""Checks the files of jobs before they are trained on, one job after another."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from ..contract.errors import TunechatError
from ..contract.inquiry import AskCheck, Checked
from .background import aside
from .files import FileStore
from .inquiry import LONG, Limits
from .job import Job, JobError
from .queue import JobQueue
from .store import JobStore

logger = logging.getLogger(__name__)

CODE = "invalid_training_file"
_PARAMS = {"data": "training_file", "validation": "validation_file"}
_POLL_SECONDS = 1.0
_TRIES = 3
_MOST_WARNINGS = 20


class Ask(Protocol):
    """Asks the trainer's child; `Inquiries.ask` is the one that does."""

    def __call__(
        self, question: AskCheck, kind: type[Checked], limits: Limits = ..., *, patient: bool = ...
    ) -> Awaitable[Checked]: ...


class Validator:
    """Takes jobs from `validating_files` to `queued`, or to `failed` with what is wrong and how to mend it.

    `entry` is the folder of the prepared base that is served. What happened to a job before a restart does not matter:
    its check begins anew. `checked` is called after each. Jobs of another base than `model`
    wait; None takes all.
    """

    def __init__(
        self,
        jobs: JobStore,
        queue: JobQueue,
        files: FileStore,
        ask: Ask,
        entry: Path,
        checked: Callable[[], None] | None = None,
        model: str | None = None,
    ) -> None:
        self._jobs = jobs
        self._queue = queue
        self._files = files
        self._ask = ask
        self._entry = entry
        self._checked = checked
        self._model = model
        self._woken = asyncio.Event()
        self._tries: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Files are checked inside. On exit a check that runs is broken off."""
        working = asyncio.create_task(self._work())
        try:
            yield
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    def wake(self) -> None:
        """Looks for jobs now: one was made or cancelled."""
        self._woken.set()

    async def _work(self) -> None:
        while True:
            try:
                waiting = await aside(self._queue.unchecked, self._model)
                self._tries = Counter({job.id: self._tries[job.id] for job in waiting if job.id in self._tries})
                for job in waiting:
                    await self._take(job)
            except TunechatError as error:
                logger.error("files of fine-tuning jobs cannot be checked now: %s", error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), _POLL_SECONDS)
            self._woken.clear()

    async def _take(self, job: Job) -> None:
        """Checks the job's files, unless it is cancelled meanwhile."""
        checking = asyncio.create_task(self._check(job))
        try:
            while not checking.done():
                await asyncio.wait([checking], timeout=_POLL_SECONDS)
                if not checking.done() and all(
                    one.id != job.id for one in await aside(self._queue.unchecked, self._model)
                ):
                    return
        finally:
            checking.cancel()
            await asyncio.gather(checking, return_exceptions=True)
        verdict = checking.result()
        if verdict is not None:
            error, warnings = verdict
            await aside(self._jobs.validated, job.id, error, warnings)
            if self._checked is not None:
                self._checked()

    async def _check(self, job: Job) -> tuple[JobError | None, list[str]] | None:
        """What is wrong with the job, if anything is, and what may be; None where that cannot be said now."""
        try:
            question = await aside(self._question, job)
            checked = await self._ask(question, Checked, LONG, patient=True)
        except Exception as error:
            if isinstance(error, TunechatError) and error.http_status < 500:
                # A key of the recipe is no file's fault.
                is_key = error.code == "invalid_value"
                code, param = (error.code, error.param) if is_key else (CODE, _PARAMS["data"])
                return JobError(code=code, message=error.message, param=param), []
            logger.exception("the files of job %s cannot be checked", job.id)
            self._tries[job.id] += 1
            if self._tries[job.id] < _TRIES:
                return None
            return JobError(code="internal_error", message="the files could not be checked; see the server's log"), []
        warnings = list(_warnings(checked))
        if checked.stops is None:
            return None, warnings
        message = checked.stops.message
        if checked.stopping > 1:
            message += f" ({checked.stopping - 1} more such problems; POST /v1/data/check lists them)"
        return JobError(code=CODE, message=message, param=_PARAMS.get(checked.where)), warnings

    def _question(self, job: Job) -> AskCheck:
        recipe: dict[str, Any] = dict(job.recipe)
        names: dict[str, str] = {}
        for key, file in (("data", job.training_file), ("validation", job.validation_file)):
            if file is not None:
                stored = self._files.read(job.tenant, file)
                path = str(stored.path.resolve())
                recipe[key] = [path]
                names[path] = stored.name
        return AskCheck(recipe=recipe, entry=str(self._entry), names=names, trains=True)


def _warnings(checked: Checked) -> Iterator[str]:
    """Problems that stop no training, in words."""
    problems = checked.report.get("problems", [])
    told = checked.stops.message if checked.stops is not None else ""
    shown = 0
    for problem in problems:
        place = problem["file"] + (f":{problem['line']}" if problem["line"] else "")
        field = f"{problem['field']}: " if problem["field"] else ""
        text = f"{place}: {field}{problem['what']}; {problem['mend']}"
        if text == told:
            continue
        shown += 1
        if shown > _MOST_WARNINGS:
            break
        yield text
    total = checked.report.get("errors", 0) + checked.report.get("warnings", 0) - bool(told)
    if total > _MOST_WARNINGS:
        yield f"{total - _MOST_WARNINGS} more problems were found; POST /v1/data/check lists them"
