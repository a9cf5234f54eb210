"""The config keys: all that peft writes are known, what changes the maths is refused by name, patterns as in peft."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.adapters.settings import _HARMLESS, _MUST_BE_OFF, _READ, read_settings
from tunechat.serve.contract.errors import InvalidAdapter, UnsupportedFormat

PLAIN = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}


def read(**changes: Any) -> Any:
    return read_settings(PLAIN | changes, 512)


def test_every_key_that_peft_writes_is_known(tmp_path: Path) -> None:
    from peft import LoraConfig

    LoraConfig(target_modules=["q_proj"]).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert {field.name for field in dataclasses.fields(LoraConfig)} - set(written) <= {"runtime_config"}
    assert read_settings(written, 512).rank == 8


@pytest.mark.parametrize(
    "changes",
    [
        {"peft_type": "ADALORA"},
        {"peft_type": ["LORA"]},
        {"auto_map": {"AutoModel": "evil.py"}},
        {"_attn_implementation_internal": "evil/kernel"},
        {"trust_remote_code": True},
        {"auto_mapping": {"base_model_class": "X", "parent_library": "os"}},
        {"auto_mapping": {"parent_library": "transformers.models", "extra": 1}},
        {"auto_mapping": "transformers"},
        {"modules_to_save": ["lm_head"]},
        {"bias": "all"},
        {"bias": "lora_only"},
        {"layer_replication": [[0, 1]]},
        {"lora_bias": True},
        {"alora_invocation_tokens": [1]},
        {"megatron_config": {"x": 1}},
        {"trainable_token_indices": [1]},
        {"target_parameters": ["experts.weight"]},
        {"use_qalora": True},
        {"use_bdlora": {"x": 1}},
        {"arrow_config": {"x": 1}},
        {"kasa_config": {"x": 1}},
        {"monteclora_config": {"x": 1}},
        {"ensure_weight_tying": True},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "pissa_niter_16"},
        {"init_lora_weights": "olora"},
        {"init_lora_weights": "corda"},
        {"init_lora_weights": "lora_ga"},
        {"init_lora_weights": "loftq"},
        {"init_lora_weights": "something"},
        {"init_lora_weights": ["gaussian"]},
        {"brand_new_key": None},
    ],
    ids=str,
)
def test_refuses_by_name(changes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedFormat) as caught:
        read(**changes)
    (key,) = changes
    assert key in caught.value.message
    assert caught.value.code == "unsupported_format" and caught.value.http_status == 422


@pytest.mark.parametrize(
    "changes",
    [
        {"r": 0},
        {"r": 513},
        {"r": True},
        {"r": "8"},
        {"r": 8.0},
        {"lora_alpha": 0},
        {"lora_alpha": 1e300},
        {"lora_alpha": math.nan},
        {"lora_alpha": "x"},
        {"use_dora": "yes"},
        {"rank_pattern": {"q_proj": 0}},
        {"alpha_pattern": {"q_proj": None}},
        {"rank_pattern": ["q_proj"]},
        {"rank_pattern": {"(": 4}},
    ],
    ids=str,
)
def test_refuses_values(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidAdapter):
        read(**changes)


def test_leftovers_of_training_are_harmless() -> None:
    settings = read(
        auto_mapping={"base_model_class": "L", "parent_library": "transformers.models.llama", "unsloth_fixed": True},
        base_model_name_or_path="https://example.invalid/model",
        corda_config=None,
        eva_config={"rho": 2.0},
        init_lora_weights="eva",
        loftq_config={"loftq_bits": 4},
        lora_dropout=0.1,
        task_type="CAUSAL_LM",
        velora_config={"num_groups": 1},
    )
    assert settings.base == "https://example.invalid/model" and settings.variant == "lora"


@pytest.mark.parametrize("text", ["(a+)+b", "(a|a)*b", "a**", ".*.*.*x", "(?=a)", "a{9}", "a" * 300, "a b", "é"])
def test_patterns_that_could_take_long_are_refused(text: str) -> None:
    with pytest.raises(UnsupportedFormat):
        read(rank_pattern={text: 4})


def test_many_patterns_are_refused() -> None:
    with pytest.raises(InvalidAdapter):
        read(rank_pattern={f"layers.{i}.*": 4 for i in range(65)})
    with pytest.raises(InvalidAdapter):
        read(alpha_pattern={f"layers.{i}": 4 for i in range(2049)})
    assert read(rank_pattern={f"layers.{i}.q_proj": 4 for i in range(2048)}).rank_of("layers.2047.q_proj") == 4


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)


@given(key=st.sampled_from(sorted(_READ | _HARMLESS | _MUST_BE_OFF)), value=JSON)
def test_any_value_is_read_or_refused(key: str, value: Any) -> None:
    with contextlib.suppress(InvalidAdapter):
        assert read(**{key: value}).rank >= 1


def test_a_deep_value_is_refused() -> None:
    value: Any = "x"
    for _ in range(900):
        value = [value]
    with pytest.raises(UnsupportedFormat):
        read(bias=value)


def test_patterns_that_pass_match_at_once() -> None:
    settings = read(rank_pattern={".*x.*y": 4})
    started = time.process_time()
    assert settings.rank_of("x" * 2000) == 8
    assert time.process_time() - started < 5


MODULES = (
    "model.layers.0.self_attn.q_proj",
    "model.layers.1.self_attn.q_proj",
    "model.layers.11.mlp.down_proj",
    "lm_head",
)


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize(
    "pattern",
    [
        {},
        {"q_proj": 4},
        {"proj": 4},
        {"layers.1.self_attn.q_proj": 4, "q_proj": 2},
        {"q_proj": 2, "layers.1.self_attn.q_proj": 4},
        {r"^model\.layers\.0\.self_attn\.q_proj": 3},
        {r".*\.1\..*": 5},
        {"(q|down)_proj": 6},
        {"model.layers.0.self_attn.q_proj": 7, "lm_head": 1},
    ],
    ids=str,
)
def test_patterns_resolve_as_in_peft(pattern: dict[str, int], rslora: bool) -> None:
    from peft.utils.other import get_pattern_key

    settings = read(rank_pattern=pattern, alpha_pattern=pattern, use_rslora=rslora)
    for module in MODULES:
        rank = pattern.get(get_pattern_key(list(pattern), module), 8)
        alpha = pattern.get(get_pattern_key(list(pattern), module), 16)
        assert settings.rank_of(module) == rank
        assert settings.scaling_of(module) == alpha / (math.sqrt(rank) if rslora else rank)
