"""Whether a model called the right tools, compared with calls that are known to be right. Nothing here asks a model.

A row is one request with tools. Names and arguments are compared for a turn's calls as a whole, in any order. Values
are equal as JSON: 1 and 1.0 are one number, true is none, the order of keys does not matter, that of lists does.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

# Deeper values are equal to nothing: nobody means them, and comparing them would need a stack of its own.
_DEEPEST = 100


@dataclass(frozen=True, slots=True)
class Call:
    """A call as it is in a reply: `arguments` is JSON text, or what the model wrote instead."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class RowScore:
    """One row. `name` and `arguments` are None where no call was right, the counts are of the calls that were made."""

    call_or_not: bool
    name: bool | None
    arguments: bool | None
    calls: int
    valid_json: int
    invented: int


def score_row(right: Sequence[Call], made: Sequence[Call], offered: Collection[str]) -> RowScore:
    """How `made` compares with `right`, where the tools in `offered` could be called."""
    values = [_value(call) for call in made]
    name = arguments = None
    if right:
        name = Counter(call.name for call in right) == Counter(call.name for call in made)
        wanted = [_value(call) for call in right]
        arguments = name and None not in values and None not in wanted and Counter(values) == Counter(wanted)
    return RowScore(
        call_or_not=bool(right) == bool(made),
        name=name,
        arguments=arguments,
        calls=len(made),
        valid_json=sum(value is not None for value in values),
        invented=sum(call.name not in offered for call in made),
    )


def sum_up(rows: Iterable[RowScore]) -> dict[str, float | int | None]:
    """The figures of many rows: parts of 1, None where there was nothing to judge, and `rows`, their number.

    `call_or_not` is of all rows; `name` and `arguments` of those where a call was right, which no call fails too;
    `valid_json` and `invented` are of the calls that were made.
    """
    scored = list(rows)
    calls = sum(row.calls for row in scored)
    called = [row for row in scored if row.name is not None]
    return {
        "call_or_not": _part(sum(row.call_or_not for row in scored), len(scored)),
        "name": _part(sum(bool(row.name) for row in called), len(called)),
        "arguments": _part(sum(bool(row.arguments) for row in called), len(called)),
        "valid_json": _part(sum(row.valid_json for row in scored), calls),
        "invented": _part(sum(row.invented for row in scored), calls),
        "rows": len(scored),
    }


def is_same_json(first: Any, second: Any) -> bool:
    """Whether two values of `json.loads` are the same JSON. Those nested deeper than 100 are not."""
    try:
        return _key(first) == _key(second)
    except ValueError:
        return False


def _part(count: int, of: int) -> float | None:
    return round(count / of, 4) if of else None


def _value(call: Call) -> Hashable | None:
    """What equal calls have in common; None where the arguments are no JSON object."""
    try:
        value = json.loads(call.arguments, parse_constant=_no_json)
        return (call.name, _key(value)) if isinstance(value, dict) else None
    except (ValueError, RecursionError):
        return None


def _no_json(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _key(value: Any, depth: int = 0) -> Hashable:
    """The same for equal values and for no others. Python takes True for 1, so the kind goes with the value."""
    if depth > _DEEPEST:
        raise ValueError("too deep to be compared")
    if isinstance(value, dict):
        return "object", frozenset((name, _key(one, depth + 1)) for name, one in value.items())
    if isinstance(value, list):
        return "list", tuple(_key(one, depth + 1) for one in value)
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__, value
