"""A model that is honest about paging: it knows a token only by reading it back through the block table.

Its logits are a function of the whole context, so a block that is wrong, shared by mistake or overwritten changes the
text. With each token it keeps which adapters changed it, in what order and with what weights, and the logits depend on
that too: so keys and values of other weights are as wrong as those of other tokens. As a program, it is an engine
process like the real one, with this model in it.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from llguidance import LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from tunechat.serve.contract.adapters import AdapterRef
from tunechat.serve.contract.errors import InvalidAdapter, ModelError
from tunechat.serve.contract.messages import AdapterUse, EngineInfo, FromEngine, Loading
from tunechat.serve.contract.sampling import SamplingParams
from tunechat.serve.engine.batch import Batch
from tunechat.serve.engine.chooser import Chooser
from tunechat.serve.engine.loop import sequence_limit
from tunechat.serve.engine.options import EngineOptions
from tunechat.serve.engine.process import Send, main

VOCAB = 40
# What the tokens say where a grammar is at work; the last one ends the text.
TOKEN_TEXTS = (*'{}[]":, 0123456789abcdefklmnprstuxyz-.', "true", "")
EOS = VOCAB - 1


def toy_text(tokens: Sequence[int]) -> str:
    return "".join(TOKEN_TEXTS[token] for token in tokens)


def toy_ids(text: str) -> list[int]:
    """Character by character; what no token says is left out."""
    return [TOKEN_TEXTS.index(character) for character in text if character in TOKEN_TEXTS]


class _Vocabulary:
    """What llguidance asks of a tokenizer."""

    eos_token_id, bos_token_id, special_token_ids = EOS, None, (EOS,)
    tokens = tuple(text.encode() for text in TOKEN_TEXTS)

    def __call__(self, text: bytes) -> list[int]:
        return toy_ids(text.decode("latin-1"))


@dataclass(frozen=True)
class ToyAdapter:
    """What stands for an adapter's weights is its digest. A poisoned one gives no numbers."""

    digest: str
    nbytes: int
    is_poisoned: bool = False


def toy_logits(context: NDArray[np.int32], changed: NDArray[np.int32]) -> NDArray[np.float32]:
    """float32 [VOCAB], a function of the whole context and of what changed each of its tokens."""
    seed = zlib.crc32(np.ascontiguousarray(context, dtype=np.int32).tobytes())
    if changed.any():
        seed = zlib.crc32(np.ascontiguousarray(changed, dtype=np.int32).tobytes(), seed)
    return np.random.default_rng(seed).normal(0.0, 2.0, VOCAB).astype(np.float32)


def change(digest: str, weight: float, before: int) -> int:
    """What a token is changed by after one more adapter; not 0."""
    return zlib.crc32(digest.encode() + struct.pack("<fi", weight, before)) & 0x7FFFFFFF | 1


def alone(prompt: list[int], params: SamplingParams, adapters: Sequence[AdapterUse] = ()) -> tuple[list[int], str]:
    """The completion of a request without batch, blocks or cache, and its finish reason."""
    changed = 0
    for use in sorted(adapters):
        changed = change(use.digest, use.weight, changed)
    chooser, tokens = Chooser(params, prompt), list(prompt)
    for index in range(params.max_tokens):
        logits = toy_logits(np.array(tokens, dtype=np.int32), np.full(len(tokens), changed, dtype=np.int32))
        token = chooser.choose(logits, index)
        if token in params.stop_token_ids:
            return tokens[len(prompt) :], "stop"
        tokens.append(token)
        chooser.observe(token)
    return tokens[len(prompt) :], "length"


