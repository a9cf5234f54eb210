"""JSON as it is written into a prepared model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..contract.errors import ModelError

MAX_JSON = 256 << 20  # bytes; the largest tokenizers take some 40 MB


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """`value` as indented UTF-8."""
    return json.dumps(value, ensure_ascii=False, indent=1).encode() + b"\n"


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises ModelError when it is too large or no object."""
    if path.stat().st_size > MAX_JSON:
        raise ModelError(f"{path.name} is larger than {MAX_JSON} bytes")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path.name} is no JSON") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path.name} holds no object")
    return value
