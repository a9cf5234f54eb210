"""The forward on a device that is no CPU, on machines that have none: what lies where, of which type and shape.

torch's fake tensors know device, type and shape of every result, and refuse what a real device would refuse: tensors
that lie on different devices, products of different types. "meta" stands for the device, since no library is needed
for it. The numbers of the same code are compared on the CPU, in `test_forward` and `test_adapter_parity`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tunechat.serve.adapters.adapter import read_adapter
from tunechat.serve.base.architecture import decoder_of
from tunechat.serve.base.entry import BaseEntry
from tunechat.serve.base.prepare import prepare
from tunechat.serve.base.weights import Weight
from tunechat.serve.engine.batch import AdapterGroups, Batch
from tunechat.serve.engine.cache import KVCache
from tunechat.serve.engine.compact import CompactModel
from tunechat.serve.engine.device_batch import DeviceBatch
from tunechat.serve.engine.packed_adapter import PackedAdapter, pack_adapter
from tunechat.serve.engine.sites import compact_sites
from tunechat.serve.engine.slots import TorchSlots
from tunechat.tests.adapters_by_peft import VARIANTS, make_adapter, write_served
from tunechat.tests.tiny_models import VOCABULARY, make_tiny

DEVICE = torch.device("meta")
TOKENS = 9


class FakeEntry(BaseEntry):
    """A prepared base whose tensors are fake while there is a mode for them."""

    mode: FakeTensorMode | None = None

    def weight(self, name: str) -> Weight:
        weight = super().weight(name)
        if self.mode is None:
            return weight
        tensors = {f.name: v for f in fields(weight) if isinstance(v := getattr(weight, f.name), Tensor)}
        return replace(weight, **{name: self.mode.from_tensor(tensor) for name, tensor in tensors.items()})

    def vector(self, name: str) -> Tensor:
        vector = super().vector(name)
        return vector if self.mode is None else self.mode.from_tensor(vector)


@pytest.fixture
def mode() -> Iterator[FakeTensorMode]:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        yield mode


@pytest.fixture(scope="module", params=["llama-none", "llama-int4", "llama-nf4", "qwen3-int4"])
def entry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FakeEntry:
    family, quant = request.param.split("-")
    folder = tmp_path_factory.mktemp("other")
    source = make_tiny(folder / "source", family)
    entry = FakeEntry.open(prepare(str(source), quant=quant, home=folder, report=lambda stage, fraction: None))
    served = write_served(source, entry.folder, folder / "served")
    make_adapter(served, folder / "adapter", seed=1, dtype=torch.float32, **VARIANTS["dora"])
    return entry


@pytest.fixture(scope="module")
def packed(entry: FakeEntry) -> PackedAdapter:
    entry.mode = None
    adapter = read_adapter(entry.folder.parents[1] / "adapter", entry.manifest.linears)
    sites = compact_sites(decoder_of(entry.config), entry.manifest.vocab_size)
    return pack_adapter(adapter, sites, lambda name: entry.weight(name).dequantize().float())


def batch(groups: AdapterGroups | None = None) -> Batch:
    places = np.arange(TOKENS, dtype=np.int32)
    return Batch(
        tokens=places % VOCABULARY,
        positions=places,
        sequences=np.zeros(TOKENS, dtype=np.int32),
        slots=places.astype(np.int64),
        block_tables=np.zeros((1, 2), dtype=np.int32),
        logit_rows=np.array([3, TOKENS - 1]),
        adapters=groups,
    )


GROUPS = AdapterGroups(
    slots=np.array([0, 2], dtype=np.int32),
    begins=np.array([0, 5, 9], dtype=np.int32),
    tokens=np.array([0, 1, 2, 3, 8, 3, 4, 5, 8], dtype=np.int32),
    weights=np.ones(9, dtype=np.float32),
)


def forward(
    entry: FakeEntry, mode: FakeTensorMode, adapter: PackedAdapter | None = None, misplaced: str = ""
) -> Tensor:
    """Logits of a batch; of the batch's tensors that one is left on the CPU whose name is `misplaced`."""
    entry.mode = mode
    model = CompactModel(entry, DEVICE, 64, torch.bfloat16)
    slots = TorchSlots(model.sites, 3, DEVICE)
    if adapter is not None:
        slots.install(0, adapter)
        slots.install(2, adapter)
        slots.uninstall(0)
    given = DeviceBatch.of(batch(None if adapter is None else GROUPS), DEVICE, slots)
    if misplaced:
        given = replace(given, **{misplaced: torch.zeros(getattr(given, misplaced).shape, dtype=torch.int64)})
    return model.forward(given, KVCache(model.cache_shape, 4, 16, DEVICE))


@pytest.mark.parametrize("adapters", [False, True])
def test_all_of_a_forward_lies_on_its_device(
    entry: FakeEntry, packed: PackedAdapter, mode: FakeTensorMode, adapters: bool
) -> None:
    logits = forward(entry, mode, packed if adapters else None)
    assert (logits.device, logits.dtype, logits.shape) == (DEVICE, torch.float32, (2, VOCABULARY))


@pytest.mark.parametrize("misplaced", ["positions", "sequences"])
def test_what_lies_elsewhere_is_noticed(entry: FakeEntry, mode: FakeTensorMode, misplaced: str) -> None:
    with pytest.raises(RuntimeError, match="device"):
        forward(entry, mode, misplaced=misplaced)
