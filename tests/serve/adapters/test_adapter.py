"""Reading PEFT folders: what peft saves is read as peft computes it, and what is spoilt is refused with its reason."""

from __future__ import annotations

import contextlib
import json
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from tunechat.serve.adapters.adapter import Limits, read_adapter
from tunechat.serve.contract.base import BaseManifest
from tunechat.serve.contract.errors import InvalidAdapter, TunechatError
from tunechat.tests.tiny_models import make_tiny

from .conftest import PREFIX, WEIGHTS, MakePeft, edit_config, edit_tensors

VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "dora_rslora": {"use_dora": True, "use_rslora": True, "r": 3},
    "patterns": {
        "rank_pattern": {"layers.1.self_attn.q_proj": 2, "v_proj": 8},
        "alpha_pattern": {"v_proj": 5, "^model.layers.0.self_attn.q_proj": 3},
    },
    "all_linear": {"target_modules": "all-linear"},
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "task": {"task_type": "CAUSAL_LM"},
    "some_layers": {"layers_to_transform": [1]},
    "expression": {"target_modules": r".*layers\.0.*(q_proj|up_proj)"},
    "bfloat16": {"dtype": torch.bfloat16},
    "float16": {"dtype": torch.float16},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_deltas_are_those_of_peft(make_peft: MakePeft, base: BaseManifest, tiny_folder: Path, variant: str) -> None:
    from peft import PeftModel

    folder = make_peft(**VARIANTS[variant])
    adapter = read_adapter(folder, base.linears)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), str(folder))
    layers = {
        name.removeprefix(PREFIX): module
        for name, module in peft.named_modules()
        if hasattr(module, "lora_magnitude_vector")
    }
    assert {module.name for module in adapter.modules} == set(layers)
    for module in adapter.modules:
        layer = layers[module.name]
        delta = module.scaling * torch.from_numpy(adapter.b(module) @ adapter.a(module))
        torch.testing.assert_close(delta, layer.get_delta_weight("default").float(), rtol=1e-5, atol=1e-6)
        magnitude = adapter.magnitude(module)
        if "dora" in variant:
            assert magnitude is not None
            torch.testing.assert_close(
                torch.from_numpy(np.array(magnitude)), layer.lora_magnitude_vector["default"].weight.float()
            )
        else:
            assert magnitude is None
    expected = ("lm_head.base_layer.weight",) if variant == "head" else ()
    assert len(adapter.warnings) == len(expected) and all(
        e in w for e, w in zip(expected, adapter.warnings, strict=True)
    )


def test_a_head_that_is_tied_to_the_embedding(base: BaseManifest, tmp_path: Path) -> None:
    """PEFT writes a copy of the tied matrix beside the head's adapter; it is passed over with a warning."""
    from peft import LoraConfig, get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tied = AutoModelForCausalLM.from_pretrained(make_tiny(tmp_path / "tied", "llama", tie_word_embeddings=True))
        model = get_peft_model(tied, LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False))
        model.save_pretrained(tmp_path / "adapter")
    adapter = read_adapter(tmp_path / "adapter", base.linears)
    assert [module.name for module in adapter.modules] == ["lm_head"]
    assert len(adapter.warnings) == 1 and "copy" in adapter.warnings[0]


def test_names_without_the_prefix_of_peft_are_refused(own: Path, base: BaseManifest) -> None:
    """Such files would load without an effect elsewhere."""

    def rename(tensors: dict[str, np.ndarray[Any, Any]]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix(PREFIX)] = tensors.pop(name)

    edit_tensors(own, rename)
    refused(own, base, "8 tensors", "base_model.model.MODULE")


def test_numbers_of_an_adapter(plain: Path, base: BaseManifest) -> None:
    adapter = read_adapter(plain, base.linears)
    assert (adapter.rank, adapter.targets, len(adapter.modules)) == (4, ("q_proj", "v_proj"), 4)
    assert adapter.parameters == 2 * 4 * (64 + 64 + 64 + 32) and adapter.nbytes == 4 * adapter.parameters


