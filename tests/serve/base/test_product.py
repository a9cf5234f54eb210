"""The product of each form of weight against dequantise-then-multiply."""

from __future__ import annotations

import pytest
import torch

from tunechat.serve.base.product import _nf4_on_cuda, product
from tunechat.serve.base.quantize import int4_rows, int8_rows, nf4_weight, pack_int4, pack_int8
from tunechat.serve.base.weights import DenseWeight, Weight


def forms() -> dict[str, Weight]:
    dense = torch.randn(48, 128) * 0.1
    return {
        "int4": pack_int4(int4_rows(dense)),
        "int8": pack_int8(int8_rows(dense)),
        "nf4": nf4_weight(dense),
        "float32": DenseWeight(dense),
        "bfloat16": DenseWeight(dense.bfloat16()),
    }


@pytest.mark.parametrize("form", forms())
def test_product_is_dequantise_then_multiply(form: str) -> None:
    weight, x, bias = forms()[form], torch.randn(21, 128), torch.randn(48)
    found = product(x, weight, bias)
    assert torch.allclose(found, x @ weight.dequantize().T + bias, atol=2e-4)
    assert torch.equal(found, torch.cat([product(row, weight, bias) for row in x.split(1)]))


def test_bitsandbytes_reads_our_nf4_as_we_do() -> None:
    """The branch for CUDA, on the CPU: bitsandbytes has its operations there too, in bfloat16."""
    weight, x, bias = nf4_weight(torch.randn(48, 128) * 0.1), torch.randn(5, 128), torch.randn(48)
    found, expected = _nf4_on_cuda(x, weight, bias), product(x, weight, bias)
    assert torch.allclose(found, expected, atol=0.03)
