"""What the gateway tells a new engine about how to serve: one JSON argument of its command line."""

from __future__ import annotations

import signal
from typing import Literal

import msgspec

Device = Literal["auto", "cpu", "cuda"]
CacheType = Literal["auto", "float32", "float16", "bfloat16"]

# A terminal or a service manager sends these to every process of a server. What they mean the gateway decides, and the
# engine leaves when it does.
IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything the engine process needs; None leaves a choice to the engine.

    `cache_bytes` is the size of the KV pool, `cache_type` its element type ("auto": float32 on a CPU, where answers
    then equal those of a float32 model; bfloat16 on CUDA). `max_batch_tokens` bounds the tokens of one step,
    `max_running` the sequences in it, and `prefill_chunk` the prompt tokens of a step in which other sequences decode:
    it is the pause that a long prompt can put between two tokens of a stream. `adapter_slots` adapters can be in one
    batch, `adapter_bytes` bounds the memory of those that are kept, and adapters of a rank above `max_adapter_rank` are
    refused.
    """

    model: str
    home: str
    quant: str | None = None
    device: Device = "auto"
    threads: int | None = None
    max_context: int | None = None
    cache_bytes: int | None = None
    cache_type: CacheType = "auto"
    block_size: int = 16
    max_batch_tokens: int = 512
    max_running: int = 64
    prefill_chunk: int | None = None
    prefix_cache: bool = True
    adapter_slots: int | None = None
    adapter_bytes: int | None = None
    max_adapter_rank: int = 512

    def __post_init__(self) -> None:
        for name in ("threads", "max_context", "cache_bytes", "prefill_chunk", "adapter_slots", "adapter_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if min(self.block_size, self.max_running, self.max_adapter_rank) < 1:
            raise ValueError("block_size, max_running and max_adapter_rank must be at least 1")
        if self.max_batch_tokens < self.max_running:
            raise ValueError(
                f"max_batch_tokens is {self.max_batch_tokens}, less than max_running {self.max_running}: "
                "every running sequence needs one token of each step"
            )

    def to_json(self) -> str:
        return msgspec.json.encode(self).decode()

    @staticmethod
    def from_json(text: str) -> EngineOptions:
        """Raises msgspec.ValidationError for a field that is unknown, missing or out of bounds."""
        return msgspec.json.decode(text, type=EngineOptions)
