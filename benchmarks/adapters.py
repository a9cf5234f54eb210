"""Many adapters on one base: what they cost, beside PEFT's own mixed batch, and what swapping them costs.

    python benchmarks/adapters.py [--parts a,b,c,d,e] [--before /path/to/older/tunechat] [--out docs/performance.md]

Adapters are random, of rank 16 on all seven linears of a layer. Everything that is compared is measured in turns within
each round; the median round is reported. Parts:

a  tokens/s of 8 streams on the base and on 1, 2, 4 and 8 adapters
b  tokens/s of the same by PEFT's `adapter_names` in one batch, on the same weights
c  from the load call to the first token
d  gaps between tokens of 8 streams while adapters are loaded and unloaded, and while not
e  tokens/s and memory with 8, 100 and 1000 adapters registered
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from adapter_parts import Bench, loading, mixing, peft_mixing, registering, swapping
from machine import describe
from section import replace_section

from tunechat.serve.base.prepare import prepare
from tunechat.serve.base.source import DEFAULT_MODEL

PARTS = {"a": mixing, "b": peft_mixing, "c": loading, "d": swapping, "e": registering}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="a,b,c,d,e", help="which to measure")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--home", type=Path, help="keeps prepared models between runs")
    parser.add_argument("--before", type=Path, help="the tunechat command of a release without adapters, for part a")
    parser.add_argument("--out", type=Path, help="file whose section between the two marks is replaced by the result")
    arguments = parser.parse_args()
    parts = arguments.parts.split(",")
    if unknown := sorted(set(parts) - PARTS.keys()):
        raise SystemExit(f"there is no part {unknown[0]}; choose of {','.join(PARTS)}")
    with tempfile.TemporaryDirectory() as scratch:
        home = arguments.home or Path(scratch) / "prepared"
        entry = prepare(DEFAULT_MODEL, quant="int4", home=home, report=lambda stage, fraction: None)
        bench = Bench(home, entry, Path(scratch), arguments.rounds, arguments.before)
        lines: list[str] = []
        for part in sorted(set(parts)):
            print(f"part {part}", file=sys.stderr)
            found = PARTS[part](bench)
            print("\n".join(found), file=sys.stderr)
            lines += [*found, ""]
    lines.append(f"- rank 16, all linears of the layers, float32 files; medians of {arguments.rounds} rounds")
    report = "\n".join([*lines, *(f"- {line}" for line in describe())])
    print(report)
    if arguments.out is not None:
        replace_section(arguments.out, "adapters", report)


if __name__ == "__main__":
    main()
