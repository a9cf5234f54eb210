"""How large a JSON value of a request may be before anything else looks at it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ...contract.errors import InvalidRequest

MAX_CHARACTERS = 1 << 18
MAX_VALUES = 20_000
# llguidance reads a schema to 128 levels; what is put around it here must fit, too.
MAX_DEPTH = 64
MAX_INTEGER = 1 << 62


def check_bounds(value: Any, path: str) -> None:
    """Raise InvalidRequest, with the path, where `value` is too long, too deep, or holds what JSON cannot.

    Linear, and without recursion, so that no nesting can exhaust the stack.
    """
    characters = values = 0
    levels: list[Iterator[tuple[str | int, Any]]] = [iter([("", value)])]
    names: list[str | int] = [""]
    while levels:
        name, item = next(levels[-1], (None, None))
        if name is None:
            levels.pop()
            names.pop()
            continue
        if isinstance(name, str):
            _check_text(name, path, names[:-1])
        names[-1] = name
        values += 1
        characters += len(name) if isinstance(name, str) else 0
        if isinstance(item, str):
            characters += len(item)
            _check_text(item, path, names)
        elif isinstance(item, Mapping | list | tuple):
            if len(levels) > MAX_DEPTH:
                raise InvalidRequest(f"This is nested more than {MAX_DEPTH} levels deep; make it flatter.", param=path)
            is_object = isinstance(item, Mapping)
            levels.append(iter(item.items()) if isinstance(item, Mapping) else iter(enumerate(item)))
            names.append("" if is_object else 0)
        else:
            _check_scalar(item, path, names)
        if characters > MAX_CHARACTERS or values > MAX_VALUES:
            raise InvalidRequest(
                f"This is too large: at most {MAX_CHARACTERS} characters and {MAX_VALUES} values.", param=path
            )


def join(path: str, name: str | int) -> str:
    """The path of field or item `name` in what stands at `path`."""
    if isinstance(name, int):
        return f"{path}[{name}]"
    return f"{path}.{name}"[:512]


def _check_text(text: str, path: str, names: list[str | int]) -> None:
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidRequest("Half of a surrogate pair is not text.", param=_where(path, names))


def _check_scalar(value: Any, path: str, names: list[str | int]) -> None:
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, int) and abs(value) < MAX_INTEGER:
        return
    if isinstance(value, float) and math.isfinite(value):
        return
    raise InvalidRequest(
        f"Values must be JSON, and integers smaller than {MAX_INTEGER} in size.", param=_where(path, names)
    )


def _where(path: str, names: list[str | int]) -> str:
    for name in names[1:]:
        path = join(path, name)
    return path
