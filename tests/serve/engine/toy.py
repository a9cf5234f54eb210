"""A model that is honest about paging: it knows a token only by reading it back through the block table.

Its logits are a function of the whole context, so a block that is wrong, shared by mistake or overwritten changes the
text. As a program, it is an engine process like the real one, with this model in it.
"""

from __future__ import annotations

import os
import sys
import time
import zlib

import numpy as np
import torch
from numpy.typing import NDArray

from tunechat.serve.contract.errors import ModelError
from tunechat.serve.contract.messages import EngineInfo, FromEngine, Loading
from tunechat.serve.contract.sampling import SamplingParams
from tunechat.serve.engine.batch import Batch
from tunechat.serve.engine.chooser import Chooser
from tunechat.serve.engine.loop import sequence_limit
from tunechat.serve.engine.options import EngineOptions
from tunechat.serve.engine.process import Send, main

VOCAB = 40


def toy_logits(context: NDArray[np.int32]) -> NDArray[np.float32]:
    """float32 [VOCAB], a function of the whole context."""
    seed = zlib.crc32(np.ascontiguousarray(context, dtype=np.int32).tobytes())
    return np.random.default_rng(seed).normal(0.0, 2.0, VOCAB).astype(np.float32)


def alone(prompt: list[int], params: SamplingParams) -> tuple[list[int], str]:
    """The completion of a request without batch, blocks or cache, and its finish reason."""
    chooser, tokens = Chooser(params, prompt), list(prompt)
    for index in range(params.max_tokens):
        token = chooser.choose(toy_logits(np.array(tokens, dtype=np.int32)), index)
        if token in params.stop_token_ids:
            return tokens[len(prompt) :], "stop"
        tokens.append(token)
        chooser.observe(token)
    return tokens[len(prompt) :], "length"


class ToyRunner:
    """Keeps (token, position) in each slot."""

    def __init__(
        self, *, blocks: int = 64, block_size: int = 4, context_length: int = 1000, max_tokens: int = 64
    ) -> None:
        self.blocks, self.block_size = blocks, block_size
        self.context_length, self.max_batch_tokens = context_length, max_tokens
        self.vocab_size = VOCAB
        self.memory = np.full((blocks * block_size, 2), -1, dtype=np.int32)
        self.steps = 0
        self.sizes: list[int] = []
        self.logit_rows: list[int] = []

    def forward(self, batch: Batch) -> torch.Tensor:
        self.steps += 1
        self.sizes.append(batch.size)
        self.logit_rows.append(len(batch.logit_rows))
        assert batch.size <= self.max_batch_tokens
        assert len(set(batch.slots.tolist())) == batch.size
        self.memory[batch.slots, 0] = batch.tokens
        self.memory[batch.slots, 1] = batch.positions
        rows = [toy_logits(self.context(batch, row)) for row in batch.logit_rows.tolist()]
        return torch.from_numpy(np.stack(rows) if rows else np.zeros((0, VOCAB), dtype=np.float32))

    def context(self, batch: Batch, row: int) -> NDArray[np.int32]:
        """The tokens up to that row of the batch, as the cache has them."""
        positions = np.arange(batch.positions[row] + 1)
        blocks = batch.block_tables[batch.sequences[row], positions // self.block_size]
        found = self.memory[blocks.astype(np.int64) * self.block_size + positions % self.block_size]
        assert (blocks >= 0).all()
        assert (found[:, 1] == positions).all()
        return found[:, 0]


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
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], load))
