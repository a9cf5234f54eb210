"""A model with changed linears: only what is changed differs, and shared weights are parted where they must be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from tunechat.serve.base.hf_checkpoint import HfCheckpoint
from tunechat.serve.base.merged_model import Written, is_tied, write_changed
from tunechat.serve.contract.errors import ModelError
from tunechat.tests.tiny_models import make_tiny

Q = "model.layers.1.self_attn.q_proj"


def add_one(weight: NDArray[np.float32]) -> None:
    weight += 1


def written(source: Path, target: Path, modules: list[str], **more: Any) -> tuple[Written, dict[str, torch.Tensor]]:
    target.mkdir()
    settings: dict[str, Any] = {"dtype": None, "files": {}, "metadata": {}, "progress": lambda done: None} | more
    told = write_changed(target, HfCheckpoint(source), dict.fromkeys(modules, add_one), **settings)
    return told, load_file(target / "model.safetensors")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_the_linear_changes_and_the_type_is_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    source = make_tiny(tmp_path / "source", "llama", dtype=dtype)
    before = load_file(source / "model.safetensors")
    told, after = written(source, tmp_path / "out", [Q])
    assert told.dtype == str(dtype).removeprefix("torch.")
    assert before.keys() == after.keys()
    different = [name for name in before if not torch.equal(before[name], after[name])]
    assert different == [f"{Q}.weight"]
    assert torch.equal(after[f"{Q}.weight"], (before[f"{Q}.weight"].float() + 1).to(dtype))


def test_shared_head_gets_a_weight_of_its_own(tmp_path: Path) -> None:
    source = make_tiny(tmp_path / "source", "llama", tie_word_embeddings=True)
    before = load_file(source / "model.safetensors")
    told, after = written(source, tmp_path / "out", ["lm_head"])
    assert told.untied == ("lm_head",)
    assert torch.equal(after["model.embed_tokens.weight"], before["model.embed_tokens.weight"])
    assert torch.equal(after["lm_head.weight"], before["model.embed_tokens.weight"] + 1)


def test_useless_copy_of_a_shared_head_is_not_what_is_changed(tmp_path: Path) -> None:
    source = make_tiny(tmp_path / "source", "llama", tie_word_embeddings=True)
    tensors = load_file(source / "model.safetensors")
    embedding = tensors["model.embed_tokens.weight"]
    save_file(tensors | {"lm_head.weight": torch.zeros_like(embedding)}, source / "model.safetensors")
    _, after = written(source, tmp_path / "out", ["lm_head"])
    assert torch.equal(after["lm_head.weight"], embedding + 1)


def test_files_of_a_bare_model_lack_a_prefix(tmp_path: Path) -> None:
    source = make_tiny(tmp_path / "source", "llama")
    tensors = load_file(source / "model.safetensors")
    save_file({name.removeprefix("model."): t for name, t in tensors.items()}, source / "model.safetensors")
    _, after = written(source, tmp_path / "out", [Q])
    name = f"{Q.removeprefix('model.')}.weight"
    assert torch.equal(after[name], tensors[f"{Q}.weight"] + 1)


def test_linear_that_is_not_there_is_named(tmp_path: Path) -> None:
    source = make_tiny(tmp_path / "source", "llama")
    with pytest.raises(ModelError, match=r"no weight of model\.nothing"):
        written(source, tmp_path / "out", ["model.nothing"])


def test_layers_share_nothing(tmp_path: Path) -> None:
    config = HfCheckpoint(make_tiny(tmp_path / "source", "gemma", tie_word_embeddings=True)).config
    assert is_tied(config, "lm_head")
    assert not is_tied(config, Q)
