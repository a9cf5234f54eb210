"""Packing loses nothing; quantising stays within its bounds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tunechat.serve.base.quantize import (
    NF4_LEVELS,
    Int4Rows,
    Int8Rows,
    int4_rows,
    int8_rows,
    nf4_weight,
    pack_int4,
    pack_int8,
    unpack_int4,
    unpack_int8,
)
from tunechat.serve.base.weights import BLOCK

shapes = st.tuples(st.integers(1, 21), st.integers(1, 4))
seeds = st.integers(0, 2**32 - 1)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dense(rows: int, columns: int, seed: int, scale: float = 1.0) -> Tensor:
    return torch.randn(rows, columns, generator=generator(seed)) * scale


@given(shapes, seeds)
@settings(max_examples=60, deadline=None)
def test_packed_int4_is_the_plain_product_of_its_rows(shape: tuple[int, int], seed: int) -> None:
    rows, blocks = shape
    random = generator(seed)
    q = torch.randint(0, 16, (rows, blocks * BLOCK), generator=random, dtype=torch.uint8)
    scale = torch.randn(rows, blocks, generator=random).half()
    minimum = torch.randn(rows, blocks, generator=random).half()
    weight = pack_int4(Int4Rows(q, scale, minimum))
    expected = q.view(rows, blocks, BLOCK).float() * scale.float()[..., None] + minimum.float()[..., None]
    assert torch.equal(weight.dequantize(), expected.view(rows, -1))
    back = unpack_int4(weight)
    assert torch.equal(back.q, q) and torch.equal(back.scale, scale) and torch.equal(back.minimum, minimum)


@given(shapes, seeds)
@settings(max_examples=60, deadline=None)
def test_packed_int8_is_the_plain_product_of_its_rows(shape: tuple[int, int], seed: int) -> None:
    rows, blocks = shape
    random = generator(seed)
    q = torch.randint(-128, 128, (rows, blocks * BLOCK), generator=random, dtype=torch.int8)
    scale = torch.randn(rows, blocks, generator=random).half()
    weight = pack_int8(Int8Rows(q, scale))
    expected = (q.view(rows, blocks, BLOCK).float() * scale.float()[..., None]).view(rows, -1)
    assert torch.equal(weight.dequantize(), expected)
    chosen = torch.randint(0, rows, (7,), generator=random)
    assert torch.equal(weight.lookup(chosen), expected[chosen])
    back = unpack_int8(weight)
    assert torch.equal(back.q, q) and torch.equal(back.scale, scale)


@pytest.mark.parametrize("rows", [1, 7, 8, 9])
def test_padding_rows_are_zero(rows: int) -> None:
    weight = pack_int4(int4_rows(dense(rows, 64, 1)))
    assert weight.quants.shape == ((rows + 7) // 8, 2, 128)
    padded = type(weight)(weight.quants, weight.scales, weight.minima, weight.quants.shape[0] * 8)
    assert not padded.dequantize()[rows:].any()


@given(shapes, seeds, st.floats(1e-4, 1e3))
@settings(max_examples=60, deadline=None)
def test_int4_error_is_half_a_step(shape: tuple[int, int], seed: int, size: float) -> None:
    source = dense(shape[0], shape[1] * BLOCK, seed, size)
    error = (pack_int4(int4_rows(source)).dequantize() - source).abs().view(shape[0], shape[1], BLOCK)
    blocks = source.view(shape[0], shape[1], BLOCK)
    step = (blocks.amax(-1) - blocks.amin(-1)) / 15
    # Float16 keeps 11 bits of the scale (times at most 15) and of the minimum, and nothing below 6e-8.
    slack = (15 * step + blocks.abs().amax(-1)) * 2.0**-11 + 16 * 6e-8
    assert bool((error.amax(-1) <= step / 2 + slack).all())


@given(shapes, seeds, st.floats(1e-4, 1e3))
@settings(max_examples=60, deadline=None)
def test_int8_error_is_half_a_step(shape: tuple[int, int], seed: int, size: float) -> None:
    source = dense(shape[0], shape[1] * BLOCK, seed, size)
    error = (pack_int8(int8_rows(source)).dequantize() - source).abs().view(shape[0], shape[1], BLOCK)
    largest = source.view(shape[0], shape[1], BLOCK).abs().amax(-1)
    assert bool((error.amax(-1) <= largest / 254 + largest * 2.0**-11 + 128 * 6e-8).all())


def test_constant_blocks_are_exact() -> None:
    source = torch.full((3, 64), 0.75)
    assert torch.equal(pack_int4(int4_rows(source)).dequantize(), source)
    assert not pack_int8(int8_rows(torch.zeros(3, 64))).dequantize().any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e6])
@pytest.mark.parametrize("quantise", [int4_rows, int8_rows, nf4_weight])
def test_values_beyond_half_precision_are_refused(quantise: object, bad: float) -> None:
    source = torch.zeros(2, 64)
    source[1, 3] = bad
    with pytest.raises(ValueError, match="half precision"):
        quantise(source)  # type: ignore[operator]


@given(shapes, seeds, st.sampled_from([1e-30, 1e-3, 1.0, 1e3]))
@settings(max_examples=40, deadline=None)
def test_nf4_is_what_bitsandbytes_makes(shape: tuple[int, int], seed: int, size: float) -> None:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    source = dense(shape[0], shape[1] * 64, seed, size)
    source[0, :64] = 0
    # Values right between two levels, where rounding decides.
    levels = torch.tensor(NF4_LEVELS)
    source[-1, -15:] = (levels[1:] + levels[:-1]) / 2
    source[-1, -16] = 1.0
    quants, state = quantize_4bit(source, blocksize=64, quant_type="nf4")
    weight = nf4_weight(source)
    assert torch.equal(weight.quants, quants.reshape(-1))
    assert torch.equal(weight.absmax, state.absmax)
    assert torch.equal(weight.dequantize(), dequantize_4bit(quants, state))
    assert torch.equal(state.code.cpu(), levels)
