"""The C products against torch, against dequantise-then-multiply, and against themselves at other numbers of rows."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tunechat.serve.base.weights import DenseWeight, Int4Weight, Int8Weight
from tunechat.serve.kernels import available_cores, products, set_threads
from tunechat.serve.kernels.library import library

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 40), st.integers(1, 6))


def int4(rows: int, blocks: int) -> Int4Weight:
    groups = -(-rows // 8)
    return Int4Weight(
        torch.randint(0, 256, (groups, blocks, 128), dtype=torch.uint8),
        (torch.rand(groups, blocks, 8) * 0.02).half(),
        (torch.rand(groups, blocks, 8) * -0.15).half(),
        rows,
    )


def int8(rows: int, blocks: int) -> Int8Weight:
    groups = -(-rows // 8)
    return Int8Weight(
        torch.randint(-128, 128, (groups, blocks, 256), dtype=torch.int8),
        (torch.rand(groups, blocks, 8) * 0.01).half(),
        rows,
    )


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_kernels_are_built_here() -> None:
    assert library() is not None, "the C kernels were not built on this machine, so nothing below would test them"


@settings(deadline=None, max_examples=40)
@given(SHAPES, st.booleans())
def test_int4_matches_its_torch_twin(shape: tuple[int, int, int], with_bias: bool) -> None:
    m, rows, blocks = shape
    weight, x = int4(rows, blocks), torch.randn(m, blocks * 32)
    bias = torch.randn(rows) if with_bias else None
    arguments = (x, weight.quants, weight.scales, weight.minima, rows, bias)
    found, twin = products.int4_product(*arguments), products.int4_reference(*arguments)
    assert found.shape == (m, rows)
    assert torch.allclose(found, twin, rtol=2e-5, atol=2e-5)


@settings(deadline=None, max_examples=40)
@given(SHAPES, st.booleans())
def test_int8_matches_its_torch_twin(shape: tuple[int, int, int], with_bias: bool) -> None:
    m, rows, blocks = shape
    weight, x = int8(rows, blocks), torch.randn(m, blocks * 32)
    bias = torch.randn(rows) if with_bias else None
    found = products.int8_product(x, weight.quants, weight.scales, rows, bias)
    assert torch.allclose(
        found, products.int8_reference(x, weight.quants, weight.scales, rows, bias), rtol=2e-5, atol=2e-5
    )


def test_rounding_activations_costs_under_one_percent() -> None:
    x = torch.randn(16, 576)
    for weight, found in (
        (w4 := int4(960, 18), products.int4_product(x, w4.quants, w4.scales, w4.minima, 960)),
        (w8 := int8(960, 18), products.int8_product(x, w8.quants, w8.scales, 960)),
    ):
        assert error(found, x @ weight.dequantize().T) < 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("m", "rows", "columns"), [(1, 1, 1), (1, 7, 33), (5, 8, 64), (9, 31, 571)])
def test_dense_matches_torch(dtype: torch.dtype, m: int, rows: int, columns: int) -> None:
    weight, x, bias = torch.randn(rows, columns).to(dtype), torch.randn(m, columns), torch.randn(rows)
    expected = torch.nn.functional.linear(x, weight.float(), bias)
    assert torch.allclose(products.dense_product(x, weight, bias), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", ["int4", "int8", "float32", "bfloat16"])
@pytest.mark.parametrize("compiled", [True, False])
def test_a_row_does_not_depend_on_the_others(form: str, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(products, "library", lambda: None)
    x = torch.randn(37, 192)
    w4, w8, dense = int4(40, 6), int8(40, 6), DenseWeight(torch.randn(40, 192))

    def run(rows: Tensor) -> Tensor:
        if form == "int4":
            return products.int4_product(rows, w4.quants, w4.scales, w4.minima, 40)
        if form == "int8":
            return products.int8_product(rows, w8.quants, w8.scales, 40)
        return products.dense_product(rows, dense.tensor.to(getattr(torch, form)))

    whole = run(x)
    for size in (1, 2, 3, 4, 5, 16, 17):
        assert torch.equal(torch.cat([run(part) for part in x.split(size)]), whole)


def test_vnni_and_avx2_give_the_same_bits() -> None:
    c = library()
    assert c is not None
    w4, w8 = int4(40, 6), int8(40, 6)
    for m in (1, 3, 8, 21):
        x = torch.randn(m, 192)
        results = []
        for allowed in (1, 0):
            c.allow_vnni(allowed)
            results.append((products.int4_product(x, w4.quants, w4.scales, w4.minima, 40),
                            products.int8_product(x, w8.quants, w8.scales, 40)))  # fmt: skip
        c.allow_vnni(1)
        assert torch.equal(results[0][0], results[1][0])
        assert torch.equal(results[0][1], results[1][1])


def test_results_do_not_depend_on_threads() -> None:
    weight, x = int4(400, 6), torch.randn(21, 192)
    results = []
    for threads in (1, 2, 3, 7):
        set_threads(threads)
        results.append(products.int4_product(x, weight.quants, weight.scales, weight.minima, 400))
    set_threads(available_cores())
    assert all(torch.equal(result, results[0]) for result in results)


def test_several_callers_at_once_get_right_results() -> None:
    weight, x = int4(400, 6), torch.randn(21, 192)
    expected = products.int4_product(x, weight.quants, weight.scales, weight.minima, 400)

    def call(_: int) -> bool:
        return torch.equal(products.int4_product(x, weight.quants, weight.scales, weight.minima, 400), expected)

    with ThreadPoolExecutor(4) as callers:
        assert all(callers.map(call, range(200)))


def test_a_forked_child_computes_too() -> None:
    weight, x = int4(400, 6), torch.randn(21, 192)
    expected = products.int4_product(x, weight.quants, weight.scales, weight.minima, 400)
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        found = products.int4_product(x, weight.quants, weight.scales, weight.minima, 400)
        os._exit(0 if torch.equal(found, expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_shapes_that_do_not_fit_are_refused() -> None:
    weight = int4(16, 2)
    with pytest.raises(ValueError, match="32 columns meet a weight of 64"):
        products.int4_product(torch.randn(1, 32), weight.quants, weight.scales, weight.minima, 16)


def test_extreme_activations_stay_finite() -> None:
    weight = int4(16, 2)
    for value in (0.0, 1e-38, 1e30, -1e30):
        x = torch.full((2, 64), value)
        assert torch.isfinite(products.int4_product(x, weight.quants, weight.scales, weight.minima, 16)).all()
