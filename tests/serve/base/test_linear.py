"""`Linear4bit`: the product of a frozen weight in any form, and its gradient to the input."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tunechat.serve.base.linear import Linear4bit
from tunechat.serve.base.quantize import int4_rows, int8_rows, nf4_weight, pack_int4, pack_int8
from tunechat.serve.base.weights import DenseWeight, Weight

FORMS = ("int4", "int8", "nf4", "dense")
ROWS, COLUMNS = 52, 192


def weight_of(form: str) -> Weight:
    dense = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(1)) * COLUMNS**-0.5
    match form:
        case "int4":
            return pack_int4(int4_rows(dense))
        case "int8":
            return pack_int8(int8_rows(dense))
        case "nf4":
            return nf4_weight(dense)
        case _:
            return DenseWeight(dense)


def layer_of(form: str, bias: bool = True) -> Linear4bit:
    return Linear4bit(weight_of(form), torch.linspace(-1, 1, ROWS) if bias else None)


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def tolerance(form: str, x: Tensor) -> float:
    """Packed products round activations to 8 bits a block of 32: half a step an element, spread over the columns."""
    return 2e-5 if form in {"nf4", "dense"} else float(x.abs().max()) / 127 * 3


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_forward_is_dequantise_then_multiply(form: str, bias: bool) -> None:
    layer = layer_of(form, bias)
    x = inputs(3, 5, COLUMNS)
    expected = x @ layer.dequantize().T + (layer.bias if bias else 0.0)
    y = layer(x)
    assert y.shape == (3, 5, ROWS) and y.dtype == torch.float32
    assert float((y - expected).abs().max()) < tolerance(form, x)
    assert float((y - expected).norm() / expected.norm()) < 0.01


@pytest.mark.parametrize("form", FORMS)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=4))
@settings(max_examples=10, deadline=None)
def test_a_row_does_not_depend_on_its_batch(form: str, cuts: list[int]) -> None:
    layer = layer_of(form)
    x = inputs(sum(cuts), COLUMNS)
    whole = layer(x)
    assert torch.equal(torch.cat([layer(part) for part in x.split(cuts)]), whole)
    assert torch.equal(layer(x[-1:]), whole[-1:])


@pytest.mark.parametrize("dequantised", [16 * COLUMNS, ROWS * COLUMNS])
@pytest.mark.parametrize("form", FORMS)
def test_gradient_reaches_the_input_and_nothing_else(
    form: str, dequantised: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunechat.serve.base.linear._DEQUANTISED", dequantised)
    layer = layer_of(form)
    x = inputs(2, 7, COLUMNS).requires_grad_()
    upstream = inputs(2, 7, ROWS)
    (gradient,) = torch.autograd.grad(layer(x), x, upstream)
    assert torch.allclose(gradient, upstream @ layer.dequantize(), atol=1e-5)
    assert list(layer.parameters()) == [] and layer.state_dict() == {}
    assert all(not buffer.requires_grad for buffer in layer.buffers())


@pytest.mark.parametrize("shape", [(COLUMNS,), (0, COLUMNS), (1, 1, 1, COLUMNS)])
def test_any_leading_shape(shape: tuple[int, ...]) -> None:
    assert layer_of("int4")(inputs(*shape)).shape == (*shape[:-1], ROWS)


@pytest.mark.parametrize("form", FORMS)
def test_a_change_of_type_leaves_the_weight_alone(form: str) -> None:
    layer = layer_of(form)
    before = layer.dequantize()
    nn.ModuleList([layer]).to(torch.bfloat16).half().double()
    assert torch.equal(layer.dequantize(), before)
    assert layer(inputs(2, COLUMNS).bfloat16()).dtype == torch.bfloat16


def test_says_what_it_is() -> None:
    layer = layer_of("int4")
    assert (layer.in_features, layer.out_features, layer.weight_form) == (COLUMNS, ROWS, "int4")
    assert repr(layer) == f"Linear4bit(in_features={COLUMNS}, out_features={ROWS}, form=int4)"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("form", FORMS)
def test_on_cuda(form: str) -> None:
    layer = layer_of(form).to("cuda")
    x = inputs(9, COLUMNS).cuda().requires_grad_()
    expected = x @ layer.dequantize().T + layer.bias
    assert float((layer(x) - expected).norm() / expected.norm()) < 0.02
    (gradient,) = torch.autograd.grad(layer(x).sum(), x)
    assert torch.allclose(gradient, layer.dequantize().sum(0).expand_as(gradient), atol=1e-3)
