"""Perplexity of the served model beside transformers in float32, on texts that ship with Python.

    python benchmarks/quality.py [--out docs/performance.md]

The served model is asked over HTTP (`echo` with `logprobs`), as it answers users. The peer runs the source's own
weights: the default model's file holds 4-bit blocks, dequantised to float32 for it; nothing is quantised twice.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from pydoc_data import topics

import torch
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).parent))

from machine import describe
from peer_model import write_peer_model
from section import replace_section
from servers import running, tunechat_server

from tunechat.serve.base.prepare import prepare
from tunechat.serve.base.source import DEFAULT_MODEL

WINDOW = 512
WINDOWS_PER_TEXT = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="keeps prepared models between runs")
    parser.add_argument("--out", type=Path, help="file whose section between the two marks is replaced by the result")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        home = arguments.home or Path(scratch)
        entry = prepare(DEFAULT_MODEL, quant="int4", home=home, report=lambda stage, fraction: None)
        tokenizer = Tokenizer.from_file(str(entry / "tokenizer.json"))
        windows = {name: list(_windows(tokenizer, text)) for name, text in _texts().items()}
        ours = _served(home, windows, Path(scratch))
        theirs = _transformers(write_peer_model(entry, Path(scratch) / "peer", torch.float32), windows)
    report = _report(windows, ours, theirs)
    print(report)
    if arguments.out is not None:
        replace_section(arguments.out, "quality", report)


def _texts() -> dict[str, str]:
    """The language reference's help topics, and source code with its comments."""
    reference = "\n\n".join(topics.topics[name] for name in sorted(topics.topics))
    code = Path(argparse.__file__).read_text(encoding="utf-8") + Path(tempfile.__file__).read_text(encoding="utf-8")
    return {"pydoc_data/topics.py": reference, "argparse.py and tempfile.py": code}


def _windows(tokenizer: Tokenizer, text: str) -> Iterator[list[int]]:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    for start in range(0, min(len(ids), WINDOW * WINDOWS_PER_TEXT) - WINDOW + 1, WINDOW):
        yield ids[start : start + WINDOW]


def _served(home: Path, windows: dict[str, list[list[int]]], scratch: Path) -> dict[str, float]:
    with running(tunechat_server(home), scratch / "server.log") as url:
        return {
            name: _perplexity([score for window in parts for score in _served_scores(url, window)])
            for name, parts in windows.items()
        }


def _served_scores(url: str, window: list[int]) -> list[float]:
    body = {"model": DEFAULT_MODEL, "prompt": window, "echo": True, "logprobs": 0, "max_tokens": 1, "temperature": 0}
    request = urllib.request.Request(  # noqa: S310 - loopback, made here
        f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as reply:  # noqa: S310
        scores = json.load(reply)["choices"][0]["logprobs"]["token_logprobs"]
    return [float(score) for score in scores[1 : len(window)]]


def _transformers(folder: Path, windows: dict[str, list[list[int]]]) -> dict[str, float]:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = {}
    for name, parts in windows.items():
        scores: list[float] = []
        for window in parts:
            ids = torch.tensor([window])
            with torch.inference_mode():
                logprobs = torch.log_softmax(model(ids).logits[0, :-1], dim=-1)
            scores += logprobs.gather(1, ids[0, 1:, None]).squeeze(1).tolist()
        found[name] = _perplexity(scores)
    return found


def _perplexity(scores: list[float]) -> float:
    return math.exp(-sum(scores) / len(scores))


def _report(windows: dict[str, list[list[int]]], ours: dict[str, float], theirs: dict[str, float]) -> str:
    lines = ["| text | tokens | tunechat, served | transformers, float32 | difference |", "|---|---|---|---|---|"]
    for name, parts in windows.items():
        difference = 100 * (ours[name] / theirs[name] - 1)
        lines.append(
            f"| {name} | {sum(map(len, parts))} | {ours[name]:.4f} | {theirs[name]:.4f} | {difference:+.3f} % |"
        )
    return "\n".join([*lines, "", *(f"- {line}" for line in describe())])


if __name__ == "__main__":
    main()
