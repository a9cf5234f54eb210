"""Weight files: readable by the safetensors library, aligned, mapped without a copy, refused when damaged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tunechat.serve.base.safetensors_file import MappedTensors, Planned, TensorSpec, write_tensors
from tunechat.serve.contract.errors import ModelError

TENSORS = {
    "a": torch.arange(7, dtype=torch.float32),
    "b.quants": torch.arange(130, dtype=torch.uint8).view(10, 13),
    "c": torch.zeros(0, 4),
    "d": torch.randn(3, 5).to(torch.bfloat16),
    "e": torch.tensor(3.0, dtype=torch.float16),
}


def write(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    planned = [
        Planned((TensorSpec(name, value.dtype, tuple(value.shape)),), lambda value=value: [value])
        for name, value in tensors.items()
    ]
    write_tensors(path, planned, {"forms": "{}"}, lambda fraction: None)
    return path


def test_the_library_reads_what_is_written(tmp_path: Path) -> None:
    path = write(tmp_path / "w.safetensors", TENSORS)
    theirs = load_file(path)
    ours = MappedTensors(path)
    assert ours.metadata == {"forms": "{}"}
    assert set(ours) == set(TENSORS)
    for name, value in TENSORS.items():
        assert torch.equal(ours[name], value) and torch.equal(theirs[name], value)
        assert ours[name].dtype == value.dtype and ours[name].shape == value.shape


def test_every_tensor_lies_on_its_boundary(tmp_path: Path) -> None:
    ours = MappedTensors(write(tmp_path / "w.safetensors", TENSORS))
    assert all(ours[name].data_ptr() % 64 == 0 for name in ours if ours[name].numel())


def test_files_of_the_library_are_read(tmp_path: Path) -> None:
    # A header of odd length and an odd number of bytes before a float: both unaligned.
    tensors = {"a": torch.arange(3, dtype=torch.uint8), "b": torch.arange(5, dtype=torch.float32)}
    save_file(tensors, tmp_path / "w.safetensors")
    ours = MappedTensors(tmp_path / "w.safetensors")
    assert all(torch.equal(ours[name], value) for name, value in tensors.items())


def test_progress_ends_at_one(tmp_path: Path) -> None:
    seen: list[float] = []
    planned = [Planned((TensorSpec(str(i), torch.float32, (16,)),), lambda: [torch.zeros(16)]) for i in range(4)]
    write_tensors(tmp_path / "w", planned, {}, seen.append)
    assert seen == [0.25, 0.5, 0.75, 1.0]


def test_a_tensor_other_than_planned_is_refused(tmp_path: Path) -> None:
    planned = [Planned((TensorSpec("a", torch.float32, (2,)),), lambda: [torch.zeros(3)])]
    with pytest.raises(ValueError, match="planned"):
        write_tensors(tmp_path / "w", planned, {}, lambda fraction: None)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_files_are_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    content = write(folder / "w", TENSORS).read_bytes()
    kept = data.draw(st.integers(1, len(content) - 1))
    (folder / "cut").write_bytes(content[:kept])
    with pytest.raises(ModelError):
        MappedTensors(folder / "cut")


@pytest.mark.parametrize(
    "header",
    [
        [],
        {"a": 1},
        {"a": {"dtype": "F32", "shape": [2]}},
        {"a": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}, "b": {"dtype": "I64", "shape": [1],
         "data_offsets": [0, 8]}},
        {"a": {"dtype": "U8", "shape": [1 << 62, 8], "data_offsets": [0, 8]}},
    ],
)  # fmt: skip
def test_lying_headers_are_refused(tmp_path: Path, header: object) -> None:
    text = json.dumps(header).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(ModelError):
        MappedTensors(path)


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"\x80\x04\x95" + bytes(61))
    with pytest.raises(ModelError, match="safetensors"):
        MappedTensors(path)


def test_mapped_memory_cannot_be_written(tmp_path: Path) -> None:
    path = write(tmp_path / "w.safetensors", TENSORS)
    code = (
        "import sys; from pathlib import Path; from tunechat.serve.base.safetensors_file import MappedTensors\n"
        "MappedTensors(Path(sys.argv[1]))['a'][0] = 1.0"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, timeout=60)
    assert done.returncode < 0
    assert torch.equal(MappedTensors(path)["a"], TENSORS["a"])
