"""Pooled hidden states of real models against transformers: the mean of `last_hidden_state`."""

from __future__ import annotations

from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tunechat.serve.base.prepare import prepare
from tunechat.serve.contract.messages import FromEngine, StepOutputs, Submit
from tunechat.serve.contract.sampling import SamplingParams
from tunechat.serve.engine.loop import Engine, Inbox
from tunechat.serve.engine.options import EngineOptions
from tunechat.serve.engine.runner import build_runner
from tunechat.tests.tiny_models import VOCABULARY, make_tiny

POOLED = SamplingParams(max_tokens=0, pooled=True)
LENGTHS = (1, 7, 40, 133)


def quiet(stage: str, fraction: float | None) -> None:
    """Nobody listens."""


def prompts() -> list[list[int]]:
    random = np.random.default_rng(3)
    return [random.integers(0, VOCABULARY, length).tolist() for length in LENGTHS]


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral", "gemma2", "gpt2", "phi"])
def test_it_is_the_mean_of_the_last_hidden_states(tmp_path: Path, family: str) -> None:
    folder = make_tiny(tmp_path / family, family)
    entry = prepare(str(folder), quant="none", home=tmp_path / "home", report=quiet)
    options = EngineOptions(model="tiny", home="", device="cpu", cache_bytes=1 << 22, prefill_chunk=16)
    runner = build_runner(entry, options)
    assert runner.hidden_size == 64

    def ask(wanted: dict[str, list[int]], chats: int) -> dict[str, NDArray[np.float32]]:
        inbox: Inbox = SimpleQueue()
        sent: list[FromEngine] = []
        engine = Engine(runner, options, inbox=inbox, send=sent.append)
        for at in range(chats):
            inbox.put(Submit(sequence=f"chat {at}", prompt=[at, 1, 2], params=SamplingParams(max_tokens=30)))
        engine.receive(0.0)
        for _ in range(2 * bool(chats)):
            engine.step()
        for name, prompt in wanted.items():
            inbox.put(Submit(sequence=name, prompt=prompt, params=POOLED))
        engine.receive(0.0)
        while engine.scheduler.has_work:
            engine.step()
        outputs = [output for message in sent if isinstance(message, StepOutputs) for output in message.outputs]
        return {one.sequence: np.frombuffer(one.embedding, "<f4") for one in outputs if one.embedding is not None}

    given = {str(at): prompt for at, prompt in enumerate(prompts())}
    together = ask(given, chats=3)
    alone = {name: ask({name: prompt}, chats=0)[name] for name, prompt in given.items()}
    for name, prompt in given.items():
        assert together[name].tobytes() == alone[name].tobytes()
        np.testing.assert_allclose(alone[name], reference(folder, prompt), atol=2e-3)


def reference(folder: Path, prompt: list[int]) -> NDArray[np.float32]:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.inference_mode():
        states = model(input_ids=torch.tensor([prompt])).last_hidden_state[0]
    mean: NDArray[np.float32] = states.double().mean(dim=0).float().numpy()
    return mean
