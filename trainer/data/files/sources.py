"""Which files are meant: paths, folders and patterns, each with a weight."""

from __future__ import annotations

import glob
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ....serve.contract.errors import ConfigError, InvalidData
from ..sample import Place
from .reading import SUFFIXES, is_readable

MAX_WEIGHT = 1000.0
MAX_FILES = 10_000


@dataclass(frozen=True, slots=True)
class Source:
    """One file. `weight` is how often each of its samples is taken in a pass: 2 twice, 0.5 every other one."""

    path: Path
    weight: float = 1.0

    def times(self, place: Place, seed: int = 0) -> int:
        """How often the sample at `place` is taken: the whole part of the weight, and once more for its fraction of the
        samples. The same for the same seed, so that a run that goes on takes the same ones."""
        whole = math.floor(self.weight)
        key = f"{seed}\0{place.file}\0{place.line}".encode(errors="surrogateescape")
        share = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()) / 2**64
        return whole + (share < self.weight - whole)


def read_sources(texts: Sequence[str]) -> list[Source]:
    """The files of `PATH` or `PATH=WEIGHT` each, where a path is a file, a folder (with those below it) or a pattern.

    In order, each file once. Raises ConfigError for a weight that is none, InvalidData where a path leads to no file
    that can be read.
    """
    sources: dict[Path, Source] = {}
    for text in texts:
        name, weight = _split(text)
        for path in _files(name):
            sources.setdefault(path, Source(path, weight))
            if len(sources) > MAX_FILES:
                raise ConfigError(f"These are more than {MAX_FILES} files; join some.")
    return list(sources.values())


def _split(text: str) -> tuple[str, float]:
    name, sign, number = text.rpartition("=")
    if not sign or Path(text).exists():
        return text, 1.0
    try:
        weight = float(number)
    except ValueError:
        return text, 1.0
    if not 0 < weight <= MAX_WEIGHT:
        raise ConfigError(f"The weight of {name} must be above 0 and at most {MAX_WEIGHT:g}, not {number}.")
    return name, weight


def _files(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        found = [
            file for file in path.rglob("*") if file.is_file() and is_readable(file) and not _is_hidden(file, path)
        ]
    elif path.exists() or not glob.has_magic(name):
        return [path]
    else:
        found = [Path(file) for file in glob.glob(name, recursive=True) if Path(file).is_file()]
    if not found:
        raise InvalidData("no file that can be read", f"the kinds are {', '.join(SUFFIXES)}", file=name, kind="file")
    return sorted(found)


def _is_hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)
