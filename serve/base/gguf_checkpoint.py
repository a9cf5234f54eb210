"""A GGUF file as a checkpoint: Hugging Face names, rows in Hugging Face order, blocks taken over without loss."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..contract.errors import ModelError
from .gguf_config import gguf_config
from .gguf_file import GgufFile, GgufTensor
from .quantize import Int4Rows, Int8Rows, int4_rows, int8_rows

_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_IGNORED = {"rope_freqs.weight"}
_LAYER_NAME = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_STORED = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class GgufCheckpoint:
    """Raises ModelError for a file whose architecture or tensors are not known."""

    def __init__(self, path: Path) -> None:
        self.file = GgufFile(path)
        self.config: dict[str, Any] = gguf_config(self.file)
        self._tensors = {
            hugging_face_name(name): tensor for name, tensor in self.file.tensors.items() if name not in _IGNORED
        }

    @property
    def names(self) -> Collection[str]:
        return self._tensors.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name].shape

    def matrix(self, name: str) -> GgufRows:
        return GgufRows(self.file, self._tensors[name], self._row_order(name))

    def tensor(self, name: str) -> Tensor:
        values = _dense(self.file, self._tensors[name])
        order = self._row_order(name)
        return values if order is None else values[torch.from_numpy(order)]

    def _row_order(self, name: str) -> npt.NDArray[np.int64] | None:
        """Which stored row each row of `name` is.

        Files of the llama architecture rotate neighbouring pairs of a head's dimensions, Hugging Face models rotate
        dimension i with i + head_dim / 2, so the rows of Q and K are stored interleaved.
        """
        if self.file.architecture != "llama":
            return None
        if ".q_proj." in name:
            heads = self.config["num_attention_heads"]
        elif ".k_proj." in name:
            heads = self.config["num_key_value_heads"]
        else:
            return None
        rows = self._tensors[name].shape[0]
        if rows % (2 * heads):
            raise ModelError(f"{name} has {rows} rows, which {heads} heads cannot share")
        return np.arange(rows).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)


class GgufRows:
    """A matrix of a GGUF file."""

    def __init__(self, file: GgufFile, tensor: GgufTensor, order: npt.NDArray[np.int64] | None) -> None:
        if len(tensor.shape) != 2:
            raise ModelError(f"{tensor.name} has {len(tensor.shape)} dimensions where two are expected")
        self._file, self._tensor, self._order = file, tensor, order
        self.shape = (tensor.shape[0], tensor.shape[1])

    @property
    def dtype(self) -> torch.dtype:
        return _STORED.get(self._tensor.kind_name, torch.float32)

    def dense(self) -> Tensor:
        values = _dense(self._file, self._tensor)
        return values if self._order is None else values[torch.from_numpy(self._order)]

    def int4(self) -> Int4Rows:
        kind = self._tensor.kind_name
        if kind == "Q4_1":
            blocks = self._blocks(20)
            return Int4Rows(_nibbles(blocks[..., 4:]), _halves(blocks[..., 0:2]), _halves(blocks[..., 2:4]))
        if kind == "Q4_0":
            # d * (q - 8) is q * d + (-8 d): a power of two, so the minimum is exact unless it leaves half precision.
            blocks = self._blocks(18)
            scale = _halves(blocks[..., 0:2])
            minimum = scale * -8
            if bool(minimum.isfinite().all()):
                return Int4Rows(_nibbles(blocks[..., 2:]), scale, minimum)
        return int4_rows(self.dense())

    def int8(self) -> Int8Rows:
        if self._tensor.kind_name == "Q8_0":
            blocks = self._blocks(34)
            q = blocks[..., 2:].reshape(self.shape[0], -1).view(np.int8)
            return Int8Rows(torch.from_numpy(q), _halves(blocks[..., 0:2]))
        return int8_rows(self.dense())

    def _blocks(self, size: int) -> npt.NDArray[np.uint8]:
        """uint8 [rows, blocks, size], rows in Hugging Face order, a copy."""
        raw = self._file.raw(self._tensor)
        ordered = raw.copy() if self._order is None else raw[self._order]
        return ordered.reshape(self.shape[0], -1, size)


def hugging_face_name(name: str) -> str:
    """The transformers name of a GGUF tensor. Raises ModelError for one that none of the served families has."""
    if match := _LAYER_NAME.fullmatch(name):
        layer, part, kind = match.groups()
        if part in _LAYER:
            return f"model.layers.{layer}.{_LAYER[part]}.{kind}"
    stem, _, kind = name.partition(".")
    if stem in _TOP and kind == "weight":
        return f"{_TOP[stem]}.weight"
    raise ModelError(f"GGUF tensor {name} belongs to no model family that is read")


def _dense(file: GgufFile, tensor: GgufTensor) -> Tensor:
    stored = _STORED.get(tensor.kind_name)
    if stored is None:
        return torch.from_numpy(file.dequantized(tensor).copy())
    return torch.from_numpy(file.raw(tensor).reshape(-1).copy()).view(stored).reshape(tensor.shape)


def _nibbles(packed: npt.NDArray[np.uint8]) -> Tensor:
    """[rows, blocks, 16] to uint8 [rows, columns]: low halves are a block's first 16 values, high ones its last."""
    return torch.from_numpy(np.concatenate([packed & 15, packed >> 4], axis=-1).reshape(packed.shape[0], -1))


def _halves(pairs: npt.NDArray[np.uint8]) -> Tensor:
    """[rows, blocks, 2] bytes to float16 [rows, blocks]."""
    return torch.from_numpy(np.ascontiguousarray(pairs)).view(torch.float16).squeeze(-1)
