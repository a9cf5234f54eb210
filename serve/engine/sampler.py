"""From the logits of a step to the tokens chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..contract.errors import ErrorRecord
from ..contract.messages import TokenLogprob
from .logprobs import token_logprob
from .plan import Plan, Work

if TYPE_CHECKING:
    import torch

_NOT_FINITE = ErrorRecord(
    code="numerical_error",
    message="the model computed values that are no numbers for this request; others are not affected",
    http_status=500,
)


@dataclass(frozen=True, slots=True)
class Sampled:
    """What one piece of work gave: perhaps a token, perhaps log-probabilities of prompt tokens, or an error.

    `forced` are tokens for which its grammar left no choice, instead of `token`. `is_late` says that a token was due
    and could not be chosen, because its grammar had no mask to give. `hidden` are its tokens' hidden states, where they
    are pooled.
    """

    token: int | None = None
    forced: tuple[int, ...] = ()
    logprob: TokenLogprob | None = None
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)
    error: ErrorRecord | None = None
    is_late: bool = False
    hidden: NDArray[np.float32] | None = None


_NOTHING = Sampled()


def sample(plan: Plan, logits: torch.Tensor, hidden: torch.Tensor | None = None) -> list[Sampled]:
    """One result a work of `plan`, from the logits of the rows that its batch asked for, float32 [L, vocab], and the
    hidden states that it asked for, float32 [H, hidden_size].

    Rows do not influence each other. A row with NaN, or without a finite largest value, gives its own sequence an
    error. `logits` is only read.
    """
    rows = Rows(logits)
    states = None if hidden is None else hidden.cpu().numpy()
    first = 0
    results = []
    for work in plan:
        if work.hidden_rows and states is not None:
            results.append(_pooled(states[first : first + work.hidden_rows]))
            first += work.hidden_rows
            continue
        if not work.samples and not work.prompt_rows:
            results.append(_NOTHING)
            continue
        try:
            results.append(_sample(work, rows))
        except FloatingPointError:
            results.append(Sampled(error=_NOT_FINITE))
    return results


def _pooled(states: NDArray[np.float32]) -> Sampled:
    return Sampled(hidden=states) if np.isfinite(states).all() else Sampled(error=_NOT_FINITE)


def _sample(work: Work, rows: Rows) -> Sampled:
    params = work.sequence.params
    wanted = work.prompt_rows
    first = rows.take(len(wanted) + work.samples)
    prompt_logprobs = [
        token_logprob(rows.host[first + at], int(work.sequence.tokens[position + 1]), params.prompt_logprobs or 0)
        for at, position in enumerate(wanted)
    ]
    if not work.samples:
        return Sampled(prompt_logprobs=prompt_logprobs)
    row, index = first + len(wanted), work.sequence.generated
    grammar = work.sequence.grammar
    mask = None
    if grammar is not None:
        if grammar.is_ready and grammar.forced:
            return Sampled(prompt_logprobs=prompt_logprobs, forced=grammar.forced)
        if not grammar.is_ready or grammar.mask is None:
            return Sampled(prompt_logprobs=prompt_logprobs, is_late=True)
        mask = grammar.mask
    if mask is None and work.sequence.chooser.is_argmax(index):
        token = rows.argmax(row)
    else:
        token = work.sequence.chooser.choose(rows.host[row], index, mask)
    logprob = None if params.logprobs is None else token_logprob(rows.host[row], token, params.logprobs)
    return Sampled(token=token, logprob=logprob, prompt_logprobs=prompt_logprobs)


class Rows:
    """The rows of a logits tensor, read one after another; the largest of each computed where the tensor lies."""

    def __init__(self, logits: torch.Tensor) -> None:
        self._logits = logits
        self._next = 0

    def take(self, count: int) -> int:
        """The number of the first of the next `count` rows."""
        first = self._next
        self._next += count
        return first

    @cached_property
    def host(self) -> NDArray[np.float32]:
        """All rows in this process's memory; not copied when they are there already."""
        rows: NDArray[np.float32] = self._logits.cpu().numpy()
        return rows

    def argmax(self, row: int) -> int:
        """The lowest id with the largest logit. FloatingPointError when it is not finite; NaN is the largest."""
        if self._logits.device.type == "cpu":
            # numpy's argmax takes a twentieth of the time of torch's on a CPU.
            best = int(self.host[row].argmax())
            largest = float(self.host[row, best])
        else:
            best, largest = self.device_best[row]
        if not math.isfinite(largest):
            raise FloatingPointError("logits are not finite")
        return best

    @cached_property
    def device_best(self) -> list[tuple[int, float]]:
        """Id and value of the largest logit of every row, found where the tensor lies."""
        best = self._logits.argmax(dim=-1, keepdim=True)
        largest = self._logits.gather(1, best)
        return list(zip(best[:, 0].tolist(), largest[:, 0].tolist(), strict=True))
