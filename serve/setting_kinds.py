"""The kinds of values that settings have: how each is written in files, variables and flags, and checked."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

_QUANTITY = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?) ?([A-Za-z]*)", re.ASCII)
_UNITS = {
    "": 1,
    **{letter: 1000**power for power, letter in enumerate("kmgt", start=1)},
    **{letter: 1024**power for power, letter in enumerate("KMGT", start=1)},
    **{letter + "iB": 1024**power for power, letter in enumerate("KMGT", start=1)},
    **{letter + "B": 1000**power for power, letter in enumerate("kMGT", start=1)},
}


def parse_quantity(value: object) -> int:
    """The whole number that `value` says. Small suffixes count in thousands (25.6k), capitals in 1024s (32K, 2G, 2GiB).

    `GB` and its kin are the decimal units. Raises ValueError for anything else, truth values and fractions included.
    """
    if isinstance(value, bool):
        raise ValueError("should be a whole number, not a truth value")
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        match = _QUANTITY.fullmatch(value.strip())
        if match and len(value) <= 40 and match[2] in _UNITS:
            number = Decimal(match[1].replace("_", "")) * _UNITS[match[2]]
            if number == number.to_integral_value():
                return int(number)
    raise ValueError("should be a whole number such as 4096, 32K or 25.6k")


def _seconds(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("should be a number, not a truth value")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("should be a finite number")
    return value


def _split(value: object) -> object:
    """A tuple from a comma-separated text, as variables and flags carry it."""
    if isinstance(value, str):
        return tuple(part for part in (piece.strip() for piece in value.split(",")) if part)
    return value


def _table(value: object) -> object:
    """A table from JSON text, as variables carry it."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError("should be a JSON object") from None
    return value


def optional(value: object) -> object:
    """None for an empty text, which is how variables and flags say "none"."""
    return None if isinstance(value, str) and not value.strip() else value


def _api_key(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    if len(text) < 8 or len(text) > 512:
        raise ValueError("an API key has 8 to 512 characters")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("an API key is printable ASCII without spaces, because it travels in an HTTP header")
    return key


def absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def checked_url(url: str) -> str:
    if url:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("a server URL looks like http://127.0.0.1:8000")
        url = url.rstrip("/").removesuffix("/v1")
    return url


Count = Annotated[int, BeforeValidator(parse_quantity)]
Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
Keys = Annotated[tuple[Annotated[SecretStr, AfterValidator(_api_key)], ...], BeforeValidator(_split)]
Folder = Annotated[Path, AfterValidator(absolute)]
Folders = Annotated[tuple[Folder, ...], BeforeValidator(_split)]
Policies = Annotated[dict[SecretStr, Names], BeforeValidator(_table)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(allow_inf_nan=False)]
