"""The loss of this trainer and the one that TRL's SFTTrainer computes, on the same tokens. Needs the extra `peers`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tunechat.trainer.adapted import AdaptedModel
from tunechat.trainer.data.packing import join
from tunechat.trainer.data.row import Row
from tunechat.trainer.lora import LoraPlan

from .test_model import Entries, rows

pytest.importorskip("trl", reason="the extra `peers` is not installed")

pytestmark = [pytest.mark.acceptance, pytest.mark.filterwarnings("ignore")]


def test_the_loss_is_trls_on_the_same_tokens(tiny_entry: Entries, tmp_path: Path) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    entry = tiny_entry("llama", "none")
    learned = [Row(row.tokens, (row.weights > 0).astype(np.float32), row.lengths) for row in rows(40, 23, 31)]
    labelled = [
        {"input_ids": row.tokens.tolist(), "labels": np.where(row.weights > 0, row.tokens, -100).tolist()}
        for row in learned
    ]
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(entry.manifest.source, dtype=torch.float32),
        args=SFTConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            max_length=None,
            report_to="none",
            seed=0,
            per_device_train_batch_size=len(learned),
            gradient_checkpointing=False,
        ),
        train_dataset=Dataset.from_list(labelled),
        processing_class=AutoTokenizer.from_pretrained(entry.folder),
    )
    batch = trainer.data_collator(labelled)
    with torch.no_grad():
        theirs = float(trainer.compute_loss(trainer.model, batch))
    model = AdaptedModel(entry, LoraPlan(rank=4))
    packed = join(learned)
    # TRL's mean is over the learned tokens of the batch, as ours is over those of a step.
    assert model.measure(packed) / packed.trained == pytest.approx(theirs, abs=1e-4)
