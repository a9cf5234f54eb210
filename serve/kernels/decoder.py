"""What a decoder layer does between its products, over a packed row of tokens and a paged cache.

The cache of a layer is a pair of tensors [blocks, kv_heads, block_size, head_dim], float32 or float16 on the CPU; a
block is contiguous, blocks may lie apart. On a CPU with the C kernels each function is one call into them; elsewhere
torch does the same.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .library import library

_KINDS = {torch.float32: 0, torch.float16: 1}


def add_rms_norm(hidden: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    """Adds `delta` to `hidden` [t, k] in place, then gives the RMSNorm of it (arXiv 1910.07467), all float32."""
    c = library() if hidden.device.type == "cpu" else None
    if c is None:
        if delta is not None:
            hidden += delta
        return weight * (hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + eps))
    y = torch.empty_like(hidden)
    c.add_rms_norm(
        hidden.data_ptr(), None if delta is None else delta.data_ptr(), hidden.shape[0], hidden.shape[1],
        weight.data_ptr(), eps, y.data_ptr(),
    )  # fmt: skip
    return y


def silu_product(gate_up: Tensor) -> Tensor:
    """silu(gate) * up (arXiv 2002.05202) of the halves of gate_up [t, 2 k]: float32 [t, k]."""
    width = gate_up.shape[1] // 2
    c = library() if gate_up.device.type == "cpu" else None
    if c is None:
        return F.silu(gate_up[:, :width]) * gate_up[:, width:]
    y = torch.empty(gate_up.shape[0], width)
    c.silu_product(gate_up.data_ptr(), gate_up.shape[0], width, y.data_ptr())
    return y


def rotate_and_store(
    qkv: Tensor,
    heads: int,
    kv_heads: int,
    cosines: Tensor,
    sines: Tensor,
    positions: Tensor,
    slots: Tensor,
    q_norm: Tensor | None,
    k_norm: Tensor | None,
    eps: float,
    keys: Tensor,
    values: Tensor,
) -> Tensor:
    """Turns queries and keys to their positions and writes keys and values to the cache; gives the queries.

    qkv [t, (heads + 2 kv_heads) * d] float32; cosines and sines [context, rotary_dim / 2]; q_norm and k_norm [d] are
    RMSNorm weights of each head, taken before the rotation. The queries are a view [t, heads * d] with the row stride
    of qkv.
    """
    t, d = qkv.shape[0], keys.shape[3]
    _check_heads(kv_heads, qkv.shape[1] // (heads + 2 * kv_heads), keys)
    c = library() if qkv.device.type == "cpu" else None
    if c is not None and d % 8 == 0:
        c.rotate_and_store(
            qkv.data_ptr(), t, heads, kv_heads, d, cosines.data_ptr(), sines.data_ptr(), cosines.shape[1],
            positions.data_ptr(), slots.data_ptr(), _pointer(q_norm), _pointer(k_norm), eps,
            keys.data_ptr(), values.data_ptr(), _KINDS[keys.dtype], keys.stride(0), keys.shape[2],
        )  # fmt: skip
        return qkv[:, : heads * d]
    split = qkv.view(t, heads + 2 * kv_heads, d)
    q, k, v = split[:, :heads], split[:, heads : heads + kv_heads], split[:, heads + kv_heads :]
    if q_norm is not None:
        q = q_norm * (q * torch.rsqrt(q.pow(2).mean(-1, keepdim=True) + eps))
    if k_norm is not None:
        k = k_norm * (k * torch.rsqrt(k.pow(2).mean(-1, keepdim=True) + eps))
    cosine, sine = cosines[positions.long()].unsqueeze(1), sines[positions.long()].unsqueeze(1)
    store(_rotated(k, cosine, sine), v, slots, keys, values)
    return _rotated(q, cosine, sine).reshape(t, heads * d)


def store(k: Tensor, v: Tensor, slots: Tensor, keys: Tensor, values: Tensor) -> None:
    """Writes k and v [t, kv_heads, d] to the cache at `slots` [t]."""
    _check_heads(k.shape[1], k.shape[2], keys)
    c = library() if k.device.type == "cpu" else None
    if c is not None and k.dtype == torch.float32 and k.shape[2] % 8 == 0:
        k, v = k.contiguous(), v.contiguous()
        c.store(
            k.data_ptr(), v.data_ptr(), k.shape[0], k.shape[1], k.shape[2], slots.data_ptr(),
            keys.data_ptr(), values.data_ptr(), _KINDS[keys.dtype], keys.stride(0), keys.shape[2],
        )  # fmt: skip
        return
    block, offset = slots // keys.shape[2], slots % keys.shape[2]
    keys[block, :, offset] = k.to(keys.dtype)
    values[block, :, offset] = v.to(values.dtype)


def paged_attention(
    q: Tensor,
    heads: int,
    keys: Tensor,
    values: Tensor,
    block_tables: Tensor,
    sequences: Tensor,
    positions: Tensor,
    *,
    longest_run: int,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
) -> Tensor:
    """Causal attention of each token over its own sequence: float32 [t, heads * d].

    q is [t, heads * d] float32 (rows may have a stride); block_tables [s, b], sequences and positions [t] are int32.
    `longest_run` is the most tokens that a sequence has in the row: known beforehand, so that no device is waited for.
    `window` limits it to that many last positions (0: all); `softcap` bounds scores by tanh (0: not).
    """
    t, (_, kv_heads, block_size, d) = q.shape[0], keys.shape
    _check_heads(kv_heads, q.shape[1] // heads, keys)
    c = library() if q.device.type == "cpu" else None
    if c is None or d % 8 or keys.dtype not in _KINDS:
        return _gathered_attention(
            q, heads, keys, values, block_tables, sequences, positions, longest_run, scale, window, softcap
        )
    y = torch.empty(t, heads * d)
    c.paged_attention(
        q.data_ptr(), q.stride(0), t, heads, kv_heads, d, keys.data_ptr(), values.data_ptr(), _KINDS[keys.dtype],
        keys.stride(0), block_size, block_tables.data_ptr(), block_tables.shape[1], sequences.data_ptr(),
        positions.data_ptr(), window, scale, softcap, y.data_ptr(),
    )  # fmt: skip
    return y


def _gathered_attention(
    q: Tensor,
    heads: int,
    keys: Tensor,
    values: Tensor,
    block_tables: Tensor,
    sequences: Tensor,
    positions: Tensor,
    longest: int,
    scale: float,
    window: int,
    softcap: float,
) -> Tensor:
    """The same in torch. Queries of a sequence are padded to the longest run of queries, keys to the longest table."""
    t, (_, kv_heads, block_size, d) = q.shape[0], keys.shape
    s, width = block_tables.shape
    owner = sequences.long()
    starts = torch.searchsorted(owner, torch.arange(s, device=q.device))
    place = torch.arange(t, device=q.device) - starts[owner]
    queries = q.new_zeros(s, longest, heads, d)
    queries[owner, place] = q.reshape(t, heads, d)
    at = torch.full((s, longest), -1, dtype=torch.int64, device=q.device)
    at[owner, place] = positions.long()
    table = block_tables.long().clamp(min=0)
    k = keys[table].transpose(2, 3).reshape(s, width * block_size, kv_heads, d).float()
    v = values[table].transpose(2, 3).reshape(s, width * block_size, kv_heads, d).float()
    grouped = queries.float().view(s, longest, kv_heads, heads // kv_heads, d)
    scores = torch.einsum("sqhgd,skhd->shgqk", grouped, k) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    position = torch.arange(width * block_size, device=q.device)
    seen = position <= at.unsqueeze(-1)
    if window:
        seen &= position > at.unsqueeze(-1) - window
    scores = scores.masked_fill(~seen[:, None, None], float("-inf"))
    weights = torch.nan_to_num(torch.softmax(scores, dim=-1))
    mixed = torch.einsum("shgqk,skhd->sqhgd", weights, v).reshape(s, longest, heads * d)
    return mixed[owner, place]


def _check_heads(kv_heads: int, d: int, keys: Tensor) -> None:
    """C writes where it is told to write, so heads that do not fit the cache must not reach it."""
    if (kv_heads, d) != (keys.shape[1], keys.shape[3]):
        raise ValueError(f"{kv_heads} heads of {d} do not fit a cache of {keys.shape[1]} heads of {keys.shape[3]}")


def _rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    half = cosine.shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([a * cosine - b * sine, b * cosine + a * sine, rest], dim=-1)


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
