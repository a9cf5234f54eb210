"""Tiny adapters of the tests' base, as PEFT writes them, and as zips."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save

from tunechat.tests.serve.api.harness import chat

if TYPE_CHECKING:
    import httpx

    from tunechat.tests.serve.api.conftest import Served

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MODULES = ("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj")


def adapter_files(seed: int = 1, *, rank: int = 2, **config: Any) -> dict[str, bytes]:
    """The two files of an adapter, by name; another `seed` is other content."""
    numbers = np.random.default_rng(seed)
    tensors = {}
    for module in MODULES:
        tensors[f"base_model.model.{module}.lora_A.weight"] = numbers.normal(size=(rank, 8)).astype(np.float32)
        tensors[f"base_model.model.{module}.lora_B.weight"] = numbers.normal(size=(8, rank)).astype(np.float32)
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "some/base",
        "r": rank,
        "lora_alpha": 4,
        "target_modules": ["q_proj", "v_proj"],
    } | config
    return {CONFIG: json.dumps(settings).encode(), WEIGHTS: save(tensors)}


def write_adapter(folder: Path, seed: int = 1, **config: Any) -> Path:
    """A PEFT folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in adapter_files(seed, **config).items():
        (folder / name).write_bytes(content)
    return folder


def zipped(files: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of `files`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


async def upload(served: Served, name: str, seed: int = 1, query: str = "", **config: Any) -> httpx.Response:
    """Uploads an adapter as a zip."""
    headers = {"content-type": "application/zip"}
    content = zipped(adapter_files(seed, **config))
    return await served.client.post(f"/v1/adapters/{name}{query}", content=content, headers=headers)


async def ask(served: Served, model: str, **fields: Any) -> httpx.Response:
    """Asks `model` something."""
    return await served.client.post("/v1/chat/completions", json=chat(**{"model": model} | fields))
