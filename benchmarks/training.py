"""This trainer beside TRL's SFTTrainer, and beside the server's own streams.

    python benchmarks/training.py --data bfcl_eval-*.whl [--parts a,b] [--rows 20] [--home FOLDER] [--out FILE]

Part a: the same model, rows, rank and rows a step, on one machine in one run. Part b: four streams without a training
and beside one, for each of its priorities.

The rows are questions with tools out of the Berkeley function-calling data (`pip download --no-deps bfcl-eval`), as
tokens of the default model, and both learn the same tokens of them. TRL (`pip install trl`) gets LoRA on all linears
of the same weights, dequantised, once for each of its ways: with and without gradient checkpointing, float32 and
bfloat16. Memory is the most that the process had at once, what it maps included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from bfcl import Row, read_rows
from machine import describe
from peer_model import write_peer_model
from section import replace_section
from training_beside import beside

from tunechat.serve.base.entry import read_manifest
from tunechat.serve.base.prepare import prepare
from tunechat.serve.base.source import DEFAULT_MODEL
from tunechat.serve.contract.jobs import ORDER
from tunechat.trainer.lessons import Lessons, read_lessons
from tunechat.trainer.recipe_file import make_recipe

RANK = 16
BATCH = 4
RATE = 1e-4
# A batch of so many tokens holds any four rows.
BATCH_TOKENS = 16_384


@dataclass(frozen=True, slots=True)
class Way:
    """One way to train. `dtype` is empty for this trainer, which computes in float32 on 4-bit weights."""

    name: str
    checkpointing: bool
    dtype: str = ""


WAYS = (
    Way("tunechat", checkpointing=True),
    Way("tunechat, no checkpointing", checkpointing=False),
    Way("TRL, float32", checkpointing=True, dtype="float32"),
    Way("TRL, float32, no checkpointing", checkpointing=False, dtype="float32"),
    Way("TRL, bfloat16", checkpointing=True, dtype="bfloat16"),
)


@dataclass(frozen=True, slots=True)
class Found:
    """What one way took: seconds of each step, loss of each step, most bytes at once."""

    seconds: list[float]
    losses: list[float]
    memory: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="wheel of bfcl-eval, or the folder of its data")
    parser.add_argument("--parts", default="a,b", help="which to measure")
    parser.add_argument("--rows", type=int, default=20, help="rows to learn from, four a step")
    parser.add_argument("--home", type=Path, help="keeps prepared models between runs")
    parser.add_argument("--out", type=Path, help="file whose section between the two marks is replaced by the result")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        home = arguments.home or scratch / "prepared"
        entry = prepare(DEFAULT_MODEL, quant="int4", home=home, report=lambda stage, fraction: None)
        data = _write_rows(read_rows(arguments.data, arguments.rows), scratch / "rows.jsonl")
        lines: list[str] = []
        if "a" in arguments.parts.split(","):
            lines += [*_peers(entry, data, scratch), ""]
        if "b" in arguments.parts.split(","):
            lines += [*beside(home, entry, data, scratch), ""]
    report = "\n".join([*lines, *(f"- {line}" for line in describe())])
    print(report)
    if arguments.out is not None:
        replace_section(arguments.out, "training", report)


def _peers(entry: Path, data: Path, scratch: Path) -> list[str]:
    lessons = read_lessons(make_recipe(_recipe(data, checkpointing=True)), entry, read_manifest(entry))
    found = {}
    for way in WAYS:
        print(way.name, file=sys.stderr)
        folder = scratch / way.name.replace(" ", "-")
        folder.mkdir()
        found[way] = _theirs(way, entry, lessons, folder) if way.dtype else _ours(way, entry, data, folder)
        print(found[way], file=sys.stderr)
    return _table(found, lessons)


def _write_rows(rows: list[Row], path: Path) -> Path:
    """The rows as OpenAI's fine-tuning takes them; of each argument its first right value."""
    lines = []
    for row in rows:
        calls = [
            {
                "id": f"call_{at}",
                "type": "function",
                "function": {
                    "name": name,
                    "arguments": json.dumps({key: options[0] for key, options in right.items() if options[0] != ""}),
                },
            }
            for at, (name, right) in enumerate(row.expected)
        ]
        messages = [*row.messages, {"role": "assistant", "tool_calls": calls}]
        lines.append(json.dumps({"messages": messages, "tools": row.tools}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _recipe(data: Path, *, checkpointing: bool) -> dict[str, Any]:
    return {
        "data": [str(data)],
        "rank": RANK,
        "lr": RATE,
        "schedule": "constant",
        "warmup": 0.0,
        "epochs": 1.0,
        "validation_split": 0.0,
        "batch_rows": BATCH,
        "batch_tokens": BATCH_TOKENS,
        "accumulation": 1,
        "gradient_checkpointing": checkpointing,
        "priority": "training",
        "save_steps": 10_000,
    }


def _ours(way: Way, entry: Path, data: Path, folder: Path) -> Found:
    order = {"job": "benchmark", "recipe": _recipe(data, checkpointing=way.checkpointing), "entry": str(entry)}
    (folder / ORDER).write_text(json.dumps(order), encoding="utf-8")
    lines = _output([sys.executable, "-m", "tunechat.trainer", str(folder)])
    steps = [event for line in lines if (event := json.loads(line))["type"] == "step"]
    return Found(
        [step["seconds"] for step in steps], [step["loss"] for step in steps], max(step["memory"] for step in steps)
    )


def _theirs(way: Way, entry: Path, lessons: Lessons, folder: Path) -> Found:
    rows = [
        {
            "input_ids": row.tokens.tolist(),
            "labels": np.where(row.weights > 0, row.tokens, -100).tolist(),
        }
        for row in lessons.learned
    ]
    import torch

    told = {
        "model": str(write_peer_model(entry, folder / "model", torch.float32)),
        "rows": rows,
        "batch": BATCH,
        "rank": RANK,
        "lr": RATE,
        "dtype": way.dtype,
        "checkpointing": way.checkpointing,
        "folder": str(folder / "output"),
    }
    (folder / "told.json").write_text(json.dumps(told), encoding="utf-8")
    lines = _output([sys.executable, str(Path(__file__).with_name("trl_training.py")), str(folder / "told.json")])
    return Found(**json.loads(lines[-1]))


def _output(command: list[str]) -> list[str]:
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip().splitlines()


def _table(found: dict[Way, Found], lessons: Lessons) -> list[str]:
    rows = lessons.learned
    tokens, trained = sum(len(row.tokens) for row in rows), sum(row.trained for row in rows)
    best = max((one for way, one in found.items() if way.dtype), key=lambda one: tokens / sum(one.seconds))
    smallest = min(one.memory for way, one in found.items() if way.dtype)
    lines = [
        "| trainer | tokens/s | learned | of TRL's fastest | peak memory, MiB | of TRL's smallest | first loss |",
        "|---|---|---|---|---|---|---|",
    ]
    for way, one in found.items():
        seconds = sum(one.seconds)
        lines.append(
            f"| {way.name} | {tokens / seconds:.1f} | {trained / seconds:.1f} | {sum(best.seconds) / seconds:.2f} "
            f"| {one.memory / 2**20:.0f} | {one.memory / smallest:.2f} | {one.losses[0]:.4f} |"
        )
    told = f"{len(rows)} rows, {tokens} tokens, {trained} of them learned; {BATCH} rows a step, LoRA of rank {RANK}"
    return [*lines, "", f"- {told} on all linears, one epoch; the rows of the first step differ between trainers"]


if __name__ == "__main__":
    main()
