"""Answers that call files as their owners do, with texts of bounded length."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def renamed(value: Any, names: Mapping[str, str]) -> Any:
    """`value`, plain JSON, with the paths in its texts replaced by their `names`."""
    if not names:
        return value
    # Longer ones first: one path may begin as another does.
    paths = re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))))
    return _replaced(value, lambda text: paths.sub(lambda found: names[found[0]], text))


def shortened(value: Any, longest: int) -> Any:
    """`value`, plain JSON, with its texts cut to `longest` characters."""
    return _replaced(value, lambda text: text if len(text) <= longest else f"{text[: longest - 1]}…")


def _replaced(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _replaced(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(item, change) for item in value]
    return value
