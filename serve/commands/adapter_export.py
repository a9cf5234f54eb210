"""A stored adapter as a PEFT folder or a zip that other programs load."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..adapters.adapter import CONFIG
from ..adapters.staging import CARD
from ..api.archive import FILES
from .adapter_archive import pack
from .placing import placed_file, placed_folder


def write_peft(folder: Path, target: Path, *, force: bool) -> int:
    """Writes the adapter in `folder` to `target`, a zip where its name ends in .zip; returns the bytes written.

    It is there whole or not at all. Equal content makes equal bytes. Raises Conflict when something is there already,
    unless `force` and it is an earlier export.
    """
    target = target.absolute()
    if target.suffix.lower() == ".zip":
        with placed_file(target, force=force) as staged:
            pack(folder, staged)
            with staged.open("rb") as file:
                os.fsync(file.fileno())
        return target.stat().st_size
    with placed_folder(target, CONFIG, force=force) as staged:
        names = [name for name in (*FILES, CARD) if (folder / name).is_file()]
        for name in names:
            shutil.copyfile(folder / name, staged / name)
            with (staged / name).open("rb") as file:
                os.fsync(file.fileno())
    return sum((target / name).stat().st_size for name in names)
