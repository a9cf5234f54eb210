"""Everything that can be known of data before it is trained on, in one pass with flat memory."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ....serve.contract.errors import InvalidData, InvalidSample
from ..files.sources import Source
from ..sample import Conversation, Sample
from ..samples import LOOK, Reading, samples_or_errors
from .calls import problems_of_calls
from .fingerprints import Fingerprints
from .lengths import Measure, not_learnable, too_long
from .order import problems_of_order
from .report import FileReport, Problems, Report
from .spread import Spread

Progress = Callable[[int], None]
_TELL_EVERY = 256


def check(
    sources: Sequence[Source],
    validation: Sequence[Source] = (),
    *,
    reading: Reading = LOOK,
    measure: Measure | None = None,
    max_length: int | None = None,
    drops_too_long: bool = False,
    report: Progress = lambda done: None,
) -> Report:
    """What the files have and what is wrong with them. `measure` counts tokens; with it, answers are held to
    `max_length`, and training stops at what is longer unless it `drops_too_long`. `report` is told how many samples
    were read, now and then.

    Nothing is raised for what is wrong with the data; it is in the report.
    """
    checked = _Checking(reading, measure, max_length, drops_too_long, report)
    files = tuple(checked.file(source, checked.training) for source in sources)
    others = tuple(checked.file(source, checked.validation) for source in validation)
    checked.alike()
    return Report(
        files=files,
        validation=others,
        conversations=checked.conversations,
        texts=checked.texts,
        pairs=checked.pairs,
        with_tools=checked.with_tools,
        calls=checked.calls,
        turns=Spread.of(checked.turns),
        tokens=Spread.of(checked.tokens) if measure is not None else None,
        learned=checked.learned if measure is not None else None,
        problems=checked.problems,
        lessons=checked.lessons,
        tests=checked.tests,
    )


def problems_of(sample: Sample) -> Iterator[InvalidData]:
    """What is wrong with a sample by itself."""
    if isinstance(sample, Conversation):
        yield from problems_of_order(sample)
        yield from problems_of_calls(sample)
    elif not sample.text.strip():
        place = sample.place
        mend = "leave it out"
        yield InvalidData("the text is empty", mend, file=place.file, line=place.line, field="text", kind="empty_text")


@dataclass(slots=True)
class _Checking:
    reading: Reading
    measure: Measure | None
    max_length: int | None
    drops_too_long: bool
    report: Progress
    problems: Problems = field(default_factory=Problems)
    training: Fingerprints = field(default_factory=Fingerprints)
    validation: Fingerprints = field(default_factory=Fingerprints)
    turns: array[int] = field(default_factory=lambda: array("Q"))
    tokens: array[int] = field(default_factory=lambda: array("Q"))
    conversations: int = 0
    texts: int = 0
    pairs: int = 0
    with_tools: int = 0
    calls: int = 0
    learned: int = 0
    lessons: int = 0
    tests: int = 0

    def file(self, source: Source, seen: Fingerprints) -> FileReport:
        report = FileReport(str(source.path), source.weight)
        try:
            report.format = self.reading.opened(source.path)[0].name
        except InvalidData as error:
            self.problems.add(error)
            self.problems.stop(error)
            report.wrong = 1
            return report
        for item in samples_or_errors(source.path, self.reading):
            if isinstance(item, InvalidData):
                self.problems.add(item)
                self.problems.stop(item)
                report.wrong += 1
                continue
            report.samples += 1
            seen.add(item)
            if report.samples % _TELL_EVERY == 0:
                self.report(len(self.training) + len(self.validation))
            if seen is self.training:
                self._count(item)
            own = list(problems_of(item))
            unfit = self._unfit(item, training=seen is self.training, counted=not own)
            if unfit is not None and not (self.drops_too_long and unfit.kind == "too_long"):
                self.problems.stop(unfit)
            # What is wrong by itself is told once, not again in the words of the model.
            found = own or ([] if unfit is None else [unfit])
            for one in found:
                self.problems.add(one)
            report.wrong += bool(found)
        return report

    def _count(self, sample: Sample) -> None:
        if not isinstance(sample, Conversation):
            self.texts += 1
            return
        self.conversations += 1
        self.pairs += bool(sample.rejected)
        self.with_tools += bool(sample.tools)
        self.calls += sum(len(message.get("tool_calls") or ()) for message in sample.messages)
        self.turns.append(sum(message["role"] == "assistant" for message in sample.messages))

    def _unfit(self, sample: Sample, *, training: bool, counted: bool) -> InvalidData | None:
        """Why no row of the model can be made of the sample. Counts its tokens."""
        if self.measure is None:
            return None
        try:
            length = self.measure(sample)
        except InvalidSample as error:
            if not isinstance(sample, Conversation):
                raise
            return not_learnable(sample, error)
        if training and counted:
            self.tokens.append(length.tokens)
            self.learned += length.learned
        if self.max_length is not None and isinstance(sample, Conversation):
            found = too_long(sample, self.measure, length, self.max_length)
            if found is not None:
                return found
        if training:
            self.lessons += length.learned
        else:
            self.tests += length.learned
        return None

    def alike(self) -> None:
        """Add what is there twice, and what is in both training and validation."""
        for place, first, is_exact in self.training.repeated():
            kind, like = ("duplicate", "the same as") if is_exact else ("near_duplicate", "in words the same as")
            mend = "leave one out, unless it is to count twice"
            self.problems.add(InvalidData(f"{like} {first}", mend, file=place.file, line=place.line, kind=kind))
        for place, other in self.validation.shared(self.training):
            what = f"validation has what training has at {other}"
            mend = "leave it out of one of them"
            self.problems.add(InvalidData(what, mend, file=place.file, line=place.line, kind="overlap"))
