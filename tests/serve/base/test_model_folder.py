"""A written model folder: readable by the safetensors library and transformers, one tensor in memory at a time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from tunechat.serve.base.hf_checkpoint import HfCheckpoint
from tunechat.serve.base.model_folder import WrittenModel, write_model
from tunechat.serve.contract.errors import ModelError
from tunechat.tests.tiny_models import make_tiny

TENSORS = {
    "a": torch.randn(3, 5),
    "b": torch.arange(7, dtype=torch.float32),
    "c": torch.randn(40, 10),
    "d": torch.zeros(0, 4),
}


def model(dtype: torch.dtype, tensors: dict[str, Tensor] = TENSORS) -> WrittenModel:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    config = {"architectures": ["X"], "auto_map": {"x": "code"}, "quantization_config": {}, "dtype": "float64"}
    return WrittenModel(config, shapes, tensors.__getitem__, dtype, {"README.md": b"hi"}, {"note": "x"})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shard_bytes", [1, 200, 1 << 30])
def test_every_tensor_is_there_in_its_type(tmp_path: Path, dtype: torch.dtype, shard_bytes: int) -> None:
    seen: list[float] = []
    nbytes = write_model(tmp_path, model(dtype), seen.append, shard_bytes=shard_bytes)
    files = sorted(tmp_path.glob("*.safetensors"))
    found = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], TENSORS[name].to(dtype)) for name in TENSORS)
    assert nbytes == sum(tensor.nbytes for tensor in found.values())
    assert seen == sorted(seen) and seen[-1] == 1
    if len(files) > 1:
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == nbytes
        assert {tmp_path / name for name in index["weight_map"].values()} == set(files)
        assert all(name in load_file(tmp_path / file) for name, file in index["weight_map"].items())
    else:
        assert [file.name for file in files] == ["model.safetensors"]
    with safe_open(files[0], framework="pt") as opened:
        assert opened.metadata() == {"format": "pt", "note": "x"}


def test_config_keeps_no_code_and_tells_the_type(tmp_path: Path) -> None:
    write_model(tmp_path, model(torch.bfloat16), lambda fraction: None)
    assert json.loads((tmp_path / "config.json").read_text()) == {"architectures": ["X"], "torch_dtype": "bfloat16"}
    assert (tmp_path / "README.md").read_bytes() == b"hi"


def test_number_beyond_the_type_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a has numbers that float16 cannot hold; choose bfloat16"):
        write_model(tmp_path, model(torch.float16, {"a": torch.tensor([1e6])}), lambda fraction: None)


def test_other_shape_than_planned_is_an_error(tmp_path: Path) -> None:
    wrong = WrittenModel({}, {"a": (2,)}, lambda name: torch.zeros(3), torch.float32, {})
    with pytest.raises(ValueError, match="planned"):
        write_model(tmp_path, wrong, lambda fraction: None)


def test_transformers_reads_shards(tmp_path: Path) -> None:
    source = HfCheckpoint(make_tiny(tmp_path / "source", "llama", dtype=torch.bfloat16))
    shapes = {name: source.shape(name) for name in source.names}
    (tmp_path / "out").mkdir()
    whole = WrittenModel(source.config, shapes, source.tensor, torch.bfloat16, {})
    write_model(tmp_path / "out", whole, lambda fraction: None, shard_bytes=50_000)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 2
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.dtype == torch.bfloat16
    state = loaded.state_dict()
    assert all(torch.equal(state[name], source.tensor(name)) for name in source.names)
