"""A trainer beside an engine maps the base that is served: its bytes are in memory once."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tunechat.serve.base.entry import BaseEntry

from .runs import read_event, start

# An engine that has read its whole base, and waits.
ENGINE = """
import sys
from pathlib import Path
import numpy as np
from tunechat.serve.engine.batch import Batch
from tunechat.serve.engine.options import EngineOptions
from tunechat.serve.engine.runner import build_runner

runner = build_runner(Path(sys.argv[1]), EngineOptions(model="default", home="unused", device="cpu"))
count = 8
runner.forward(Batch(
    tokens=np.arange(count, dtype=np.int32) + 100,
    positions=np.arange(count, dtype=np.int32),
    sequences=np.zeros(count, dtype=np.int32),
    slots=np.arange(count, dtype=np.int64),
    block_tables=np.array([[0, 1]], dtype=np.int32),
    logit_rows=np.array([count - 1], dtype=np.int64),
))
print("ready", flush=True)
sys.stdin.readline()
"""


def mapped(pid: int, file: Path, measure: str) -> int:
    """A measure of smaps, in bytes, summed over the mappings that a process has of `file`."""
    total, inside = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(str(file))
        elif inside and line.startswith(f"{measure}:"):
            total += int(line.split()[1]) * 1024
    return total


def test_trainer_and_engine_hold_the_base_once(default_entry: Path, tmp_path: Path, data_file: Path) -> None:
    # Others may map the default model meanwhile, and would have a share of it.
    entry = BaseEntry.open(shutil.copytree(default_entry, tmp_path / default_entry.name))
    weights = entry.folder / "weights.safetensors"
    size = weights.stat().st_size
    engine = subprocess.Popen(
        [sys.executable, "-c", ENGINE, str(entry.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    recipe = {"data": str(data_file), "rank": 2, "targets": "q_proj", "steps": 1000, "priority": "training"}
    trainer = start(entry, tmp_path / "job", recipe)
    try:
        while read_event(trainer)["type"] != "step":
            continue
        assert engine.stdout is not None
        assert engine.stdout.readline() == "ready\n"
        trainer.send_signal(signal.SIGSTOP)
        both = (engine.pid, trainer.pid)
        together = sum(mapped(pid, weights, "Pss") for pid in both)
        present = [mapped(pid, weights, "Rss") for pid in both]
        own = sum(mapped(pid, weights, "Anonymous") for pid in both)
    finally:
        trainer.kill()
        trainer.communicate()
        engine.communicate("done\n", timeout=30)
    assert min(present) > 0.6 * size
    assert together <= 1.05 * size
    assert own <= 0.05 * size
