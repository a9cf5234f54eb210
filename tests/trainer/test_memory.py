"""How much memory there is, as systems and control groups tell it."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
import torch

from tunechat.trainer.memory import Gauge, free_memory

MIB = 1 << 20


def machine(root: Path, groups: str, **files: object) -> Path:
    """A system that has 1,000 MiB, with these files under /sys/fs/cgroup ("__" stands for a slash, "_" for a dot)."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 9999999 kB\nMemAvailable: {1000 * 1024} kB\n")
    (root / "proc/self/cgroup").write_text(groups)
    for name, value in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("memory_", "memory.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return root


def test_without_limits_it_is_what_the_machine_has(tmp_path: Path) -> None:
    assert free_memory(machine(tmp_path, "0::/\n", memory_max="max")) == 1000 * MIB


def test_the_tightest_group_counts_and_its_cache_makes_room(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        "0::/a/b\n",
        a__memory_max=500 * MIB,
        a__memory_current=400 * MIB,
        a__memory_stat=f"anon 1\ninactive_file {50 * MIB}\nactive_file {20 * MIB}",
        a__b__memory_max="max",
    )
    assert free_memory(root) == 170 * MIB


def test_older_groups_are_read_where_the_process_sees_them(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        "5:cpu:/x\n4:memory:/seen/from/outside\n",
        memory__memory_limit_in_bytes=300 * MIB,
        memory__memory_usage_in_bytes=100 * MIB,
        memory__memory_stat="inactive_file 0",
    )
    assert free_memory(root) == 200 * MIB


def test_where_nothing_is_told_nothing_is_known(tmp_path: Path) -> None:
    assert free_memory(tmp_path) is None


def test_a_gauge_sees_what_was_there_and_is_gone() -> None:
    gauge = Gauge(torch.device("cpu"))
    if not gauge.works:
        pytest.skip("this system does not tell peaks of memory")
    # An array might lie where other tests have left room.
    with mmap.mmap(-1, 64 * MIB) as block:
        block.write(bytes(64 * MIB))
    # The bytes that are written are there as well.
    assert 60 * MIB < gauge.extra() < 200 * MIB
    assert Gauge(torch.device("cpu")).extra() < 20 * MIB
