"""PEFT folders with random numbers, written without peft: for speed it does not matter what an adapter says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tunechat.serve.base.entry import read_manifest

# Deltas this small leave a story a story: streams then last as long as the base's.
SIZE = 1e-4


def write_adapter(entry: Path, target: Path, *, seed: int, rank: int, modules: tuple[str, ...] | None = None) -> Path:
    """A LoRA of `rank`, in float32 as peft saves it, on all linears of the layers or on those ending in `modules`."""
    chance = np.random.default_rng(seed)
    tensors, ends = {}, set()
    for name, (rows, columns) in read_manifest(entry).linears.items():
        if name == "lm_head" or (modules is not None and not name.endswith(modules)):
            continue
        ends.add(name.rpartition(".")[2])
        a = chance.standard_normal((rank, columns), dtype=np.float32) / np.sqrt(columns, dtype=np.float32)
        b = chance.standard_normal((rows, rank), dtype=np.float32) * np.float32(SIZE)
        tensors[f"base_model.model.{name}.lora_A.weight"] = a
        tensors[f"base_model.model.{name}.lora_B.weight"] = b
    target.mkdir(parents=True)
    save_file(tensors, target / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": sorted(ends),
        "inference_mode": True,
    }
    (target / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return target
