"""The training itself: batches, steps, measurements and checkpoints, from wherever the last checkpoint stands."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import torch

from ..serve.contract.adapters import AdapterOrigin
from ..serve.contract.base import BaseManifest
from ..serve.contract.errors import ConfigError, TunechatError
from ..serve.contract.jobs import (
    TrainingEnded,
    TrainingEstimated,
    TrainingMeasured,
    TrainingSaved,
    TrainingStarted,
    TrainingStep,
)
from .checkpoint import Checkpoint, Contents, State, checkpoints, prune, save_checkpoint
from .data.packing import BatchOrder, Grouping, Position, join
from .data.row import Row
from .events import Events
from .lessons import Lessons
from .memory import used_memory
from .model import TrainedModel
from .optimizer import Optimizer
from .schedule import Schedule

_TIMES = 10


class Diverged(TunechatError):
    """The loss or its gradients are no numbers any more."""

    code = "training_diverged"
    http_status = 422


@dataclass(slots=True)
class Training:
    """One run. `should_stop` is asked between micro-steps; what `folder` holds is gone on from."""

    model: TrainedModel
    lessons: Lessons
    base: BaseManifest
    folder: Path
    events: Events
    should_stop: Callable[[], bool]
    _saved: int = field(default=-1, init=False)

    def run(self) -> bool:
        """Trains to the end: True. When asked to stop, writes a checkpoint: False.

        Raises Diverged, OSError when a checkpoint cannot be written, and ConfigError when the folder holds checkpoints
        of another training.
        """
        recipe, rows = self.lessons.recipe, self.lessons.learned
        order = self._order()
        steps = recipe.steps or max(1, math.ceil(len(order.batches(0)) * recipe.epochs / recipe.accumulation))
        schedule = Schedule(recipe.lr, steps, recipe.warmup, recipe.schedule)
        optimizer = Optimizer(self.model.parameters, recipe.weight_decay)
        state = self._resumed(optimizer)
        self.events.send(
            TrainingStarted(
                recipe=recipe.model_dump(mode="json"),
                rows=len(rows),
                trained_tokens=sum(row.trained for row in rows),
                steps=steps,
                resumed_at=state.step,
            )
        )
        # Chance as it stands behind the last whole step, whatever happens within the next one.
        chance = torch.random.get_rng_state()
        if not state.step:
            self._estimate(order, steps * recipe.accumulation, optimizer)
        batches = order.after(Position(state.epoch, state.index))
        began = time.monotonic()
        ended = state.step >= steps or 0 < recipe.patience <= state.worse
        while not ended:
            done = self._step(batches, optimizer, schedule, state, began)
            if done is None:
                if state.step and self._saved != state.step:
                    torch.random.set_rng_state(chance)
                    self._save(state, optimizer.tensors())
                return False
            state, began = done, time.monotonic()
            state, ended = self._watched(state, steps)
            chance = torch.random.get_rng_state()
            if ended or state.step % self._every(recipe.save_steps, steps) == 0 or state.best_step == state.step:
                self._save(state, optimizer.tensors())
        self._end(state)
        return True

    def _step(
        self,
        batches: Iterator[tuple[Position, tuple[int, ...]]],
        optimizer: Optimizer,
        schedule: Schedule,
        state: State,
        began: float,
    ) -> State | None:
        """One step of the optimizer; None when asked to stop before it was whole."""
        recipe, rows = self.lessons.recipe, self.lessons.learned
        taken = [next(batches) for _ in range(recipe.accumulation)]
        joined = [join([rows[number] for number in numbers]) for _, numbers in taken]
        weight = sum(float(row.weights.sum()) for row in joined)
        loss = 0.0
        for row in joined:
            if self.should_stop():
                return None
            loss += self.model.learn(row, 1 / weight) / weight
        rate = schedule.rate(state.step)
        norm = optimizer.step(rate, recipe.max_grad_norm)
        step = state.step + 1
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise Diverged(
                f"At step {step} the {'loss' if not math.isfinite(loss) else 'gradient'} was no number any more. "
                f"The learning rate stood at {rate:.2g}; try a lower lr, or a longer warmup.",
                param="lr",
            )
        position = taken[-1][0]
        trained = sum(row.trained for row in joined)
        after = msgspec.structs.replace(
            state,
            step=step,
            epoch=position.epoch,
            index=position.index,
            trained_tokens=state.trained_tokens + trained,
        )
        self.events.send(
            TrainingStep(
                step=step,
                epoch=self._epochs(position),
                loss=loss,
                rate=rate,
                gradient_norm=norm,
                trained_tokens=trained,
                tokens=sum(len(row.tokens) for row in joined),
                seconds=time.monotonic() - began,
                memory=used_memory(self.model.device),
            )
        )
        return after

    def _watched(self, state: State, steps: int) -> tuple[State, bool]:
        """The state after a measurement, where one is due, and whether training is over."""
        recipe, last = self.lessons.recipe, state.step >= steps
        if not self.lessons.held or not (last or state.step % self._every(recipe.eval_steps, steps) == 0):
            return state, last
        loss = self._measure()
        self.events.send(TrainingMeasured(step=state.step, loss=loss))
        if not math.isfinite(loss):
            raise Diverged(f"After step {state.step} the validation loss was no number any more.", param="lr")
        if state.best_loss is None or loss < state.best_loss:
            return msgspec.structs.replace(state, best_step=state.step, best_loss=loss, worse=0), last
        state = msgspec.structs.replace(state, worse=state.worse + 1)
        return state, last or 0 < recipe.patience <= state.worse

    def _measure(self) -> float:
        """The mean loss over all learned tokens of the rows that are held back."""
        rows = self.lessons.held
        order = BatchOrder([len(row.tokens) for row in rows], self.lessons.recipe.batch_tokens)
        total = sum(self.model.measure(join([rows[number] for number in batch])) for batch in order.batches(0))
        return total / sum(float(row.weights.sum()) for row in rows)

    def _save(self, state: State, tensors: dict[str, torch.Tensor]) -> None:
        recipe = self.lessons.recipe
        metrics = {} if state.best_loss is None else {"best_validation_loss": state.best_loss}
        origin = AdapterOrigin(
            source_fingerprint=self.base.source_fingerprint,
            weights_fingerprint=self.base.weights_fingerprint,
            base=self.base.name,
            template_hash=self.base.template_hash,
            dialect=self.lessons.dialect,
            metrics=metrics | {"step": float(state.step)},
        )
        contents = Contents(
            state=state,
            adapter=self.model.adapter(),
            adapter_config=self.model.adapter_config,
            optimizer=tensors,
            origin=origin,
            linears=self.base.linears,
        )
        saved = save_checkpoint(self.folder, contents)
        self._saved = state.step
        prune(self.folder, recipe.keep_checkpoints, state.best_step)
        self.events.send(TrainingSaved(step=state.step, folder=str(saved.folder), adapter=str(saved.adapter)))

    def _end(self, state: State) -> None:
        best = state.best_step or state.step
        metrics = {"trained_tokens": float(state.trained_tokens)}
        if state.best_loss is not None:
            metrics["validation_loss"] = state.best_loss
        folder = self.folder / f"checkpoint-{best}"
        adapter = Checkpoint(folder, state).adapter
        self.events.send(TrainingEnded(step=state.step, best_step=best, adapter=str(adapter), metrics=metrics))

    def _resumed(self, optimizer: Optimizer) -> State:
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
        self.model.load(newest.adapter_tensors())
        optimizer.load(newest.optimizer_tensors())
        self._saved = newest.state.step
        return newest.state

    def _estimate(self, order: BatchOrder, batches: int, optimizer: Optimizer) -> None:
        """Computes the longest batch once, and leaves nothing changed."""
        rows = self.lessons.learned
        lengths = [[len(rows[number].tokens) for number in batch] for batch in order.batches(0)]
        longest = max(order.batches(0), key=lambda batch: sum(len(rows[number].tokens) for number in batch))
        chance, began = torch.random.get_rng_state(), time.monotonic()
        row: Row = join([rows[number] for number in longest])
        self.model.learn(row, 1.0)
        seconds = time.monotonic() - began
        memory = used_memory(self.model.device)
        optimizer.forget()
        torch.random.set_rng_state(chance)
        mean = sum(map(sum, lengths)) / len(lengths)
        self.events.send(TrainingEstimated(memory=memory, seconds=seconds * batches * mean / len(row.tokens)))

    def _order(self) -> BatchOrder:
        recipe = self.lessons.recipe
        grouping: Grouping = "pack" if recipe.packing == "auto" else recipe.packing
        lengths = [len(row.tokens) for row in self.lessons.learned]
        return BatchOrder(lengths, recipe.batch_tokens, recipe.seed, grouping, recipe.batch_rows)

    def _epochs(self, position: Position) -> float:
        return position.epoch + position.index / max(1, len(self._order().batches(position.epoch)))

    def _every(self, given: int, steps: int) -> int:
        return given or max(1, steps // _TIMES)
