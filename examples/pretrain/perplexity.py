"""The perplexity of models of a running server on a text: how many tokens each one hesitates between. Less is better.

    python examples/pretrain/perplexity.py ../../docs/data.md smollm2-135m-instruct docs

The text is asked for as a prompt that is echoed with its log-probabilities, piece by piece, as any client can. The
first token of a piece has nothing before it and does not count.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterator
from pathlib import Path

import httpx


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, help="a text that was not trained on")
    parser.add_argument("models", nargs="+", help="models as the server lists them")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the server")
    parser.add_argument("--piece", type=int, default=2000, help="characters that are asked at a time")
    arguments = parser.parse_args()
    parts = list(pieces(arguments.text.read_text(encoding="utf-8"), arguments.piece))
    headers = {"authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', 'none')}"}
    print("| model | tokens | perplexity |\n| --- | --- | --- |")
    with httpx.Client(base_url=arguments.url, headers=headers, timeout=600, trust_env=False) as client:
        for model in arguments.models:
            scores = [score for part in parts for score in scored(client, model, part)]
            print(f"| {model} | {len(scores)} | {math.exp(-sum(scores) / len(scores)):.2f} |")


def pieces(text: str, size: int) -> Iterator[str]:
    """The text in pieces of about `size` characters, cut at ends of lines."""
    piece = ""
    for line in text.splitlines(keepends=True):
        if piece and len(piece) + len(line) > size:
            yield piece
            piece = ""
        piece += line
    if piece:
        yield piece


def scored(client: httpx.Client, model: str, text: str) -> list[float]:
    """The log-probability of each token of `text` but the first."""
    body = {"model": model, "prompt": text, "echo": True, "logprobs": 0, "max_tokens": 0}
    response = client.post("/v1/completions", json=body)
    response.raise_for_status()
    return [score for score in response.json()["choices"][0]["logprobs"]["token_logprobs"] if score is not None]


if __name__ == "__main__":
    main()
