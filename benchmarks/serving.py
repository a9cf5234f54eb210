"""This server beside `transformers serve --continuous-batching`: the same weights, prompts, threads and client.

    python benchmarks/serving.py [--out docs/performance.md]

Prints a table of tokens/s, time to first token and inter-token gaps for 1 and 8 concurrent greedy streams of 64 tokens.
The peer runs in float32 and in bfloat16; the better of the two counts. Servers are measured one after the other, in
turns, so that each meets the same noise of a shared machine; the median round is reported.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

import torch
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).parent))

from load import Figures, figures, run_streams
from machine import describe
from peer_model import write_peer_model
from section import replace_section
from servers import Server, running, tunechat_server

from tunechat.serve.base.prepare import prepare
from tunechat.serve.base.source import DEFAULT_MODEL

TOKENS = 64
STREAMS = (1, 8)
SUBJECTS = (
    "the sea",
    "an old clock",
    "a lost dog",
    "the first train",
    "a garden",
    "the moon",
    "a library",
    "two rivers",
)
PROMPTS = [f"Write a long story about {subject}, with many details." for subject in SUBJECTS]

Table = dict[tuple[str, int], Figures]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--home", type=Path, help="keeps prepared models between runs")
    parser.add_argument("--out", type=Path, help="file whose section between the two marks is replaced by the result")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        home = arguments.home or Path(scratch)
        entry = prepare(DEFAULT_MODEL, quant="int4", home=home, report=lambda stage, fraction: None)
        servers = list(_servers(home, entry, Path(scratch)))
        table = _measure(servers, Tokenizer.from_file(str(entry / "tokenizer.json")), arguments.rounds, Path(scratch))
    places = {str(Path(sys.executable).parent): ".venv/bin", str(home): "$HOME_FOLDER", scratch: "$MODELS"}
    report = _report(servers, table, arguments.rounds, places)
    print(report)
    if arguments.out is not None:
        replace_section(arguments.out, "serving", report)


def _servers(home: Path, entry: Path, scratch: Path) -> Iterator[Server]:
    commands = Path(sys.executable).parent
    yield tunechat_server(home, name="tunechat int4")
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        folder = write_peer_model(entry, scratch / name, dtype)
        yield Server(
            name=f"transformers serve {name}",
            command=(
                str(commands / "transformers"), "serve", str(folder), "--continuous-batching",
                "--device", "cpu", "--dtype", name, "--port", "{port}", "--host", "127.0.0.1",
            ),
            health="/health",
            model=str(folder),
            environment={"HF_HUB_OFFLINE": "1"},
        )  # fmt: skip


def _measure(servers: list[Server], tokenizer: Tokenizer, rounds: int, scratch: Path) -> Table:
    runs: dict[tuple[str, int], list[Figures]] = {}
    for turn in range(rounds):
        for server in servers:
            with running(server, scratch / f"{server.name}-{turn}.log") as url:
                asyncio.run(run_streams(url, server.model, PROMPTS[:1], 8, 1))
                for count in STREAMS:
                    prompts = PROMPTS[:3] if count == 1 else PROMPTS
                    streams = asyncio.run(run_streams(url, server.model, prompts, TOKENS, count))
                    runs.setdefault((server.name, count), []).append(figures(streams, tokenizer))
            print(f"round {turn + 1}: {server.name} done", file=sys.stderr)
    return {key: _median(found) for key, found in runs.items()}


def _median(found: list[Figures]) -> Figures:
    return Figures(*(statistics.median(column) for column in zip(*map(astuple, found), strict=True)))


def _report(servers: list[Server], table: Table, rounds: int, places: dict[str, str]) -> str:
    ours, *peers = servers
    lines = [
        "| server | streams | tokens/s | first token p50 / p99, ms | between tokens p50 / p99, ms |",
        "|---|---|---|---|---|",
    ]
    for (name, count), f in sorted(table.items(), key=lambda item: (item[0][1], item[0][0] != ours.name)):
        lines.append(
            f"| {name} | {count} | {f.tokens_per_second:.1f} | {f.first_p50:.0f} / {f.first_p99:.0f} "
            f"| {f.gap_p50:.1f} / {f.gap_p99:.1f} |"
        )
    lines.append("")
    for count in STREAMS:
        best = max(table[peer.name, count].tokens_per_second for peer in peers)
        ratio = table[ours.name, count].tokens_per_second / best
        lines.append(f"- {count} stream{'s' if count > 1 else ''}: {ratio:.1f} times the better peer")
    lines.append(f"- greedy, {TOKENS} tokens, median of {rounds} rounds; all servers use all cores")
    lines += [f"- {line}" for line in describe()]
    commands = "\n".join(server.shell_line for server in servers)
    for place, name in places.items():
        commands = commands.replace(place, name)
    return "\n".join([*lines, "", "```", commands, "```"])


if __name__ == "__main__":
    main()
