"""Low-rank deltas on top of products: right beside a plain reference, with the same bits in any company."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from tunechat.serve.engine.batch import AdapterGroups
from tunechat.serve.engine.packed_adapter import PackedAdapter
from tunechat.serve.engine.sites import Site
from tunechat.serve.engine.slots import AdapterSlots, KernelSlots, TorchSlots
from tunechat.serve.kernels import dense_product
from tunechat.serve.kernels.adapters import LowRank, pack_delta
from tunechat.serve.kernels.library import library

needs_kernels = pytest.mark.skipif(library() is None, reason="the C kernels are not built")

ROWS, COLUMNS = 88, 70


def pieces(seed: int, starts: Sequence[int], ranks: Sequence[int], *, gain: bool = False) -> list[LowRank]:
    """Random deltas of the rows from each start to the next."""
    draw = torch.Generator().manual_seed(seed)
    made = []
    for start, end, rank in zip(starts, [*starts[1:], ROWS], ranks, strict=True):
        a, b = torch.randn(rank, COLUMNS, generator=draw), torch.randn(end - start, rank, generator=draw) * 1e-3
        made.append(LowRank(start, a, b, torch.randn(end - start, generator=draw) * 0.1 if gain else None))
    return made


ADAPTERS = [
    pieces(1, [0, 48, 64], [16, 3, 8]),
    pieces(2, [0], [1]),
    pieces(3, [8], [5], gain=True),
    pieces(4, [0, 13, 37], [4, 2, 9]),  # parts that begin inside a block of sixteen rows
    pieces(5, [0, 48], [64, 16], gain=True),
]


def groups(uses: dict[int, list[tuple[int, float]]]) -> AdapterGroups:
    """From slot to its tokens and weights."""
    flat = [pair for pairs in uses.values() for pair in pairs]
    return AdapterGroups(
        slots=np.array(list(uses), dtype=np.int32),
        begins=np.cumsum([0, *map(len, uses.values())], dtype=np.int32),
        tokens=np.array([token for token, _ in flat], dtype=np.int32),
        weights=np.array([weight for _, weight in flat], dtype=np.float32),
    )


def slots(kind: str) -> AdapterSlots:
    site = Site("matrix", ROWS, COLUMNS, {"matrix": 0})
    made = KernelSlots(8) if kind == "c" else TorchSlots([site], 8, torch.device("cpu"))
    for slot, adapter in enumerate(ADAPTERS):
        made.install(slot, PackedAdapter.of([pack_delta(ROWS, COLUMNS, adapter)]))
    return made


def product(kind: str, made: AdapterSlots, uses: AdapterGroups, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    deltas = made.deltas(uses)(0)
    if kind == "c":
        return dense_product(x, weight, bias, deltas)
    return deltas.add(x, x @ weight.T + bias, bias)


def expected(uses: dict[int, list[tuple[int, float]]], x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    base = x.double() @ weight.double().T
    result = base + bias.double()
    for slot, pairs in uses.items():
        for piece in ADAPTERS[slot]:
            rows = slice(piece.first_row, piece.first_row + len(piece.b))
            for token, share in pairs:
                delta = piece.b.double() @ (piece.a.double() @ x[token].double())
                if piece.gain is not None:
                    delta = delta + piece.gain.double() * base[token, rows]
                result[token, rows] += share * delta
    return result


USES = {
    0: [(0, 1.0), (3, 0.5), (4, 1.0), (5, 1.0), (6, 1.0), (7, -2.0)],
    4: [(1, 1.0), (3, 0.7)],
    2: [(3, 1.0), (8, 1.0)],
    3: [(2, 1.0), (9, 1.0), (10, 1.0)],
    1: [(11, 1.0)],
}


@pytest.fixture
def operands() -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return tuple(torch.randn(*shape, generator=draw) for shape in ((13, COLUMNS), (ROWS, COLUMNS), (ROWS,)))  # type: ignore[return-value]


@pytest.mark.parametrize("kind", [pytest.param("c", marks=needs_kernels), "torch"])
def test_each_token_gets_the_deltas_of_its_own_adapters(kind: str, operands: tuple[Tensor, Tensor, Tensor]) -> None:
    y = product(kind, slots(kind), groups(USES), *operands)
    wanted = expected(USES, *operands)
    assert (y.double() - wanted).abs().max() < 1e-4
    untouched = operands[0][12] @ operands[1].T + operands[2]
    assert torch.allclose(y[12], untouched, atol=1e-4)
    changed = (wanted - (operands[0].double() @ operands[1].double().T + operands[2].double())).abs()
    assert (changed[:12].amax(dim=1) > 1e-2).all()


@needs_kernels
def test_a_row_has_the_same_bits_alone_and_in_any_company(operands: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias = operands
    made = slots("c")
    together = product("c", made, groups(USES), x, weight, bias)
    for token in range(12):
        uses = {slot: [(0, share) for t, share in pairs if t == token] for slot, pairs in USES.items()}
        uses = {slot: pairs for slot, pairs in uses.items() if pairs}
        assert torch.equal(product("c", made, groups(uses), x[token : token + 1], weight, bias)[0], together[token])
    assert torch.equal(dense_product(x[12:], weight, bias)[0], together[12])


@needs_kernels
def test_narrow_and_wide_vectors_give_the_same_bits(operands: tuple[Tensor, Tensor, Tensor]) -> None:
    made, loaded = slots("c"), library()
    assert loaded is not None
    wide = product("c", made, groups(USES), *operands)
    try:
        loaded.allow_vnni(0)
        narrow = product("c", made, groups(USES), *operands)
    finally:
        loaded.allow_vnni(1)
    assert torch.equal(narrow, wide)


@needs_kernels
def test_an_adapter_that_left_changes_nothing_any_more(operands: tuple[Tensor, Tensor, Tensor]) -> None:
    made = slots("c")
    made.uninstall(2)
    with pytest.raises(ValueError, match="holds no adapter"):
        made.deltas(groups({2: [(0, 1.0)]}))
    made.install(2, PackedAdapter.of([pack_delta(ROWS, COLUMNS, ADAPTERS[1])]))
    swapped = product("c", made, groups({2: [(0, 1.0)]}), *operands)
    assert torch.equal(swapped, product("c", made, groups({1: [(0, 1.0)]}), *operands))


@pytest.mark.parametrize("size", [1e-9, 1.0, 3e7])
def test_packing_is_precise_at_any_size_of_the_numbers(size: float) -> None:
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(16, COLUMNS, generator=draw) * size, torch.randn(ROWS, 16, generator=draw) / size
    dense_a, dense_b = pack_delta(ROWS, COLUMNS, [LowRank(0, a, b)]).dense()
    error = (dense_b @ dense_a - b @ a).norm() / (b @ a).norm()
    assert error < 5e-4


def test_a_matrix_of_zeros_packs_to_zeros() -> None:
    piece = LowRank(0, torch.zeros(4, COLUMNS), torch.ones(ROWS, 4))
    assert not pack_delta(ROWS, COLUMNS, [piece]).dense()[0].any()


def test_more_parts_than_the_kernels_know_are_refused() -> None:
    with pytest.raises(ValueError, match="1 to 3"):
        pack_delta(ROWS, COLUMNS, pieces(1, [0, 8, 16, 24], [1, 1, 1, 1]))
