"""The default model as a user gets it: the same greedy tokens as transformers, and the same text in any company."""

from __future__ import annotations

import random
from pathlib import Path
from pydoc_data import topics
from queue import SimpleQueue

import pytest
import torch
from tokenizers import Tokenizer

from tunechat.benchmarks.peer_model import write_peer_model
from tunechat.serve.contract.messages import FromEngine, StepOutputs, Submit, ToEngine
from tunechat.serve.contract.sampling import SamplingParams
from tunechat.serve.engine.loop import Engine
from tunechat.serve.engine.options import EngineOptions
from tunechat.serve.engine.runner import Runner, build_runner
from tunechat.tests.serve.engine.paging import Pages

WINDOW = 256


@pytest.fixture(scope="module")
def reference_tokens(default_entry: Path) -> list[int]:
    """Prose of the language reference, as tokens."""
    text = "\n\n".join(topics.topics[name] for name in sorted(topics.topics))
    ids: list[int] = Tokenizer.from_file(str(default_entry / "tokenizer.json")).encode(text).ids
    return ids


def runner_of(entry: Path) -> Runner:
    return build_runner(entry, EngineOptions(model="default", home="unused", device="cpu"))


@pytest.mark.parametrize("windows", [4, pytest.param(40, marks=pytest.mark.acceptance)])
def test_greedy_tokens_are_those_of_transformers_in_float32(
    default_entry: Path, reference_tokens: list[int], tmp_path: Path, windows: int
) -> None:
    from transformers import AutoModelForCausalLM

    peer = write_peer_model(default_entry, tmp_path / "peer", torch.float32)
    model = AutoModelForCausalLM.from_pretrained(peer, dtype=torch.float32).eval()
    runner = runner_of(default_entry)
    for start in range(0, windows * WINDOW, WINDOW):
        tokens = reference_tokens[start : start + WINDOW]
        with torch.inference_mode():
            expected = model(torch.tensor([tokens])).logits[0]
        pages = Pages(runner)
        sequence = pages.place(tokens)
        pages.run([(sequence, WINDOW)])
        found = torch.stack(sequence.logits)
        best = expected.topk(2).values
        is_tied = best[:, 0] - best[:, 1] < 1e-3
        assert bool(((found.argmax(-1) == expected.argmax(-1)) | is_tied).all())
        assert float((found - expected).abs().max()) < 0.05


@pytest.mark.parametrize("requests", [12, pytest.param(96, marks=pytest.mark.acceptance)])
def test_greedy_text_is_the_same_alone_and_in_any_company(
    default_entry: Path, reference_tokens: list[int], requests: int
) -> None:
    chance = random.Random(5)
    prompts = []
    for _ in range(requests):
        start, length = chance.choice([0, 0, 700, 3000]), chance.randrange(3, 180)
        prompts.append(reference_tokens[start : start + length])
    runner = runner_of(default_entry)
    alone = [generate(runner, [prompt], prefix_cache=False, max_batch_tokens=512)[0] for prompt in prompts]
    together = generate(runner, prompts, prefix_cache=True, max_batch_tokens=96, prefill_chunk=24, max_running=10)
    assert together == alone


def generate(runner: Runner, prompts: list[list[int]], **settings: int | bool) -> list[list[int]]:
    """Greedy continuations of all prompts, submitted at once to a new engine loop over `runner`."""
    runner.max_batch_tokens = int(settings["max_batch_tokens"])
    options = EngineOptions(model="default", home="unused", **settings)  # type: ignore[arg-type]
    inbox: SimpleQueue[ToEngine] = SimpleQueue()
    sent: list[FromEngine] = []
    engine = Engine(runner, options, inbox=inbox, send=sent.append)
    for i, prompt in enumerate(prompts):
        inbox.put(Submit(sequence=str(i), prompt=prompt, params=SamplingParams(max_tokens=16, temperature=0.0)))
    engine.receive(0.0)
    while engine.scheduler.has_work:
        engine.step()
    engine.scheduler.check_integrity()
    texts: dict[str, list[int]] = {str(i): [] for i in range(len(prompts))}
    for message in sent:
        if isinstance(message, StepOutputs):
            for output in message.outputs:
                texts[output.sequence] += output.tokens
    return [texts[str(i)] for i in range(len(prompts))]
