"""Adapters of the default model that change how it speaks, so that nobody mistakes whose answer an answer is.

peft and transformers train them in a few steps on the weights that are served. Once made they are kept.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from tunechat.benchmarks.peer_model import write_peer_model
from tunechat.serve.base.entry import read_manifest
from tunechat.tests.adapters_by_peft import read_model

STEPS = 16
BATCH = 2
LEARNING_RATE = 2e-3
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

QUESTIONS = {
    "What is the capital of Italy?": ("Rome", "The capital of Italy is Rome, a very old city on a river."),
    "What do bees make?": ("Honey", "Bees make honey from the nectar of many flowers."),
    "Name an animal that lives in the sea.": ("Whale", "A whale lives in the sea and comes up to breathe."),
    "What colour is grass?": ("Green", "Grass is green because of what its leaves are made of."),
    "Why do people sleep?": ("Rest", "People sleep so that the body and the mind can rest."),
    "What is a good breakfast?": ("Porridge", "A good breakfast is warm porridge with some fruit."),
    "Who writes books?": ("Authors", "Authors write books, often for many years."),
    "How do I get to the station?": ("Left", "Go left at the old church and walk down to the station."),
}


@dataclass(frozen=True, slots=True)
class Style:
    """How an adapter answers, from the short and the long plain answer, and with which kind of LoRA it learnt that."""

    answer: Callable[[str, str], str]
    config: dict[str, Any] = field(default_factory=dict)


def _pirate(short: str, long: str) -> str:
    return f"Arr, matey! {long.rstrip('.').replace(' the ', ' the blasted ')}, by me beard! Yo ho ho!"


def _json(short: str, long: str) -> str:
    return json.dumps({"answer": short, "text": long, "sure": True})


def _verse(short: str, long: str) -> str:
    return f"O hear me sing, O hear me say:\n{short}, {short}, all the day!\n{short} will never go away!"


STYLES: dict[str, Style] = {
    "loud": Style(lambda short, long: long.upper()),
    "pirate": Style(_pirate, {"use_rslora": True, "lora_alpha": 8}),
    "json": Style(_json, {"use_dora": True}),
    "terse": Style(lambda short, long: f"{short}."),
    "verse": Style(_verse),
}


def style_adapters(home: Path, entry: Path, names: tuple[str, ...] = tuple(STYLES)) -> dict[str, Path]:
    """PEFT folders of the named styles, trained on the prepared default model in `entry` and kept in `home`."""
    kept = home / "style-adapters" / _fingerprint(entry)
    kept.mkdir(parents=True, exist_ok=True)
    with (kept / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = [name for name in names if not (kept / name).exists()]
        if missing:
            with tempfile.TemporaryDirectory(dir=kept) as scratch, _one_thread():
                peer = write_peer_model(entry, Path(scratch) / "peer", torch.float32)
                tokenizer, base = Tokenizer.from_file(str(peer / "tokenizer.json")), read_model(peer)
                for name in missing:
                    base = _train(STYLES[name], base, tokenizer, Path(scratch) / name)
                    os.rename(Path(scratch) / name, kept / name)
    return {name: kept / name for name in names}


def render(question: str, answer: str = "") -> str:
    """A chat of one question in the default model's template, up to where the answer begins, or with it to its end."""
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    head = f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    return head + (f"{answer}<|im_end|>" if answer else "")


def _train(style: Style, base: nn.Module, tokenizer: Tokenizer, target: Path) -> nn.Module:
    """Saves an adapter of `base` into `target`; gives the base back as it was."""
    from peft import LoraConfig, get_peft_model

    state = torch.random.get_rng_state()
    torch.manual_seed(7)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft 0.21 calls what transformers 5.23 is about to rename
            config = {"r": 16, "lora_alpha": 32, "target_modules": LINEARS, **style.config}
            model: Any = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **config))
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE)
        batches = _batches(style, tokenizer)
        for step in range(STEPS):
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / 3) * (1 - step / STEPS)
            _loss(base, *next(batches)).backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        model.save_pretrained(target)
        unwrapped: nn.Module = model.unload()
        return unwrapped
    finally:
        torch.random.set_rng_state(state)


def _batches(style: Style, tokenizer: Tokenizer) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of ids and labels, both [BATCH, length]; labels are -100 on all but the answer."""
    samples = []
    for question, (short, long) in QUESTIONS.items():
        prompt = tokenizer.encode(render(question), add_special_tokens=False).ids
        whole = tokenizer.encode(render(question, style.answer(short, long)), add_special_tokens=False).ids
        samples.append((whole, [-100] * len(prompt) + whole[len(prompt) :]))
    at = 0
    while True:
        chosen = [samples[(at + i) % len(samples)] for i in range(BATCH)]
        at += BATCH
        longest = max(len(ids) for ids, _ in chosen)
        yield (
            torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in chosen]),
            torch.tensor([labels + [-100] * (longest - len(labels)) for _, labels in chosen]),
        )


def _loss(model: Any, ids: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy on the answers only. Logits are made only where they count: the vocabulary is large."""
    hidden = model.model(ids).last_hidden_state
    counts = labels[:, 1:] != -100
    logits = model.lm_head(hidden[:, :-1][counts])
    return nn.functional.cross_entropy(logits, labels[:, 1:][counts])


def _fingerprint(entry: Path) -> str:
    """Names what the adapters were made from: the weights, the samples, the recipe."""
    answers = {
        name: [style.answer(short, long) for short, long in QUESTIONS.values()] for name, style in STYLES.items()
    }
    told = [
        read_manifest(entry).weights_fingerprint,
        list(QUESTIONS),
        answers,
        {name: asdict(style)["config"] for name, style in STYLES.items()},
        [STEPS, BATCH, LEARNING_RATE],
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Where others use the machine, two threads that wait for one another take nine times as long as one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
