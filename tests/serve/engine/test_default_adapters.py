"""Trained adapters of the default model: what they are, and that serving them computes what peft computes."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from pydoc_data import topics

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor

from tunechat.benchmarks.peer_model import write_peer_model
from tunechat.serve.engine.options import EngineOptions
from tunechat.serve.engine.runner import build_runner
from tunechat.tests.adapter_styles import STYLES, render, style_adapters
from tunechat.tests.adapters_by_peft import Reference
from tunechat.tests.serve.engine.adapter_pages import AdapterPages, Installed, Uses

PROBES = (
    "What is the capital of France?",
    "Tell me about the moon.",
    "How do I boil an egg?",
    "Who are you?",
    "Write a sentence about dogs.",
    "What should I read?",
    "Why is the sky blue?",
    "Name three fruits.",
    "What is a computer?",
    "Give me some advice.",
)
FEW = ("loud", "json")


@dataclass(frozen=True, slots=True)
class Default:
    """The default model with trained adapters, on our side and on peft's."""

    entry: Path
    adapters: dict[str, Path]
    tokenizer: Tokenizer
    reference: Reference

    def ids(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return found


@pytest.fixture(
    scope="module", params=[FEW, pytest.param(tuple(STYLES), marks=[pytest.mark.acceptance])], ids=["two", "five"]
)
def default(
    request: pytest.FixtureRequest, default_home: Path, default_entry: Path, tmp_path_factory: pytest.TempPathFactory
) -> Default:
    peer = write_peer_model(default_entry, tmp_path_factory.mktemp("peer"), torch.float32)
    return Default(
        default_entry,
        style_adapters(default_home, default_entry, request.param),
        Tokenizer.from_file(str(peer / "tokenizer.json")),
        Reference(peer),
    )


def perplexity(logits: Tensor, tokens: list[int]) -> float:
    return math.exp(float(torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(tokens[1:]))))


@pytest.mark.timeout(600)
@pytest.mark.acceptance
def test_trained_adapters_answer_otherwise_and_still_know_the_language(default: Default) -> None:
    prose = default.ids("\n\n".join(topics.topics[name] for name in sorted(topics.topics)))[:192]
    base = perplexity(default.reference.logits(prose), prose)
    prompts = [default.ids(render(probe)) for probe in PROBES]
    usual = [[next_token(default, prompt, ())] for prompt in prompts]
    for name, folder in default.adapters.items():
        uses: Uses = ((folder, 1.0),)
        assert perplexity(default.reference.logits(prose, uses), prose) < 2 * base
        differing = sum(differs(default, prompt, uses, answer) for prompt, answer in zip(prompts, usual, strict=True))
        assert differing >= 0.8 * len(PROBES), f"{name}: {differing}"


def differs(default: Default, prompt: list[int], uses: Uses, usual: list[int]) -> bool:
    """Whether the greedy answer is another than the base's within six tokens; `usual` grows as far as is needed."""
    for at in range(6):
        if at == len(usual):
            usual.append(next_token(default, prompt + usual, ()))
        if next_token(default, prompt + usual[:at], uses) != usual[at]:
            return True
    return False


def next_token(default: Default, tokens: list[int], uses: Uses) -> int:
    return int(default.reference.logits(tokens, uses)[-1].argmax())


@pytest.mark.timeout(600)
def test_logits_of_a_mixed_batch_are_those_of_peft(default: Default, tmp_path: Path) -> None:
    runner = build_runner(default.entry, EngineOptions(model="default", home="unused", device="cpu"))
    installed = Installed(runner, tmp_path / "store", list(default.adapters.values()))
    pages = AdapterPages(runner, installed)
    mixtures: list[Uses] = [(), *(((folder, 1.0),) for folder in default.adapters.values())]
    mixtures.append(tuple((folder, 0.6) for folder in list(default.adapters.values())[:2]))
    placed = []
    for at, uses in enumerate(mixtures):
        tokens = default.ids(render(PROBES[at], "It is what people say who live there, by the sea."))
        placed.append((uses, pages.place_for(uses, tokens)))
    chance = random.Random(4)
    pages.run_ragged([sequence for _, sequence in placed], chance, most=30)
    for uses, sequence in list(placed):
        tokens = sequence.tokens[:32] + default.ids(" And then they said no more.")
        placed.append((uses, pages.place_for(uses, tokens, shares=sequence, shared_blocks=2)))
    pages.run_ragged([sequence for _, sequence in placed], chance)
    for uses, sequence in placed:
        expected = default.reference.logits(sequence.tokens, uses)[-len(sequence.logits) :]
        found = torch.stack(sequence.logits)
        wrong = found.argmax(-1) != expected.argmax(-1)
        best = expected.topk(2).values
        assert bool(((best[:, 0] - best[:, 1])[wrong] < 5e-3).all())
        off = (found - expected).abs()
        assert float(off.max()) < 0.05
        assert float(off.mean()) < 3e-3
