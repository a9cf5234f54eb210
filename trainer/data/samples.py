"""The samples of files of any kind and format, one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

from ...serve.contract.errors import InvalidData
from .files.reading import read_records
from .files.sources import Source
from .formats.choice import format_named, found_format
from .formats.form import Format
from .formats.question_answer import QuestionAnswer
from .record import Record, Records
from .sample import Sample


@dataclass(frozen=True, slots=True)
class Reading:
    """How files are read where looking is not enough: the format's name, columns of tables, the sheet of a workbook."""

    format: str | None = None
    question: str | None = None
    answer: str | None = None
    sheet: str | None = None

    def opened(self, path: Path) -> tuple[Format, Records]:
        """The format of the file, and its records. Raises InvalidData where the file cannot be read or understood."""
        records = read_records(path, sheet=self.sheet)
        if self.question is not None or self.answer is not None:
            return QuestionAnswer(self.question, self.answer), records
        if self.format is not None:
            return format_named(self.format), records
        return found_format(records, str(path))


LOOK = Reading()


def samples_or_errors(path: Path, reading: Reading = LOOK) -> Iterator[Sample | InvalidData]:
    """The samples, and in their places the errors of those that are wrong. Nothing is left out silently.

    Memory does not grow with the file. What ends the file comes as the last error; nothing is raised but ConfigError.
    """
    try:
        form, records = reading.opened(path)
        first = next(records, None)
        if first is None:
            raise InvalidData("there are no records", "put some into it", file=str(path), kind="empty")
        for item in chain([first], records):
            yield _sample(form, item) if isinstance(item, Record) else item
    except InvalidData as error:
        yield error


def read_samples(path: Path, reading: Reading = LOOK) -> Iterator[Sample]:
    """The samples. Raises InvalidData at the first one that is wrong; `samples_or_errors` goes on."""
    for item in samples_or_errors(path, reading):
        if isinstance(item, InvalidData):
            raise item
        yield item


def weighted_samples(sources: Sequence[Source], reading: Reading = LOOK, *, seed: int = 0) -> Iterator[Sample]:
    """The samples of all sources, each as often as the weight of its source says. Raises as `read_samples`."""
    for source in sources:
        for sample in read_samples(source.path, reading):
            yield from repeat(sample, source.times(sample.place, seed))


def _sample(form: Format, record: Record) -> Sample | InvalidData:
    try:
        return form.read(record)
    except InvalidData as error:
        return error
