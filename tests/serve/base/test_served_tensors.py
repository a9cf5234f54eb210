"""A prepared model's tensors under transformers' names: the same model, as far as its form keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tunechat.serve.base.entry import BaseEntry
from tunechat.serve.base.prepare import prepare
from tunechat.serve.base.served_tensors import ServedTensors
from tunechat.tests.tiny_models import make_tiny

from .conftest import quiet

FAMILIES = ("llama", "qwen2", "qwen3", "phi3", "gemma2", "gpt2")


@pytest.fixture(scope="module", params=FAMILIES)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    # One key head of 20 rows: parts of the fused matrix do not fall on groups of eight.
    shape = {"num_key_value_heads": 1, "head_dim": 20} if request.param in {"llama", "qwen3"} else {}
    return make_tiny(tmp_path_factory.mktemp("source") / request.param, request.param, **shape)


@pytest.mark.parametrize(("quant", "tolerance"), [("none", 0.0), ("int4", 0.2), ("nf4", 0.2)])
def test_every_tensor_is_the_sources(source: Path, tmp_path: Path, quant: str, tolerance: float) -> None:
    served = ServedTensors(BaseEntry.open(prepare(str(source), quant=quant, home=tmp_path, report=quiet)))
    expected = load_file(source / "model.safetensors")
    assert set(served.names) == set(expected)
    for name, tensor in expected.items():
        found = served.tensor(name)
        assert served.shape(name) == tuple(found.shape) == tuple(tensor.shape)
        error = (found.float() - tensor).abs().max()
        assert error <= tolerance * tensor.abs().max(), name
    if quant != "none" and source.name != "gpt2":  # whose layers are no linears
        assert any(not torch.equal(served.tensor(name).float(), expected[name]) for name in expected)
