"""What the tests of adapters share: a tiny base, and adapters of it that peft itself made and saved."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM

from tunechat.serve.adapters.store import AdapterStore
from tunechat.serve.base.entry import read_manifest
from tunechat.serve.base.prepare import prepare
from tunechat.serve.contract.base import BaseManifest
from tunechat.tests.tiny_models import make_tiny

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
MakePeft = Callable[..., Path]


def quiet(stage: str, fraction: float | None) -> None:
    """A progress report that goes nowhere."""


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama in the Hugging Face layout, with a head of its own."""
    return make_tiny(tmp_path_factory.mktemp("base") / "tiny", "llama", tie_word_embeddings=False)


@pytest.fixture(scope="session")
def base(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> BaseManifest:
    """The manifest of the tiny Llama, prepared."""
    return read_manifest(prepare(str(tiny_folder), quant="int4", home=tmp_path_factory.mktemp("home"), report=quiet))


@pytest.fixture(scope="session")
def make_peft(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> MakePeft:
    """Makes an adapter of the tiny Llama with peft, fills it with random numbers and saves it with peft."""

    def make(*, seed: int = 1, dtype: torch.dtype = torch.float32, folder: Path | None = None, **config: Any) -> Path:
        from peft import LoraConfig, get_peft_model

        folder = folder or tmp_path_factory.mktemp("peft") / "adapter"
        settings: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]} | config
        generator = torch.Generator().manual_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_folder), LoraConfig(**settings))
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if "lora_" in name:
                        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
            model.to(dtype).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def plain(make_peft: MakePeft) -> Path:
    """A LoRA of rank 4 on q_proj and v_proj. Copy it before changing it."""
    return make_peft()


@pytest.fixture
def own(plain: Path, tmp_path: Path) -> Path:
    """A copy of `plain` that the test may spoil."""
    return Path(shutil.copytree(plain, tmp_path / "own"))


def edit_config(folder: Path, **changes: Any) -> None:
    """Sets keys of `adapter_config.json`."""
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(folder: Path, change: Callable[[dict[str, np.ndarray[Any, Any]]], None]) -> None:
    """Lets `change` alter the tensors by name and writes them back."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "adapters")


def scaled(folder: Path, alpha: int, target: Path) -> Path:
    """A copy of the adapter with another alpha: other content."""
    shutil.copytree(folder, target)
    edit_config(target, lora_alpha=alpha)
    return target
