"""What the server and a trainer's process tell one another: an order in a file, events as lines, signals.

The server starts `python -m tunechat.trainer FOLDER`. FOLDER holds `order.json`, a TrainingOrder; the trainer keeps all
that it writes in there. Each line of its standard output is one event as JSON; standard error is for people. SIGTERM
asks it to stop at the next micro-step: it writes a checkpoint and exits with PAUSED. Started again on the same folder,
it goes on from the newest checkpoint that is whole.
"""

from __future__ import annotations

from typing import Any

import msgspec

DONE, FAILED, PAUSED = 0, 1, 75
ORDER = "order.json"


class TrainingOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What to train. `recipe` holds the keys that were given, with paths to data as the trainer can open them.

    `entry` is the folder of the prepared base that is served, `threads` how many cores training may use, 0 for all.
    `busy` is a file whose first byte is not zero while requests are being answered; "" when there is no server.
    """

    job: str
    recipe: dict[str, Any]
    entry: str
    threads: int = 0
    busy: str = ""


class TrainingStarted(msgspec.Struct, frozen=True, kw_only=True, tag="started"):
    """`recipe` is complete now: every key has its value. `resumed_at` is the step that a checkpoint was taken at.

    `probes` is a file of requests with tools that are never learned from, a JSON object a line: `messages`, `tools` and
    the `calls` that are right; "" when the data has none.
    """

    recipe: dict[str, Any]
    rows: int
    trained_tokens: int
    steps: int
    resumed_at: int = 0
    probes: str = ""


class TrainingEstimated(msgspec.Struct, frozen=True, kw_only=True, tag="estimated"):
    """What it will take, by a probe of the longest batch: bytes, seconds."""

    memory: int
    seconds: float


class TrainingStep(msgspec.Struct, frozen=True, kw_only=True, tag="step"):
    """One step of the optimizer. `loss` is the mean over its trained tokens, `seconds` the time since the last one."""

    step: int
    epoch: float
    loss: float
    rate: float
    gradient_norm: float
    trained_tokens: int
    tokens: int
    seconds: float
    memory: int


class TrainingMeasured(msgspec.Struct, frozen=True, kw_only=True, tag="measured"):
    """The loss on what is never learned from, after `step` steps."""

    step: int
    loss: float


class TrainingSaved(msgspec.Struct, frozen=True, kw_only=True, tag="saved"):
    """A checkpoint is on disk. `adapter` is a PEFT folder that can be loaded at once; "" for a full training."""

    step: int
    folder: str
    adapter: str = ""


class TrainingEnded(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    """All is learned. `adapter` is the PEFT folder of the best checkpoint, `model` a model folder after a full one.

    `curve` is a CSV file of what was measured at every step, `picture` a PNG of it.
    """

    step: int
    best_step: int
    adapter: str = ""
    model: str = ""
    metrics: dict[str, float] = {}
    curve: str = ""
    picture: str = ""


class TrainingFailed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """Why it stopped for good, in words for its user; `param` is the key of the recipe, or the place in the data."""

    code: str
    message: str
    param: str | None = None


TrainingEvent = (
    TrainingStarted
    | TrainingEstimated
    | TrainingStep
    | TrainingMeasured
    | TrainingSaved
    | TrainingEnded
    | TrainingFailed
)
