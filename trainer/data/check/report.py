"""What a check found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ....serve.contract.errors import InvalidData
from .spread import Spread

# Worth knowing, and no reason not to train.
WARNINGS = frozenset({"duplicate", "near_duplicate", "schema_not_followed", "empty_question", "unlearned_end"})
MAX_KEPT = 1000


@dataclass(slots=True)
class FileReport:
    """One file: its format ("" where it could not be found), its samples, and those that are wrong."""

    file: str
    weight: float = 1.0
    format: str = ""
    samples: int = 0
    wrong: int = 0


@dataclass(slots=True)
class Problems:
    """The first problems of each severity, in the order of finding, and how many there are of each kind.

    `stops` is the first one at which a training would stop, and `stopping` counts those.
    """

    counts: Counter[str] = field(default_factory=Counter)
    kept: list[InvalidData] = field(default_factory=list)
    stops: InvalidData | None = None
    stopping: int = 0

    def add(self, problem: InvalidData) -> None:
        self.counts[problem.kind] += 1
        # Many warnings must not crowd out the error that comes last.
        if (self.warnings if problem.kind in WARNINGS else self.errors) <= MAX_KEPT:
            self.kept.append(problem)

    def stop(self, problem: InvalidData) -> None:
        """Say that a training would stop at `problem`."""
        self.stops = self.stops or problem
        self.stopping += 1

    @property
    def errors(self) -> int:
        return sum(count for kind, count in self.counts.items() if kind not in WARNINGS)

    @property
    def warnings(self) -> int:
        return sum(self.counts.values()) - self.errors


@dataclass(frozen=True, slots=True)
class Report:
    """All that a check found; `tokens` and `learned` tokens are None where they were not counted.

    `lessons` and `tests` are how many tokens of training and validation would be learned and measured, also of samples
    with problems that no training stops at, without those that are too long.
    """

    files: tuple[FileReport, ...]
    validation: tuple[FileReport, ...]
    conversations: int
    texts: int
    pairs: int
    with_tools: int
    calls: int
    turns: Spread
    tokens: Spread | None
    learned: int | None
    problems: Problems
    lessons: int = 0
    tests: int = 0

    @property
    def ok(self) -> bool:
        """Whether it can be trained on as it is."""
        return not self.problems.errors

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "files": [_file(report) for report in self.files],
            "validation": [_file(report) for report in self.validation],
            "samples": self.conversations + self.texts,
            "conversations": self.conversations,
            "texts": self.texts,
            "preference_pairs": self.pairs,
            "with_tools": self.with_tools,
            "tool_calls": self.calls,
            "turns": self.turns.as_json(),
            "tokens": self.tokens.as_json() if self.tokens else None,
            "learned_tokens": self.learned,
            "errors": self.problems.errors,
            "warnings": self.problems.warnings,
            "by_kind": dict(sorted(self.problems.counts.items())),
            "problems": [problem_json(problem) for problem in self.problems.kept],
        }


def problem_json(problem: InvalidData) -> dict[str, Any]:
    """A problem for programs."""
    return {
        "severity": "warning" if problem.kind in WARNINGS else "error",
        "kind": problem.kind,
        "file": problem.file,
        "line": problem.line or None,
        "field": problem.field or None,
        "what": problem.what,
        "mend": problem.mend,
    }


def _file(report: FileReport) -> dict[str, Any]:
    return {
        "file": report.file,
        "weight": report.weight,
        "format": report.format or None,
        "samples": report.samples,
        "wrong": report.wrong,
    }
