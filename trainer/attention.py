"""Attention over samples that stand behind one another in one row: each token sees its own sample up to itself.

Reached through transformers' attention interface, by SDPA or by FlashAttention. Work and memory grow with the samples'
lengths squared, not with the row's: no mask of the whole row is ever made.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

ISOLATED = "tunechat_isolated"
# Without the word, by which transformers would look for its own.
FLASH = "tunechat_varlen"


@dataclass(slots=True)
class Samples:
    """The lengths of the samples in the row under way, in order: one object that all attention modules share."""

    lengths: tuple[int, ...] = ()


def register() -> None:
    """Makes both names known to transformers."""
    from transformers import AttentionInterface

    AttentionInterface.register(ISOLATED, isolated_attention)
    AttentionInterface.register(FLASH, flash_attention)


def attend_to(model: nn.Module, samples: Samples) -> None:
    """Let all attention modules of `model` read `samples`."""
    for module in attention_modules(model):
        module.tunechat_samples = samples  # type: ignore[assignment]


def attention_modules(model: nn.Module) -> Iterator[nn.Module]:
    """The modules that call the attention interface: those that know their layer and hold projections of their own."""
    for module in model.modules():
        if hasattr(module, "layer_idx") and type(module).__name__.endswith("Attention"):
            yield module


def isolated_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """What the tokens of a row see, float [1, n, heads, d]; query is [1, heads, n, d], the others [1, kv_heads, n, d].

    The mask is not read and nothing is left out at random. Arguments that are not listed are not carried: whoever
    builds a model checks that it does not need them.
    """
    samples: Samples = module.tunechat_samples  # type: ignore[assignment]
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    lengths = list(samples.lengths)
    seen = [
        _one(q, k, v, scale, sliding_window or 0, softcap or 0.0)
        for q, k, v in zip(
            torch.split(query, lengths, dim=2),
            torch.split(key, lengths, dim=2),
            torch.split(value, lengths, dim=2),
            strict=True,
        )
    ]
    return torch.cat(seen, dim=2).transpose(1, 2), None


def flash_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The same as `isolated_attention` by FlashAttention (arXiv 2307.08691), in bfloat16 whatever the numbers are."""
    samples: Samples = module.tunechat_samples  # type: ignore[assignment]
    ends = torch.tensor((0, *samples.lengths), device=query.device).cumsum(0, dtype=torch.int32)
    longest = max(samples.lengths)
    # A token sees itself and as many before it as the window has places for others.
    window = (sliding_window - 1, 0) if sliding_window else (-1, -1)
    seen: Tensor = _flash()(
        *(part[0].transpose(0, 1).to(torch.bfloat16).contiguous() for part in (query, key, value)),
        ends,
        ends,
        longest,
        longest,
        softmax_scale=scaling,
        causal=True,
        window_size=window,
        softcap=softcap or 0.0,
    )
    return seen.to(query.dtype).unsqueeze(0), None


def _flash() -> Any:
    return importlib.import_module("flash_attn").flash_attn_varlen_func


def _one(query: Tensor, key: Tensor, value: Tensor, scale: float, window: int, softcap: float) -> Tensor:
    """Causal attention within one sample, [1, heads, n, d] of the values."""
    length = query.shape[2]
    is_cut = 0 < window < length
    if not softcap and not is_cut:
        return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)
    places = torch.arange(length, device=query.device)
    distance = places[:, None] - places[None, :]
    visible = (distance >= 0) & (distance < window) if is_cut else distance >= 0
    if not softcap:
        return scaled_dot_product_attention(query, key, value, attn_mask=visible, scale=scale)
    scores = query @ key.transpose(2, 3) * scale
    scores = (softcap * torch.tanh(scores / softcap)).masked_fill(~visible, float("-inf"))
    return scores.softmax(dim=-1) @ value
