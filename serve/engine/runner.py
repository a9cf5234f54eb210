"""The device side of the engine: weights, cache memory, and one call that runs a batch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..adapters.adapter import Limits
from ..adapters.opening import open_by_ref
from ..base.architecture import is_compact
from ..base.entry import BaseEntry
from ..contract.adapters import AdapterRef
from ..contract.errors import ConfigError
from ..kernels import available_cores, set_threads, why_missing
from ..kernels.library import library
from .batch import Batch
from .cache import CacheShape, KVCache
from .compact import CompactModel
from .device_batch import DeviceBatch
from .grammar_tokenizer import grammar_tokenizer
from .grammar_trial import GrammarTrial
from .options import EngineOptions
from .packed_adapter import PackedAdapter, pack_adapter
from .slots import make_slots

if TYPE_CHECKING:
    from llguidance import LLTokenizer

    from .generic import GenericModel

DEFAULT_CACHE_BYTES = 1 << 30
DEFAULT_GPU_SHARE = 0.8
DEFAULT_ADAPTER_BYTES = 1 << 30
# A slot on a CPU is an entry of a table; on a GPU it is memory that is taken whether it is used or not.
DEFAULT_ADAPTER_SLOTS = 32
DEFAULT_GPU_ADAPTER_SLOTS = 8


class Runner:
    """Runs batches on one device. `forward` is the only thing that a step calls."""

    def __init__(self, entry: BaseEntry, options: EngineOptions) -> None:
        self.device = _device(options.device)
        self.entry = entry
        self.context_length = _context_length(entry, options)
        self._model = _model(entry, self.device, self.context_length, _cache_type(self.device, options))
        self.block_size = options.block_size
        self.blocks = _block_count(self._model.cache_shape, self.device, self.context_length, options)
        self.max_batch_tokens = options.max_batch_tokens
        self._cache = KVCache(self._model.cache_shape, self.blocks, self.block_size, self.device)
        is_cpu = self.device.type == "cpu"
        self._slots = make_slots(
            self._model.sites,
            options.adapter_slots or (DEFAULT_ADAPTER_SLOTS if is_cpu else DEFAULT_GPU_ADAPTER_SLOTS),
            self.device,
        )
        self.adapter_bytes = options.adapter_bytes or DEFAULT_ADAPTER_BYTES
        self.max_adapter_rank = options.max_adapter_rank

    @property
    def adapter_slots(self) -> int:
        """How many adapters one batch can use."""
        return self._slots.count

    @property
    def vocab_size(self) -> int:
        return self.entry.manifest.vocab_size

    @property
    def hidden_size(self) -> int:
        return self._model.hidden_size

    @property
    def cache_bytes(self) -> int:
        return self._cache.nbytes

    @property
    def forward_name(self) -> str:
        """ "compact" or "generic"."""
        return "compact" if isinstance(self._model, CompactModel) else "generic"

    @property
    def kernels(self) -> str:
        """ "c" or "torch", and why when it is torch on a CPU."""
        if self.device.type != "cpu":
            return "torch"
        return "c" if library() is not None else f"torch ({why_missing()})"

    @torch.inference_mode()
    def forward(self, batch: Batch) -> Tensor:
        """Logits float32 [len(batch.logit_rows), vocab]."""
        return self.forward_pooled(batch)[0]

    @torch.inference_mode()
    def forward_pooled(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The same, and the hidden states after the last norm, float32 [len(batch.hidden_rows), hidden_size]."""
        return self._model.forward_pooled(DeviceBatch.of(batch, self.device, self._slots), self._cache)

    @torch.inference_mode()
    def read_adapter(self, ref: AdapterRef, folder: Path) -> PackedAdapter:
        """The stored version in `folder`, checked and in the form of this forward. May be called from any thread.

        Raises InvalidAdapter or BaseModelMismatch, saying why it cannot be served.
        """
        limits = Limits(max_rank=self.max_adapter_rank)
        adapter = open_by_ref(folder, ref, self.entry.manifest, limits)
        return pack_adapter(adapter, self._model.sites, self._matrix)

    def grammar_tokenizer(self) -> LLTokenizer:
        """The vocabulary in the form in which grammars are compiled. May be called from any thread. ValueError."""
        manifest = self.entry.manifest
        return grammar_tokenizer(self.entry.folder, self.vocab_size, manifest.eos_token_ids)

    def grammar_trial(self) -> GrammarTrial:
        """Where grammars of this vocabulary are tried."""
        return GrammarTrial(self.entry.folder, self.vocab_size, self.entry.manifest.eos_token_ids)

    def install(self, slot: int, adapter: PackedAdapter) -> None:
        """Put an adapter into a slot; for between two steps."""
        self._slots.install(slot, adapter)

    def uninstall(self, slot: int) -> None:
        """Empty a slot; for between two steps."""
        self._slots.uninstall(slot)

    def _matrix(self, name: str) -> Tensor:
        """The base's matrix of a site, float32 [rows, columns]."""
        tied = not self.entry.has(name)
        return self.entry.weight("model.embed_tokens" if tied else name).dequantize().float()


def build_runner(entry_folder: Path, options: EngineOptions) -> Runner:
    """A runner over the prepared base in `entry_folder`. Raises ModelError or ConfigError, saying what to change."""
    threads = options.threads or available_cores()
    set_threads(threads)
    # Two pools of threads would fight for the same cores: where ours does the heavy work, torch needs none.
    torch.set_num_threads(1 if library() is not None else threads)
    return Runner(BaseEntry.open(entry_folder), options)


def _model(
    entry: BaseEntry, device: torch.device, context_length: int, cache_type: torch.dtype
) -> CompactModel | GenericModel:
    if entry.manifest.layout == "compact" and is_compact(entry.config):
        return CompactModel(entry, device, context_length, cache_type)
    from .generic import GenericModel

    with torch.inference_mode():
        return GenericModel(entry, device, cache_type)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError("device is cuda, but torch sees no CUDA device; use --device cpu", param="device")
    return torch.device(name)


def _cache_type(device: torch.device, options: EngineOptions) -> torch.dtype:
    if options.cache_type == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if device.type == "cpu" and options.cache_type == "bfloat16":
        raise ConfigError("a bfloat16 cache is for CUDA; on a CPU use float32 or float16", param="cache_type")
    chosen: torch.dtype = getattr(torch, options.cache_type)
    return chosen


def _context_length(entry: BaseEntry, options: EngineOptions) -> int:
    longest = entry.manifest.context_length
    wanted = options.max_context or longest
    if wanted > longest:
        raise ConfigError(
            f"max_context is {wanted}, but {entry.manifest.name} was made for {longest} tokens", param="max_context"
        )
    return wanted


def _block_count(shape: CacheShape, device: torch.device, context_length: int, options: EngineOptions) -> int:
    """As many blocks as the memory for keys and values holds; at least one sequence of full length must fit."""
    if options.cache_bytes is not None:
        size = options.cache_bytes
    elif device.type == "cuda":
        size = int(torch.cuda.mem_get_info(device)[0] * DEFAULT_GPU_SHARE)
    else:
        size = DEFAULT_CACHE_BYTES
    blocks = size // shape.block_bytes(options.block_size)
    needed = -(-context_length // options.block_size)
    if blocks < needed:
        if options.cache_bytes is None:
            return needed
        raise ConfigError(
            f"cache_bytes {size} holds {blocks * options.block_size} tokens, fewer than the context of "
            f"{context_length}; give at least {needed * shape.block_bytes(options.block_size)} or lower max_context",
            param="cache_bytes",
        )
    return blocks
