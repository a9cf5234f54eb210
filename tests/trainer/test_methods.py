"""Each method end to end: from the base that is served to an adapter or a model that the engine serves."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tunechat.serve.adapters.staging import Intake
from tunechat.serve.adapters.store import AdapterStore
from tunechat.serve.base.entry import BaseEntry
from tunechat.serve.base.prepare import prepare
from tunechat.serve.contract.errors import ModelError
from tunechat.serve.contract.jobs import TrainingEnded, TrainingSaved
from tunechat.tests.conftest import quiet
from tunechat.trainer.lessons import read_lessons
from tunechat.trainer.recipe_file import make_recipe

from .runs import losses, run_order
from .served import served_losses

Entries = Callable[..., BaseEntry]


@pytest.fixture
def recipe(data_file: Path) -> dict[str, Any]:
    return {
        "data": str(data_file),
        "rank": 8,
        "batch_tokens": 1000,
        "lr": 0.02,
        "steps": 15,
        "save_steps": 100,
        "priority": "training",
    }


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("quant", "told", "trained_on"),
    [
        ("int4", {}, "int4"),
        ("nf4", {}, "nf4"),
        ("int4", {"codec": "nf4"}, "nf4"),
        ("int4", {"method": "lora"}, "none"),
        ("nf4", {"method": "lora", "rslora": True}, "none"),
        ("int4", {"method": "dora"}, "int4"),
        ("nf4", {"method": "dora", "codec": "none"}, "none"),
    ],
)
def test_what_was_learned_is_served(
    tiny_entry: Entries, tmp_path: Path, recipe: dict[str, Any], quant: str, told: dict[str, Any], trained_on: str
) -> None:
    entry = tiny_entry("llama", quant)
    done, events = run_order(entry, tmp_path / "job", recipe | told)
    end = events[-1]
    assert done
    assert isinstance(end, TrainingEnded)
    version = AdapterStore(tmp_path / "store").publish("support", Path(end.adapter), Intake(entry.manifest))
    assert version.source_fingerprint == entry.manifest.source_fingerprint
    trained = tiny_entry("llama", trained_on).manifest.weights_fingerprint
    assert version.weights_fingerprint == trained
    warned = [text for text in version.warnings if "another quantisation" in text]
    assert len(warned) == (0 if trained_on == quant else 1)
    rows = read_lessons(make_recipe(recipe), entry.folder, entry.manifest).learned
    base, adapted = served_losses(entry.folder, tmp_path / "served", rows, [Path(end.adapter)])
    assert losses(events)[1] == pytest.approx(base, rel=0.02 if trained_on == quant else 0.1)
    assert adapted < 0.5 * base
    if trained_on == quant:
        assert adapted == pytest.approx(losses(events)[15], rel=0.3)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(("family", "tied"), [("llama", True), ("qwen3", False), ("phi", False)])
def test_a_whole_model_is_learned_and_served(
    tiny_entry: Entries, tmp_path: Path, recipe: dict[str, Any], family: str, tied: bool
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    entry = tiny_entry(family, "int4", tie_word_embeddings=tied)
    told = recipe | {"method": "full", "lr": 0.003, "name": "support"}
    done, events = run_order(entry, tmp_path / "job", told)
    end = events[-1]
    assert done
    assert isinstance(end, TrainingEnded)
    assert end.adapter == ""
    assert [event.adapter for event in events if isinstance(event, TrainingSaved)] == [""]
    folder = Path(end.model)
    assert folder.name == "support"
    found = losses(events)
    assert found[15] < 0.7 * found[1]
    # As transformers reads it.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tied
    source = AutoModelForCausalLM.from_pretrained(entry.manifest.source, dtype=torch.float32)
    pairs = zip(source.named_parameters(), model.parameters(), strict=True)
    assert [name for (name, before), after in pairs if torch.equal(before, after)] == []
    # A whole question and its answer, by the tokenizer that lies there.
    chat = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "I am number 0."}]
    assert tokenizer.apply_chat_template(chat, tokenize=False).endswith("I am number 0.<|im_end|>\n")
    # As the server reads it: another model than the base, which no adapter of the base fits.
    served = BaseEntry.open(prepare(str(folder), quant="int4", home=tmp_path / "home", report=quiet))
    assert served.manifest.name == "support"
    assert served.manifest.source_fingerprint != entry.manifest.source_fingerprint
    rows = read_lessons(make_recipe(recipe), entry.folder, entry.manifest).learned
    (loss,) = served_losses(served.folder, tmp_path / "store", rows, [])
    assert loss == pytest.approx(found[15], rel=0.4)


@pytest.mark.usefixtures("offline")
def test_a_whole_model_goes_on_from_where_it_stopped(
    tiny_entry: Entries, tmp_path: Path, recipe: dict[str, Any]
) -> None:
    entry = tiny_entry("llama")
    told = recipe | {"method": "full", "lr": 0.003, "steps": 5, "weight_decay": 0.1, "batch_tokens": 60}
    whole = losses(run_order(entry, tmp_path / "whole", told)[1])
    asked = itertools.count()
    done, first = run_order(entry, tmp_path / "job", told, lambda: next(asked) == 5)
    assert not done
    done, rest = run_order(entry, tmp_path / "job", told)
    assert done
    assert losses(first)
    assert losses(rest)
    assert losses(first) | losses(rest) == whole


@pytest.mark.usefixtures("offline")
def test_a_source_that_was_changed_is_not_taken_for_the_one_that_is_served(
    tiny_entry: Entries, tmp_path: Path, recipe: dict[str, Any]
) -> None:
    from tunechat.tests.tiny_models import make_tiny

    source = make_tiny(tmp_path / "source", "llama")
    entry = BaseEntry.open(prepare(str(source), quant="int4", home=tmp_path / "home", report=quiet))
    make_tiny(tmp_path / "source", "llama", seed=1)
    with pytest.raises(ModelError, match="another model than the one that is served"):
        run_order(entry, tmp_path / "job", recipe | {"method": "lora"})
