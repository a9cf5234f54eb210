"""The parts of `adapters.py`. Each gives the lines of its table."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from load import Figures, Stream, figures, percentile, run_streams
from random_adapters import write_adapter
from servers import running, tunechat_server
from tokenizers import Tokenizer

from tunechat.serve.adapters.staging import Intake
from tunechat.serve.adapters.store import AdapterStore
from tunechat.serve.base.entry import read_manifest
from tunechat.serve.base.source import DEFAULT_MODEL

STREAMS = 8
TOKENS = 64
RANK = 16
COUNTS = (1, 2, 4, 8)
REGISTERED = (8, 100, 1000)
LOADS = 20
SUBJECTS = ("the sea", "a clock", "a lost dog", "the first train", "a garden", "the moon", "a library", "two rivers")


@dataclass
class Bench:
    """What all parts need: the prepared model, where to put things, how often to measure."""

    home: Path
    entry: Path
    scratch: Path
    rounds: int
    before: Path | None
    _serial: Iterator[int] = field(default_factory=itertools.count)

    @property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_file(str(self.entry / "tokenizer.json"))

    def adapters(self, count: int) -> list[Path]:
        """The first `count` random adapters, made once."""
        folders = [self.scratch / "made" / f"adapter{at}" for at in range(count)]
        for at, folder in enumerate(folders):
            if not folder.exists():
                write_adapter(self.entry, folder, seed=at, rank=RANK)
        return folders

    def new_adapters(self, count: int) -> list[Path]:
        """As many that no server has met."""
        serials = [next(self._serial) for _ in range(count)]
        return [
            write_adapter(self.entry, self.scratch / "new" / f"new{serial}", seed=1000 + serial, rank=RANK)
            for serial in serials
        ]

    def prompts(self) -> list[str]:
        """Eight prompts that share no prefix with earlier ones, so that no cache helps the later of two runs."""
        serial = next(self._serial)
        return [f"{serial}. Write a long story about {subject}, with many details." for subject in SUBJECTS]

    def new_home(self) -> Path:
        """A home with the prepared model and an empty store."""
        home = self.scratch / f"home{next(self._serial)}"
        home.mkdir(parents=True)
        (home / "models").symlink_to(self.home / "models")
        return home

    @contextmanager
    def serving(self, home: Path, command: Path | None = None) -> Iterator[str]:
        with running(tunechat_server(home, program=command), self.scratch / f"server{next(self._serial)}.log") as url:
            self.run(url, [DEFAULT_MODEL], tokens=8)
            yield url

    def run(self, url: str, models: Sequence[str], tokens: int = TOKENS) -> list[Stream]:
        """Eight streams at once, the models in turn."""
        turns = [models[at % len(models)] for at in range(STREAMS)]
        return asyncio.run(run_streams(url, turns, self.prompts(), tokens, STREAMS))


def mixing(bench: Bench) -> list[str]:
    """Part a. The older release, where one is given, serves the base before and after ours in each round."""
    found: dict[str, list[Figures]] = {}
    folders, tokenizer, home = bench.adapters(max(COUNTS)), bench.tokenizer, bench.new_home()
    names = [folder.name for folder in folders]
    for turn in range(bench.rounds):
        if bench.before is not None:
            with bench.serving(bench.new_home(), bench.before) as url:
                found.setdefault("base, before adapters", []).append(
                    figures(bench.run(url, [DEFAULT_MODEL]), tokenizer)
                )
        with bench.serving(home) as url:
            for folder in folders if turn == 0 else ():
                _load(url, folder.name, folder)
            bench.run(url, names, tokens=2)
            kinds = {"base": [DEFAULT_MODEL], **{_many(count): names[:count] for count in COUNTS}}
            for kind in list(kinds)[:: 1 if turn % 2 == 0 else -1]:
                found.setdefault(kind, []).append(figures(bench.run(url, kinds[kind]), tokenizer))
    rates = {kind: statistics.median(f.tokens_per_second for f in runs) for kind, runs in found.items()}
    lines = ["| 8 streams on | tokens/s | of the base | between tokens p50 / p99, ms |", "|---|---|---|---|"]
    for kind, runs in found.items():
        p50, p99 = (statistics.median(getattr(f, name) for f in runs) for name in ("gap_p50", "gap_p99"))
        lines.append(f"| {kind} | {rates[kind]:.1f} | {rates[kind] / rates['base']:.2f} | {p50:.1f} / {p99:.1f} |")
    return lines


def peft_mixing(bench: Bench) -> list[str]:
    """Part b. The best dtype of each row counts."""
    lines = ["| PEFT `adapter_names`, 8 rows on | float32, tokens/s | bfloat16, tokens/s |", "|---|---|---|"]
    folders = bench.adapters(max(COUNTS))
    rates: dict[str, list[float]] = {}
    for name in ("float32", "bfloat16"):
        told = {"entry": str(bench.entry), "folder": str(bench.scratch / name), "dtype": name}
        told |= {"adapters": [str(folder) for folder in folders], "rounds": bench.rounds, "tokens": TOKENS}
        told |= {"prompts": bench.prompts(), "counts": [0, *COUNTS]}
        # A process of its own: torch keeps the memory and the threads of a model that has gone.
        child = [sys.executable, str(Path(__file__).with_name("peft_batch.py")), json.dumps(told)]
        for kind, rate in json.loads(subprocess.run(child, check=True, stdout=subprocess.PIPE).stdout).items():
            rates.setdefault(kind, []).append(rate)
    for kind, found in rates.items():
        lines.append(f"| {_many(int(kind))} | {found[0]:.1f} | {found[1]:.1f} |")
    return lines


def loading(bench: Bench) -> list[str]:
    """Part c. Each load is of an adapter that the server has not met; then one token is asked of it."""
    lines = ["| load call to first token | p50, ms | p90, ms | of it the call, p50, ms |", "|---|---|---|---|"]
    with bench.serving(bench.new_home()) as url:
        for kind, streams in (("quiet", 0), ("beside 8 streams", STREAMS)):
            whole, call = [], []
            with _busy(bench, url) if streams else _idle():
                for folder in bench.new_adapters(LOADS):
                    began = time.perf_counter()
                    _load(url, folder.name, folder)
                    loaded = time.perf_counter()
                    (stream,) = asyncio.run(run_streams(url, folder.name, ["Hello."], 1, 1))
                    whole.append(1000 * (stream.arrivals[0] - began))
                    call.append(1000 * (loaded - began))
                    _unload(url, folder.name)
            p50, p90, of_it = percentile(whole, 50), percentile(whole, 90), percentile(call, 50)
            lines.append(f"| {kind} | {p50:.0f} | {p90:.0f} | {of_it:.0f} |")
    return lines


def swapping(bench: Bench) -> list[str]:
    """Part d. Loads and unloads follow one another without a pause, on adapters that nobody asks."""
    found: dict[str, list[float]] = {"quiet": [], "loading and unloading": []}
    rates: dict[str, list[float]] = {kind: [] for kind in found}
    swaps, tokenizer, names = 0, bench.tokenizer, [folder.name for folder in bench.adapters(4)]
    with bench.serving(bench.new_home()) as url:
        for folder in bench.adapters(4):
            _load(url, folder.name, folder)
        models = [DEFAULT_MODEL, *names[:3]]
        bench.run(url, models, tokens=2)
        for turn in range(bench.rounds):
            for kind in list(found)[:: 1 if turn % 2 == 0 else -1]:
                with _swapper(bench, url) if kind != "quiet" else _idle() as count:
                    streams = bench.run(url, models, tokens=4 * TOKENS)
                swaps += count[0]
                found[kind] += [1000 * gap for stream in streams for gap in stream.gaps]
                rates[kind].append(figures(streams, tokenizer).tokens_per_second)
    quiet = percentile(found["quiet"], 99)
    lines = ["| 8 streams, base and three adapters | gap p50 / p99, ms | p99 of the quiet | tokens/s |"]
    lines.append("|---|---|---|---|")
    for kind, gaps in found.items():
        p50, p99 = percentile(gaps, 50), percentile(gaps, 99)
        lines.append(f"| {kind} | {p50:.1f} / {p99:.1f} | {p99 / quiet:.2f} | {statistics.median(rates[kind]):.1f} |")
    return [*lines, "", f"- {swaps} loads and as many unloads in those rounds"]


def registering(bench: Bench) -> list[str]:
    """Part e. Eight of rank 16 are asked; the others, of rank 1 on one linear to spare the disk, only lie there."""
    lines = ["| registered | tokens/s on 8 of them | start to ready, s | memory of gateway and engine, MB |"]
    lines.append("|---|---|---|---|")
    homes = {count: bench.new_home() for count in REGISTERED}
    _register(bench, homes)
    rates: dict[int, list[float]] = {count: [] for count in REGISTERED}
    starts: dict[int, list[float]] = {count: [] for count in REGISTERED}
    memory: dict[int, list[float]] = {count: [] for count in REGISTERED}
    names = [folder.name for folder in bench.adapters(8)]
    for _ in range(bench.rounds):
        for count, home in homes.items():
            began = time.perf_counter()
            with bench.serving(home) as url:
                starts[count].append(time.perf_counter() - began)
                bench.run(url, names, tokens=2)
                rates[count].append(figures(bench.run(url, names), bench.tokenizer).tokens_per_second)
                processes = psutil.Process().children(recursive=True)
                memory[count].append(sum(process.memory_full_info().pss for process in processes) / 1e6)
    for count in REGISTERED:
        rate, start, size = (statistics.median(values[count]) for values in (rates, starts, memory))
        lines.append(f"| {count} | {rate:.1f} | {start:.1f} | {size:.0f} |")
    return lines


def _register(bench: Bench, homes: dict[int, Path]) -> None:
    """Fills the stores. What the largest holds is published once; the others get their part of it as it is."""
    largest = max(homes)
    store, intake = AdapterStore(homes[largest] / "adapters"), Intake(base=read_manifest(bench.entry))
    folders = bench.adapters(8)
    for at in range(largest - len(folders)):
        folder = bench.scratch / "small" / f"small{at}"
        folders.append(
            write_adapter(bench.entry, folder, seed=5000 + at, rank=1, modules=("layers.0.self_attn.q_proj",))
        )
    for folder in folders:
        store.publish(folder.name, folder, intake)
    for count, home in homes.items():
        for folder in folders[:count] if count != largest else ():
            shutil.copytree(store.root / folder.name, home / "adapters" / folder.name)


def _many(count: int) -> str:
    return {0: "the base", 1: "1 adapter"}.get(count, f"{count} adapters")


@contextmanager
def _idle() -> Iterator[list[int]]:
    yield [0]


@contextmanager
def _busy(bench: Bench, url: str) -> Iterator[None]:
    """Eight streams at all times, of the base."""
    done = threading.Event()

    def stream() -> None:
        while not done.is_set():
            bench.run(url, [DEFAULT_MODEL])

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(stream)
        try:
            yield
        finally:
            done.set()
        running.result()


@contextmanager
def _swapper(bench: Bench, url: str) -> Iterator[list[int]]:
    """Loads and unloads until the end; counts them."""
    done, count = threading.Event(), [0]
    folders = bench.new_adapters(4)

    def swap() -> None:
        for folder in itertools.cycle(folders):
            _load(url, folder.name, folder)
            _unload(url, folder.name)
            count[0] += 1
            if done.is_set():
                return

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(swap)
        try:
            yield count
        finally:
            done.set()
        running.result()


def _load(url: str, name: str, folder: Path) -> None:
    _post(f"{url}/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})


def _unload(url: str, name: str) -> None:
    _post(f"{url}/v1/unload_lora_adapter", {"lora_name": name})


def _post(url: str, body: dict[str, str]) -> None:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=120) as reply:  # noqa: S310 - loopback, made here
        reply.read()
