"""The GGUF reader: the same metadata and values as the `gguf` package, and no trust in a damaged file."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter, quants
from hypothesis import given, settings
from hypothesis import strategies as st

from tunechat.serve.base.gguf_file import GgufFile
from tunechat.serve.contract.errors import ModelError

from .gguf_files import finish

KINDS = [
    GGMLQuantizationType[name]
    for name in ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
]


def write_kinds(path: Path) -> dict[str, tuple[np.ndarray, GGMLQuantizationType]]:
    """One tensor of each kind, of random blocks; their bytes by name."""
    random = np.random.default_rng(3)
    writer = GGUFWriter(path, "llama")
    writer.add_name("näme 名")
    writer.add_bool("a.flag", True)
    writer.add_array("a.numbers", [1.5, -2.0])
    writer.add_array("a.strings", ["x", "", "ü"])
    written = {}
    for kind in KINDS:
        if kind.name.endswith("_K"):
            size = quants.GGML_QUANT_SIZES[kind][1]
            data = random.integers(0, 60, (4, 2 * size), dtype=np.uint8)
        else:
            data = quants.quantize(random.standard_normal((4, 512)).astype(np.float32), kind)
        writer.add_tensor(kind.name, data, raw_dtype=kind)
        written[kind.name] = (data, kind)
    finish(writer)
    return written


def test_values_are_those_of_the_package(tmp_path: Path) -> None:
    written = write_kinds(tmp_path / "m.gguf")
    file = GgufFile(tmp_path / "m.gguf")
    assert file.metadata["general.name"] == "näme 名"
    assert (file.metadata["a.flag"], file.metadata["a.numbers"]) == (True, [1.5, -2.0])
    assert file.metadata["a.strings"] == ["x", "", "ü"]
    for name, (data, kind) in written.items():
        tensor = file.tensors[name]
        assert (tensor.kind_name, tensor.shape) == (name, (4, 512))
        assert np.array_equal(file.dequantized(tensor), quants.dequantize(data, kind), equal_nan=True)


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_a_cut_file_is_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("cut")
    write_kinds(folder / "m.gguf")
    content = (folder / "m.gguf").read_bytes()
    (folder / "cut.gguf").write_bytes(content[: data.draw(st.integers(0, len(content) - 64))])
    with pytest.raises(ModelError):
        GgufFile(folder / "cut.gguf")


@given(st.integers(4, 900), st.integers(0, 255))
@settings(max_examples=150, deadline=None)
def test_a_changed_header_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, at: int, value: int) -> None:
    folder = tmp_path_factory.mktemp("changed")
    write_kinds(folder / "m.gguf")
    content = bytearray((folder / "m.gguf").read_bytes())
    content[at] = value
    (folder / "m.gguf").write_bytes(content)
    try:
        file = GgufFile(folder / "m.gguf")
        for tensor in file.tensors.values():
            assert file.raw(tensor).nbytes == tensor.nbytes
    except ModelError as error:
        assert "m.gguf" in error.message


@pytest.mark.parametrize("count", [1 << 40, 1 << 63])
def test_counts_are_not_trusted(tmp_path: Path, count: int) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, count, count) + bytes(64))
    with pytest.raises(ModelError):
        GgufFile(path)


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(ModelError, match="no GGUF"):
        GgufFile(tmp_path / "m.gguf")
