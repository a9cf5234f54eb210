"""JSON from files that strangers wrote: bounded, no name twice, no NaN."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from ..contract.errors import UnsupportedFormat

MAX_JSON = 1 << 20  # bytes; the configs of real adapters take a few kilobytes


def read_object(path: Path, limit: int = MAX_JSON) -> dict[str, Any]:
    """The object in `path`. Raises UnsupportedFormat when it is larger than `limit` bytes or no plain JSON object."""
    if path.stat().st_size > limit:
        raise UnsupportedFormat(f"{path.name} is larger than {limit} bytes")
    return parse_object(path.read_bytes(), path.name)


def parse_object(text: bytes, label: str) -> dict[str, Any]:
    """The object that `text` holds. Raises UnsupportedFormat, naming it `label`, for anything else."""
    try:
        value = json.loads(text, object_pairs_hook=_without_doubles, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise UnsupportedFormat(f"{label} is no JSON that can be read: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise UnsupportedFormat(f"{label} holds no object")
    return value


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name appears twice")
    return result


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")
