"""Names of adapters and their versions. A name is never a path: it says nothing about where anything lies."""

from __future__ import annotations

import re
from pathlib import Path

from ..contract.errors import InvalidRequest, NotFound

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


def check_name(name: str) -> str:
    """`name` itself. Raises InvalidRequest when it is no adapter name."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name[:80]!r} is no adapter name: 1 to 64 ASCII letters, digits, dots, dashes and underscores, "
            "the first a letter or digit",
            param="name",
        )
    return name


def parse_id(text: str) -> tuple[str, int | None]:
    """Name and version number: ("support", 3) of "support@3"; the number of "support" is None.

    Raises InvalidRequest for anything else.
    """
    name, at, number = text.partition("@")
    check_name(name)
    if not at:
        return name, None
    if not _NUMBER.fullmatch(number):
        raise InvalidRequest(f"{number[:80]!r} is no version number; write for example {name}@1", param="name")
    return name, int(number)


def inside(root: Path, *parts: str) -> Path:
    """`root` followed by `parts`. Raises NotFound when a link on the way leads somewhere else."""
    path = root.joinpath(*parts)
    if path.resolve() != root.resolve().joinpath(*parts):
        raise NotFound(f"{'/'.join(parts)} is a link, which the adapter store does not follow")
    return path
