"""What a training leaves in its folder: checkpoints with their cards, the learning curve, and at last its picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from torch import Tensor

from ..serve.contract.adapters import AdapterOrigin
from ..serve.contract.base import BaseManifest
from ..serve.contract.jobs import TrainingEnded, TrainingMeasured, TrainingSaved, TrainingStep
from .card import CardFacts, model_card
from .checkpoint import Checkpoint, Contents, State, prune, save_checkpoint
from .curve import CURVE, Curve
from .events import Events
from .lessons import Lessons
from .model import TrainedModel
from .picture import PICTURE, draw_curve


@dataclass(slots=True)
class Unsaved:
    """What the other processes of a training do instead, for which the first one saves and speaks."""

    saved: State
    curve: BytesIO = field(default_factory=BytesIO, init=False)

    def tell(self, event: TrainingStep | TrainingMeasured) -> None:
        pass

    def save(self, state: State, optimizer: dict[str, Tensor]) -> None:
        self.saved = state

    def end(self, state: State) -> None:
        pass


@dataclass(slots=True)
class Saving:
    """Saves one training of `steps` steps, of the job `job`, and tells of it. `saved` is the state that was last."""

    model: TrainedModel
    lessons: Lessons
    base: BaseManifest
    folder: Path
    events: Events
    job: str
    steps: int
    saved: State
    curve: Curve = field(init=False)

    def __post_init__(self) -> None:
        self.curve = Curve(self.folder / CURVE, self.saved.step)

    def tell(self, event: TrainingStep | TrainingMeasured) -> None:
        """Says what was done, and keeps it in the curve."""
        if isinstance(event, TrainingStep):
            self.curve.add(event)
        else:
            self.curve.measured(event.loss)
        self.events.send(event)

    def save(self, state: State, optimizer: dict[str, Tensor]) -> None:
        """Writes a checkpoint. Raises OSError when the disk is full; then those before are whole."""
        self.curve.sync()
        metrics = {} if state.best_loss is None else {"best_validation_loss": state.best_loss}
        origin = AdapterOrigin(
            source_fingerprint=self.base.source_fingerprint,
            weights_fingerprint=self.base.weights_fingerprint,
            base=self.base.name,
            template_hash=self.base.template_hash,
            dialect=self.lessons.dialect,
            job=self.job,
            data=self.lessons.fingerprint,
            metrics=metrics | {"step": float(state.step)},
        )
        contents = Contents(
            state=state,
            product=self.model.product(origin, self._card(state, metrics)),
            optimizer=optimizer,
        )
        made = save_checkpoint(self.folder, contents)
        self.saved = state
        prune(self.folder, self.lessons.recipe.keep_checkpoints, state.best_step)
        self.events.send(TrainingSaved(step=state.step, folder=str(made.folder), adapter=str(made.adapter or "")))

    def end(self, state: State) -> None:
        """Draws the curve and tells what was learned: the best checkpoint."""
        best = state.best_step or state.step
        metrics = {"trained_tokens": float(state.trained_tokens)}
        if state.best_loss is not None:
            metrics["validation_loss"] = state.best_loss
        made = self.model.publish(Checkpoint(self.folder / f"checkpoint-{best}", state), self.folder)
        picture = self.folder / PICTURE
        is_drawn = draw_curve(self.curve.path, picture, self.lessons.recipe.name)
        self.events.send(
            TrainingEnded(
                step=state.step,
                best_step=best,
                adapter=made.adapter,
                model=made.model,
                metrics=metrics,
                curve=str(self.curve.path),
                picture=str(picture) if is_drawn else "",
            )
        )

    def _card(self, state: State, metrics: dict[str, float]) -> str:
        lessons = self.lessons
        return model_card(
            CardFacts(
                recipe=lessons.recipe,
                base=self.base.name,
                data=lessons.fingerprint,
                rows=len(lessons.learned),
                held=len(lessons.held),
                step=state.step,
                steps=self.steps,
                trained_tokens=state.trained_tokens,
                metrics=metrics,
            )
        )
