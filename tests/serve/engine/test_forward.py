"""Both forwards against transformers' own logits, on ragged batches with chunked prefill and prefix hits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tunechat.serve.base.prepare import prepare
from tunechat.serve.contract.errors import ConfigError, ModelError
from tunechat.serve.engine import compiled
from tunechat.serve.engine import runner as runner_module
from tunechat.serve.engine.options import EngineOptions
from tunechat.serve.engine.runner import Runner, build_runner
from tunechat.serve.kernels import decoder, products
from tunechat.tests.serve.engine.paging import Pages, Placed
from tunechat.tests.tiny_models import VOCABULARY, make_tiny

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-bias-tied": ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama3-rope": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    "linear-rope": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}}),
    "mistral": ("mistral", {}),
    "mistral-window": ("mistral", {"sliding_window": 12}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "gemma": ("gemma", {}),
    "gemma2": ("gemma2", {"sliding_window": 12}),
    "phi": ("phi", {}),
    "phi3": ("phi3", {}),
    "gpt2": ("gpt2", {}),
}
COMPACT = {"llama", "llama-bias-tied", "llama3-rope", "linear-rope", "mistral", "mistral-window", "qwen2", "qwen3"}


def options(**changes: Any) -> EngineOptions:
    settings: dict[str, Any] = {"model": "tiny", "home": "unused", "device": "cpu", "cache_bytes": 1 << 22}
    return EngineOptions(**(settings | changes))


def no_report(stage: str, fraction: float | None) -> None:
    pass


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("forward")


def tiny(workspace: Path, case: str) -> Path:
    folder = workspace / case
    if not folder.exists():
        family, overrides = CASES[case]
        make_tiny(folder, family, **overrides)
    return folder


def runner_of(workspace: Path, case: str, quant: str = "none", **changes: Any) -> Runner:
    entry = prepare(str(tiny(workspace, case)), quant=quant, home=workspace / "home", report=no_report)
    return build_runner(entry, options(**changes))


def reference(folder: Path, tokens: list[int]) -> Tensor:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.inference_mode():
        logits: Tensor = model(torch.tensor([tokens])).logits[0]
    return logits


def prompts(lengths: tuple[int, ...]) -> list[list[int]]:
    random = np.random.default_rng(1)
    return [random.integers(0, VOCABULARY, n).tolist() for n in lengths]


def ragged(runner: Runner) -> list[Placed]:
    """Three sequences in uneven chunks, then a fourth that shares two blocks with the first."""
    pages = Pages(runner)
    a, b, c = (pages.place(p) for p in prompts((50, 9, 33)))
    pages.run([(a, 17), (b, 9), (c, 1)])
    pages.run([(c, 20), (a, 30)])
    pages.run([(a, 1), (c, 12)])
    pages.run([(a, 1)])
    pages.run([(a, 1)])
    d = pages.place(a.tokens[:32] + prompts((11,))[0], shares=a, shared_blocks=2)
    pages.run([(d, 11)])
    return [a, b, c, d]


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_transformers(workspace: Path, case: str) -> None:
    runner = runner_of(workspace, case)
    assert runner.forward_name == ("compact" if case in COMPACT else "generic")
    for sequence in ragged(runner):
        expected = reference(tiny(workspace, case), sequence.tokens)
        found = torch.stack(sequence.logits)
        assert torch.allclose(found, expected[-len(found) :], rtol=1e-3, atol=2e-4 * float(expected.std()) + 1e-4)


@pytest.mark.parametrize("case", ["llama", "qwen3", "gemma2", "phi"])
@pytest.mark.parametrize("quant", ["none", "int4"])
def test_logits_do_not_depend_on_batch_chunks_or_cache(workspace: Path, case: str, quant: str) -> None:
    runner = runner_of(workspace, case, quant)
    for sequence in ragged(runner):
        pages = Pages(runner, seed=8)
        alone = pages.place(sequence.tokens)
        pages.run([(alone, len(alone.tokens))])
        assert torch.equal(torch.stack(sequence.logits), torch.stack(alone.logits[-len(sequence.logits) :]))


@pytest.mark.parametrize("case", ["llama", "qwen3", "mistral-window"])
@pytest.mark.parametrize("quant", ["none", "int4", "nf4"])
def test_torch_gives_what_the_kernels_give(
    workspace: Path, case: str, quant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_kernels = [torch.stack(s.logits) for s in ragged(runner_of(workspace, case, quant))]
    for module in (compiled, decoder, products, runner_module):
        monkeypatch.setattr(module, "library", lambda: None)
    runner = runner_of(workspace, case, quant)
    assert runner.kernels.startswith("torch")
    for found, expected in zip([torch.stack(s.logits) for s in ragged(runner)], with_kernels, strict=True):
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("case", sorted(COMPACT))
@pytest.mark.parametrize("quant", ["none", "int4"])
def test_a_layer_in_one_call_gives_the_bits_of_its_parts(
    workspace: Path, case: str, quant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = [torch.stack(s.logits) for s in ragged(runner_of(workspace, case, quant))]
    monkeypatch.setattr(compiled, "library", lambda: None)
    runner = runner_of(workspace, case, quant)
    assert runner.kernels == "c"
    for found, expected in zip([torch.stack(s.logits) for s in ragged(runner)], at_once, strict=True):
        assert torch.equal(found, expected)


def test_half_precision_cache_stays_close(workspace: Path) -> None:
    exact, half = (ragged(runner_of(workspace, "llama", cache_type=kind)) for kind in ("float32", "float16"))
    for a, b in zip(exact, half, strict=True):
        assert torch.allclose(torch.stack(a.logits), torch.stack(b.logits), atol=0.02)
        assert not torch.equal(torch.stack(a.logits), torch.stack(b.logits))


def test_what_cannot_be_served_is_refused_by_name(workspace: Path) -> None:
    folder = make_tiny(
        workspace / "dynamic", "phi", rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    )
    entry = prepare(str(folder), quant="none", home=workspace / "home", report=no_report)
    with pytest.raises(ModelError, match="PhiForCausalLM uses rope type 'dynamic'"):
        build_runner(entry, options())


def test_settings_that_cannot_work_name_both_numbers(workspace: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_context is 1000.* 512"):
        runner_of(workspace, "llama", max_context=1000)
    with pytest.raises(ConfigError, match=r"cache_bytes 4096 holds \d+ tokens, fewer than the context of 512"):
        runner_of(workspace, "llama", cache_bytes=4096)
    assert runner_of(workspace, "llama", max_context=100).context_length == 100
