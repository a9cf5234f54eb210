"""A PEFT folder from a path that may lead to a zip of one, and the other way round."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..adapters.staging import CARD
from ..api.archive import FILES, extract, packed
from ..contract.errors import NotFound, UnsupportedFormat


@contextmanager
def unpacked(path: Path, max_bytes: int) -> Iterator[Path]:
    """The folder `path`, or one with the adapter in the zip `path` for as long as the block runs.

    Raises NotFound when there is neither, UnsupportedFormat for another file, and what `extract` finds wrong.
    """
    if path.is_dir():
        yield path
        return
    if not path.is_file():
        raise NotFound(f"there is no {path}; give a PEFT folder or a zip of one")
    if not zipfile.is_zipfile(path):
        raise UnsupportedFormat(f"{path.name} is neither a folder nor a zip; give a PEFT folder or a zip of one")
    with tempfile.TemporaryDirectory(prefix="tunechat-") as temporary:
        folder = Path(temporary)
        extract(path, folder, max_bytes)
        yield folder


def pack(folder: Path, target: Path) -> None:
    """Writes the adapter in `folder` as the new zip `target`. Equal content makes equal bytes."""
    names = [name for name in (*FILES, CARD) if (folder / name).is_file()]
    with target.open("xb") as file:
        for piece in packed([(name, (folder / name).open("rb")) for name in names]):
            file.write(piece)
