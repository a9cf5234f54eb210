"""A checkpoint is whole or not there, whenever the process that writes it dies."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tunechat.serve.contract.adapters import AdapterOrigin
from tunechat.trainer import checkpoint as module
from tunechat.trainer.checkpoint import AdapterProduct, Contents, State, checkpoints, prune, save_checkpoint

LINEARS = {"model.layers.0.self_attn.q_proj": (8, 4)}


def contents(step: int) -> Contents:
    prefix = "base_model.model.model.layers.0.self_attn.q_proj"
    return Contents(
        state=State(step=step, epoch=1, index=step, best_loss=0.5, best_step=step),
        product=AdapterProduct(
            {
                f"{prefix}.lora_A.weight": torch.ones(2, 4),
                f"{prefix}.lora_B.weight": torch.full((8, 2), step + 1.0),
            },
            {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]},
            AdapterOrigin(base="tiny"),
            LINEARS,
        ),
        optimizer={"exp_avg.a": torch.full((3,), float(step))},
    )


def test_what_was_saved_is_read(tmp_path: Path) -> None:
    saved = save_checkpoint(tmp_path, contents(7))
    (found,) = checkpoints(tmp_path)
    assert found == saved
    assert found.state == contents(7).state
    assert found.optimizer_tensors()["exp_avg.a"].tolist() == [7.0] * 3
    assert len(found.tensors()) == 2


class Killed(BaseException):
    """Stands for SIGKILL: nobody handles it."""


@pytest.mark.parametrize("name", ["write_synced", "sha256_of", "sync_folder"])
def test_a_kill_at_any_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    save_checkpoint(tmp_path, contents(1))
    original = getattr(module, name)
    # A killed process cleans nothing up.
    monkeypatch.setattr(module.shutil, "rmtree", lambda *_, **__: None)
    for moment in range(20):
        calls: list[None] = []

        def dying(*arguments: object, moment: int = moment, calls: list[None] = calls) -> object:
            if len(calls) == moment:
                raise Killed
            calls.append(None)
            return original(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(module, name, dying)
            root = tmp_path / f"at-{moment}"
            root.mkdir()
            (tmp_path / "checkpoint-1").rename(root / "checkpoint-1")
            try:
                save_checkpoint(root, contents(2))
                finished = True
            except Killed:
                finished = False
        steps = [found.state.step for found in checkpoints(root)]
        assert steps in ([2, 1], [1])
        assert not finished or steps == [2, 1]
        (root / "checkpoint-1").rename(tmp_path / "checkpoint-1")
        if finished:
            return
    raise AssertionError("it was never finished")


@pytest.mark.parametrize("file", ["state.json", "optimizer.safetensors", "adapter/adapter_model.safetensors"])
def test_a_damaged_one_is_passed_over(tmp_path: Path, file: str) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, contents(step))
    path = tmp_path / "checkpoint-2" / file
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert [found.state.step for found in checkpoints(tmp_path)] == [1]
    path.unlink()
    assert [found.state.step for found in checkpoints(tmp_path)] == [1]


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in (2, 9, 10, 11):
        save_checkpoint(tmp_path, contents(step))
    prune(tmp_path, 2, 2)
    assert [found.state.step for found in checkpoints(tmp_path)] == [11, 10, 2]
