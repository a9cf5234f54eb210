"""What following a grammar costs: tokens/s of 1 and 8 streams with none, a 1 kB schema, a long choice and a regex.

    python benchmarks/structured.py [--out docs/performance.md]

Asks the engine's client directly, so that nothing but the engine is measured. All texts are greedy and of the same
length: every grammar used here lets a text grow beyond it. Kinds are measured in turns within each round, and each is
compared with the free text of its own round; the median round is reported.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from llguidance import LLMatcher
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).parent))

from load import Stream, percentile
from machine import describe
from section import replace_section
from serving import PROMPTS

from tunechat.serve.base.prepare import prepare
from tunechat.serve.base.source import DEFAULT_MODEL
from tunechat.serve.contract.sampling import SamplingParams
from tunechat.serve.engine.client import EngineClient
from tunechat.serve.engine.options import EngineOptions

TOKENS = 96
STREAMS = (1, 8)
FREE = "no grammar"


def schema() -> str:
    """A schema of about 1 kB, as an application that fills a form sends it."""
    person = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 2, "maxLength": 60},
            "born": {"type": "integer", "minimum": 1800, "maximum": 2030},
            "email": {"type": "string", "pattern": "^[a-z0-9.]{1,30}@[a-z0-9]{1,20}\\.(org|com|net)$"},
            "role": {"enum": ["author", "editor", "translator", "illustrator"]},
        },
        "required": ["name", "born", "email", "role"],
        "additionalProperties": False,
    }
    report = {
        "type": "object",
        "properties": {
            "title": {"type": "string", "minLength": 5, "maxLength": 120},
            "language": {"enum": ["en", "de", "fr", "es", "it", "pt", "nl", "pl"]},
            "year": {"type": "integer", "minimum": 1900, "maximum": 2100},
            "rating": {"type": "number", "minimum": 0, "maximum": 10},
            "published": {"type": "boolean"},
            "isbn": {"type": "string", "pattern": "^97[89]-[0-9]{1,5}-[0-9]{1,7}-[0-9]{1,6}-[0-9]$"},
            "people": {"type": "array", "items": person, "minItems": 4, "maxItems": 8},
            "subjects": {"type": "array", "items": {"type": "string", "maxLength": 40}, "minItems": 3, "maxItems": 9},
        },
        "required": ["title", "language", "year", "rating", "published", "isbn", "people", "subjects"],
        "additionalProperties": False,
    }
    return json.dumps(report)


def choices() -> list[str]:
    """Long sentences that begin alike, so that many stay possible for long."""
    return [
        "The answer depends on what was asked before, and " + "on this as well as on that and then " * 12 + f"on {n}."
        for n in range(400)
    ]


def grammars() -> dict[str, str]:
    text = schema()
    options = choices()
    return {
        FREE: "",
        f"JSON schema of {len(text)} bytes": LLMatcher.grammar_from_json_schema(
            text, overrides={"whitespace_flexible": False}
        ),
        f"choice of {len(options)}, {sum(map(len, options)) // 1000} kB": LLMatcher.grammar_from_json_schema(
            json.dumps({"enum": options})
        ),
        "regex": LLMatcher.grammar_from_regex(r"([A-Z][a-z]{1,11}(,? [a-z]{1,11}){3,9}[.!?] ){30}"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--home", type=Path, help="keeps prepared models between runs")
    parser.add_argument("--out", type=Path, help="file whose section between the two marks is replaced by the result")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        home = arguments.home or Path(scratch)
        entry = prepare(DEFAULT_MODEL, quant="int4", home=home, report=lambda stage, fraction: None)
        tokenizer = Tokenizer.from_file(str(entry / "tokenizer.json"))
        report = asyncio.run(_measure(home, tokenizer, arguments.rounds))
    print(report)
    if arguments.out is not None:
        replace_section(arguments.out, "structured", report)


async def _measure(home: Path, tokenizer: Tokenizer, rounds: int) -> str:
    client = EngineClient(EngineOptions(model=DEFAULT_MODEL, home=str(home), quant="int4"))
    await client.start()
    try:
        await client.wait_ready()
        asker = Asker(client, tokenizer)
        kinds = grammars()
        # The first of each also compiles its grammar, and the first of all has the tokenizer read.
        await asker.streams("", 1, 8)
        firsts = {kind: 1000 * (await asker.streams(text, 1, 8))[0].first for kind, text in kinds.items()}
        runs: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for turn in range(rounds):
            for count in STREAMS:
                order = list(kinds) if turn % 2 else list(reversed(kinds))
                speeds = {kind: _figures(await asker.streams(kinds[kind], count, TOKENS)) for kind in order}
                for kind in kinds:
                    runs.setdefault((kind, count), []).append(speeds[kind])
            print(f"round {turn + 1} done", file=sys.stderr)
        late, compiled = client.stats.late_masks, client.stats.grammars_compiled
    finally:
        await client.close()
    return _report(kinds, runs, firsts, rounds, f"{compiled} grammars compiled, {late} masks late")


class Asker:
    """Streams of one engine, each with a name of its own."""

    def __init__(self, client: EngineClient, tokenizer: Tokenizer) -> None:
        self._client = client
        self._prompts = [
            tokenizer.encode(f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n").ids for text in PROMPTS
        ]
        self._asked = 0

    async def streams(self, grammar: str, count: int, tokens: int) -> list[Stream]:
        """`count` texts of `tokens` tokens at once."""
        return await asyncio.gather(*(self._one(at, grammar, tokens) for at in range(count)))

    async def _one(self, at: int, grammar: str, tokens: int) -> Stream:
        self._asked += 1
        params = SamplingParams(max_tokens=tokens, temperature=0.0, grammar=grammar)
        asked, arrivals = time.perf_counter(), []
        async for output in self._client.generate(self._prompts[at], params, sequence=f"bench {self._asked}"):
            arrivals += [time.perf_counter()] * len(output.tokens)
        if len(arrivals) != tokens:
            raise RuntimeError(f"a text ended after {len(arrivals)} of {tokens} tokens")
        return Stream(asked, tuple(arrivals), "")


def _figures(streams: list[Stream]) -> tuple[float, float]:
    """Tokens a second from the first token of the last stream to begin, and the p99 of gaps in milliseconds."""
    start = max(stream.arrivals[0] for stream in streams)
    end = max(stream.arrivals[-1] for stream in streams)
    tokens = sum(arrival > start for stream in streams for arrival in stream.arrivals)
    return tokens / (end - start), 1000 * percentile([gap for stream in streams for gap in stream.gaps], 99)


def _report(
    kinds: dict[str, str],
    runs: dict[tuple[str, int], list[tuple[float, float]]],
    firsts: dict[str, float],
    rounds: int,
    counts: str,
) -> str:
    lines = [
        "| grammar | streams | tokens/s | of free text | gap p99, ms | first token of the first request, ms |",
        "|---|---|---|---|---|---|",
    ]
    for count in STREAMS:
        free = [speed for speed, _ in runs[FREE, count]]
        for kind in kinds:
            speeds = [speed for speed, _ in runs[kind, count]]
            share = statistics.median(speed / other for speed, other in zip(speeds, free, strict=True))
            gap = statistics.median(gap for _, gap in runs[kind, count])
            first = f"{firsts[kind]:.0f}" if count == 1 else ""
            lines.append(
                f"| {kind} | {count} | {statistics.median(speeds):.1f} | {100 * share:.1f} % | {gap:.1f} | {first} |"
            )
    lines += ["", f"- greedy, {TOKENS} tokens, median of {rounds} rounds; {counts}; asked of the engine without HTTP"]
    return "\n".join([*lines, *(f"- {line}" for line in describe())])


if __name__ == "__main__":
    main()
