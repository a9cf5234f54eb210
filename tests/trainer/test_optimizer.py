"""AdamW in its kinds: what a step depends on is kept, and what is not there is refused by name."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from tunechat.serve.contract.errors import ConfigError, ModelError
from tunechat.trainer.optimizer import Optimizer, optimizer_for

CPU = torch.device("cpu")
CUDA = torch.device("cuda")
KINDS = ("adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit")
# bitsandbytes has its kernels for CPUs, too; what it cannot do there is page.
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


pytestmark = pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")


def parameters(device: str) -> dict[str, nn.Parameter]:
    """A matrix that 8-bit kinds keep in 8 bits, on a GPU in pages; one that is too small for that; and a vector."""
    torch.manual_seed(0)
    shapes = {"large": (512, 256), "small": (4, 8), "vector": (16,)}
    return {name: nn.Parameter(torch.randn(shape, device=device)) for name, shape in shapes.items()}


def taught(optimizer: Optimizer, owned: dict[str, nn.Parameter], steps: range) -> None:
    for step in steps:
        for place, parameter in enumerate(owned.values()):
            chance = torch.Generator().manual_seed(100 * step + place)
            parameter.grad = torch.randn(parameter.shape, generator=chance).to(parameter.device)
        optimizer.step(0.01, 1.0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_goes_on_from_what_was_kept_as_if_it_had_never_stopped(kind: str, device: str) -> None:
    whole = parameters(device)
    first = Optimizer(whole, 0.1, kind)
    taught(first, whole, range(3))
    kept, numbers = save(first.tensors()), copy.deepcopy(whole)
    taught(first, whole, range(3, 6))
    again = Optimizer(numbers, 0.1, kind)
    again.load(load(kept))
    taught(again, numbers, range(3, 6))
    for name, parameter in whole.items():
        assert torch.equal(numbers[name], parameter), name
    assert again.tensors().keys() == first.tensors().keys()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_makes_nearly_the_steps_of_torch(kind: str) -> None:
    plain, owned = parameters("cpu"), parameters("cpu")
    taught(Optimizer(plain, 0.1), plain, range(5))
    taught(Optimizer(owned, 0.1, kind), owned, range(5))
    for name, parameter in plain.items():
        off = (owned[name] - parameter).abs().max()
        assert off < (2e-2 if "8bit" in kind and name == "large" else 1e-6), name


def test_memory_to_come_is_what_the_first_step_takes() -> None:
    for kind in KINDS:
        owned = parameters("cpu")
        optimizer = Optimizer(owned, 0.0, kind)
        expected = optimizer.bytes_to_come
        taught(optimizer, owned, range(1))
        taken = sum(t.nbytes for name, t in optimizer.tensors().items() if not name.startswith(("qmap", "chance")))
        assert taken == pytest.approx(expected, rel=0.05), kind
        assert optimizer.bytes_to_come == 0


def test_vectors_do_not_shrink() -> None:
    owned = parameters("cpu")
    before = {name: parameter.detach().clone() for name, parameter in owned.items()}
    optimizer = Optimizer(owned, 0.5)
    for parameter in owned.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(0.1, 1.0)
    assert torch.equal(owned["vector"], before["vector"])
    torch.testing.assert_close(owned["large"].detach(), before["large"] * 0.95)


def test_a_gradient_that_is_no_number_changes_nothing() -> None:
    owned = parameters("cpu")
    before = copy.deepcopy(owned)
    for parameter in owned.values():
        parameter.grad = torch.full_like(parameter, float("nan"))
    norm = Optimizer(owned, 0.0).step(0.1, 1.0)
    assert norm != norm
    assert all(torch.equal(owned[name], parameter) for name, parameter in before.items())


def test_state_of_another_kind_or_of_other_parameters_is_refused() -> None:
    owned = parameters("cpu")
    optimizer = Optimizer(owned, 0.0, "adamw_8bit")
    taught(optimizer, owned, range(1))
    kept = optimizer.tensors()
    with pytest.raises(ModelError, match="another optimizer"):
        Optimizer(parameters("cpu"), 0.0, "paged_adamw").load(kept)
    with pytest.raises(ModelError, match="another optimizer"):
        Optimizer(parameters("cpu"), 0.0).load(kept)
    del owned["vector"]
    with pytest.raises(ModelError, match="other parameters"):
        Optimizer(owned, 0.0, "adamw_8bit").load(kept)


def test_what_needs_a_gpu_is_refused_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert optimizer_for("auto", CPU) == optimizer_for("adamw", CPU) == "adamw"
    assert optimizer_for("auto", CUDA) == "paged_adamw"
    for kind in KINDS[1:]:
        assert optimizer_for(kind, CUDA) == kind
        with pytest.raises(ConfigError, match=f"{kind} runs on a GPU only") as error:
            optimizer_for(kind, CPU)
        assert error.value.param == "optimizer"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert optimizer_for("auto", CUDA) == "adamw"
    with pytest.raises(ConfigError, match="bitsandbytes, which is not installed"):
        optimizer_for("adamw_8bit", CUDA)
