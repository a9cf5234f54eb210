"""Whether a training still learns: numbers that are none, and a loss or gradients that grew and stay large, end it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec

from ..serve.contract.errors import TunechatError

# A loss above this many times the mean of the first ones, and above it by so many nats, is no noise of small batches.
_LOSS_TIMES = 2.0
_LOSS_MORE = 3.0
_FIRST = 16
# Worse than guessing among all tokens alike, by so much, is high enough, whatever the loss began with.
_GUESSING = 1.0
_NORM_TIMES = 100.0
_NORM_MORE = 1000.0
# So many steps in a row; fewer in trainings of few steps.
_STEPS = 10
_MOST_PART = 4


class Diverged(TunechatError):
    """The loss or its gradients are no numbers any more, or grew and stay large. `param` is the key to change."""

    code = "training_diverged"
    http_status = 422


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How a training began, and for how many steps in a row it has been worse: kept in its checkpoints.

    `loss` is the mean of the first `count` losses, in nats a token, and `norm` the length of the first gradient.
    """

    loss: float = 0.0
    count: int = 0
    norm: float | None = None
    high: int = 0


@dataclass(frozen=True, slots=True)
class Watch:
    """Judges the steps of a training of `steps` steps on a model that knows `vocabulary` tokens."""

    steps: int
    vocabulary: int

    def after(self, health: Health, step: int, loss: float, norm: float, rate: float) -> Health:
        """How it stands after `step`. Raises Diverged, saying what happened, when there is no way back."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            what = "loss" if not math.isfinite(loss) else "gradient"
            raise _diverged(f"At step {step} the {what} was no number any more.", rate)
        norm_then = norm if health.norm is None else health.norm
        most = max(min(_LOSS_TIMES * health.loss, math.log(self.vocabulary) + _GUESSING), health.loss + _LOSS_MORE)
        longest = max(_NORM_TIMES * norm_then, _NORM_MORE)
        is_high = health.count > 0 and (loss > most or norm > longest)
        high, count, mean = health.high + 1 if is_high else 0, health.count, health.loss
        if count < _FIRST and not is_high:
            mean, count = (mean * count + loss) / (count + 1), count + 1
        if high < self._needed:
            return Health(loss=mean, count=count, norm=norm_then, high=high)
        first = step - high + 1
        if loss > most:
            raise _diverged(
                f"Since step {first} the loss has grown and not come down again: it was {health.loss:.3g} in "
                f"the beginning and {loss:.3g} at step {step}.",
                rate,
            )
        raise _diverged(
            f"Since step {first} the gradients have grown and not become shorter again: the first was of length "
            f"{norm_then:.3g}, that of step {step} {norm:.3g}.",
            rate,
        )

    @property
    def _needed(self) -> int:
        return min(_STEPS, max(2, self.steps // _MOST_PART))


def _diverged(what: str, rate: float) -> Diverged:
    return Diverged(
        f"{what} The learning rate stood at {rate:.2g}; try a lower lr (or lr_scale), or a longer warmup.", param="lr"
    )
