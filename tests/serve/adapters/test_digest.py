"""The digest follows what changes the output and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tunechat.serve.adapters.adapter import read_adapter
from tunechat.serve.adapters.digest import digest_of
from tunechat.serve.contract.base import BaseManifest

from .conftest import CONFIG, WEIGHTS, MakePeft, edit_config, edit_tensors


def digest(folder: Path, base: BaseManifest) -> str:
    return digest_of(read_adapter(folder, base.linears))


def reorder(folder: Path) -> None:
    """The same tensors in the opposite order of header and data, with other metadata."""
    tensors = load_file(folder / WEIGHTS)
    header: dict[str, Any] = {"__metadata__": {"by": "hand"}}
    data = b""
    for name in sorted(tensors, reverse=True):
        content = tensors[name].tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": list(tensors[name].shape),
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    text = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_what_changes_nothing(own: Path, plain: Path, base: BaseManifest) -> None:
    expected = digest(plain, base)
    reorder(own)
    assert (own / WEIGHTS).read_bytes() != (plain / WEIGHTS).read_bytes()
    assert digest(own, base) == expected
    edit_config(own, base_model_name_or_path="another/name", lora_dropout=0.5, task_type="CAUSAL_LM")
    edit_config(own, rank_pattern={"q_proj": 4}, alpha_pattern={"v_proj": 8})
    assert digest(own, base) == expected


@pytest.mark.parametrize(
    "changes", [{"lora_alpha": 9}, {"use_rslora": True}, {"alpha_pattern": {"v_proj": 3}}], ids=str
)
def test_the_scaling_counts(own: Path, plain: Path, base: BaseManifest, changes: dict[str, Any]) -> None:
    edit_config(own, **changes)
    assert digest(own, base) != digest(plain, base)


def test_one_number_counts(own: Path, plain: Path, base: BaseManifest) -> None:
    def change(tensors: dict[str, np.ndarray[Any, Any]]) -> None:
        name = max(tensors)
        tensors[name] = tensors[name].copy()
        tensors[name].flat[-1] += 1

    edit_tensors(own, change)
    assert digest(own, base) != digest(plain, base)


def test_the_type_counts(own: Path, plain: Path, base: BaseManifest) -> None:
    save_file({name: value.astype(np.float16) for name, value in load_file(own / WEIGHTS).items()}, own / WEIGHTS)
    assert digest(own, base) != digest(plain, base)


def test_tensors_swapped_between_modules_count(own: Path, plain: Path, base: BaseManifest) -> None:
    def swap(tensors: dict[str, np.ndarray[Any, Any]]) -> None:
        first, second = sorted(name for name in tensors if "q_proj.lora_A" in name)
        tensors[first], tensors[second] = tensors[second], tensors[first]

    edit_tensors(own, swap)
    assert digest(own, base) != digest(plain, base)


def test_dora_is_another_thing_than_lora(make_peft: MakePeft, base: BaseManifest, tmp_path: Path) -> None:
    folder = make_peft(use_dora=True, folder=tmp_path / "dora")
    before = digest(folder, base)
    shutil.copytree(folder, tmp_path / "lora")
    edit_config(tmp_path / "lora", use_dora=False)
    edit_tensors(
        tmp_path / "lora", lambda tensors: [tensors.pop(n) for n in list(tensors) if "magnitude" in n] and None
    )
    assert digest(tmp_path / "lora", base) != before
    assert json.loads((folder / CONFIG).read_text())["use_dora"] is True
