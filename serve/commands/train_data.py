"""The files that a training is sent with: those of the user, or one that holds what theirs hold."""

from __future__ import annotations

import re
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..contract.errors import ConfigError

if TYPE_CHECKING:
    from ...trainer.data.files.sources import Source
    from ...trainer.data.sample import Place, Sample
    from ...trainer.data.samples import Reading
    from ...trainer.recipe import Recipe

READING_KEYS = ("format", "question", "answer", "sheet")


@dataclass(slots=True)
class Origins:
    """Where each line of a joined file comes from, so that what is said of a line is said of the user's."""

    files: dict[str, int] = field(default_factory=dict)
    numbers: array[int] = field(default_factory=lambda: array("L"))
    lines: array[int] = field(default_factory=lambda: array("Q"))

    def add(self, place: Place) -> None:
        """The next line comes from `place`."""
        self.numbers.append(self.files.setdefault(place.file, len(self.files)))
        self.lines.append(place.line)

    def told(self, text: str, name: str) -> str:
        """`text` with every `NAME:LINE` of the joined file as the place that the line comes from."""
        files = list(self.files)

        def original(found: re.Match[str]) -> str:
            index = int(found[1]) - 1
            return f"{files[self.numbers[index]]}:{self.lines[index]}" if index < len(self.lines) else found[0]

        return re.sub(rf"(?<![\w./-]){re.escape(name)}:([1-9][0-9]{{0,11}})\b", original, text)


@dataclass(frozen=True, slots=True)
class Parcel:
    """A file to send, under this name. `origins` is None for a file of the user's."""

    path: Path
    name: str
    origins: Origins | None = None

    def told(self, text: str) -> str:
        """`text` with the user's own lines in it."""
        return text if self.origins is None else self.origins.told(text, self.name)


@dataclass(frozen=True, slots=True)
class Parcels:
    """What is sent. `are_joined` says that all of it is in OpenAI's form, whatever the user's files had."""

    training: Parcel
    validation: Parcel | None
    are_joined: bool

    def told(self, text: str) -> str:
        """`text` with the user's own lines in it."""
        text = self.training.told(text)
        return text if self.validation is None else self.validation.told(text)


@contextmanager
def parcels(recipe: Recipe) -> Iterator[Parcels]:
    """The recipe's data and validation as files that can be sent, which are gone afterwards.

    A single file without a weight is sent as it is. Otherwise all are read, and written into one of OpenAI's form, each
    sample as often as its weight says. Raises InvalidData for a file that cannot be read or understood, and for the
    first sample that cannot be when they are joined; ConfigError for conversations and plain text together.
    """
    from ...trainer.data.files.sources import read_sources
    from ...trainer.data.samples import Reading

    reading = Reading(recipe.format, recipe.question, recipe.answer, recipe.sheet)
    training, validation = read_sources(recipe.data), read_sources(recipe.validation)
    for source in (*training, *validation):
        reading.opened(source.path)
    if _is_plain(training) and (not validation or _is_plain(validation)):
        yield Parcels(_parcel(training[0]), _parcel(validation[0]) if validation else None, are_joined=False)
        return
    with tempfile.TemporaryDirectory(prefix="tunechat-") as folder:
        joined = _joined(training, reading, recipe.seed, Path(folder) / "training.jsonl")
        others = _joined(validation, reading, recipe.seed, Path(folder) / "validation.jsonl") if validation else None
        yield Parcels(joined, others, are_joined=True)


def _is_plain(sources: Sequence[Source]) -> bool:
    return len(sources) == 1 and sources[0].weight == 1


def _parcel(source: Source) -> Parcel:
    return Parcel(source.path, source.path.name)


def _joined(sources: Sequence[Source], reading: Reading, seed: int, path: Path) -> Parcel:
    from ...trainer.data.convert import write_openai

    origins = Origins()
    write_openai(_samples(sources, reading, seed, origins), path)
    return Parcel(path, path.name, origins)


def _samples(sources: Sequence[Source], reading: Reading, seed: int, origins: Origins) -> Iterator[Sample]:
    from ...trainer.data.samples import read_samples

    first: tuple[str, Place] | None = None
    for source in sources:
        for sample in read_samples(source.path, reading):
            kind = _kind(sample)
            first = first or (kind, sample.place)
            if kind != first[0]:
                raise ConfigError(f"{first[1]} has {first[0]} and {sample.place} {kind}; train on one after the other")
            for _ in range(source.times(sample.place, seed)):
                origins.add(sample.place)
                yield sample


def _kind(sample: Sample) -> str:
    from ...trainer.data.sample import Conversation

    if not isinstance(sample, Conversation):
        return "plain text"
    return "a preference pair" if sample.rejected else "a conversation"
