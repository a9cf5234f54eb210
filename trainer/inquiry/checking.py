"""What data holds and what is wrong with it, and whether a training would stop at it."""

from __future__ import annotations

from typing import Any

import msgspec

from ...serve.contract.errors import ConfigError, InvalidData, InvalidSample
from ...serve.contract.inquiry import AskCheck, Checked
from ..data.check.checking import check
from ..data.check.lengths import measure_by
from ..data.check.report import Report
from .naming import shortened
from .reading import Material, opened
from .support import check_trainable

_LONGEST_TOLD = 500
_NOTHING = "there is nothing to learn: no sample has an answer with a weight above 0"
_NOTHING_FITS = "there is nothing to learn: no sample fits into max_length {}"


def check_data(question: AskCheck) -> Checked:
    """Raises ConfigError for a wrong recipe, or one that cannot be trained where it `trains`; InvalidData for no files.

    What is wrong with the data is in the answer.
    """
    with opened(question) as material:
        if question.trains and material.manifest is not None:
            check_trainable(material.recipe, material.manifest)
        if not material.data:
            raise ConfigError("There is no data: name files under `data`.", param="data")
        has_length = material.mask is not None and (question.trains or "max_length" in material.recipe.chosen)
        report = check(
            material.data,
            material.validation,
            reading=material.reading,
            measure=None if material.mask is None else measure_by(material.mask),
            max_length=material.max_length if has_length else None,
            drops_too_long=material.recipe.too_long == "drop",
        )
        return _answer(report, material)


def _answer(report: Report, material: Material) -> Checked:
    problem: InvalidData | InvalidSample | None = report.problems.stops
    count, where = report.problems.stopping, "data"
    files = {str(source.path) for source in material.data}
    if isinstance(problem, InvalidData) and problem.file not in files:
        where = "validation"
    if problem is None and material.mask is not None:
        problem, where = _nothing(report, material)
        count = int(problem is not None)
    stops = None if problem is None else problem.record
    if stops is not None:
        stops = msgspec.structs.replace(stops, message=stops.message[: 4 * _LONGEST_TOLD])
    plain: dict[str, Any] = shortened(report.as_json(), _LONGEST_TOLD)
    return Checked(report=plain, stops=stops, where=where, stopping=count)


def _nothing(report: Report, material: Material) -> tuple[InvalidData | InvalidSample | None, str]:
    """The error where training would have nothing to do, and for which files."""
    told = _NOTHING_FITS.format(material.max_length) if report.problems.counts["too_long"] else _NOTHING
    if report.lessons == 0:
        return InvalidSample(told), "data"
    if material.validation and report.tests == 0:
        return InvalidSample(told), "validation"
    return None, "data"
