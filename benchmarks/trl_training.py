"""TRL's SFTTrainer on rows that are tokens already; `training.py` starts it in a process of its own.

The argument is JSON: `model`, a folder; `rows`, each with `input_ids` and `labels`; `batch`, `rank`, `lr`, `dtype`,
`checkpointing`, `folder`. The last line of the output is JSON: seconds of each step, losses, peak memory in bytes.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}


def main() -> None:
    """Trains one epoch and says how it went."""
    told = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    seconds: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds.append(time.perf_counter() - self.began)

    model = AutoModelForCausalLM.from_pretrained(told["model"], dtype=getattr(torch, told["dtype"]))
    config = SFTConfig(
        output_dir=told["folder"],
        per_device_train_batch_size=told["batch"],
        gradient_accumulation_steps=1,
        num_train_epochs=1,
        learning_rate=told["lr"],
        lr_scheduler_type="constant",
        warmup_steps=0,
        max_length=None,
        gradient_checkpointing=told["checkpointing"],
        bf16=False,
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        seed=0,
        dataset_num_proc=None,
    )
    adapter = LoraConfig(
        r=told["rank"], lora_alpha=2 * told["rank"], target_modules="all-linear", task_type="CAUSAL_LM"
    )
    trainer = SFTTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(told["rows"]),
        processing_class=AutoTokenizer.from_pretrained(told["model"]),
        peft_config=adapter,
        callbacks=[Clock()],
    )
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "losses": losses, "memory": peak}))


if __name__ == "__main__":
    main()
