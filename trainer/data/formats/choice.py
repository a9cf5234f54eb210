"""Which format the records of a file have, found by looking at the first of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice

from ....serve.contract.errors import ConfigError, InvalidData
from ..record import Record, Records
from .alpaca import Alpaca
from .completion import PromptCompletion
from .form import Format
from .moss import Moss
from .msagent import MSAgent
from .oasst import Oasst
from .openai import OpenAI
from .plain import Plain
from .preference import Preference
from .question_answer import QuestionAnswer
from .sharegpt import ShareGPT
from .xtuner import XTuner

# Among equals the first is taken.
FORMATS: tuple[Format, ...] = (
    OpenAI(),
    Preference(),
    Moss(),
    ShareGPT(),
    MSAgent(),
    XTuner(),
    Alpaca(),
    PromptCompletion(),
    QuestionAnswer(),
    Oasst(),
    Plain(),
)
NAMES = tuple(form.name for form in FORMATS)
_LOOKS = 50


def format_named(name: str) -> Format:
    """The format of that name. Raises ConfigError for one that is none of NAMES."""
    for form in FORMATS:
        if form.name == name:
            return form
    raise ConfigError(f"There is no format {name[:80]!r}. These are: {', '.join(NAMES)}.", param="format")


def found_format(records: Records, file: str) -> tuple[Format, Records]:
    """The format, and all the records, those that were looked at included. Raises InvalidData where none fits most."""
    looked = list(islice(records, _LOOKS))
    values = [item.value for item in looked if isinstance(item, Record)]
    rest: Iterator[Record | InvalidData] = chain(looked, records)
    if not looked:
        raise InvalidData("there are no records", "put some into it", file=file, kind="empty")
    if not values:
        raise next(item for item in looked if isinstance(item, InvalidData))
    objects = [value for value in values if isinstance(value, Mapping)]
    form, share = choose_format(objects)
    if form is not None and 2 * share > len(values):
        return form, rest
    keys = ", ".join(str(key)[:40] for key in list(objects[0])[:12]) if objects else "no objects"
    what = f"the format is not known: the first record has {keys}"
    mend = 'write {"messages": [{"role", "content"}]}, or name the columns with --question and --answer'
    raise InvalidData(what, mend, file=file, kind="format")


def choose_format(values: Sequence[Mapping[str, object]]) -> tuple[Format | None, int]:
    """The format that recognises most of `values`, and how many: among equals the surest, then the first."""
    best: tuple[Format | None, int] = (None, 0)
    score = (0, 0)
    for form in FORMATS:
        marks = [form.recognises(value) for value in values]
        own = (sum(mark > 0 for mark in marks), sum(marks))
        if own > score:
            best, score = (form, own[0]), own
    return best
