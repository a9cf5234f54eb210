"""The adapter is one that the server takes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tunechat.serve.base.entry import BaseEntry
from tunechat.serve.contract.errors import ConfigError, ModelError
from tunechat.trainer.lora import LoraPlan, targets_of

Entries = Callable[..., BaseEntry]


def test_all_linear_spares_the_head(tiny_entry: Entries) -> None:
    manifest = tiny_entry("llama").manifest
    assert targets_of(LoraPlan(), manifest) == sorted(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    assert targets_of(LoraPlan(targets=("v_proj", "lm_head")), manifest) == ["lm_head", "v_proj"]


def test_unknown_targets_are_refused_with_those_there_are(tiny_entry: Entries) -> None:
    with pytest.raises(ConfigError, match=r"no linear module 'query'; it has down_proj") as error:
        targets_of(LoraPlan(targets=("query",)), tiny_entry("llama").manifest)
    assert error.value.param == "targets"


def test_a_model_without_linears_is_refused(tiny_entry: Entries) -> None:
    with pytest.raises(ModelError, match="no linear modules"):
        targets_of(LoraPlan(), tiny_entry("gpt2").manifest)