def refused(folder: Path, base: BaseManifest, *parts: str, limits: Limits | None = None) -> TunechatError:
    with pytest.raises(InvalidAdapter) as caught:
        read_adapter(folder, base.linears, limits or Limits())
    for part in parts:
        assert part in caught.value.message
    assert caught.value.http_status == 422
    return caught.value


Q = f"{PREFIX}model.layers.0.self_attn.q_proj"


def change_tensors(folder: Path, **changes: Any) -> None:
    """Sets or (None) removes tensors of layer 0's q_proj, by the end of their name."""

    def change(tensors: dict[str, np.ndarray[Any, Any]]) -> None:
        for end, value in changes.items():
            name = f"{Q}.{end}"
            if value is None:
                del tensors[name]
            else:
                tensors[name] = value

    edit_tensors(folder, change)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lora_B.weight": None}, "lacks its lora_B"),
        ({"lora_A.weight": None}, "lacks its lora_A"),
        ({"lora_A.weight": np.zeros((4, 65), np.float32)}, "[4, 65]"),
        ({"lora_A.weight": np.zeros((5, 64), np.float32)}, "[5, 64]"),
        ({"lora_B.weight": np.zeros((64, 5), np.float32)}, "[64, 5]"),
        ({"lora_B.weight": np.zeros((63, 4), np.float32)}, "[63, 4]"),
        ({"lora_A.weight": np.zeros((256,), np.float32)}, "[256]"),
        ({"lora_A.weight": np.zeros((0, 64), np.float32)}, "[0, 64]"),
        ({"lora_A.weight": np.ones((4, 64), np.int32)}, "I32"),
        ({"lora_A.weight": np.ones((4, 64), np.float64)}, "F64"),
        ({"lora_A.weight": np.full((4, 64), np.nan, np.float32)}, "NaN"),
        ({"lora_B.weight": np.full((64, 4), -np.inf, np.float16)}, "infinity"),
        ({"lora_magnitude_vector": np.ones(64, np.float32)}, "use_dora is not set"),
        ({"lora_A.bias": np.ones(4, np.float32)}, "lora_bias"),
        ({"lora_A.default.weight": np.ones((4, 64), np.float32)}, "PEFT names"),
        ({"weight": np.ones((64, 64), np.float32)}, "PEFT names"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
)
def test_spoilt_tensors_are_refused(own: Path, base: BaseManifest, changes: dict[str, Any], reason: str) -> None:
    change_tensors(own, **changes)
    refused(own, base, reason, "q_proj")


def test_bfloat16_infinity_is_seen(make_peft: MakePeft, base: BaseManifest, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = make_peft(dtype=torch.bfloat16, folder=tmp_path / "bf16")
    tensors = load_file(folder / WEIGHTS)
    tensors[f"{Q}.lora_A.weight"][1, 3] = torch.inf
    save_file(tensors, folder / WEIGHTS)
    refused(folder, base, "infinity")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("model.embed_tokens.lora_embedding_A", "embedding"),
        ("model.embed_tokens.weight", "resized vocabulary"),
        ("lm_head.modules_to_save.weight", "modules_to_save"),
    ],
)
def test_whole_weights_are_refused(own: Path, base: BaseManifest, name: str, reason: str) -> None:
    edit_tensors(own, lambda tensors: tensors.update({PREFIX + name: np.ones((4, 4), np.float32)}))
    assert refused(own, base, reason).code == "unsupported_format"


def test_a_resized_head_is_refused(make_peft: MakePeft, base: BaseManifest, tmp_path: Path) -> None:
    folder = make_peft(target_modules=["lm_head"], folder=tmp_path / "head")
    name = f"{PREFIX}lm_head.base_layer.weight"
    edit_tensors(folder, lambda tensors: tensors.update({name: np.ones((310, 64), np.float32)}))
    refused(folder, base, "resized vocabulary")


def test_modules_that_the_base_lacks_are_listed(own: Path, base: BaseManifest) -> None:
    def rename(tensors: dict[str, np.ndarray[Any, Any]]) -> None:
        for layer in range(10, 17):
            tensors[f"{PREFIX}model.layers.{layer}.x_proj.lora_A.weight"] = np.ones((4, 64), np.float32)

    edit_tensors(own, rename)
    error = refused(own, base, "7 modules", "of 11", "model.layers.10.x_proj", "...")
    assert error.message.count("x_proj") == 5


