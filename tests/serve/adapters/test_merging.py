"""A merged weight computes what base and adapter compute together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunechat.serve.adapters import merging
from tunechat.serve.adapters.adapter import read_adapter
from tunechat.serve.adapters.merging import merge_into
from tunechat.serve.contract.base import BaseManifest

from .conftest import MakePeft


@pytest.mark.parametrize("block", [1, 200, 1 << 24])
@pytest.mark.parametrize("config", [{}, {"use_rslora": True, "r": 3}, {"use_dora": True}])
def test_products_agree_in_float64(
    make_peft: MakePeft, base: BaseManifest, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], block: int
) -> None:
    monkeypatch.setattr(merging, "_BLOCK", block)
    adapter = read_adapter(make_peft(**config), base.linears)
    random = np.random.default_rng(3)
    for module in adapter.modules:
        weight = random.standard_normal((module.rows, module.columns)).astype(np.float32)
        x = random.standard_normal(module.columns)
        a, b = adapter.a(module).astype(np.float64), adapter.b(module).astype(np.float64)
        whole = weight.astype(np.float64) + module.scaling * b @ a
        expected = whole @ x
        magnitude = adapter.magnitude(module)
        if magnitude is not None:
            expected *= magnitude / np.linalg.norm(whole, axis=1)
        merge_into(weight, adapter, module)
        np.testing.assert_allclose(weight @ x, expected, rtol=1e-4, atol=1e-4)


def test_row_without_direction_stays_zero(make_peft: MakePeft, base: BaseManifest) -> None:
    adapter = read_adapter(make_peft(use_dora=True), base.linears)
    module = adapter.modules[0]
    delta = (adapter.b(module) @ adapter.a(module)) * np.float32(module.scaling)
    weight = -delta
    merge_into(weight, adapter, module)
    assert not weight.any()


def test_other_shape_is_refused(plain: Path, base: BaseManifest) -> None:
    adapter = read_adapter(plain, base.linears)
    with pytest.raises(ValueError, match="has the shape"):
        merge_into(np.zeros((3, 3), np.float32), adapter, adapter.modules[0])
