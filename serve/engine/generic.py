"""The forward of every other dense decoder: the transformers class itself, with our products and our paged attention.

The class is built without memory of its own, its projections are replaced by views of the mapped base, and its
attention is reached through transformers' attention interface. Before it serves, it has to reproduce the class's own
eager logits: a model whose attention does what the interface does not carry is refused instead of being served wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..base.architecture import architecture_of
from ..base.entry import BaseEntry
from ..base.linear import Linear4bit
from ..base.mapped_class import build_class
from ..base.product import product
from ..contract.errors import ModelError
from ..kernels.decoder import paged_attention, store
from ..kernels.deltas import Deltas
from .batch import Batch
from .cache import CacheShape, KVCache
from .device_batch import DeviceBatch
from .sites import plain_sites

ATTENTION = "tunechat_paged"
PROBE_TOLERANCE = 0.02
_ROPE_BY_LENGTH = {"dynamic", "longrope"}


@dataclass(slots=True)
class PagedState:
    """What the attention of the step under way reads; one object shared by all attention modules of a model.

    Without a batch the attention only measures: it notes the shapes of keys and values, by layer. `hidden` is what the
    last norm gave, [1, t, hidden_size].
    """

    batch: DeviceBatch | None = None
    cache: KVCache | None = None
    shapes: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    hidden: Tensor | None = None


class AdaptedLinear(Linear4bit):
    """A linear module of the base that adds what the adapters of the step under way make of its tokens."""

    state: PagedState | None = None
    site: int = -1
    is_head: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features]."""
        rows = x.reshape(-1, self.in_features)
        bias: Tensor | None = self.bias  # type: ignore[assignment]
        y = product(rows, self.packed, bias, self._deltas()).to(x.dtype)
        return y.reshape(*x.shape[:-1], self.out_features)

    def _deltas(self) -> Deltas | None:
        batch = None if self.state is None else self.state.batch
        if batch is None:
            return None
        at = batch.head_deltas if self.is_head else batch.deltas
        return None if at is None else at(self.site)


