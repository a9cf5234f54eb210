"""A disk that fills up ends a training with the reason, and what was saved before stays whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from tunechat.serve.base.entry import BaseEntry
from tunechat.serve.contract.jobs import DONE, FAILED, ORDER, TrainingEnded, TrainingFailed, TrainingOrder
from tunechat.trainer.checkpoint import checkpoints

from .runs import events_in

# Makes a disk of some size that only this process and its children see, and a trainer on it. What is free there is
# taken by a file once there is a checkpoint; the trainer goes on from it when there is room again.
PROGRAM = """
mount -t tmpfs -o size=24m none "$1" || exit 99
cp "$2" "$1/order.json"
head -c $((21 * 1024 * 1024)) /dev/zero > "$1/ballast"
"$3" -m tunechat.trainer "$1"
echo $? > "$4/first"
ls -A "$1" > "$4/names"
cp -r "$1" "$4/full"
rm "$1/ballast"
"$3" -m tunechat.trainer "$1" > "$4/rest"
echo $? > "$4/second"
"""


@pytest.fixture
def mount_point(tmp_path: Path) -> Iterator[Path]:
    tried = shutil.which("unshare") and subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "none", str(tmp_path)], capture_output=True, check=False
    )
    if not tried or tried.returncode:
        pytest.skip("disks of a size cannot be made here")
    place = tmp_path / "disk"
    place.mkdir()
    yield place


@pytest.mark.acceptance
def test_it_is_told_and_what_was_saved_goes_on(
    tiny_entry: Callable[..., BaseEntry], tmp_path: Path, data_file: Path, mount_point: Path
) -> None:
    # Each checkpoint takes about a megabyte, and all of them are kept.
    recipe = {"data": str(data_file), "rank": 16, "steps": 12, "save_steps": 1, "keep_checkpoints": 100, "lr": 0.01}
    order = tmp_path / "order.json"
    order.write_bytes(
        msgspec.json.encode(TrainingOrder(job="job", recipe=recipe, entry=str(tiny_entry("llama").folder), threads=1))
    )
    kept = tmp_path / "kept"
    kept.mkdir()
    run = subprocess.run(
        ["unshare", "-m", "sh", "-c", PROGRAM, "sh", str(mount_point), str(order), sys.executable, str(kept)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=100,
        check=True,
    )
    failed = events_in(run.stdout)[-1]
    assert isinstance(failed, TrainingFailed)
    assert failed.code == "insufficient_storage"
    assert (kept / "first").read_text().strip() == str(FAILED)
    # What could not be finished is gone, and no checkpoint is there that is not whole.
    assert ".tmp-" not in (kept / "names").read_text()
    whole = checkpoints(kept / "full")
    assert whole
    assert len(whole) == len(list((kept / "full").glob("checkpoint-*"))) < 12
    assert (kept / "second").read_text().strip() == str(DONE)
    started, *_, end = events_in((kept / "rest").read_bytes())
    assert started.resumed_at == whole[0].state.step  # type: ignore[union-attr]
    assert isinstance(end, TrainingEnded)
    assert ORDER in (kept / "names").read_text()
