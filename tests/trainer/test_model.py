"""Samples in one row learn as each alone would, and the loss is the one that transformers computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tunechat.serve.base.entry import BaseEntry
from tunechat.trainer.adapted import AdaptedModel
from tunechat.trainer.computing import Computing
from tunechat.trainer.data.packing import join
from tunechat.trainer.data.row import Row
from tunechat.trainer.lora import LoraPlan
from tunechat.trainer.model import CHUNK

Entries = Callable[..., BaseEntry]


def rows(*lengths: int, seed: int = 0) -> list[Row]:
    chance = np.random.default_rng(seed)
    made = []
    for length in lengths:
        weights = np.where(np.arange(length) < 3, 0, chance.choice([1.0, 0.5], length)).astype(np.float32)
        made.append(Row(chance.integers(0, 250, length).astype(np.int32), weights, (length,)))
    return made


def model_of(
    entry: BaseEntry,
    *,
    checkpointing: bool = False,
    dropout: float = 0.0,
    dora: bool = False,
    dtype: torch.dtype = torch.float32,
) -> AdaptedModel:
    """With an adapter that already changes something, so that every parameter has a gradient."""
    torch.manual_seed(0)
    plan = LoraPlan(rank=4, alpha=8, dropout=dropout, dora=dora)
    model = AdaptedModel(entry, plan, Computing(dtype=dtype, checkpointing=checkpointing))
    for name, parameter in model.parameters.items():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def taught(model: AdaptedModel, *taken: Row) -> tuple[float, dict[str, Tensor]]:
    loss = sum(model.learn(row, 0.25) for row in taken)
    gradients = {name: parameter.grad for name, parameter in model.parameters.items()}
    for parameter in model.parameters.values():
        parameter.grad = None
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients.values())
    return loss, {name: gradient for name, gradient in gradients.items() if gradient is not None}


@pytest.mark.parametrize(
    ("family", "quant", "config"),
    [
        ("llama", "int4", {}),
        ("qwen2", "none", {}),
        ("qwen3", "nf4", {}),
        ("mistral", "int4", {"sliding_window": 8}),
        ("gemma2", "int4", {"sliding_window": 8, "final_logit_softcapping": 5.0}),
        ("gemma", "nf4", {}),
        ("phi", "none", {}),
        ("phi3", "int4", {}),
        ("phi3", "int4", {"sliding_window": 8}),
        ("internlm2", "int4", {}),
    ],
)
def test_packed_samples_learn_as_each_alone(
    tiny_entry: Entries, family: str, quant: str, config: dict[str, Any]
) -> None:
    model = model_of(tiny_entry(family, quant, **config))
    samples = rows(12, 31, 7)
    loss, gradients = taught(model, *samples)
    packed_loss, packed = taught(model, join(samples))
    assert packed_loss == pytest.approx(loss, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(packed[name], gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max()) + 1e-7)
    # The order of samples would change everything if they saw one another.
    assert taught(model, join(samples[::-1]))[0] == pytest.approx(loss, rel=1e-5)


def test_dora_begins_as_the_base_and_learns_packed_as_alone(tiny_entry: Entries) -> None:
    entry = tiny_entry("qwen2")
    samples = rows(9, 14)
    base = AdaptedModel(entry, LoraPlan(rank=4)).measure(join(samples))
    model = AdaptedModel(entry, LoraPlan(rank=4, dora=True, rslora=True))
    assert model.measure(join(samples)) == pytest.approx(base, rel=1e-5)
    for name, parameter in model.parameters.items():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.05)
    loss, gradients = taught(model, *samples)
    packed_loss, packed = taught(model, join(samples))
    assert packed_loss == pytest.approx(loss, rel=1e-5)
    assert any("lora_magnitude_vector" in name for name in gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(packed[name], gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max()) + 1e-7)


def test_computing_twice_gives_the_same(tiny_entry: Entries) -> None:
    packed = join(rows(20, 30))
    loss, gradients = taught(model_of(tiny_entry("llama")), packed)
    again, twice = taught(model_of(tiny_entry("llama"), checkpointing=True), packed)
    assert again == loss
    assert all(torch.equal(twice[name], gradient) for name, gradient in gradients.items())


def test_the_loss_is_that_of_transformers(tiny_entry: Entries) -> None:
    from transformers import AutoModelForCausalLM

    entry = tiny_entry("llama", "none")
    model = AdaptedModel(entry, LoraPlan(rank=4))
    reference = AutoModelForCausalLM.from_pretrained(entry.manifest.source, dtype=torch.float32).eval()
    (row,) = rows(40)
    ids = torch.from_numpy(row.tokens).long()[None]
    weights = torch.from_numpy(row.weights)
    labels = torch.where(weights > 0, ids, -100)
    ones = Row(row.tokens, (row.weights > 0).astype(np.float32), row.lengths)
    with torch.no_grad():
        expected = float(reference(ids, labels=labels).loss)
    assert model.measure(ones) / ones.trained == pytest.approx(expected, abs=1e-4)
    assert model.learn(ones, 1.0) == pytest.approx(model.measure(ones), rel=1e-6)


@pytest.mark.parametrize("dora", [False, True])
def test_half_precision_learns_nearly_the_same(tiny_entry: Entries, dora: bool) -> None:
    entry, row = tiny_entry("llama"), join(rows(20, 30))
    exact = model_of(entry, dora=dora)
    model = model_of(entry, dora=dora, dtype=torch.bfloat16)
    kept: list[torch.dtype] = []
    layer = next(module for module in model._base.modules() if type(module).__name__ == "LlamaDecoderLayer")
    layer.register_forward_hook(lambda module, given, output: kept.append(output.dtype))
    assert model.measure(row) == pytest.approx(exact.measure(row), rel=0.01)
    assert kept == [torch.bfloat16]
    assert {parameter.dtype for parameter in model.parameters.values()} == {torch.float32}
    (_, found), (_, expected) = taught(model, row), taught(exact, row)
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() < 0.1 * gradient.norm(), name


class Largest(TorchDispatchMode):
    """The most numbers that any tensor had that was made meanwhile."""

    numbers = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), named: dict[str, Any] | None = None
    ) -> Any:
        made = function(*arguments, **(named or {}))
        found = [one for one in (made if isinstance(made, tuple | list) else (made,)) if isinstance(one, Tensor)]
        self.numbers = max([self.numbers, *(one.numel() for one in found)])
        return made


@pytest.mark.parametrize("few", [False, True])
def test_logits_of_a_whole_row_are_never_in_memory(tiny_entry: Entries, few: bool) -> None:
    """Nor any of what is not learned: nothing is larger than a chunk's logits, however long the row is."""
    vocabulary, hidden = 4096, 64
    model = AdaptedModel(tiny_entry("llama", "none", vocab_size=vocabulary), LoraPlan(rank=2, targets=("q_proj",)))
    for length in (300, 600):
        (row,) = rows(length)
        if few:
            row.weights[20:] = 0
        learned = min(CHUNK, int((row.weights > 0).sum()))
        assert learned == CHUNK or few
        for compute in (lambda row=row: model.learn(row, 1.0), lambda row=row: model.measure(row)):
            with Largest() as largest:
                compute()
            # The head itself is looked at in parts, and never larger than that.
            assert largest.numbers <= max(learned, hidden) * vocabulary


@pytest.mark.parametrize("dora", [False, True])
def test_only_learning_leaves_out_at_random(tiny_entry: Entries, dora: bool) -> None:
    model = model_of(tiny_entry("llama"), dropout=0.5, dora=dora)
    (row,) = rows(30)
    assert model.measure(row) == model.measure(row)
    assert model.learn(row, 1.0) != model.learn(row, 1.0)
