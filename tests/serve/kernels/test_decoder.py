"""The C operations of a decoder layer against torch, on ragged batches over a paged cache."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tunechat.serve.kernels import decoder

BLOCK_SIZE = 4


def without_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "library", lambda: None)


def ragged() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Three sequences with 5, 1 and 3 new tokens at depths 0, 9 and 2: block tables, sequences, positions, slots."""
    tables = torch.tensor([[4, 1, -1], [0, 3, 6], [5, 2, -1]], dtype=torch.int32)
    sequences = torch.tensor([0] * 5 + [1] + [2] * 3, dtype=torch.int32)
    positions = torch.tensor([0, 1, 2, 3, 4, 9, 2, 3, 4], dtype=torch.int32)
    blocks = tables[sequences.long(), (positions // BLOCK_SIZE).long()].long()
    return tables, sequences, positions, blocks * BLOCK_SIZE + (positions % BLOCK_SIZE).long()


@pytest.mark.parametrize("width", [8, 37, 576])
@pytest.mark.parametrize("with_delta", [True, False])
def test_add_rms_norm(width: int, with_delta: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight = torch.randn(5, width), torch.randn(width)
    delta = torch.randn(5, width) if with_delta else None
    ours, theirs = hidden.clone(), hidden.clone()
    found = decoder.add_rms_norm(ours, delta, weight, 1e-5)
    without_c(monkeypatch)
    expected = decoder.add_rms_norm(theirs, delta, weight, 1e-5)
    assert torch.equal(ours, theirs)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("width", [8, 30, 1536])
def test_silu_product(width: int) -> None:
    gate_up = torch.randn(3, 2 * width) * 20
    expected = torch.nn.functional.silu(gate_up[:, :width]) * gate_up[:, width:]
    assert torch.allclose(decoder.silu_product(gate_up), expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("rotary_dim", [16, 8])
@pytest.mark.parametrize("with_norms", [True, False])
def test_rotate_and_store(rotary_dim: int, with_norms: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    heads, kv_heads, d = 4, 2, 16
    _, _, positions, slots = ragged()
    qkv = torch.randn(9, (heads + 2 * kv_heads) * d)
    angles = torch.outer(torch.arange(16.0), torch.rand(rotary_dim // 2))
    norms = (torch.rand(d), torch.rand(d)) if with_norms else (None, None)

    def run() -> tuple[Tensor, Tensor, Tensor]:
        keys, values = torch.zeros(7, kv_heads, BLOCK_SIZE, d), torch.zeros(7, kv_heads, BLOCK_SIZE, d)
        q = decoder.rotate_and_store(
            qkv.clone(), heads, kv_heads, angles.cos(), angles.sin(), positions, slots, *norms, 1e-6, keys, values
        )
        return q, keys, values

    found = run()
    without_c(monkeypatch)
    for ours, theirs in zip(found, run(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("heads", [2, 6, 8, 10])
@pytest.mark.parametrize(("window", "softcap"), [(0, 0.0), (3, 0.0), (0, 2.0)])
def test_paged_attention(
    dtype: torch.dtype, heads: int, window: int, softcap: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    kv_heads, d = 2, 24
    tables, sequences, positions, _ = ragged()
    q = torch.randn(9, heads * d)
    keys, values = (torch.randn(7, kv_heads, BLOCK_SIZE, d).to(dtype) for _ in range(2))

    def run(rows: slice) -> Tensor:
        return decoder.paged_attention(
            q[rows], heads, keys, values, tables, sequences[rows], positions[rows],
            longest_run=int(sequences[rows].bincount().max()), scale=d**-0.5, window=window, softcap=softcap,
        )  # fmt: skip

    found = run(slice(0, 9))
    alone = torch.cat([run(slice(i, i + 1)) for i in range(9)])
    assert torch.equal(found, alone)
    without_c(monkeypatch)
    assert torch.allclose(found, run(slice(0, 9)), rtol=1e-4, atol=1e-5)


def test_store_rounds_as_torch_does() -> None:
    _, _, _, slots = ragged()
    k, v = torch.randn(9, 2, 16), torch.randn(9, 2, 16)
    for dtype in (torch.float32, torch.float16):
        keys, values = torch.zeros(7, 2, BLOCK_SIZE, 16, dtype=dtype), torch.zeros(7, 2, BLOCK_SIZE, 16, dtype=dtype)
        decoder.store(k, v, slots, keys, values)
        assert torch.equal(keys[slots // BLOCK_SIZE, :, slots % BLOCK_SIZE], k.to(dtype))
        assert torch.equal(values[slots // BLOCK_SIZE, :, slots % BLOCK_SIZE], v.to(dtype))
