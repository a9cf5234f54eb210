"""What a model says while it learns: the same questions before, during and after, always through the engine.

Questions come one after another and wait for moments in which nobody else asks. They are worth less than requests: what
cannot be asked is left out and told, and no failure here ends a job.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...contract.errors import ModelNotFound, TunechatError
from ...contract.jobs import TrainingEnded, TrainingSaved, TrainingStarted
from ...jobs.job import Job
from ..errors import public_record
from ..gateway import Gateway
from .asking import Reply, ask
from .probes import MOST_ROWS, Probe, read_probes
from .quiet import NoMoment, Pace, wait_for_moment
from .rounds import At, Mark, Note, Round, figures_text, marks_of, shown
from .scores import RowScore, sum_up

log = logging.getLogger(__name__)

# The data of all events of a job so far.
Told = Callable[[Job], Awaitable[list[dict[str, Any]]]]
# Checkpoints at which tool calls are scored: after each third of the steps but the last.
_SCORED = 2
_TOO_MANY_REQUESTS = 429


@dataclass(slots=True)
class _Training:
    """What is known of a job in training. `scored` counts the thirds whose tool calls were scored."""

    recipe: dict[str, Any]
    steps: int = 0
    probes: Path | None = None
    scored: int = 0
    rows: int = MOST_ROWS
    told: set[Mark] = field(default_factory=set)


class Answers:
    """Answers to the prompts of recipes, and scores of tool calls, as events of their jobs by `note`.

    `told` gives the data of a job's earlier events, so that nothing is told twice when a job goes on after the death of
    its server. Of the rounds of a job one runs at a time, and a newer checkpoint replaces one that waits.
    """

    def __init__(self, gateway: Gateway, note: Note, *, told: Told | None = None, pace: Pace | None = None) -> None:
        self._gateway = gateway
        self._note = note
        self._told = told
        self._pace = pace or Pace()
        self._trainings: dict[str, _Training] = {}
        self._waiting: dict[tuple[str, At], Round] = {}
        self._worker: asyncio.Task[None] | None = None

    async def started(self, job: Job, event: TrainingStarted) -> None:
        """Has the base asked. Returns at once."""
        training = await self._training(job)
        training.recipe, training.steps = event.recipe, event.steps
        training.probes = Path(event.probes) if event.probes else None
        training.scored = max(training.scored, _thirds(event.resumed_at, event.steps))
        if not event.resumed_at or self._told is not None:
            self._add(training, job, "start", 0, self._gateway.settings.model)

    async def saved(self, job: Job, event: TrainingSaved, model: str) -> None:
        """Has the checkpoint asked, which requests call `model`. Returns at once; "" is a model nobody can ask."""
        if model:
            self._add(await self._training(job), job, "checkpoint", event.step, model)

    async def ended(self, job: Job, event: TrainingEnded, model: str) -> None:
        """Has the published version asked, and returns when all is told, or the time for that is over.

        To be called before the job ends, whose events are not looked at after that.
        """
        try:
            if model:
                self._waiting.pop((job.id, "checkpoint"), None)
                round_ = self._add(await self._training(job), job, "end", event.best_step, model)
                async with asyncio.timeout(self._pace.longest + self._pace.patience):
                    await round_.over.wait()
        except TimeoutError:
            await self._say(job, f"Step {event.best_step}: the job ends without the rest of the answers: out of time")
        finally:
            self.forget(job.id)

    def forget(self, job: str) -> None:
        """Asks no more for the job with the id `job`: it failed, or was cancelled."""
        self._trainings.pop(job, None)
        for key in [key for key in self._waiting if key[0] == job]:
            self._waiting.pop(key).over.set()

    async def close(self) -> None:
        """Stops asking."""
        for job in list(self._trainings):
            self.forget(job)
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    async def _training(self, job: Job) -> _Training:
        if job.id not in self._trainings:
            training = _Training(dict(job.recipe))
            if self._told is not None:
                try:
                    training.told = marks_of(await self._told(job))
                except TunechatError as error:
                    log.warning("what job %s has told cannot be read; it may tell it again", job.id, exc_info=error)
            self._trainings.setdefault(job.id, training)
        return self._trainings[job.id]

    def _add(self, training: _Training, job: Job, at: At, step: int, model: str) -> Round:
        round_ = Round.of(job, at, step, model, training.recipe, training.probes)
        self._waiting[job.id, at] = round_
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work(), name="sample answers")
        return round_

    async def _work(self) -> None:
        while self._waiting:
            round_ = self._waiting.pop(next(iter(self._waiting)))
            training = self._trainings.get(round_.job.id)
            try:
                if training is not None:
                    await self._ask_all(round_, training)
            except Exception:
                log.exception("the answers at step %d of job %s failed", round_.step, round_.job.id)
            finally:
                round_.over.set()

    async def _ask_all(self, round_: Round, training: _Training) -> None:
        """Asks the prompts, then the requests with tools, as long as there is time."""
        deadline = asyncio.get_running_loop().time() + self._pace.longest
        try:
            async with asyncio.timeout_at(deadline):
                await self._ask_prompts(round_, training)
            await self._ask_probes(round_, training, deadline)
        except TimeoutError:
            reason = f"they took longer than {self._pace.longest:g} s"
        except (NoMoment, ModelNotFound) as error:
            reason = str(error)
        else:
            return
        await self._say(round_.job, f"Step {round_.step}: no more answers at this step: {reason}")

    async def _ask_prompts(self, round_: Round, training: _Training) -> None:
        for prompt in round_.prompts:
            if round_.mark(prompt) in training.told or not self._is_known(round_):
                continue
            about = f"'{shown(prompt)}'"
            try:
                reply = await self._ask(round_, round_.question(prompt))
            except TunechatError as error:
                if isinstance(error, ModelNotFound):
                    raise
                await self._say(round_.job, f"Step {round_.step}: no answer to {about}: {_reason(error)}")
                continue
            data = round_.data(reply.model, prompt=prompt, answer=reply.turn.text, finish_reason=reply.turn.reason)
            await self._say(round_.job, f"Step {round_.step}: answer to {about}", data)
            training.told.add(round_.mark(prompt))

    async def _ask_probes(self, round_: Round, training: _Training, deadline: float) -> None:
        third = _thirds(round_.step, training.steps)
        is_due = round_.at != "checkpoint" or third > training.scored
        if round_.probes is None or not is_due or round_.mark(None) in training.told:
            return
        try:
            probes = await asyncio.to_thread(read_probes, round_.probes, training.rows)
        except (TunechatError, OSError) as error:
            await self._say(round_.job, f"Step {round_.step}: tool calls were not scored: {_reason(error)}")
            return
        scored = _Scored()
        try:
            async with asyncio.timeout_at(deadline):
                await self._score(round_, probes, scored)
        except TimeoutError:
            if not scored.rows:
                raise
            # Later rounds ask the same rows, so that their figures can be compared.
            training.rows = scored.asked
        if round_.at == "checkpoint":
            training.scored = third
        await self._tell_score(round_, training, scored)

    async def _score(self, round_: Round, probes: list[Probe], scored: _Scored) -> None:
        for probe in probes:
            if not self._is_known(round_):
                scored.rows.clear()
                return
            try:
                reply = await self._ask(round_, round_.request(probe.request))
            except TunechatError as error:
                if isinstance(error, ModelNotFound):
                    raise
                scored.problem = scored.problem or _reason(error)
            else:
                scored.model = reply.model
                scored.rows.append(probe.score(reply.turn))
            scored.asked += 1

    async def _tell_score(self, round_: Round, training: _Training, scored: _Scored) -> None:
        if scored.rows:
            figures = sum_up(scored.rows)
            text = f"Step {round_.step}: tool calls: {figures_text(figures)}"
            await self._say(round_.job, text, round_.data(scored.model, **figures))
            training.told.add(round_.mark(None))
        if scored.problem:
            missing = scored.asked - len(scored.rows)
            text = f"Step {round_.step}: {missing} requests with tools could not be asked: {scored.problem}"
            await self._say(round_.job, text)

    async def _ask(self, round_: Round, request: dict[str, Any]) -> Reply:
        """The answer, at a moment that disturbs nobody; once more where the engine was the problem."""
        await wait_for_moment(self._gateway, self._pace)
        try:
            return await ask(self._gateway, round_.job.tenant, request)
        except TunechatError as error:
            if error.http_status != _TOO_MANY_REQUESTS and error.http_status < 500:
                raise
        await wait_for_moment(self._gateway, self._pace)
        return await ask(self._gateway, round_.job.tenant, request)

    def _is_known(self, round_: Round) -> bool:
        return round_.job.id in self._trainings

    async def _say(self, job: Job, message: str, data: dict[str, Any] | None = None) -> None:
        try:
            await self._note(job, message, data or {})
        except TunechatError as error:
            log.warning("job %s: not written down: %s", job.id, message, exc_info=error)


@dataclass(slots=True)
class _Scored:
    """The rows of a round that were `asked`: in order, those that could be scored, and why others could not."""

    rows: list[RowScore] = field(default_factory=list)
    asked: int = 0
    model: str = ""
    problem: str = ""


def _thirds(step: int, steps: int) -> int:
    """How many thirds of the training are over, the last one not counted."""
    return min(_SCORED, 3 * step // steps) if steps else 0


def _reason(error: Exception) -> str:
    return public_record(error).message if isinstance(error, TunechatError) else "the file cannot be read"
