"""The forward of the Llama-like family: Llama, Mistral, Qwen2, Qwen3 and what shares their shape.

Written for speed and to be read whole. Projections that read the same input are one matrix (queries, keys and values;
gate and up), residuals are added inside the next norm, and all sequences of the batch go through a layer in one pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..base.architecture import Decoder, decoder_of
from ..base.entry import BaseEntry
from ..base.product import product
from ..base.weights import DenseWeight, Int8Weight, Weight, place
from ..contract.errors import ModelError
from ..kernels.decoder import add_rms_norm, paged_attention, rotate_and_store, silu_product
from ..kernels.deltas import Deltas
from .cache import CacheShape, KVCache
from .compiled import CompiledLayers
from .device_batch import DeviceBatch
from .sites import MATRICES_OF_A_LAYER, compact_sites


@dataclass(frozen=True, slots=True)
class Linear:
    """A projection as the forward uses it."""

    weight: Weight
    bias: Tensor | None

    def __call__(self, x: Tensor, deltas: Deltas | None = None) -> Tensor:
        return product(x, self.weight, self.bias, deltas)


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one decoder layer."""

    attention_norm: Tensor
    qkv: Linear
    q_norm: Tensor | None
    k_norm: Tensor | None
    output: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear


class CompactModel:
    """A Llama-like decoder over the mapped weights of one base entry."""

    def __init__(self, entry: BaseEntry, device: torch.device, context_length: int, cache_dtype: torch.dtype) -> None:
        self.decoder: Decoder = decoder_of(entry.config)
        self.device = device
        self.sites = compact_sites(self.decoder, entry.manifest.vocab_size)
        self.cache_shape = CacheShape(self.decoder.layers, self.decoder.kv_heads, self.decoder.head_dim, cache_dtype)
        self._embedding = _lookup_weight(place(entry.weight("model.embed_tokens"), device))
        self._layers = [self._layer(entry, i) for i in range(self.decoder.layers)]
        self._norm = entry.vector("model.norm.weight").to(device)
        self._head = self._embedding if self.decoder.tied_head else place(entry.weight("lm_head"), device)
        self._cosines, self._sines = self._rotations(context_length)
        self._compiled: CompiledLayers | None = None
        if CompiledLayers.can_run(self.decoder, self._layers, device, cache_dtype):
            self._compiled = CompiledLayers(self.decoder, self._layers, (self._cosines, self._sines))

    @property
    def hidden_size(self) -> int:
        return self.decoder.hidden_size

    def forward(self, batch: DeviceBatch, cache: KVCache) -> Tensor:
        """Logits float32 [len(logit_rows), vocab]; keys and values of all tokens are in the cache afterwards."""
        return self.forward_pooled(batch, cache)[0]

    def forward_pooled(self, batch: DeviceBatch, cache: KVCache) -> tuple[Tensor, Tensor]:
        """The same, and the hidden states after the last norm, float32 [len(hidden_rows), hidden_size]."""
        hidden = self._embedding.lookup(batch.tokens)
        run = self._run_layers if self._compiled is None else self._compiled.run
        delta = run(hidden, batch, cache)
        last, pooled = (
            add_rms_norm(hidden[rows], delta[rows], self._norm, self.decoder.norm_eps)
            for rows in (batch.logit_rows, batch.hidden_rows)
        )
        deltas = batch.head_deltas(len(self.sites) - 1) if batch.head_deltas is not None else None
        return product(last, self._head, None, deltas).float(), pooled.float()

    def _run_layers(self, hidden: Tensor, batch: DeviceBatch, cache: KVCache) -> Tensor:
        """Passes `hidden` [t, hidden_size] through all layers, in place, but for the last delta, which it gives."""
        delta: Tensor | None = None
        deltas = batch.deltas or _no_deltas
        for i, layer in enumerate(self._layers):
            site = MATRICES_OF_A_LAYER * i
            x = add_rms_norm(hidden, delta, layer.attention_norm, self.decoder.norm_eps)
            mixed = self._attention(layer.qkv(x, deltas(site)), layer, batch, cache.layer(i))
            delta = layer.output(mixed, deltas(site + 1))
            x = add_rms_norm(hidden, delta, layer.mlp_norm, self.decoder.norm_eps)
            delta = layer.down(silu_product(layer.gate_up(x, deltas(site + 2))), deltas(site + 3))
        return torch.zeros_like(hidden) if delta is None else delta

    def _attention(self, qkv: Tensor, layer: Layer, batch: DeviceBatch, cache: tuple[Tensor, Tensor]) -> Tensor:
        d = self.decoder
        keys, values = cache
        q = rotate_and_store(
            qkv, d.heads, d.kv_heads, self._cosines, self._sines, batch.positions, batch.slots,
            layer.q_norm, layer.k_norm, d.norm_eps, keys, values,
        )  # fmt: skip
        return paged_attention(
            q, d.heads, keys, values, batch.block_tables, batch.sequences, batch.positions,
            longest_run=batch.longest_run, scale=d.head_dim**-0.5, window=d.sliding_window or 0,
        )  # fmt: skip

    def _layer(self, entry: BaseEntry, index: int) -> Layer:
        prefix = f"model.layers.{index}."

        def linear(name: str, bias: bool) -> Linear:
            return Linear(
                place(entry.weight(prefix + name), self.device),
                entry.vector(f"{prefix}{name}.bias").to(self.device) if bias else None,
            )

        def norm(name: str) -> Tensor:
            return entry.vector(f"{prefix}{name}.weight").to(self.device)

        d = self.decoder
        return Layer(
            attention_norm=norm("input_layernorm"),
            qkv=linear("self_attn.qkv_proj", d.qkv_bias),
            q_norm=norm("self_attn.q_norm") if d.qk_norm else None,
            k_norm=norm("self_attn.k_norm") if d.qk_norm else None,
            output=linear("self_attn.o_proj", d.output_bias),
            mlp_norm=norm("post_attention_layernorm"),
            gate_up=linear("mlp.gate_up_proj", d.mlp_bias),
            down=linear("mlp.down_proj", d.mlp_bias),
        )

    def _rotations(self, context_length: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines of every position, float32 [context, rotary_dim / 2]."""
        frequencies = torch.tensor(self.decoder.rope.inverse_frequencies, dtype=torch.float32)
        angles = torch.outer(torch.arange(context_length, dtype=torch.float32), frequencies)
        return angles.cos().to(self.device), angles.sin().to(self.device)


def _no_deltas(site: int) -> None:
    return None


def _lookup_weight(weight: Weight) -> Int8Weight | DenseWeight:
    if isinstance(weight, Int8Weight | DenseWeight):
        return weight
    raise ModelError("the embedding is kept in a form whose rows cannot be looked up; prepare the model again")