def test_no_effect_is_refused(own: Path, base: BaseManifest) -> None:
    def clear(tensors: dict[str, np.ndarray[Any, Any]]) -> None:
        for name in tensors:
            if "lora_B" in name:
                tensors[name] = np.full_like(tensors[name], -0.0)

    edit_tensors(own, clear)
    refused(own, base, "change nothing")


def test_rank_over_the_limit(plain: Path, base: BaseManifest) -> None:
    refused(plain, base, "ranks from 1 to 3", limits=Limits(max_rank=3))


def test_size_over_the_limit(plain: Path, base: BaseManifest) -> None:
    refused(plain, base, "bytes", limits=Limits(max_bytes=100))


def test_rank_of_the_config_must_be_that_of_the_tensors(own: Path, base: BaseManifest) -> None:
    edit_config(own, r=8)
    refused(own, base, "rank 8", "[4, 64]")


def test_dora_needs_its_magnitudes(own: Path, base: BaseManifest) -> None:
    edit_config(own, use_dora=True)
    refused(own, base, "lacks its lora_magnitude_vector")


def test_targets_without_tensors_are_a_warning(own: Path, base: BaseManifest) -> None:
    edit_config(own, target_modules=["q_proj", "v_proj", "o_proj"])
    (warning,) = read_adapter(own, base.linears).warnings
    assert "2 modules" in warning and "o_proj" in warning


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt"])
def test_pickles_are_never_opened(own: Path, base: BaseManifest, name: str) -> None:
    (own / WEIGHTS).rename(own / name)
    assert refused(own, base, name, "can run code").code == "unsupported_format"


def test_a_pickle_named_safetensors_is_refused(own: Path, base: BaseManifest) -> None:
    (own / WEIGHTS).write_bytes(b"\x80\x04\x95\x20\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93.")
    assert refused(own, base).code == "unsupported_format"


def rewritten(folder: Path, change: Any) -> None:
    """Replaces the header of the weights by what `change` makes of it."""
    data = (folder / WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = change(json.loads(data[8 : 8 + length]))
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def overlapping(header: dict[str, Any]) -> dict[str, Any]:
    first, second = [name for name in header if name != "__metadata__"][:2]
    header[second]["data_offsets"] = header[first]["data_offsets"]
    return header


def misshapen(header: dict[str, Any]) -> dict[str, Any]:
    header[f"{Q}.lora_A.weight"]["shape"] = [1 << 40, 1 << 40]
    return header


@pytest.mark.parametrize(
    "change",
    [
        overlapping,
        misshapen,
        lambda header: {},
        lambda header: b"[1]",
        lambda header: b"{" * 100_000,
        lambda header: b'{"a":' * 5000,
        lambda header: b"\xff\xfe{}",
        lambda header: header | {"extra": {"dtype": "F32", "shape": [1]}},
        lambda header: header | {"extra": 5},
        lambda header: (
            b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},'
            + json.dumps(header).encode()[1:-1]
            + b',"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
        ),
    ],
    ids=range(10),
)
def test_hostile_headers(own: Path, base: BaseManifest, change: Any) -> None:
    rewritten(own, change)
    refused(own, base)


@pytest.mark.parametrize("data", [b"", b"\0" * 7, b"\xff" * 8, b"\xff" * 100, struct.pack("<Q", 1 << 62) + b"{}"])
def test_hostile_starts(own: Path, base: BaseManifest, data: bytes) -> None:
    (own / WEIGHTS).write_bytes(data)
    refused(own, base, WEIGHTS)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), cut=st.booleans())
def test_any_damage_is_read_or_refused(
    own: Path, plain: Path, base: BaseManifest, at: float, value: int, cut: bool
) -> None:
    """One byte changed in or near the header, or the file cut short: never another error than ours."""
    data = bytearray((plain / WEIGHTS).read_bytes())
    place = int(at * 2000)
    data[place] = value
    (own / WEIGHTS).write_bytes(data[: int(at * len(data))] if cut else data)
    with contextlib.suppress(InvalidAdapter):
        read_adapter(own, base.linears)
