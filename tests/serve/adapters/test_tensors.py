"""Tensors of a file: every type that is served reads as torch reads it, wherever in the file it lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tunechat.serve.adapters.tensors import TensorFile

TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def written(path: Path, metadata: str = "", **tensors: torch.Tensor) -> TensorFile:
    save_file(tensors, path, {"note": metadata})
    return TensorFile(path, 1 << 20)


@pytest.mark.parametrize("kind", TYPES)
def test_reads_what_torch_wrote(tmp_path: Path, kind: str) -> None:
    tensor = torch.randn(3, 5).to(TYPES[kind])
    tensor[0, 0], tensor[0, 1] = 65504, -(2.0**-20)
    file = written(tmp_path / "a", x=tensor)
    assert (file.entries["x"].dtype, file.entries["x"].shape) == (kind, (3, 5))
    np.testing.assert_array_equal(file.array("x"), tensor.float().numpy())
    assert bytes(file.raw("x")) == tensor.view(torch.uint8).numpy().tobytes()
    assert file.is_finite("x") and not file.is_zero("x")


def test_numbers_that_lie_askew_in_the_file(tmp_path: Path) -> None:
    """The format asks for no alignment: a tensor of bytes may push a float32 to any place."""
    tensor = torch.randn(4, 4)
    file = written(tmp_path / "a", a=tensor, b=torch.ones(3, dtype=torch.uint8), c=tensor.bfloat16())
    np.testing.assert_array_equal(file.array("a"), tensor.numpy())
    np.testing.assert_array_equal(file.array("c"), tensor.bfloat16().float().numpy())


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_sees_what_is_no_number(tmp_path: Path, kind: str, value: float) -> None:
    tensor = torch.zeros(7)
    tensor[6] = value
    assert not written(tmp_path / "a", x=tensor.to(TYPES[kind])).is_finite("x")


@pytest.mark.parametrize("kind", TYPES)
def test_minus_zero_is_zero_and_the_smallest_number_is_not(tmp_path: Path, kind: str) -> None:
    tensor = torch.full((4,), -0.0).to(TYPES[kind])
    assert written(tmp_path / "a", x=tensor).is_zero("x")
    bits = tensor.view(torch.int32 if kind == "F32" else torch.int16)
    bits[1] = 1
    assert not written(tmp_path / "b", x=tensor).is_zero("x")


def test_the_view_cannot_be_written_to(tmp_path: Path) -> None:
    file = written(tmp_path / "a", x=torch.ones(2, 2))
    with pytest.raises(ValueError, match="read-only"):
        file.array("x")[0, 0] = 5
