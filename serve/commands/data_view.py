"""How the terminal shows what a check of data found."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .output import print_table

if TYPE_CHECKING:
    from ...trainer.data.check.report import Report
    from ...trainer.data.check.spread import Spread

_SHOWN = 20
_BAR = 40


def print_report(report: Report) -> None:
    """The report on stdout: files, what they hold, lengths, and the first problems, errors before warnings."""
    from ...trainer.data.check.report import WARNINGS

    rows = [("training", file) for file in report.files] + [("validation", file) for file in report.validation]
    print_table(
        ("file", "for", "format", "samples", "wrong"),
        [(one_line(file.file), use, file.format or "unknown", file.samples, file.wrong) for use, file in rows],
    )
    _say("", *_sums(report), "")
    if report.tokens and report.tokens.count:
        _say(*histogram("tokens a sample", report.tokens), "")
    problems = sorted(report.problems.kept, key=lambda problem: problem.kind in WARNINGS)
    for problem in problems[:_SHOWN]:
        _say(f"{'warning' if problem.kind in WARNINGS else 'error'}: {one_line(problem.message)}")
    total = report.problems.errors + report.problems.warnings
    if total > _SHOWN:
        kinds = ", ".join(f"{kind} {count}" for kind, count in report.problems.counts.most_common())
        _say(f"... and {total - min(_SHOWN, len(problems))} more; in all: {kinds}")
    _say(_verdict(report))


def histogram(title: str, spread: Spread) -> Iterator[str]:
    """The spread in lines, a bar a bin."""
    yield f"{title}: {spread.least} to {spread.most}, median {spread.median}, 95 % up to {spread.p95}"
    highest = max(count for _, count in spread.bins)
    for top, count in spread.bins:
        bar = "█" * max(round(_BAR * count / highest), int(count > 0))
        yield f"  up to {top:>9,}  {bar} {count}".rstrip()


def one_line(text: str) -> str:
    """The text on one line, without characters that steer a terminal: it comes from files of anybody."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def _sums(report: Report) -> Iterator[str]:
    kinds = [(report.conversations, "conversations"), (report.texts, "texts"), (report.pairs, "preference pairs")]
    yield ", ".join(f"{count:,} {noun}" for count, noun in kinds if count) or "no samples"
    if report.turns.count:
        yield f"answers a conversation: {report.turns.least} to {report.turns.most}, median {report.turns.median}"
    if report.with_tools or report.calls:
        yield f"{report.with_tools:,} with tools, {report.calls:,} calls"
    if report.tokens:
        yield f"{report.tokens.total:,} tokens, {report.learned:,} of them learned"


def _verdict(report: Report) -> str:
    errors, warnings = report.problems.errors, report.problems.warnings
    if not errors and not warnings:
        return "nothing is wrong"
    return f"{errors:,} errors, {warnings:,} warnings" + ("" if errors else "; it can be trained on")


def _say(*lines: str) -> None:
    for line in lines:
        sys.stdout.write(line + "\n")
