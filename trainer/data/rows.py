"""Samples of a data set as rows, with an account of those that are none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ...serve.contract.errors import InvalidSample
from .mask import AnswerMask
from .plain_rows import plain_rows
from .row import Row
from .sample import Conversation, Place, PlainText, Sample


@dataclass(frozen=True, slots=True)
class TooLong:
    """A row that does not fit: of which sample, and how many tokens it would have."""

    place: Place
    tokens: int


@dataclass(slots=True)
class RowSet:
    """The rows of a data set. `refused` cannot be learned from, `too_long` do not fit, `silent` teach nothing."""

    max_length: int
    rows: list[Row] = field(default_factory=list)
    refused: list[InvalidSample] = field(default_factory=list)
    too_long: list[TooLong] = field(default_factory=list)
    silent: list[Place] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return sum(len(row.tokens) for row in self.rows)

    @property
    def trained(self) -> int:
        """How many tokens are learned."""
        return sum(row.trained for row in self.rows)

    def check(self, *, drop_too_long: bool = False) -> None:
        """Raise InvalidSample for samples that were refused, that do not fit, or where nothing is to be learned."""
        if self.refused:
            others = f" ({len(self.refused) - 1} more samples are refused.)" if len(self.refused) > 1 else ""
            raise InvalidSample(f"{self.refused[0].message}{others}", param=self.refused[0].param)
        if self.too_long and not drop_too_long:
            first, longest = self.too_long[0], max(row.tokens for row in self.too_long)
            raise InvalidSample(
                f"{first.place}: {first.tokens} tokens do not fit into max_length {self.max_length}, and nothing is "
                f"cut. {len(self.too_long)} rows are too long, the longest of {longest} tokens. Raise max_length, "
                "shorten them, or leave them out with too_long=drop."
            )
        if not self.rows:
            raise InvalidSample("There is nothing to learn: no sample has an answer with a weight above 0.")


def make_rows(samples: Iterable[Sample], mask: AnswerMask, max_length: int) -> RowSet:
    """All rows of `samples` that fit into `max_length` tokens. Conversations keep their order, plain text comes last.

    Never raises for a sample; `RowSet.check` does.
    """
    found = RowSet(max_length)
    found.rows += plain_rows(_conversations_done(samples, mask, found), mask.text, max_length)
    return found


def _conversations_done(samples: Iterable[Sample], mask: AnswerMask, found: RowSet) -> Iterator[PlainText]:
    """Deal with conversations on the way, and give the plain texts."""
    for sample in samples:
        if isinstance(sample, Conversation):
            _add(sample, mask, found)
        else:
            yield sample


def _add(sample: Conversation, mask: AnswerMask, found: RowSet) -> None:
    try:
        rows = mask.rows(sample)
    except InvalidSample as error:
        found.refused.append(error)
        return
    if not rows:
        found.silent.append(sample.place)
    for row in rows:
        if len(row.tokens) > found.max_length:
            found.too_long.append(TooLong(sample.place, len(row.tokens)))
        else:
            found.rows.append(row)