class GenericModel:
    """A causal LM of transformers over the mapped weights of one base entry."""

    def __init__(self, entry: BaseEntry, device: torch.device, cache_dtype: torch.dtype) -> None:
        self.device = device
        self.sites = plain_sites(entry.manifest.linears)
        self._state = PagedState()
        self._model: Any = _build(entry, device)
        self._place_adapters()
        for module in _attention_modules(self._model):
            module.tunechat_state = self._state  # type: ignore[assignment]
        self.hidden_size = int(self._model.get_output_embeddings().in_features)
        self._model.base_model.register_forward_hook(self._note_hidden)
        self.cache_shape = self._measured_shape(architecture_of(entry.config), cache_dtype)
        self._check_against_eager(architecture_of(entry.config))

    def forward(self, batch: DeviceBatch, cache: KVCache) -> Tensor:
        """Logits float32 [len(logit_rows), vocab]; keys and values of all tokens are in the cache afterwards."""
        return self.forward_pooled(batch, cache)[0]

    def forward_pooled(self, batch: DeviceBatch, cache: KVCache) -> tuple[Tensor, Tensor]:
        """The same, and the hidden states after the last norm, float32 [len(hidden_rows), hidden_size]."""
        self._state.batch, self._state.cache = batch, cache
        try:
            output = self._model(
                input_ids=batch.tokens.unsqueeze(0),
                position_ids=batch.positions.long().unsqueeze(0),
                use_cache=False,
                logits_to_keep=batch.logit_rows,
            )
        finally:
            self._state.batch = self._state.cache = None
            hidden, self._state.hidden = self._state.hidden, None
        if hidden is None:
            raise RuntimeError("the model gave no hidden states")
        logits: Tensor = output.logits[0]
        return logits.float(), hidden[0, batch.hidden_rows].float()

    def _note_hidden(self, module: nn.Module, arguments: Any, output: Any) -> None:
        self._state.hidden = output[0]

    def _place_adapters(self) -> None:
        """Tells every linear module that an adapter can change which site it is."""
        head = self._model.get_output_embeddings()
        for at, site in enumerate(self.sites):
            module = self._model.get_submodule(site.name)
            if isinstance(module, AdaptedLinear):
                module.state, module.site, module.is_head = self._state, at, module is head

    def _measured_shape(self, name: str, dtype: torch.dtype) -> CacheShape:
        """What the layers really hand to attention. Raises ModelError when it is not one shape for all."""
        self._model(input_ids=torch.zeros(1, 1, dtype=torch.int64, device=self.device), use_cache=False)
        shapes = self._state.shapes
        if sorted(shapes) != list(range(len(shapes))) or len(set(shapes.values())) != 1:
            raise ModelError(f"the layers of {name} have keys and values of different shapes, which is not served")
        kv_heads, key_dim, value_dim = shapes[0]
        if key_dim != value_dim:
            raise ModelError(f"keys of {name} have {key_dim} dimensions and values {value_dim}, which is not served")
        return CacheShape(layers=len(shapes), kv_heads=kv_heads, head_dim=key_dim, dtype=dtype)

    def _check_against_eager(self, name: str) -> None:
        """Raises ModelError when paged logits of a short probe are not those of the class's eager attention."""
        count = 2 * (_longest_probe(self._model.config) // 2)
        tokens = (np.arange(count, dtype=np.int32) * 7 + 3) % int(self._model.config.get_text_config().vocab_size)
        cache = KVCache(self.cache_shape, blocks=2, block_size=count // 2, device=self.device)
        probe = Batch(
            tokens=tokens,
            positions=np.arange(count, dtype=np.int32),
            sequences=np.zeros(count, dtype=np.int32),
            slots=np.arange(count, dtype=np.int64),
            block_tables=np.array([[0, 1]], dtype=np.int32),
            logit_rows=np.arange(count, dtype=np.int64),
        )
        ours = self.forward(DeviceBatch.of(probe, self.device), cache)
        self._model.set_attn_implementation("eager")
        reference = self._model(
            input_ids=torch.from_numpy(tokens).long().unsqueeze(0).to(self.device), use_cache=False
        ).logits[0]
        self._model.set_attn_implementation(ATTENTION)
        worst = float((ours - reference.float()).abs().max() / reference.float().std())
        if not worst < PROBE_TOLERANCE:
            raise ModelError(
                f"{name} does not give the same logits with paged attention as with its own "
                f"(they differ by {worst:.2g} standard deviations), so it cannot be served right"
            )


def paged_interface(
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
    """transformers' attention interface: what the tokens of the step see, float [1, t, heads, d].

    query is [1, heads, t, d], key and value [1, kv_heads, t, d]. The mask is not read: every token sees its own
    sequence up to itself, as the batch says. Arguments that are not listed are not carried; `GenericModel` checks when
    it is built that a model does not need them.
    """
    state: PagedState = module.tunechat_state  # type: ignore[assignment]
    batch, cache = state.batch, state.cache
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    if batch is None or cache is None:
        state.shapes[layer] = (key.shape[1], key.shape[3], value.shape[3])
        return torch.zeros_like(query).transpose(1, 2), None
    keys, values = cache.layer(layer)
    heads, t, d = query.shape[1], query.shape[2], query.shape[3]
    store(key[0].transpose(0, 1).float(), value[0].transpose(0, 1).float(), batch.slots, keys, values)
    mixed = paged_attention(
        query[0].transpose(0, 1).float().reshape(t, heads * d),
        heads,
        keys,
        values,
        batch.block_tables,
        batch.sequences,
        batch.positions,
        longest_run=batch.longest_run,
        scale=d**-0.5 if scaling is None else scaling,
        window=sliding_window or 0,
        softcap=softcap or 0.0,
    )
    return mixed.view(1, t, heads, d).to(query.dtype), None


def _build(entry: BaseEntry, device: torch.device) -> Any:
    """The transformers class of the entry's config over the entry. Raises ModelError for one that cannot be served."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, paged_interface)
    model = build_class(entry, device, ATTENTION, AdaptedLinear)
    _check_rope(model.config, architecture_of(entry.config))
    return model


def _attention_modules(model: nn.Module) -> Iterator[nn.Module]:
    """The modules that call the attention interface: those that know their layer and hold projections of their own."""
    for module in model.modules():
        if hasattr(module, "layer_idx") and type(module).__name__.endswith("Attention"):
            yield module


def _check_rope(config: Any, name: str) -> None:
    parameters = getattr(config.get_text_config(), "rope_parameters", None) or {}
    nested = [v for v in parameters.values() if isinstance(v, dict)] or [parameters]
    for entry in nested:
        if entry.get("rope_type") in _ROPE_BY_LENGTH:
            raise ModelError(
                f"{name} uses rope type {entry['rope_type']!r}, whose rotations depend on the longest sequence of a "
                "batch; an answer would depend on other requests, so it is not served"
            )


def _longest_probe(config: Any) -> int:
    """Longer than a sliding window where that is short enough to try."""
    window = getattr(config.get_text_config(), "sliding_window", None) or 0
    return min(max(16, 2 * int(window)), 64)
