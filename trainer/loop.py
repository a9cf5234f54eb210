"""The training itself: batches, steps, measurements and checkpoints, from wherever the last checkpoint stands."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import torch

from ..serve.contract.base import BaseManifest
from ..serve.contract.errors import ConfigError
from ..serve.contract.jobs import TrainingEstimated, TrainingMeasured, TrainingStarted, TrainingStep
from .chance import get_chance, set_chance
from .checkpoint import State, checkpoints
from .data.packing import BatchOrder, Grouping, Position, join
from .divergence import Diverged, Health, Watch
from .estimate import Work, estimate
from .events import Events
from .lessons import Lessons
from .memory import used_memory
from .model import TrainedModel
from .optimizer import Optimizer, optimizer_for
from .probes import write_probes
from .saving import Saving, Unsaved
from .schedule import Schedule
from .workers import Workers

_TIMES = 10

Batches = Iterator[tuple[Position, tuple[int, ...]]]


@dataclass(slots=True)
class Training:
    """One run. `should_stop` is asked between micro-steps, and may take its time; what `folder` holds is gone on from.

    A micro-step is a batch that is learned or measured. `job` is the id that adapters keep.
    """

    model: TrainedModel
    lessons: Lessons
    base: BaseManifest
    folder: Path
    events: Events
    should_stop: Callable[[], bool]
    job: str = ""
    workers: Workers = field(default_factory=Workers)
    _order: BatchOrder = field(init=False)
    # Batches of a step, those of all workers.
    _taken: int = field(init=False)
    _steps: int = field(init=False)
    _schedule: Schedule = field(init=False)
    _watch: Watch = field(init=False)
    _optimizer: Optimizer = field(init=False)
    # How many batches an epoch has, the one that was asked for last.
    _counted: tuple[int, int] = field(default=(-1, 0), init=False)

    def __post_init__(self) -> None:
        recipe = self.lessons.recipe
        fitting: Grouping = "pack" if self.model.isolates else "group"
        grouping = fitting if recipe.packing == "auto" else recipe.packing
        lengths = [len(row.tokens) for row in self.lessons.learned]
        self._order = BatchOrder(lengths, recipe.batch_tokens, recipe.seed, grouping, recipe.batch_rows)
        self._taken = recipe.accumulation * self.workers.size
        batches = len(self._order.batches(0))
        self._steps = recipe.steps or max(1, math.ceil(batches * recipe.epochs / self._taken))
        self._schedule = Schedule(recipe.lr * recipe.lr_scale, self._steps, recipe.warmup, recipe.schedule)
        self._watch = Watch(self._steps, self.base.vocab_size)
        kind = optimizer_for(recipe.optimizer, self.model.device)
        self._optimizer = Optimizer(self.model.parameters, recipe.weight_decay, kind, self.workers)

    def run(self) -> bool:
        """Trains to the end: True. When asked to stop, writes a checkpoint: False.

        Raises Diverged, OutOfMemory before the first step when memory will not do, OSError when a checkpoint cannot be
        written, and ConfigError when the folder holds checkpoints of another training.
        """
        lessons, state = self.lessons, self._resumed()
        self.events.send(
            TrainingStarted(
                recipe=lessons.recipe.model_dump(mode="json"),
                rows=len(lessons.learned),
                trained_tokens=sum(row.trained for row in lessons.learned),
                steps=self._steps,
                resumed_at=state.step,
                probes=write_probes(self.folder, lessons.probes) if self.workers.is_first else "",
            )
        )
        if not state.step:
            begun = self._estimated(state)
            if begun is None:
                return False
            state = begun
        saving = self._saving(state)
        with closing(saving.curve):
            return self._train(state, saving)

    def _saving(self, state: State) -> Saving | Unsaved:
        if not self.workers.is_first:
            return Unsaved(state)
        return Saving(self.model, self.lessons, self.base, self.folder, self.events, self.job, self._steps, saved=state)

    def _train(self, state: State, saving: Saving | Unsaved) -> bool:
        # Chance as it stands behind the last whole step, whatever happens within the next one.
        chance = get_chance(self.model.device)
        batches = self._order.after(Position(state.epoch, state.index))
        began = time.monotonic()
        ended = not state.unmeasured and (state.step >= self._steps or self._is_worse(state))
        while not ended:
            if not state.unmeasured:
                done = self._step(batches, state, saving, began)
                if done is None:
                    return self._stopped(state, saving, chance)
                state, began = done, time.monotonic()
                chance = get_chance(self.model.device)
            watched = self._watched(state, saving)
            if watched is None:
                return self._stopped(msgspec.structs.replace(state, unmeasured=True), saving, chance)
            state = watched
            ended = state.step >= self._steps or self._is_worse(state)
            due = state.step % self._every(self.lessons.recipe.save_steps) == 0
            if ended or due or state.best_step == state.step:
                saving.save(state, self._optimizer.tensors())
        saving.end(state)
        return True

    def _step(self, batches: Batches, state: State, saving: Saving | Unsaved, began: float) -> State | None:
        """One step of the optimizer; None when asked to stop before it was whole."""
        recipe, rows = self.lessons.recipe, self.lessons.learned
        taken = [next(batches) for _ in range(self._taken)]
        joined = [join([rows[number] for number in numbers]) for _, numbers in taken]
        weight = sum(float(row.weights.sum()) for row in joined)
        loss = 0.0
        for row in self.workers.share(joined):
            if self._is_asked_to_stop():
                return None
            loss += self.model.learn(row, 1 / weight) / weight
        loss = self.workers.total(loss)
        rate = self._schedule.rate(state.step)
        norm = self._optimizer.step(rate, recipe.max_grad_norm)
        step, position = state.step + 1, taken[-1][0]
        health = self._watch.after(state.health, step, loss, norm, rate)
        trained = sum(row.trained for row in joined)
        event = TrainingStep(
            step=step,
            epoch=self._epochs(position),
            loss=loss,
            rate=rate,
            gradient_norm=norm,
            trained_tokens=trained,
            tokens=sum(len(row.tokens) for row in joined),
            seconds=time.monotonic() - began,
            memory=int(self.workers.total(used_memory(self.model.device))),
        )
        saving.tell(event)
        return msgspec.structs.replace(
            state,
            step=step,
            epoch=position.epoch,
            index=position.index,
            trained_tokens=state.trained_tokens + trained,
            health=health,
        )

    def _watched(self, state: State, saving: Saving | Unsaved) -> State | None:
        """The state after a measurement, where one is due; None when asked to stop before it was made."""
        is_due = state.step >= self._steps or state.step % self._every(self.lessons.recipe.eval_steps) == 0
        if not self.lessons.held or not is_due:
            return state
        loss = self._measured()
        if loss is None:
            return None
        saving.tell(TrainingMeasured(step=state.step, loss=loss))
        if not math.isfinite(loss):
            raise Diverged(f"After step {state.step} the validation loss was no number any more.", param="lr")
        state = msgspec.structs.replace(state, unmeasured=False)
        if state.best_loss is None or loss < state.best_loss:
            return msgspec.structs.replace(state, best_step=state.step, best_loss=loss, worse=0)
        return msgspec.structs.replace(state, worse=state.worse + 1)

    def _measured(self) -> float | None:
        """The mean loss over all learned tokens of the rows that are held back; None when asked to stop."""
        rows, total = self.lessons.held, 0.0
        order = BatchOrder([len(row.tokens) for row in rows], self.lessons.recipe.batch_tokens)
        batches, size = order.batches(0), self.workers.size
        for start in range(0, len(batches), size):
            if self._is_asked_to_stop():
                return None
            for batch in self.workers.share(batches[start : start + size]):
                total += self.model.measure(join([rows[number] for number in batch]))
        return self.workers.total(total) / sum(float(row.weights.sum()) for row in rows)

    def _stopped(self, state: State, saving: Saving | Unsaved, chance: torch.Tensor) -> bool:
        """False. A checkpoint is written where there is anything to go on from that is in none yet."""
        if state.step and state != saving.saved:
            set_chance(self.model.device, chance)
            saving.save(state, self._optimizer.tensors())
        return False

    def _resumed(self) -> State:
        """The state of the newest checkpoint, whose numbers model and optimizer have now; a fresh one without."""
        fresh = State(step=0, lessons=self.lessons.fingerprint, base=self.base.weights_fingerprint)
        newest = next(iter(checkpoints(self.folder)), None)
        if newest is None:
            return fresh
        if (newest.state.lessons, newest.state.base) != (fresh.lessons, fresh.base):
            raise ConfigError(
                f"{newest.folder.name} was made from other data or another base than this training has now; start it "
                "anew, in another folder.",
                param="data",
            )
        self.model.load(newest)
        self._optimizer.load(newest.optimizer_tensors())
        return newest.state

    def _estimated(self, state: State) -> State | None:
        """The state with what the base's loss is, once it is told what training will take; None when asked to stop."""
        rows, held, recipe = self.lessons.learned, self.lessons.held, self.lessons.recipe
        tokens = [sum(len(rows[number].tokens) for number in batch) for batch in self._order.batches(0)]
        longest = self._order.batches(0)[tokens.index(max(tokens))]
        times = math.ceil(self._steps / self._every(recipe.eval_steps)) if held else 0
        found = estimate(
            self.model,
            Work(
                recipe=recipe,
                longest=[rows[number] for number in longest],
                mean=sum(tokens) / len(tokens),
                batches=self._steps * recipe.accumulation,
                measured_tokens=times * sum(len(row.tokens) for row in held),
                saves=max(times, math.ceil(self._steps / self._every(recipe.save_steps))),
                optimizer=self._optimizer.bytes_to_come,
            ),
            self._is_asked_to_stop,
        )
        if found is None:
            return None
        memory = int(self.workers.total(found.memory))
        self.events.send(TrainingEstimated(memory=memory, seconds=found.seconds))
        health = Health(loss=found.loss, count=1) if math.isfinite(found.loss) else Health()
        return msgspec.structs.replace(state, health=health)

    def _is_asked_to_stop(self) -> bool:
        """Whether one of the workers is, so that all are at the same moment."""
        return self.workers.any(self.should_stop())

    def _is_worse(self, state: State) -> bool:
        """Whether measurements have not become better for so long that it ends."""
        return 0 < self.lessons.recipe.patience <= state.worse

    def _epochs(self, position: Position) -> float:
        """How often the data was gone through."""
        if self._counted[0] != position.epoch:
            self._counted = position.epoch, len(self._order.batches(position.epoch))
        return position.epoch + position.index / max(1, self._counted[1])

    def _every(self, given: int) -> int:
        return given or max(1, self._steps // _TIMES)
