"""JSON read strictly: no NaN, no key twice, no depth that exhausts a stack."""

from __future__ import annotations

import json
import math
from typing import Any

MAX_DEPTH = 64
_MAX_DIGITS = 400


class BadJson(ValueError):
    """Text that is not the JSON wanted here; says what is wrong and, where that is known, at which column."""


def read_json(text: str) -> Any:
    """The value that `text` is. Raises BadJson."""
    try:
        return checked(_DECODER.decode(text), text)
    except json.JSONDecodeError as error:
        raise BadJson(f"this is no JSON: {error.msg} at column {error.pos + 1}") from error
    except RecursionError as error:
        raise BadJson(f"this is nested more than {MAX_DEPTH} levels deep") from error


def read_value(text: str, start: int) -> tuple[Any, int]:
    """The value that begins at `start`, and where it ends.

    Raises json.JSONDecodeError where the text ends early or is no JSON, BadJson for what is not wanted in any case.
    """
    try:
        value, end = _DECODER.raw_decode(text, start)
    except RecursionError as error:
        raise BadJson(f"this is nested more than {MAX_DEPTH} levels deep") from error
    return checked(value, text[start:end]), end


def write_json(value: Any) -> str:
    """`value` on one line, characters as they are."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def checked(value: Any, text: str) -> Any:
    """`value`, which was read from `text`. Raises BadJson where it is nested too deeply or has half a character."""
    if text.count("[") + text.count("{") > MAX_DEPTH and depth_of(value) > MAX_DEPTH:
        raise BadJson(f"this is nested more than {MAX_DEPTH} levels deep")
    # An escape is the only way for half of a surrogate pair to come out of UTF-8.
    if "\\ud" in text or "\\uD" in text:
        try:
            write_json(value).encode()
        except UnicodeEncodeError as error:
            raise BadJson("half of a surrogate pair (\\ud800 to \\udfff) is no character") from error
    return value


def depth_of(value: Any) -> int:
    """How many lists and objects lie in each other; without recursion."""
    depth, level = 0, [value]
    while True:
        level = [item for item in level if isinstance(item, dict | list)]
        if not level or depth > MAX_DEPTH:
            return depth
        depth += 1
        level = [item for outer in level for item in (outer.values() if isinstance(outer, dict) else outer)]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise BadJson(f"the key {name[:80]!r} stands twice in one object")
            seen.add(name)
    return made


def _constant(name: str) -> Any:
    raise BadJson(f"{name} is no JSON")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise BadJson(f"{text[:40]} is too large a number")
    return value


def _int(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise BadJson(f"a number has {len(text)} digits; at most {_MAX_DIGITS} are read")
    return int(text)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_int, strict=True
)
