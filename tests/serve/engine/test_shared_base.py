"""A second engine on the same base costs hardly any memory: what it maps is shared, what is its own is small."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np
from tunechat.serve.engine.batch import Batch
from tunechat.serve.engine.options import EngineOptions
from tunechat.serve.engine.runner import build_runner

def own():
    # Not Private_Dirty: pages of a file that was just written count there too.
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return 1024 * int(rollup.partition("Anonymous:")[2].split()[0])

bare = own()
runner = build_runner(Path(sys.argv[1]), EngineOptions(model="default", home="unused", device="cpu"))
count = 32
runner.forward(Batch(
    tokens=np.arange(count, dtype=np.int32) + 100,
    positions=np.arange(count, dtype=np.int32),
    sequences=np.zeros(count, dtype=np.int32),
    slots=np.arange(count, dtype=np.int64),
    block_tables=np.array([[0, 1]], dtype=np.int32),
    logit_rows=np.array([count - 1], dtype=np.int64),
))
print(json.dumps({"own": own() - bare}), flush=True)
sys.stdin.readline()
"""


def start(entry: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(entry)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def said(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    found: dict[str, Any] = json.loads(process.stdout.readline())
    return found


def mapped(process: subprocess.Popen[str], file: Path, measure: str = "Pss") -> int:
    """Proportional set size (or another measure of smaps) of the process's mappings of `file`, in bytes."""
    total, inside = 0, False
    for line in Path(f"/proc/{process.pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(str(file))
        elif inside and line.startswith(f"{measure}:"):
            total += int(line.split()[1]) * 1024
    return total


def test_two_engines_hold_the_base_once(default_entry: Path, tmp_path: Path) -> None:
    # Others may map the default model meanwhile, and would have a share of it.
    entry = shutil.copytree(default_entry, tmp_path / default_entry.name)
    weights = entry / "weights.safetensors"
    size = weights.stat().st_size
    processes = [start(entry) for _ in range(2)]
    try:
        own = [said(process)["own"] for process in processes]
        together = [mapped(process, weights) for process in processes]
        present = [mapped(process, weights, "Rss") for process in processes]
    finally:
        for process in processes:
            process.communicate("done\n", timeout=30)
    assert min(present) > 0.6 * size
    assert sum(together) <= 1.05 * size
    assert max(own) <= 0.15 * size, f"{max(own) / size:.0%} of the base is private"
