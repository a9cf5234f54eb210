"""PEFT's own mixed batch: one `generate` over rows that each name their adapter.

Run by `adapters.py` with what to measure as one JSON argument; prints the median tokens/s for each number of adapters.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peer_model import write_peer_model

TOKENS_OF_WARM_UP = 4


class PeftBatch:
    """The dequantised base in `folder` with adapters, in one dtype."""

    def __init__(self, folder: Path, adapters: Sequence[Path], dtype: torch.dtype) -> None:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
        base = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._model: Any = PeftModel.from_pretrained(base, adapters[0], adapter_name=adapters[0].name)
            for adapter in adapters[1:]:
                self._model.load_adapter(adapter, adapter_name=adapter.name)
        # peft keeps adapters in float32; in the base's dtype its products are faster.
        self._model.to(dtype).eval()

    def tokens_per_second(self, prompts: Sequence[str], names: Sequence[str], tokens: int) -> float:
        """Of one batch, row i with the adapter `names[i]` ("__base__" for none), `tokens` tokens each, greedy."""
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
        rows = self._tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )

        def generate(count: int) -> None:
            self._model.generate(
                **rows, adapter_names=list(names), do_sample=False, max_new_tokens=count, min_new_tokens=count
            )

        generate(TOKENS_OF_WARM_UP)
        began = time.perf_counter()
        generate(tokens)
        return tokens * len(names) / (time.perf_counter() - began)


def main() -> None:
    told = json.loads(sys.argv[1])
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    dtype = getattr(torch, told["dtype"])
    folder = write_peer_model(Path(told["entry"]), Path(told["folder"]), dtype)
    adapters = [Path(adapter) for adapter in told["adapters"]]
    batch = PeftBatch(folder, adapters, dtype)
    rates: dict[int, list[float]] = {count: [] for count in told["counts"]}
    for _ in range(told["rounds"]):
        for count, found in rates.items():
            used = [adapter.name for adapter in adapters[:count]] or ["__base__"]
            names = [used[at % len(used)] for at in range(len(told["prompts"]))]
            found.append(batch.tokens_per_second(told["prompts"], names, told["tokens"]))
    print(json.dumps({count: statistics.median(found) for count, found in rates.items()}))


if __name__ == "__main__":
    main()
