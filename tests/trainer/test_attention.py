"""Samples in one row: by FlashAttention as by SDPA, and apart from one another or not joined at all."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from tunechat.serve.base.entry import BaseEntry
from tunechat.serve.contract.errors import ConfigError
from tunechat.trainer import attention
from tunechat.trainer.adapted import AdaptedModel
from tunechat.trainer.attention import Samples, flash_attention, isolated_attention
from tunechat.trainer.computing import Computing
from tunechat.trainer.data.packing import join
from tunechat.trainer.lora import LoraPlan
from tunechat.trainer.methods import make_model
from tunechat.trainer.recipe_file import make_recipe

from .runs import losses, run_here
from .test_model import model_of, rows, taught

Entries = Callable[..., BaseEntry]


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    *,
    softmax_scale: float | None,
    causal: bool,
    window_size: tuple[int, int],
    softcap: float,
) -> Tensor:
    """What the function of that name says it computes, over [tokens, heads, d]: the window counts keys to the left."""
    assert (q.dtype, cu_seqlens_q.dtype, causal) == (torch.bfloat16, torch.int32, True)
    assert torch.equal(cu_seqlens_q, cu_seqlens_k)
    k, v = (part.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for part in (k, v))
    found = []
    ends = cu_seqlens_q.tolist()
    for start, end in itertools.pairwise(ends):
        assert end - start <= max_seqlen_q == max_seqlen_k
        distance = torch.arange(end - start)[:, None] - torch.arange(end - start)[None]
        visible = (distance >= 0) & ((distance <= window_size[0]) | (window_size[0] < 0))
        scale = q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale
        scores = torch.einsum("ihd,jhd->hij", q[start:end].float(), k[start:end].float()) * scale
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        seen = scores.masked_fill(~visible, float("-inf")).softmax(-1)
        found.append(torch.einsum("hij,jhd->ihd", seen, v[start:end].float()))
    return torch.cat(found).to(q.dtype)


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_flash", lambda: flash_attn_varlen_func)


@pytest.mark.usefixtures("flash")
@pytest.mark.parametrize("told", [{}, {"sliding_window": 4}, {"softcap": 2.0}, {"scaling": 0.3}])
def test_flash_attention_is_asked_for_the_same(told: dict[str, Any]) -> None:
    module = nn.Module()
    module.tunechat_samples = Samples((5, 1, 14))  # type: ignore[assignment]
    query, key, value = (torch.randn(1, heads, 20, 16) for heads in (4, 2, 2))
    expected, _ = isolated_attention(module, query, key, value, None, **told)
    found, _ = flash_attention(module, query, key, value, None, **told)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0.03)


@pytest.mark.usefixtures("flash")
def test_a_model_learns_by_flash_attention(tiny_entry: Entries) -> None:
    entry, row = tiny_entry("mistral", "int4", sliding_window=8), join(rows(12, 31, 7))
    expected = AdaptedModel(entry, LoraPlan(rank=4)).measure(row)
    model = AdaptedModel(entry, LoraPlan(rank=4), Computing(dtype=torch.bfloat16, attention="flash"))
    assert model.measure(row) == pytest.approx(expected, rel=0.01)
    assert model.learn(row, 1.0) == pytest.approx(expected, rel=0.01)


def seeing_all(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **_: Any
) -> tuple[Tensor, None]:
    """Attention that knows nothing of samples."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    return scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2), None


def test_where_samples_would_mix_they_are_not_joined(
    tiny_entry: Entries, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, data_file: Any
) -> None:
    entry = tiny_entry("llama")
    samples = rows(12, 31, 7)
    loss, gradients = taught(model_of(entry), *samples)
    told = {"data": str(data_file), "rank": 4, "steps": 3, "batch_tokens": 100, "packing": "group", "targets": "q_proj"}
    expected = losses(run_here(entry, tmp_path / "apart", told)[1])
    monkeypatch.setattr(attention, "isolated_attention", seeing_all)
    model = model_of(entry)
    assert not model.isolates
    found, again = taught(model, join(samples))
    assert found == pytest.approx(loss, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(again[name], gradient, rtol=0.01, atol=1e-3 * float(gradient.abs().max()))
    with pytest.raises(ConfigError, match="LlamaForCausalLM see one another") as error:
        make_model(make_recipe({"packing": "pack"}), entry, Computing())
    assert error.value.param == "packing"
    # Left to itself, a training takes the same batches as one that was told to group.
    assert losses(run_here(entry, tmp_path / "mixed", told | {"packing": "auto"})[1]) == pytest.approx(expected, 1e-4)
