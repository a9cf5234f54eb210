"""Where and how it is computed: what fits this machine, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tunechat.serve.contract.errors import ConfigError
from tunechat.trainer.computing import CPU, Computing, computing_of
from tunechat.trainer.recipe_file import make_recipe


class Gpus:
    """torch.cuda of a machine with `count` GPUs."""

    def __init__(self, count: int, capability: tuple[int, int] = (8, 0), bfloat16: bool = True) -> None:
        self._count, self._capability, self._bfloat16 = count, capability, bfloat16

    def is_available(self) -> bool:
        return self._count > 0

    def device_count(self) -> int:
        return self._count

    def is_bf16_supported(self, including_emulation: bool = True) -> bool:
        return self._bfloat16 or including_emulation

    def get_device_capability(self, device: torch.device) -> tuple[int, int]:
        return self._capability


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())


def made(gpus: Gpus, monkeypatch: pytest.MonkeyPatch, place: int = 0, **told: Any) -> Computing:
    monkeypatch.setattr(torch, "cuda", gpus)
    return computing_of(make_recipe(told), place)


def test_a_cpu_computes_in_float32_by_sdpa(monkeypatch: pytest.MonkeyPatch) -> None:
    assert made(Gpus(0), monkeypatch) == Computing(CPU, torch.float32, "sdpa", True)
    assert made(Gpus(0), monkeypatch, precision="bfloat16", gradient_checkpointing=False) == Computing(
        CPU, torch.bfloat16, "sdpa", False
    )


@pytest.mark.usefixtures("flash")
def test_a_gpu_gets_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda", 1)
    assert made(Gpus(2), monkeypatch, 1) == Computing(gpu, torch.bfloat16, "flash", True)
    assert made(Gpus(2), monkeypatch, 1, attention="sdpa").attention == "sdpa"
    assert made(Gpus(2), monkeypatch, 1, precision="float32") == Computing(gpu, torch.float32, "sdpa", True)
    old = made(Gpus(2, (7, 5), bfloat16=False), monkeypatch, 1)
    assert old == Computing(gpu, torch.float32, "sdpa", True)
    assert made(Gpus(1), monkeypatch, device="cpu").device == CPU


@pytest.mark.parametrize(
    ("gpus", "told", "key", "said"),
    [
        (Gpus(0), {"device": "cuda"}, "device", "no usable GPU"),
        (Gpus(1), {}, "processes", "there are 1; take processes=1"),
        (Gpus(2, (7, 5), bfloat16=False), {"precision": "bfloat16"}, "precision", "has no bfloat16"),
        (Gpus(2), {"attention": "flash"}, "attention", "flash-attn is not installed"),
        (Gpus(0), {"attention": "flash"}, "attention", "it runs on a GPU only"),
        (Gpus(2, (7, 5), bfloat16=False), {"attention": "flash"}, "attention", "this GPU is older"),
        (Gpus(2), {"attention": "flash", "precision": "float32"}, "attention", "it computes in bfloat16 only"),
    ],
)
def test_what_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, gpus: Gpus, told: dict[str, Any], key: str, said: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=said) as error:
        made(gpus, monkeypatch, 1, **told)
    assert error.value.param == key