class ToyRunner:
    """Keeps (token, position, change) in each slot.

    An adapter's folder is a name that says how its reading goes: "wrong" and "broken" fail, "poison" gives no numbers,
    "size-N" takes N bytes, "slow-S" takes S seconds, all others 100 bytes and no time.
    """

    def __init__(
        self,
        *,
        blocks: int = 64,
        block_size: int = 4,
        context_length: int = 1000,
        max_tokens: int = 64,
        adapter_slots: int = 4,
        adapter_bytes: int = 1000,
    ) -> None:
        self.blocks, self.block_size = blocks, block_size
        self.context_length, self.max_batch_tokens = context_length, max_tokens
        self.adapter_slots, self.adapter_bytes = adapter_slots, adapter_bytes
        self.vocab_size, self.hidden_size = VOCAB, 5
        self.memory = np.full((blocks * block_size, 3), -1, dtype=np.int32)
        self.steps = 0
        self.sizes: list[int] = []
        self.logit_rows: list[int] = []
        self.reads: list[str] = []
        self.slots: list[ToyAdapter | None] = [None] * adapter_slots
        self.may_read = threading.Event()
        self.may_read.set()

    def read_adapter(self, ref: AdapterRef, folder: Path) -> ToyAdapter:
        self.reads.append(ref.digest)
        assert threading.current_thread() is not threading.main_thread()
        assert self.may_read.wait(20)
        how, _, amount = folder.name.partition("-")
        match how:
            case "wrong":
                raise InvalidAdapter("its rank is too large")
            case "broken":
                raise RuntimeError("evil reading")
            case "slow":
                time.sleep(float(amount))
        return ToyAdapter(ref.digest, int(amount) if how == "size" else 100, how == "poison")

    def install(self, slot: int, adapter: ToyAdapter) -> None:
        assert self.slots[slot] is None
        assert adapter not in self.slots
        self.slots[slot] = adapter

    def uninstall(self, slot: int) -> None:
        assert self.slots[slot] is not None
        self.slots[slot] = None

    def grammar_tokenizer(self) -> LLTokenizer:
        assert threading.current_thread() is not threading.main_thread()
        return LLTokenizer(TokenizerWrapper(_Vocabulary()))

    def grammar_trial(self) -> None:
        """Nothing that another process could read holds the toy's vocabulary."""

    def forward(self, batch: Batch) -> torch.Tensor:
        self.steps += 1
        self.sizes.append(batch.size)
        self.logit_rows.append(len(batch.logit_rows))
        assert batch.size <= self.max_batch_tokens
        assert len(set(batch.slots.tolist())) == batch.size
        changed, poisoned = self._changes(batch)
        self.memory[batch.slots, 0] = batch.tokens
        self.memory[batch.slots, 1] = batch.positions
        self.memory[batch.slots, 2] = changed
        rows = [self._logits(batch, row, row in poisoned) for row in batch.logit_rows.tolist()]
        return torch.from_numpy(np.stack(rows) if rows else np.zeros((0, VOCAB), dtype=np.float32))

    def forward_pooled(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.forward(batch)
        states = [self._logits(batch, row, False)[: self.hidden_size] for row in batch.hidden_rows.tolist()]
        return logits, torch.from_numpy(np.stack(states))

    def _logits(self, batch: Batch, row: int, is_poisoned: bool) -> NDArray[np.float32]:
        if is_poisoned:
            return np.full(VOCAB, np.nan, dtype=np.float32)
        found = self.found(batch, row)
        return toy_logits(found[:, 0], found[:, 2])

    def _changes(self, batch: Batch) -> tuple[NDArray[np.int32], set[int]]:
        """What changes each token of the batch, and which get no numbers."""
        changed, poisoned = np.zeros(batch.size, dtype=np.int32), set()
        groups = batch.adapters
        if groups is None:
            return changed, poisoned
        for group, slot in enumerate(groups.slots.tolist()):
            adapter = self.slots[slot]
            assert adapter is not None
            for at in range(groups.begins[group], groups.begins[group + 1]):
                token = int(groups.tokens[at])
                changed[token] = change(adapter.digest, float(groups.weights[at]), int(changed[token]))
                if adapter.is_poisoned:
                    poisoned.add(token)
        return changed, poisoned

    def context(self, batch: Batch, row: int) -> NDArray[np.int32]:
        """The tokens up to that row of the batch, as the cache has them."""
        return self.found(batch, row)[:, 0]

    def found(self, batch: Batch, row: int) -> NDArray[np.int32]:
        """int32 [N, 3]: token, position and change of all up to that row of the batch, as the cache has them."""
        positions = np.arange(batch.positions[row] + 1)
        blocks = batch.block_tables[batch.sequences[row], positions // self.block_size]
        found = self.memory[blocks.astype(np.int64) * self.block_size + positions % self.block_size]
        assert (blocks >= 0).all()
        assert (found[:, 1] == positions).all()
        return found


class FaultyRunner(ToyRunner):
    """Does at step number `at` what `fault` says, and takes `pause` seconds for every other step."""

    def __init__(self, fault: str, at: int, pause: float) -> None:
        super().__init__(blocks=256, block_size=4, context_length=1000, max_tokens=64)
        self._fault, self._at, self._pause = fault, at, pause

    def forward(self, batch: Batch) -> torch.Tensor:
        if self.steps + 1 == self._at:
            match self._fault:
                case "raise":
                    raise RuntimeError("evil forward")
                case "hang":
                    time.sleep(600)
                case "exit":
                    os._exit(7)
        time.sleep(self._pause)
        return super().forward(batch)


def load(options: EngineOptions, send: Send) -> tuple[ToyRunner, EngineInfo]:
    """A toy model; `options.model` is "toy:FAULT:STEP:PAUSE"."""
    _, fault, at, pause = options.model.split(":")
    if fault == "start-exit":
        os._exit(3)
    if fault == "start-hang":
        time.sleep(600)
    if fault == "no-model":
        raise ModelError("there is no such model; choose another one")
    message: FromEngine = Loading(stage="loading", fraction=0.5)
    send(message)
    runner = FaultyRunner(fault, int(at), float(pause))
    return runner, EngineInfo(
        model="toy",
        entry="",
        source_fingerprint="s",
        weights_fingerprint="w",
        quant="none",
        architecture="Toy",
        forward="toy",
        device="cpu",
        kernels="none",
        context_length=sequence_limit(runner),
        vocab_size=VOCAB,
        block_size=runner.block_size,
        blocks=runner.blocks,
        weight_bytes=0,
        cache_bytes=0,
        adapter_slots=runner.adapter_slots,
        adapter_bytes=runner.adapter_bytes,
        max_adapter_rank=options.max_adapter_rank,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], load))
