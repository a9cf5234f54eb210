"""Adapters in mixed ragged batches against peft's own layers, and against themselves in any company."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tunechat.serve.base.prepare import prepare
from tunechat.serve.engine import compiled, slots
from tunechat.serve.engine import runner as runner_module
from tunechat.serve.engine.options import EngineOptions
from tunechat.serve.engine.runner import Runner, build_runner
from tunechat.serve.kernels import decoder, products
from tunechat.tests.adapters_by_peft import VARIANTS, Reference, make_adapter, write_served
from tunechat.tests.serve.engine.adapter_pages import AdapterPages, Installed, Uses
from tunechat.tests.serve.engine.paging import Placed
from tunechat.tests.tiny_models import VOCABULARY, make_tiny

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi", "phi3")
# Adapters are kept in 16 bits; a base in 4 bits also meets inputs in 16 bits.
CASES = [(family, "none") for family in FAMILIES] + [("llama", "int4"), ("llama", "nf4"), ("qwen3", "int4")]
LORAS = ("rank-3", "rank-64-rslora", "rank-8-few")


def quiet(stage: str, fraction: float | None) -> None:
    pass


class Bench:
    """A tiny model of a family, prepared, with every adapter that peft can make of it."""

    def __init__(self, workspace: Path, family: str, quant: str) -> None:
        self.folder = workspace / f"{family}-{quant}"
        source = make_tiny(self.folder / "source", family)
        self.entry = prepare(str(source), quant=quant, home=self.folder / "home", report=quiet)
        served = write_served(source, self.entry, self.folder / "served")
        self.adapters = {
            name: make_adapter(served, self.folder / name, seed=seed, dtype=dtype, **config)
            for seed, (name, config) in enumerate(VARIANTS.items())
            if family != "phi3" or "v_proj" not in config["target_modules"]
            for dtype in (torch.bfloat16 if name == "rank-16" else torch.float32,)
        }
        self.reference = Reference(served)
        self.expected: dict[tuple[Uses, tuple[int, ...]], Tensor] = {}

    def runner(self, **changes: Any) -> Runner:
        settings: dict[str, Any] = {"model": "tiny", "home": "unused", "device": "cpu", "cache_bytes": 1 << 22}
        return build_runner(self.entry, EngineOptions(**(settings | changes)))

    def installed(self, runner: Runner, **changes: int) -> Installed:
        return Installed(runner, self.folder / "store", list(self.adapters.values()), **changes)

    def uses(self, *mixtures: dict[str, float]) -> list[Uses]:
        return [tuple((self.adapters[name], weight) for name, weight in mixture.items()) for mixture in mixtures]

    def everything(self) -> list[Uses]:
        """The base and every adapter by itself, the base twice."""
        return self.uses({}, *({name: 1.0} for name in self.adapters), {})


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Bench]:
    return {}


@pytest.fixture
def bench(
    request: pytest.FixtureRequest,
    benches: dict[tuple[str, str], Bench],
    tmp_path_factory: pytest.TempPathFactory,
) -> Bench:
    family, quant = request.param
    if (family, quant) not in benches:
        benches[family, quant] = Bench(tmp_path_factory.mktemp("parity"), family, quant)
    return benches[family, quant]


def ragged(bench: Bench, runner: Runner, installed: Installed, mixtures: list[Uses]) -> list[tuple[Uses, Placed]]:
    """One sequence for each mixture, all together in uneven chunks; then as many that begin with blocks of those."""
    chance = random.Random(3)
    pages = AdapterPages(runner, installed)
    first = []
    for uses in mixtures:
        tokens = [chance.randrange(VOCABULARY) for _ in range(chance.randint(18, 40))]
        first.append((uses, pages.place_for(uses, tokens)))
    pages.run_ragged([sequence for _, sequence in first], chance)
    second = []
    for uses, sequence in first:
        tokens = sequence.tokens[:16] + [chance.randrange(VOCABULARY) for _ in range(chance.randint(2, 12))]
        second.append((uses, pages.place_for(uses, tokens, shares=sequence, shared_blocks=1)))
    pages.run_ragged([sequence for _, sequence in second], chance)
    return first + second


def check_close(found: list[Tensor], expected: Tensor) -> None:
    rows = torch.stack(found)
    off = (rows - expected[-len(rows) :]).abs()
    spread = float(expected.std())
    assert float(off.max()) < 8e-3 * spread, f"{float(off.max()) / spread:.5f} of the spread"
    assert float(off.mean()) < 1e-3 * spread, f"{float(off.mean()) / spread:.5f} of the spread"


@pytest.mark.parametrize("bench", CASES, indirect=True, ids="-".join)
def test_logits_of_a_mixed_batch_are_those_of_peft(bench: Bench) -> None:
    runner = bench.runner()
    base = bench.reference.logits(range(20))
    for uses in bench.everything():
        if uses:  # else the comparison below would pass without any adapter
            assert float((bench.reference.logits(range(20), uses) - base).abs().mean()) > 0.1 * float(base.std())
    for uses, sequence in ragged(bench, runner, bench.installed(runner), bench.everything()):
        check_close(sequence.logits, bench.reference.logits(sequence.tokens, uses))


@pytest.mark.parametrize(
    "bench", [("llama", "none"), ("qwen3", "int4"), ("gemma2", "none")], indirect=True, ids="-".join
)
def test_compositions_are_sums_of_weighted_deltas(bench: Bench) -> None:
    runner = bench.runner()
    mixtures = bench.uses(
        dict.fromkeys(LORAS, 0.4),
        {"rank-3": 0.7, "rank-64-rslora": -0.3},
        {},
        {"rank-64-rslora": -0.3, "rank-3": 0.7},
        {"rank-16": 0.0, "rank-1": 0.5},
        {"dora": 0.5, "rank-3": 0.5},
        {"dora": 0.6, "dora-rslora": 0.6, "head": 0.3},
        {"rank-3": 2.0},
    )
    results = ragged(bench, runner, bench.installed(runner), mixtures)
    for uses, sequence in results:
        expected = bench.reference.logits(sequence.tokens, uses)
        check_close(sequence.logits, expected)
        if len(uses) > 1 and {folder.name for folder, _ in uses} <= set(LORAS):
            by_peft = bench.reference.logits_of_weighted_adapter(sequence.tokens, uses)
            assert torch.allclose(by_peft, expected, atol=1e-4 * float(expected.std()), rtol=1e-4)


@pytest.mark.parametrize(
    "bench", [("llama", "none"), ("llama", "int4"), ("llama", "nf4"), ("qwen3", "int4"), ("phi", "none")],
    indirect=True, ids="-".join,
)  # fmt: skip
def test_logits_do_not_depend_on_company_chunks_cache_or_slots(bench: Bench) -> None:
    runner = bench.runner()
    mixtures = [*bench.everything(), *bench.uses({"rank-3": 0.7, "dora": 0.4, "rank-16": 0.2}, {"rank-16": 0.5})]
    together = ragged(bench, runner, bench.installed(runner), mixtures)
    other = bench.runner(threads=1)
    installed = bench.installed(other, first_slot=7)
    for uses, sequence in together:
        pages = AdapterPages(other, installed, seed=8)
        alone = pages.place_for(uses, sequence.tokens)
        pages.run([(alone, len(alone.tokens))])
        assert torch.equal(torch.stack(sequence.logits), torch.stack(alone.logits[-len(sequence.logits) :]))


@pytest.mark.parametrize("bench", [("llama", "int4"), ("phi", "none")], indirect=True, ids="-".join)
def test_a_slot_keeps_nothing_of_who_was_there(bench: Bench) -> None:
    runner = bench.runner()
    tokens = list(range(30, 60))

    def logits(name: str, installed: Installed) -> Tensor:
        pages = AdapterPages(runner, installed)
        sequence = pages.place_for(((bench.adapters[name], 1.0),), tokens)
        pages.run([(sequence, len(tokens))])
        return torch.stack(sequence.logits)

    root = bench.folder / "store"
    fresh = {name: logits(name, Installed(runner, root, [bench.adapters[name]])) for name in ("one-layer", "head")}
    for before in bench.adapters.values():
        Installed(runner, root, [before])
        runner.uninstall(0)
        for name, expected in fresh.items():
            assert torch.equal(logits(name, Installed(runner, root, [bench.adapters[name]])), expected)


@pytest.mark.parametrize("bench", [("llama", "none"), ("llama", "int4"), ("phi", "none")], indirect=True, ids="-".join)
def test_torch_adds_what_the_kernels_add(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    mixtures = [*bench.everything(), *bench.uses({"rank-3": 0.7, "dora": 0.4, "rank-16": 0.2})]
    runner = bench.runner()
    with_kernels = [sequence.logits for _, sequence in ragged(bench, runner, bench.installed(runner), mixtures)]
    for module in (compiled, decoder, products, runner_module, slots):
        monkeypatch.setattr(module, "library", lambda: None)
    runner = bench.runner()
    assert runner.kernels.startswith("torch")
    results = ragged(bench, runner, bench.installed(runner), mixtures)
    for (_, sequence), expected in zip(results, with_kernels, strict=True):
        check_close(sequence.logits, torch.stack(expected))
