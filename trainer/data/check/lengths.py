"""How many tokens samples have as they are trained, and which answers do not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ....serve.contract.errors import InvalidData, InvalidSample
from ....serve.text.dialects import Dialect
from ....serve.text.model_text import ModelText
from ..mask import AnswerMask
from ..sample import Conversation, Sample
from .order import problem


@dataclass(frozen=True, slots=True)
class Length:
    """Tokens of the longest row of a sample, and how many are learned in all its rows."""

    tokens: int
    learned: int


Measure = Callable[[Sample], Length]


def measure_of(text: ModelText, dialect: Dialect) -> Measure:
    """Measures samples as rows of this model. It raises InvalidSample where the model cannot learn one."""
    return measure_by(AnswerMask(text, dialect))


def measure_by(mask: AnswerMask) -> Measure:
    """Measures samples as the rows that `mask` makes of them, as `measure_of`."""
    text = mask.text

    def measure(sample: Sample) -> Length:
        if not isinstance(sample, Conversation):
            tokens = len(text.encode(sample.text, add_bos=True))
            return Length(tokens, max(tokens - 1, 0))
        rows = mask.rows(sample)
        return Length(max((len(row.tokens) for row in rows), default=0), sum(row.trained for row in rows))

    return measure


def too_long(sample: Conversation, measure: Measure, length: Length, max_length: int) -> InvalidData | None:
    """The first answer that ends beyond `max_length`, where the whole has `length`; None where all answers fit."""
    if length.tokens <= max_length:
        return None
    end, index = length.tokens, len(sample.messages) - 1
    for number, message in enumerate(sample.messages):
        if message["role"] != "assistant" or message.get("weight") == 0:
            continue
        part = measure(replace(sample, messages=sample.messages[: number + 1], rejected=()))
        if part.tokens > max_length:
            end, index = part.tokens, number
            break
    what = f"this answer ends at token {end}, and the length is {max_length}"
    mend = f"raise it to {length.tokens}, or shorten or split the conversation"
    return problem(sample, f"messages[{index}]", what, mend, "too_long")


def not_learnable(sample: Conversation, error: InvalidSample) -> InvalidData:
    """The problem that a model has with the sample."""
    field = error.param or "messages"
    what = error.message.removeprefix(f"{sample.place}: ").removeprefix(f"{field}: ").rstrip(".")
    return problem(sample, field, f"the model cannot learn this: {what}", "mend it or leave it out", "not_learnable")
